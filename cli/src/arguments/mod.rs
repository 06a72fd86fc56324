//! The command line.

mod queue;
mod rules;

use std::path::PathBuf;

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use longshore_core::{InstanceKey, NodeId, config::ConfigArgs};

pub(crate) use self::queue::{Change, DeadCommand, DeadList, JobFilter, QueueCommand};
pub(crate) use self::rules::{
    ClusterCommand, ClusterSet, HostSet, HostsCommand, NodeSet, QueueSet, TypeSet, TypesCommand,
};
use crate::restore::at::At;

/// See what is protected and what waits, and get a backup back.
///
/// It asks the dashboard of the cluster: --server, or LONGSHORE_SERVER, or `server` in ~/.config/longshore.toml or
/// /etc/longshore/cli.toml; without any, http://127.0.0.1:7400. Its token: --token-file, or LONGSHORE_TOKEN, or `token_file`
/// in the same files.
#[derive(Debug, Parser)]
#[command(
    name = "longshore",
    version,
    after_help = "Examples:
  longshore status
  longshore backups list --server-id 111111 --outcome failed
  longshore instances list --late
  longshore why 111111/mysql/3306
  longshore restore plan 111111/mysql/3306 --at '2026-11-20 03:00'
  longshore restore run 111111/mysql/3306 --at '2h ago' --script mysql-restore

Exit codes: 0 done, 1 found something wrong, 64 usage, 69 a service refused or
is away, 70 a bug of Longshore, 75 what was set is kept, but not obeyed yet,
78 configuration or token."
)]
pub struct Arguments {
    /// Where the answers come from.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to reach the dashboard, and how to print.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection and output")]
pub struct ConnectionArgs {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The dashboard's address, such as http://10.0.2.1:7400
    #[arg(long, value_name = "URL", env = "LONGSHORE_SERVER", global = true)]
    pub server: Option<String>,
    /// A file with the dashboard's token
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// The dashboard's token; only by environment, since others see a command line
    #[arg(long, hide = true, env = "LONGSHORE_TOKEN", hide_env_values = true, global = true)]
    pub token: Option<String>,
    /// Print JSON for programs instead of tables
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// All at one look: instances, backups, queues, nodes, and which service is away. Exit code 1 when something is wrong
    Status,
    /// Backups: search, or show one
    Backups {
        /// Which.
        #[command(subcommand)]
        command: Option<BackupsCommand>,
    },
    /// Instances: how fresh each is, and what is expected of it
    Instances {
        /// Which.
        #[command(subcommand)]
        command: Option<InstancesCommand>,
    },
    /// Storage nodes: what each is doing, its share of the work, and its disk; ends with 1 when a Redis is away
    Nodes {
        /// Which.
        #[command(subcommand)]
        command: Option<NodesCommand>,
    },
    /// Why a job is not stored yet, or what became of it; of an instance: its waiting jobs, or its last backup
    #[command(after_help = "Examples:
  longshore why 01a1f6e5-8780-7a3c-8f21-3f0e6b1c9d77
  longshore why 111111/mysql/3306")]
    Why {
        /// A job's id, or SERVER/TYPE/INSTANCE
        #[arg(value_name = "JOB|INSTANCE")]
        what: String,
    },
    /// Queues: what waits, for how long and why, and what operators do with it
    #[command(after_help = "Examples:
  longshore queue
  longshore queue watch
  longshore queue hold --queue level3 --larger-than 100GiB
  longshore queue dead")]
    Queue {
        /// Which.
        #[command(subcommand)]
        command: Option<QueueCommand>,
    },
    /// Hosts: how each may be asked
    Hosts {
        /// Which.
        #[command(subcommand)]
        command: Option<HostsCommand>,
    },
    /// Types of backup: what is asked of each
    Types {
        /// What.
        #[command(subcommand)]
        command: TypesCommand,
    },
    /// Clusters: what the nodes of each may take together
    Cluster {
        /// What.
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// The registry: businesses, types, clusters, nodes and instances that are expected
    Registry {
        /// What.
        #[command(subcommand)]
        command: RegistryCommand,
    },
    /// Get an instance back as of a time
    Restore {
        /// How far.
        #[command(subcommand)]
        command: RestoreCommand,
    },
    /// Post figures from cron, for sites that do so as with UBackup. Nodes with a puller and queues that the dashboard reads
    /// need neither
    Report {
        /// Which figures.
        #[command(subcommand)]
        command: ReportCommand,
    },
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// `longshore backups`.
#[derive(Debug, Subcommand)]
pub enum BackupsCommand {
    /// The newest first, with filters
    List(Box<BackupsList>),
    /// Everything that is known of one
    Show {
        /// The backup's id
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// `longshore backups list`.
#[derive(Debug, Default, Args)]
pub struct BackupsList {
    /// Of this instance: SERVER/TYPE/INSTANCE
    #[arg(value_name = "INSTANCE")]
    pub instance: Option<InstanceKey>,
    /// Of this host
    #[arg(long, value_name = "ID", conflicts_with = "instance")]
    pub server_id: Option<String>,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "instance")]
    pub backup_type: Option<String>,
    /// Of this business
    #[arg(long, value_name = "ID")]
    pub business: Option<String>,
    /// Stored by this node, or given up by it
    #[arg(long, value_name = "ID")]
    pub node: Option<String>,
    /// stored, failed, refused, cancelled; several separated by commas
    #[arg(long, value_name = "OUTCOMES")]
    pub outcome: Option<String>,
    /// A phrase in the reason
    #[arg(long, value_name = "PHRASE")]
    pub text: Option<String>,
    /// Made at or after: a time as for restore --at, or a span such as 2d
    #[arg(long, value_name = "TIME")]
    pub since: Option<At>,
    /// Made before
    #[arg(long, value_name = "TIME")]
    pub until: Option<At>,
    /// made_at (when left out), stored_at or size_bytes
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// The smallest or oldest first
    #[arg(long)]
    pub ascending: bool,
    /// At most this many; 50 when left out
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u32>,
}

/// `longshore instances`.
#[derive(Debug, Subcommand)]
pub enum InstancesCommand {
    /// All of them, or some
    List(InstancesList),
    /// One, with its last good backup and its last report
    Show {
        /// SERVER/TYPE/INSTANCE
        #[arg(value_name = "INSTANCE")]
        instance: InstanceKey,
    },
    /// Expect one to be backed up
    Add(InstancesAdd),
    /// Expect one no more; its backups stay
    Remove {
        /// SERVER/TYPE/INSTANCE
        #[arg(value_name = "INSTANCE")]
        instance: InstanceKey,
    },
}

/// `longshore instances list`.
#[derive(Debug, Default, Args)]
pub struct InstancesList {
    /// Only those overdue or never backed up; exit code 1 when there are any
    #[arg(long)]
    pub late: bool,
    /// Of this host
    #[arg(long, value_name = "ID")]
    pub server_id: Option<String>,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub backup_type: Option<String>,
    /// Of this business
    #[arg(long, value_name = "ID")]
    pub business: Option<String>,
}

/// `longshore instances add`.
#[derive(Debug, Args)]
pub struct InstancesAdd {
    /// SERVER/TYPE/INSTANCE
    #[arg(value_name = "INSTANCE")]
    pub instance: InstanceKey,
    /// Its business, which must be registered
    #[arg(long, value_name = "ID")]
    pub business: String,
    /// For people
    #[arg(long, default_value = "")]
    pub name: String,
    /// Where its jobs must come from
    #[arg(long)]
    pub address: Option<String>,
    /// How often it is to be backed up, such as 1h; what its jobs say, when left out
    #[arg(long, value_name = "SPAN")]
    pub interval: Option<longshore_core::config::Span>,
}

/// `longshore nodes`.
#[derive(Debug, Subcommand)]
pub enum NodesCommand {
    /// All of them
    List,
    /// Set a node's weight, bandwidth and hours, or show what is set; the node obeys within a second
    #[command(after_help = "Examples:
  longshore nodes set store1 --bandwidth 40MB/s
  longshore nodes set store1 --weight 0
  longshore nodes set store1 --window '22:00-06:00 Mon-Fri, 00:00-24:00 Sat-Sun'
  longshore nodes set store1 --unset bandwidth,window")]
    Set(NodeSet),
    /// Forget a node that was taken out, so that it no longer stands here as one that stopped or is silent
    ///
    /// To take a node out, give it weight 0, wait until it runs nothing, stop its puller, and forget it. Its entry in the registry
    /// goes, its backups stay in the catalog. It comes back by itself when its puller starts again, as its own file says.
    #[command(after_help = "Example:
  longshore nodes set store1 --weight 0
  longshore nodes                            # until RUNS is 0
  systemctl disable --now longshore-puller   # on store1
  longshore nodes forget store1")]
    Forget {
        /// The node
        #[arg(value_name = "NODE")]
        node_id: NodeId,
    },
}

/// `longshore registry`.
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Import a table: CSV with a header line, a JSON array, or what UBackup's API printed ({"objects": [...]})
    ///
    /// All rows or none; each wrong row is named by its line. Import businesses and types before instances, clusters before
    /// nodes.
    #[command(after_help = "Examples:
  longshore registry import business.csv
  curl 'http://ubackup/api/backup_instance?results_per_page=99999' > i.json
  longshore registry import --as instances i.json")]
    Import {
        /// The file, or - for standard input
        #[arg(value_name = "FILE")]
        rows: PathBuf,
        /// Which table; without it, by the file's name
        #[arg(long = "as", value_name = "TABLE", value_enum)]
        table: Option<Table>,
    },
    /// What a table holds
    List {
        /// Which table
        #[arg(value_enum)]
        table: Table,
    },
    /// Add an entry, or change fields of one that is there
    #[command(after_help = "Examples:
  longshore registry set businesses business_id=31 name='Journey to the West'
  longshore registry set types name=mysql
  longshore registry set nodes node_id=store1 weight=0")]
    Set {
        /// Which table; rules of levels and hosts are set by `queue set` and `hosts set`
        #[arg(value_parser = PossibleValuesParser::new(SETTABLE).try_map(|name| Table::from_str(&name, false)))]
        table: Table,
        /// FIELD=VALUE; an empty value puts the field back to its default
        #[arg(value_name = "FIELD=VALUE", required = true)]
        fields: Vec<String>,
    },
    /// Remove an entry that nothing points at
    Remove {
        /// Which table
        #[arg(value_enum)]
        table: Table,
        /// Its key; of an instance SERVER/TYPE/INSTANCE
        key: String,
    },
}

/// A table of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Table {
    Businesses,
    Types,
    Instances,
    Clusters,
    Nodes,
    Queues,
    Hosts,
}

/// What is set field by field: rules of levels and hosts have commands of their own.
const SETTABLE: [&str; 5] = ["businesses", "types", "instances", "clusters", "nodes"];

/// `longshore restore`.
#[derive(Debug, Subcommand)]
pub enum RestoreCommand {
    /// Show what would be fetched from where, how much and how long
    Plan(RestoreWhat),
    /// Fetch the files and check them: DIR/01/NAME is applied first, then DIR/02/NAME, ...
    #[command(after_help = "Started again with the same DIR, it goes on where it ended.")]
    Fetch(RestoreFetch),
    /// Fetch the files, check them, and run a script on them
    #[command(after_help = "The script is called with the files in the order in which they apply, the full
first, and these variables:
  LONGSHORE_SERVER_ID, LONGSHORE_TYPE, LONGSHORE_INSTANCE   the instance
  LONGSHORE_RESTORE_DIR      where the files are
  LONGSHORE_RESTORE_FILES    the same files, one a line
  LONGSHORE_RESTORE_AT       the moment that is restored, RFC 3339
Its exit status decides. deploy/scripts has such scripts.

Example:
  RESTORE_TARGET=/var/lib/mysql longshore restore run 111111/mysql/3306 \\
      --to /restore --script mysql-restore")]
    Run(RestoreRun),
}

/// Which instance, and when.
#[derive(Debug, Clone, Args)]
pub struct RestoreWhat {
    /// SERVER/TYPE/INSTANCE
    #[arg(value_name = "INSTANCE")]
    pub instance: InstanceKey,
    /// As of this time: 2026-11-20T03:00:00+08:00, '2026-11-20 03:00' (local), now, '2h ago'; now when left out
    #[arg(long, value_name = "TIME")]
    pub at: Option<At>,
}

/// `longshore restore fetch`.
#[derive(Debug, Clone, Args)]
pub struct RestoreFetch {
    /// Which.
    #[command(flatten)]
    pub what: RestoreWhat,
    /// A new or empty folder, or one of an earlier try; ./restore-SERVER-TYPE-INSTANCE when left out
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Also when the chain is broken: what is there may still be of use
    #[arg(long)]
    pub force: bool,
}

/// `longshore restore run`.
#[derive(Debug, Clone, Args)]
pub struct RestoreRun {
    /// Which, and where to.
    #[command(flatten)]
    pub fetch: RestoreFetch,
    /// The script that makes a database, a folder, ... of the files
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    pub script: Option<PathBuf>,
    /// Show the plan, fetch nothing and run nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `longshore report`.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// How many jobs wait in a cluster's queue
    Queue {
        /// The cluster's id in the registry
        #[arg(long, value_name = "ID")]
        cluster: String,
        /// Its Redis, host:port; or [redis] of the configuration
        #[arg(long, value_name = "ADDRESS")]
        redis: Option<String>,
        /// Its levels; all that are found when left out
        #[arg(long = "queue", value_name = "NAME")]
        queues: Vec<longshore_core::QueueName>,
    },
    /// Size and use of a node's disk
    Disk {
        /// The node's id in the registry
        #[arg(long, value_name = "ID")]
        node: String,
        /// A folder on that disk
        #[arg(long, value_name = "DIR")]
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn all(command: &clap::Command) -> Vec<&clap::Command> {
        std::iter::once(command).chain(command.get_subcommands().flat_map(all)).collect()
    }

    #[test]
    fn dead_letters_are_not_asked_for_by_state_and_every_exit_code_is_told() {
        let mut root = Arguments::command();
        root.build();
        let help = root.get_after_help().map(ToString::to_string).unwrap_or_default();
        for code in ["0", "1", "64", "69", "70", "75", "78"] {
            assert!(help.contains(&format!(" {code} ")) || help.contains(&format!("\n{code} ")), "{code} in {help}");
        }
        let of = |path: [&str; 2]| {
            let queue = root.find_subcommand("queue").unwrap();
            let command = path.iter().fold(queue, |command, name| command.find_subcommand(name).unwrap_or(command));
            command.get_arguments().any(|argument| argument.get_id() == "state" && !argument.is_hide_set())
        };
        assert!(of(["cancel", ""]) && !of(["dead", "retry"]) && !of(["dead", "drop"]));
    }

    #[test]
    fn help_keeps_a_commands_own_arguments_together_and_no_example_is_broken() {
        let mut root = Arguments::command();
        root.build();
        for command in all(&root) {
            let name = command.get_name();
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let heading = argument.is_global_set().then_some("Connection and output");
                assert_eq!(argument.get_help_heading(), heading, "{name}: {argument}");
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.lines().all(|line| line.chars().count() <= 80), "{name}: {help}");
        }
    }
}
