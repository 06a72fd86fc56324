//! One file a command: ask, then show. With `--json` the server's answer goes out as it came.

mod backups;
mod instances;
mod nodes;
mod queue;
mod registry;
mod report;
mod rules;
mod status;
mod why;

use clap::CommandFactory as _;
use longshore_core::exit::Exit;

use crate::{
    arguments::{
        Arguments, BackupsCommand, ClusterCommand, Command, HostsCommand, InstancesCommand, InstancesList,
        NodesCommand, QueueCommand, TypesCommand,
    },
    client::Client,
    connection,
    failure::Failure,
    restore, show,
};

/// What every command is given.
pub(crate) struct Context {
    /// The dashboard.
    pub(crate) client: Client,
    /// Whether a program reads.
    pub(crate) json: bool,
    /// Of the configuration, for `report queue`.
    pub(crate) redis: longshore_core::config::RedisConfig,
}

/// Performs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    if let Command::Completions { shell } = arguments.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "longshore", &mut script);
        show::lines(&String::from_utf8_lossy(&script))?;
        return Ok(Exit::Done);
    }
    let (settings, token) = connection::resolve(&arguments.connection)?;
    let client = Client::new(&settings.server, token)?;
    let context = Context { client, json: arguments.connection.json, redis: settings.redis };
    match arguments.command {
        Command::Status => status::run(&context).await,
        Command::Backups { command } => match command.unwrap_or_else(|| BackupsCommand::List(Box::default())) {
            BackupsCommand::List(list) => backups::list(&context, *list).await,
            BackupsCommand::Show { id } => backups::show(&context, &id).await,
        },
        Command::Instances { command } => {
            match command.unwrap_or_else(|| InstancesCommand::List(InstancesList::default())) {
                InstancesCommand::List(list) => instances::list(&context, list).await,
                InstancesCommand::Show { instance } => instances::show(&context, &instance).await,
                InstancesCommand::Add(add) => instances::add(&context, add).await,
                InstancesCommand::Remove { instance } => instances::remove(&context, &instance).await,
            }
        }
        Command::Nodes { command } => match command.unwrap_or(NodesCommand::List) {
            NodesCommand::List => nodes::list(&context).await,
            NodesCommand::Set(set) => rules::node(&context, &set).await,
            NodesCommand::Forget { node_id } => nodes::forget(&context, &node_id).await,
        },
        Command::Why { what } => why::run(&context, &what).await,
        Command::Queue { command } => queue::run(&context, command.unwrap_or(QueueCommand::List)).await,
        Command::Hosts { command } => match command.unwrap_or(HostsCommand::List) {
            HostsCommand::List => rules::hosts(&context).await,
            HostsCommand::Set(set) => rules::host(&context, &set).await,
        },
        Command::Types { command: TypesCommand::Set(set) } => rules::backup_type(&context, &set).await,
        Command::Cluster { command: ClusterCommand::Set(set) } => rules::cluster(&context, &set).await,
        Command::Registry { command } => registry::run(&context, command).await,
        Command::Restore { command } => Box::pin(restore::run(&context, command)).await,
        Command::Report { command } => report::run(&context, command).await,
        Command::Completions { .. } => Ok(Exit::Done),
    }
}
