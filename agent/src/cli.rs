//! The command line of `longshore-agent`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use longshore_core::{BackupType, InstanceName, QueueName, config::ConfigCommand, startup::CommonArgs};

/// Runs backup scripts on this host and hands their results to the queue
#[derive(Debug, Parser)]
#[command(name = "longshore-agent", version, about, after_help = EXAMPLES)]
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
  longshore-agent check                       is everything in place?
  longshore-agent run                         every section, as cron calls it
  longshore-agent run mysql3306 -v            one section, with its script's output
  longshore-agent run mysql3306 -q level1     its backup is urgent
  longshore-agent flush                       push what waits for the queue
  longshore-agent submit /data/backup/db.tar.gz --type archive --instance wiki
  longshore-agent -c /etc/uuzuback.conf run   with the configuration of UBackup's client

In the crontab:
  0 * * * *  root  /usr/local/bin/longshore-agent run

Exit codes:
   0  all is well
   1  a script, a log or a file was wrong; it is reported
  75  the queue is away; results are kept on disk, for the next run or flush
  64  usage, 78 configuration";

/// What the agent does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the scripts of all sections, or of those named, and push what they made
    Run {
        /// Sections of the configuration; all, when none is named
        #[arg(value_name = "SECTION")]
        sections: Vec<String>,
        /// The level for this run's backups, instead of the configured one
        #[arg(short = 'q', long, value_name = "QUEUE")]
        queue: Option<QueueName>,
        /// Print what the scripts write
        #[arg(short, long)]
        verbose: bool,
    },
    /// Push what waits on the disk, without running anything
    Flush,
    /// Show the last result of every instance, and what waits; 1 when one has failed
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Look at files, folders, rsync modules and the queue, without running anything
    Check,
    /// Hand over a file or directory by hand, or from any tool
    ///
    /// Storage nodes fetch it through rsync, so it must lie below the back_dir of a section, or below that of `[submit]`.
    Submit {
        /// The file or directory
        #[arg(value_name = "FILE")]
        path: PathBuf,
        /// What kind of backup it is
        #[arg(long = "type", value_name = "TYPE")]
        backup_type: BackupType,
        /// Of which instance
        #[arg(long)]
        instance: InstanceName,
        /// The level, instead of the configured one
        #[arg(short = 'q', long, value_name = "QUEUE")]
        queue: Option<QueueName>,
    },
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// What the agent calls itself with, around a script
    #[command(hide = true)]
    ScriptWrapper {
        /// The instance's folder
        folder: PathBuf,
    },
}
