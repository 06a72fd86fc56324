//! The operators' command, as a library: arguments, one request after another, tables for people and JSON for programs.

mod arguments;
mod client;
mod commands;
mod connection;
mod failure;
pub mod restore;
pub mod show;

use longshore_core::exit::Exit;

pub use self::arguments::Arguments;
use self::failure::Failure;

/// Does what the arguments say and tells the user of an error, once, on standard error.
pub async fn perform(arguments: Arguments) -> Exit {
    match Box::pin(commands::run(arguments)).await {
        Ok(exit) => exit,
        Err(Failure { exit: Exit::Done, .. }) => Exit::Done,
        Err(failure) => {
            show::beside(&format!("longshore: {failure}"));
            failure.exit
        }
    }
}
