//! `longshore-puller`: a storage node's daemon.

use anyhow::Context;
use clap::{Parser, Subcommand};
use longshore_core::{
    config::ConfigCommand,
    exit::Exit,
    shutdown::Shutdown,
    startup::{self, CommonArgs},
    telemetry::LogConfig,
};
use longshore_puller::{
    bandwidth::relay::{self, RELAY},
    commands,
    puller::Until,
    settings,
};

/// Fetches backups from hosts onto this storage node.
///
/// Claims jobs from the queue, fetches each with rsync, verifies it, and publishes it under its final name at once. Serves
/// what is stored to restores.
#[derive(Debug, Parser)]
#[command(
    name = "longshore-puller",
    version,
    after_help = "Examples:\n  longshore-puller init                       make the configured folder this node's store\n  \
        longshore-puller check                      look at everything that the configuration names\n  \
        longshore-puller                            run, as a service does\n  \
        longshore-puller once -c ./puller.toml      fetch what waits, then end\n  \
        longshore-puller -c /etc/uuzuback.conf      run on a file of the seed system\n  \
        longshore-puller config show --origin       what is in use, and where each value came from"
)]
struct Arguments {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work until told to stop (TERM); what is done without a command
    Run,
    /// Work until nothing waits that this node could take, then end
    Once,
    /// Check the configuration and everything that it names, without starting anything
    Check,
    /// Show what this node does, from its heartbeat
    Status {
        /// The heartbeat as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the configured folder this node's store
    Init {
        /// Even when other things are in it
        #[arg(long)]
        force: bool,
    },
    /// Join standard input and output with a host through the puller's proxy; ssh runs it
    #[command(name = RELAY, hide = true)]
    Relay {
        /// Where to
        host: String,
        /// Its port
        port: u16,
    },
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

fn main() -> Exit {
    Exit::of(perform(startup::arguments()))
}

fn perform(arguments: Arguments) -> anyhow::Result<Exit> {
    if let Some(Command::Relay { host, port }) = &arguments.command {
        // Its pass says all that it needs.
        return relay::run(host, *port).map(|()| Exit::Done).context(Exit::ServiceRefused);
    }
    let loaded = settings::read(&arguments.common.config, &[])?;
    let command = arguments.command.unwrap_or(Command::Run);
    let until = match &command {
        Command::Config(command) => return command.run(&loaded).map(|()| Exit::Done),
        Command::Init { force } => return commands::init(&loaded.value, *force),
        Command::Run => Some(Until::Stopped),
        Command::Once => Some(Until::Empty),
        Command::Check | Command::Status { .. } | Command::Relay { .. } => None,
    };
    // A look must not open the log files of the service.
    let log = if until.is_some() { loaded.value.log.clone() } else { LogConfig::default() };
    startup::begin(&arguments.common.log, &log).context(Exit::Configuration)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context(Exit::Bug)?;
    let exit: anyhow::Result<Exit> = runtime.block_on(async {
        match (command, until) {
            (_, Some(until)) => {
                let shutdown = Shutdown::on_signals().context(Exit::Bug)?;
                Box::pin(commands::run(loaded.value, until, shutdown)).await
            }
            (Command::Status { json }, None) => commands::status(&loaded.value, json).await,
            _ => commands::check(&loaded).await,
        }
    });
    // File work that was ended, or that a disk does not answer, must not hold the end; it is safe to be cut anywhere.
    runtime.shutdown_background();
    exit
}
