//! `longshore`: what operators ask of a cluster, and how they get a backup back. It speaks to longshore-dashboard, and for
//! the files of a restore to the nodes.
// The optimiser lays out the whole command as one future, deeper than the default allows.
#![recursion_limit = "256"]

use std::io::Write as _;

use longshore_cli::{Arguments, perform};
use longshore_core::startup;

fn main() -> std::process::ExitCode {
    let arguments: Arguments = startup::arguments();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "longshore: can't start: {error}");
            return longshore_core::exit::Exit::Bug.code().into();
        }
    };
    runtime.block_on(perform(arguments)).code().into()
}
