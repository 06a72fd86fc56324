//! `longshore nodes set` and its like: what operators set for nodes, levels, hosts, types and clusters.

use clap::{Args, Subcommand};
use longshore_core::{
    BackupType, NodeId, QueueName, ServerId,
    calendar::{RatePlan, Window},
    config::Span,
};

/// `longshore nodes set`.
#[derive(Debug, Args)]
pub struct NodeSet {
    /// The node
    #[arg(value_name = "NODE")]
    pub node_id: NodeId,
    /// Share of the stream; 0 takes nothing more, so that the node can be taken out
    #[arg(long, value_name = "NUMBER")]
    pub weight: Option<u32>,
    /// For all its transfers from hosts together: 40MB/s, unlimited, or '09:00-18:00 Mon-Fri 20MB/s, else unlimited'
    #[arg(long, value_name = "RATE")]
    pub bandwidth: Option<RatePlan>,
    /// For all restores from it together
    #[arg(long, value_name = "RATE")]
    pub restore_bandwidth: Option<RatePlan>,
    /// When it fetches: '22:00-06:00 Mon-Fri Europe/Berlin, 00:00-24:00 Sat-Sun', always or never; urgent levels at all times
    #[arg(long, value_name = "HOURS")]
    pub window: Option<Window>,
    /// Let the node's own file decide again
    #[arg(long, value_name = "FIELD", value_delimiter = ',',
        value_parser = ["weight", "bandwidth", "restore-bandwidth", "window"])]
    pub unset: Vec<String>,
}

/// `longshore queue set`.
#[derive(Debug, Args)]
pub struct QueueSet {
    /// The level
    #[arg(value_name = "LEVEL")]
    pub queue: QueueName,
    /// A job that waited longer is lifted over others; without it, the limit comes from the interval of its instance
    #[arg(long, value_name = "SPAN")]
    pub max_wait: Option<Span>,
    /// Which of its jobs is first: the one that waits longest, or the one with the least time left until it is due again
    #[arg(long, value_parser = ["age", "deadline"])]
    pub order: Option<String>,
    /// When its jobs are fetched: '22:00-06:00 Mon-Fri Europe/Berlin', always or never. Transfers that run go on
    #[arg(long, value_name = "HOURS")]
    pub window: Option<Window>,
    /// Whether its jobs are fetched although the node's or the host's window is closed
    #[arg(long, value_name = "true|false")]
    pub urgent: Option<bool>,
    /// For all its transfers of one node together
    #[arg(long, value_name = "RATE")]
    pub bandwidth: Option<RatePlan>,
    /// On how many nodes a backup is kept
    #[arg(long, value_name = "1|2")]
    pub copies: Option<u8>,
    /// How what was fetched is checked: by the digest of what came, or by reading it again from the disk
    #[arg(long, value_parser = ["received", "reread"])]
    pub verify: Option<String>,
    /// Let the nodes' own files decide again
    #[arg(long, value_name = "FIELD", value_delimiter = ',',
        value_parser = ["max-wait", "order", "window", "urgent", "bandwidth", "copies", "verify"])]
    pub unset: Vec<String>,
}

/// `longshore hosts`.
#[derive(Debug, Subcommand)]
pub enum HostsCommand {
    /// Hosts that have a rule of their own
    List,
    /// Say how a host may be asked, or show what is said
    #[command(after_help = "Examples:
  longshore hosts set 111111 --transfers 2 --module mysql=1
  longshore hosts set 111111 --window '22:00-06:00 Europe/Berlin'
  longshore hosts set 111111 --unset window,modules")]
    Set(HostSet),
}

/// `longshore hosts set`.
#[derive(Debug, Args)]
pub struct HostSet {
    /// The host's server_id
    #[arg(value_name = "HOST")]
    pub server_id: ServerId,
    /// Transfers at once from it, over all nodes
    #[arg(long, value_name = "NUMBER")]
    pub transfers: Option<u32>,
    /// Transfers begun a second, over all nodes
    #[arg(long, value_name = "NUMBER")]
    pub starts_per_second: Option<f64>,
    /// Transfers at once from one of its rsync modules; 0 takes the limit away
    #[arg(long = "module", value_name = "NAME=NUMBER", value_parser = module)]
    pub modules: Vec<(String, u32)>,
    /// For all transfers from it to one node together
    #[arg(long, value_name = "RATE")]
    pub bandwidth: Option<RatePlan>,
    /// When it may be asked; for urgent levels at all times
    #[arg(long, value_name = "HOURS")]
    pub window: Option<Window>,
    /// Let the nodes' own files decide again
    #[arg(long, value_name = "FIELD", value_delimiter = ',',
        value_parser = ["transfers", "starts-per-second", "modules", "bandwidth", "window"])]
    pub unset: Vec<String>,
}

fn module(text: &str) -> Result<(String, u32), String> {
    let (name, number) = text.split_once('=').ok_or("write it like mysql=1")?;
    let number = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    Ok((name.to_owned(), number))
}

/// `longshore types`.
#[derive(Debug, Subcommand)]
pub enum TypesCommand {
    /// Say what is asked of a type's backups, or show what is said
    #[command(after_help = "Example:
  longshore types set mysql --copies 2 --verify reread")]
    Set(TypeSet),
}

/// `longshore types set`. Of what a level and a type say, the stricter counts.
#[derive(Debug, Args)]
pub struct TypeSet {
    /// The type
    #[arg(value_name = "TYPE")]
    pub name: BackupType,
    /// On how many nodes a backup is kept
    #[arg(long, value_name = "1|2")]
    pub copies: Option<u8>,
    /// How what was fetched is checked: by the digest of what came, or by reading it again from the disk
    #[arg(long, value_parser = ["received", "reread"])]
    pub verify: Option<String>,
    /// Let the nodes' own files decide again
    #[arg(long, value_name = "FIELD", value_delimiter = ',', value_parser = ["copies", "verify"])]
    pub unset: Vec<String>,
}

/// `longshore cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Say what all nodes of a cluster may take together, or show what is said
    #[command(after_help = "Example:
  longshore cluster set --bandwidth '09:00-18:00 200MB/s, else unlimited'")]
    Set(ClusterSet),
}

/// `longshore cluster set`.
#[derive(Debug, Args)]
pub struct ClusterSet {
    /// The cluster, as the dashboard's configuration names it
    #[arg(value_name = "CLUSTER", default_value = "default")]
    pub cluster_id: QueueName,
    /// For all transfers from hosts
    #[arg(long, value_name = "RATE")]
    pub bandwidth: Option<RatePlan>,
    /// For all restores
    #[arg(long, value_name = "RATE")]
    pub restore_bandwidth: Option<RatePlan>,
    /// Let the nodes' own files decide again
    #[arg(long, value_name = "FIELD", value_delimiter = ',', value_parser = ["bandwidth", "restore-bandwidth"])]
    pub unset: Vec<String>,
}
