//! `longshore queue`.

use clap::{Args, Subcommand};

/// `longshore queue`.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// What waits in each level
    List,
    /// What is kept for a person: given up, refused, or not readable. Exit code 1 when there is any
    Dead(DeadList),
}

/// `longshore queue dead`.
#[derive(Debug, Clone, Default, Args)]
pub struct DeadList {
    /// Of this cluster
    #[arg(long, value_name = "ID")]
    pub cluster: Option<String>,
    /// At most this many of each cluster
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub limit: u32,
}
