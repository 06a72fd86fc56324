//! The command line of `longshore-indexer`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use longshore_core::{config::ConfigCommand, startup::CommonArgs};

/// Writes reports of backups into the catalog and keeps each instance's freshness
#[derive(Debug, Parser)]
#[command(name = "longshore-indexer", version, about, after_help = EXAMPLES)]
pub struct Arguments {
    /// Which configuration, and how to log.
    #[command(flatten)]
    pub common: CommonArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  longshore-indexer check                              do queue and catalog answer?
  longshore-indexer run                                as the service manager starts it
  longshore-indexer rebuild /data/store --dry-run      what differs between a node's disk and the catalog?
  longshore-indexer rebuild /data/store                bring what the disk knows into the catalog
  longshore-indexer refused                            reports that the catalog did not take, and why
  longshore-indexer refused --retry                    put them back on the stream

Exit codes: 0 done; 1 something is wrong with what was looked at; 64 usage; 69 the queue or the catalog is away;
78 configuration.";

/// What the indexer does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Index until stopped
    Run,
    /// Look whether the queue and the catalog answer, without starting or creating anything
    Check,
    /// Bring the catalog up to what the manifests on a node's disk say
    ///
    /// Every NODE_FOLDER/TYPE/SERVER_ID/INSTANCE/YEAR-MONTH/JOB/manifest.json is read and compared. What is missing in the
    /// catalog or older there is written; nothing newer is touched, and nothing is removed. May run beside the indexer.
    Rebuild {
        /// The node's store
        folder: PathBuf,
        /// Only say what differs
        #[arg(long)]
        dry_run: bool,
    },
    /// List reports that the catalog refused; 1 when there are any
    Refused {
        /// Put all of them back on the stream
        #[arg(long, conflicts_with = "drop")]
        retry: bool,
        /// Throw away the one with this id
        #[arg(long, value_name = "ID")]
        drop: Option<String>,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}
