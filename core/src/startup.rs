//! What every `main` does first.

use clap::Parser;

use crate::{
    config::ConfigArgs,
    exit::Exit,
    telemetry::{self, LogArgs, LogConfig, TelemetryError},
};

/// The flags of every program: `-c`, `--set`, `--log-format`, `--log-level`. Flatten it into a program's arguments:
///
/// ```
/// use longshore_core::{config::ConfigCommand, startup::CommonArgs};
///
/// #[derive(clap::Parser)]
/// #[command(version)]
/// struct Arguments {
///     #[command(flatten)]
///     common: CommonArgs,
///     #[command(subcommand)]
///     command: Command,
/// }
///
/// #[derive(clap::Subcommand)]
/// enum Command {
///     /// Check the configuration and what it names, without starting anything
///     Check,
///     /// Look at the configuration
///     #[command(subcommand)]
///     Config(ConfigCommand),
/// }
///
/// let arguments = <Arguments as clap::Parser>::parse_from(["longshore-x", "config", "show", "--origin", "-c", "x.toml"]);
/// assert_eq!(arguments.common.config.file.as_deref(), Some(std::path::Path::new("x.toml")));
/// assert!(matches!(arguments.command, Command::Config(ConfigCommand::Show { origin: true })));
/// ```
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CommonArgs {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The program's arguments. A wrong command line ends the process with 64 and a message; `--help` and `--version` with 0.
pub fn arguments<A: Parser>() -> A {
    A::try_parse().unwrap_or_else(|error| {
        let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
        // A closed standard output is no reason to end in another way.
        let _ = error.print();
        std::process::exit(i32::from(exit.code()))
    })
}

/// Starts logging and installs rustls's ring provider for the process; once, before anything speaks TLS.
///
/// # Errors
/// [`TelemetryError`]: the caller maps it to [`Exit::Configuration`].
pub fn begin(args: &LogArgs, config: &LogConfig) -> Result<(), TelemetryError> {
    // An error means that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    telemetry::init(args, config)
}
