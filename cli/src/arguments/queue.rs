//! `longshore queue` and `longshore why`.

use clap::{Args, Subcommand};
use longshore_core::config::{ByteSize, Span};

use super::QueueSet;

/// `longshore queue`.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// What waits in each level, how long it will take, and which hosts are left alone for now; ends with 1 when a Redis is away
    List,
    /// The same, refreshed in place, until q or Ctrl-C; appended where there is no terminal
    Watch {
        /// How often
        #[arg(long, value_name = "SPAN", default_value = "2s")]
        every: Span,
    },
    /// Set a level's waiting limit, order, hours and more, or show what is set; nodes obey within a second
    #[command(after_help = "Examples:
  longshore queue set level1 --max-wait 2h --order deadline
  longshore queue set level3 --window '22:00-06:00 Mon-Fri Europe/Berlin'
  longshore queue set level3 --copies 2 --verify reread
  longshore queue set level3 --unset window,copies")]
    Set(Box<QueueSet>),
    /// The jobs themselves, the oldest first
    #[command(after_help = "Examples:
  longshore queue jobs --queue level1 --older-than 2h
  longshore queue jobs --host 111111 --state held")]
    Jobs {
        /// Which.
        #[command(flatten)]
        filter: JobFilter,
        /// Show at most this many
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: u32,
    },
    /// Take jobs out of the queue; each ends with one report that says who cancelled it and why
    ///
    /// A job that a node is fetching is taken from it: what it had fetched is thrown away. The file stays on its host.
    #[command(after_help = "Examples:
  longshore queue cancel 01a1f6e5-8780-7a3c-8f21-3f0e6b1c9d77 --why 'empty disk'
  longshore queue cancel --host 111111 --older-than 2d --dry-run")]
    Cancel(Change),
    /// Keep jobs back until they are released; what a node is fetching already is left alone
    Hold(Change),
    /// Let held jobs go on, each at its old place
    Release(Change),
    /// Put waiting jobs into another level
    #[command(after_help = "Example:
  longshore queue move --instance 111111/mysql/3306 --to level1")]
    Move {
        /// The level
        #[arg(long, value_name = "LEVEL")]
        to: longshore_core::QueueName,
        /// Which.
        #[command(flatten)]
        change: Change,
    },
    /// Try jobs again at once, their tries counted anew: those given up, those that wait for a retry, and, when they are named
    /// or --state leased says so, those that a node is fetching, which are taken from it
    Requeue(Change),
    /// What is kept for a person: given up, refused, or not readable. Exit code 1 when there is any
    #[command(args_conflicts_with_subcommands = true)]
    Dead {
        /// What to do with it.
        #[command(subcommand)]
        command: Option<DeadCommand>,
        /// Which.
        #[command(flatten)]
        list: DeadList,
    },
}

/// `longshore queue dead`, without more.
#[derive(Debug, Clone, Default, Args)]
pub struct DeadList {
    /// Of this cluster
    #[arg(long, value_name = "ID")]
    pub cluster: Option<String>,
    /// At most this many of each cluster
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub limit: u32,
}

/// `longshore queue dead retry` and `drop`.
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// Give them another chance: a job is ready again, an unreadable entry goes back into its inbox
    #[command(mut_arg("state", |state| state.hide(true)), after_help = "Examples:
  longshore queue dead retry raw:17 01a1f6e5-8780-7a3c-8f21-3f0e6b1c9d77
  longshore queue dead retry --host 111111")]
    Retry(Change),
    /// Throw them away; the failed report of each stands
    #[command(mut_arg("state", |state| state.hide(true)))]
    Drop(Change),
}

/// Which jobs; all parts together.
#[derive(Debug, Clone, Default, Args)]
pub struct JobFilter {
    /// These jobs, by their ids
    #[arg(value_name = "ID")]
    pub jobs: Vec<String>,
    /// In this level
    #[arg(long, value_name = "LEVEL")]
    pub queue: Option<String>,
    /// Of this host
    #[arg(long, value_name = "SERVER")]
    pub host: Option<String>,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub backup_type: Option<String>,
    /// Of this instance: its name, or SERVER/TYPE/INSTANCE
    #[arg(long, value_name = "INSTANCE")]
    pub instance: Option<String>,
    /// Fetched from this rsync module
    #[arg(long, value_name = "NAME")]
    pub module: Option<String>,
    /// Waiting for longer than this, such as 2h
    #[arg(long, value_name = "SPAN")]
    pub older_than: Option<Span>,
    /// Of more than this, such as 1GiB
    #[arg(long, value_name = "SIZE")]
    pub larger_than: Option<ByteSize>,
    /// ready, delayed (until a retry's time), held, leased (being fetched) or dead; several separated by commas
    #[arg(long, value_name = "STATES")]
    pub state: Option<String>,
    /// In this cluster
    #[arg(long, value_name = "ID")]
    pub cluster: Option<String>,
}

/// Which jobs to change, and whether to ask first.
#[derive(Debug, Clone, Args)]
pub struct Change {
    /// Which.
    #[command(flatten)]
    pub filter: JobFilter,
    /// Every job, without a filter
    #[arg(long)]
    pub all: bool,
    /// Why, for those who read of it later
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// Show what would be changed, change nothing
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Don't ask; needed where there is no terminal to ask on
    #[arg(long)]
    pub yes: bool,
}
