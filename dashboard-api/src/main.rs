//! `longshore-dashboard`: loads the configuration, opens what the service needs, and serves until it is told to stop.

use std::{io::Write as _, path::Path};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use longshore_catalog::Access;
use longshore_core::{
    config::{self, ConfigCommand, ConfigError, Loaded},
    exit::Exit,
    redis_link::RedisLink,
    shutdown::Shutdown,
    startup::{self, CommonArgs},
};
use longshore_dashboard_api::{
    Deps,
    keys::{Keys, RESTORE_KEY_FILE, RESTORE_PUBLIC_FILE},
    registry::Registry,
    run,
    settings::{PROGRAM, Settings},
};
use tokio::net::TcpListener;

/// Serves the registry, the API and the page of a Longshore cluster.
///
/// Without a command it serves until TERM or INT.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  longshore-dashboard                              serve with /etc/longshore/dashboard.toml
  longshore-dashboard -c my.toml check             is everything there that it needs?
  longshore-dashboard init                         make the token and the restore key, print where they are
  curl -H \"Authorization: Bearer $(cat /var/lib/longshore/dashboard/token)\" http://127.0.0.1:7400/api/v1/summary"
)]
struct Arguments {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop (TERM); what is done without a command
    Run,
    /// Check the configuration, the catalog and each Redis, without starting anything
    Check,
    /// Make the data folder, the API's token and the restore key, so that pullers can be given restore.pub before the first start
    Init,
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

fn main() -> Exit {
    let arguments: Arguments = startup::arguments();
    Exit::of(begin(&arguments))
}

fn begin(arguments: &Arguments) -> anyhow::Result<Exit> {
    let loaded = config::load::<Settings>(&PROGRAM, &arguments.common.config, &[])?;
    let problems = Settings::problems(&loaded);
    if !problems.is_empty() {
        return Err(ConfigError::from(problems).into());
    }
    startup::begin(&arguments.common.log, &loaded.value.log).context(Exit::Configuration)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(perform(arguments, loaded))
}

async fn perform(arguments: &Arguments, loaded: Loaded<Settings>) -> anyhow::Result<Exit> {
    match &arguments.command {
        Some(Command::Config(command)) => command.run(&loaded).map(|()| Exit::Done),
        Some(Command::Check) => check(&loaded.value).await,
        Some(Command::Init) => init(&loaded.value),
        None | Some(Command::Run) => serve(loaded.value).await,
    }
}

fn keys(settings: &Settings) -> anyhow::Result<Keys> {
    Keys::open(&settings.data_dir, settings.token_file.as_deref()).context(Exit::Configuration)
}

fn init(settings: &Settings) -> anyhow::Result<Exit> {
    keys(settings)?;
    let public = settings.data_dir.join(RESTORE_PUBLIC_FILE);
    writeln!(
        std::io::stdout(),
        "API token:           {}\nrestore public key:  {} (a puller's [serve] public_key_file)",
        settings.token_file().display(),
        public.display()
    )?;
    Ok(Exit::Done)
}

/// Says of each thing that is needed whether it is there. What is away is not a wrong configuration, but found wrong.
async fn check(settings: &Settings) -> anyhow::Result<Exit> {
    let mut exit = Exit::Done;
    let mut lines = Vec::new();
    let mut note = |good: bool, text: String| {
        if !good {
            exit = Exit::FoundWrong;
        }
        lines.push(format!("{}  {text}", if good { "ok   " } else { "WRONG" }));
    };
    // What the first start makes is not made here: it would belong to whoever asks.
    let (data, registry) = (settings.data_dir.display(), settings.data_dir.join("registry.sqlite"));
    // A file that may not be looked for is there, as far as anyone knows.
    let is_there = |file: &Path| file.try_exists().unwrap_or(true);
    if [settings.token_file(), settings.data_dir.join(RESTORE_KEY_FILE)].iter().all(|file| is_there(file)) {
        match Keys::open(&settings.data_dir, settings.token_file.as_deref()) {
            Ok(_) => note(true, format!("data folder {data}")),
            Err(error) => note(false, error.to_string()),
        }
    } else {
        note(true, format!("data folder {data}: its keys are made at the first start"));
    }
    if is_there(&registry) {
        match Registry::open(&registry) {
            Ok(_) => note(true, "registry".to_owned()),
            Err(error) => note(false, format!("registry: {error}")),
        }
    } else {
        note(true, "registry: made at the first start".to_owned());
    }
    match longshore_catalog::open(&settings.catalog, Access::Read) {
        Ok(catalog) => match catalog.health().await {
            Ok(health) => note(true, format!("catalog {} ({})", health.place, health.detail)),
            Err(error) => note(false, error.to_string()),
        },
        Err(error) => note(false, error.to_string()),
    }
    for cluster in settings.clusters() {
        let link = RedisLink::new(&cluster.redis);
        match link.requirements().await {
            Ok(missing) if missing.is_empty() => note(true, format!("Redis {} of {}", link.name(), cluster.name)),
            Ok(missing) => missing.into_iter().for_each(|what| note(false, what)),
            Err(error) => note(false, format!("cluster {}: {error}", cluster.name)),
        }
    }
    match TcpListener::bind(settings.listen).await {
        Ok(_) => note(true, format!("can listen on {}", settings.listen)),
        Err(error) => note(false, format!("can't listen on {}: {error}; is it running already?", settings.listen)),
    }
    writeln!(std::io::stdout(), "{}", lines.join("\n"))?;
    Ok(exit)
}

async fn serve(settings: Settings) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals().context("signals can't be listened for")?;
    let keys = keys(&settings)?;
    let file = settings.data_dir.join("registry.sqlite");
    let registry =
        Registry::open(&file).with_context(|| format!("registry {}", file.display())).context(Exit::Configuration)?;
    let catalog = longshore_catalog::open(&settings.catalog, Access::Read).context(Exit::Configuration)?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("can't listen on {}; is it running already?", settings.listen))
        .context(Exit::ServiceRefused)?;
    // Nobody listens outside systemd; then it is nothing.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let stopping = shutdown.clone();
    tokio::spawn(async move {
        let mut alive = tokio::time::interval(std::time::Duration::from_secs(10));
        loop {
            tokio::select! {
                _ = alive.tick() => drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog])),
                _ = stopping.requested() => break,
            }
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    });
    run(settings, Deps { listener, catalog, keys, registry }, shutdown).await?;
    Ok(Exit::Done)
}
