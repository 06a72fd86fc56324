//! `longshore-indexer`: reports into the catalog.

// The nested futures of the Redis client are deeper than the default allows.
#![recursion_limit = "256"]

use std::sync::Arc;

use anyhow::Context;
use longshore_catalog::{Access, Catalog, CatalogError};
use longshore_core::{
    config::{self, Loaded},
    exit::Exit,
    queue::Queue,
    redis_link::RedisLink,
    shutdown::Shutdown,
    startup,
};
use longshore_indexer::{
    check,
    cli::{Arguments, Command},
    condition::Condition,
    rebuild, refused,
    run::{self, Dependencies, OnlyOne},
    settings::{PROGRAM, Settings},
};
use tokio::net::TcpListener;

fn main() -> Exit {
    Exit::of(perform(startup::arguments()))
}

fn perform(arguments: Arguments) -> anyhow::Result<Exit> {
    let loaded: Loaded<Settings> = config::load(&PROGRAM, &arguments.common.config, &[])?;
    if let Command::Config(command) = &arguments.command {
        command.run(&loaded)?;
        return Ok(Exit::Done);
    }
    Settings::verify(&loaded)?;
    let settings = loaded.value;
    startup::begin(&arguments.common.log, &settings.log).context(Exit::Configuration)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Run => serve(settings).await,
            Command::Check => check::check(&settings).await,
            Command::Rebuild { folder, dry_run } => {
                let access = if dry_run { Access::Read } else { Access::Write };
                let catalog = open(&settings, access)?;
                rebuild::rebuild(&*catalog, &folder, dry_run, &Shutdown::on_signals()?).await
            }
            Command::Refused { retry, drop, json } => {
                let queue = Queue::new(RedisLink::new(&settings.redis));
                refused::refused(&queue, retry, drop.as_deref(), json).await
            }
            Command::Config(_) => Ok(Exit::Bug),
        }
    })
}

async fn serve(settings: Settings) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals()?;
    let _only_one = OnlyOne::take(&settings.catalog)?;
    let listener = TcpListener::bind(settings.status.listen)
        .await
        .with_context(|| format!("status.listen {}", settings.status.listen))
        .context(Exit::Configuration)?;
    let dependencies = Dependencies {
        queue: Queue::new(RedisLink::new(&settings.redis)),
        catalog: open(&settings, Access::Write)?,
        condition: Arc::new(Condition::new()),
    };
    run::run(settings.stream, dependencies, listener, shutdown).await?;
    Ok(Exit::Done)
}

fn open(settings: &Settings, access: Access) -> anyhow::Result<Arc<dyn Catalog>> {
    longshore_catalog::open(&settings.catalog, access).map_err(|error| match error {
        CatalogError::Config(_) => anyhow::Error::new(error).context(Exit::Configuration),
        other => anyhow::Error::new(other),
    })
}
