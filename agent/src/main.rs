//! `longshore-agent`: runs backup scripts and hands their results to the queue.

// The nested futures of the Redis client are deeper than the default allows.
#![recursion_limit = "256"]

use std::{
    io::{self, Write},
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::Context;
use longshore_agent::{
    check,
    cli::{Arguments, Command},
    finish,
    intent::InstanceFolder,
    push::Pusher,
    run::{Agent, RunOptions},
    settings::{PROGRAM, Settings},
    spool::Spool,
    status,
    submit::{self, Submission},
    wrapper,
};
use longshore_core::{
    config::{self, Loaded, Setting},
    exit::Exit,
    queue::Queue,
    redis_link::RedisLink,
    shutdown::Shutdown,
    startup,
};
use tokio::sync::Notify;

fn main() -> Exit {
    Exit::of(perform(startup::arguments()))
}

fn perform(arguments: Arguments) -> anyhow::Result<Exit> {
    if let Command::ScriptWrapper { folder } = arguments.command {
        wrapper::wrap(folder)?;
        return Ok(Exit::Done);
    }
    let mut flags = Vec::new();
    if let Command::Run { queue: Some(queue), .. } = &arguments.command {
        flags.push(Setting::flag("--queue", "queue", queue));
    }
    let loaded: Loaded<Settings> = config::load(&PROGRAM, &arguments.common.config, &flags)?;
    if let Command::Config(command) = &arguments.command {
        command.run(&loaded)?;
        return Ok(Exit::Done);
    }
    Settings::verify(&loaded)?;
    let settings = loaded.value;
    startup::begin(&arguments.common.log, &settings.log).context(Exit::Configuration)?;
    // One thread: the agent waits for others nearly all of its time, and shall cost its host nothing.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Run { sections, queue, verbose } => run(&settings, &sections, queue.is_some(), verbose).await,
            Command::Flush => flush(&settings).await,
            Command::Status { json } => show_status(&settings, json),
            Command::Check => check::check(&settings).await,
            Command::Submit { path, backup_type, instance, queue } => {
                hand_over(&settings, Submission { file: path, backup_type, instance, queue }).await
            }
            Command::Config(_) | Command::ScriptWrapper { .. } => Ok(Exit::Bug),
        }
    })
}

async fn run(settings: &Settings, sections: &[String], queue_given: bool, verbose: bool) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        !settings.instance.is_empty(),
        anyhow::anyhow!("no section is configured: write an [instance.NAME] for each thing to back up")
            .context(Exit::Configuration)
    );
    let known = || settings.instance.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let mut plans = settings
        .plans(sections)
        .map_err(|unknown| anyhow::anyhow!("no section [{unknown}]; there are {}", known()).context(Exit::Usage))?;
    if queue_given {
        // A flag of this run wins over the sections' own queues too.
        plans.iter_mut().for_each(|plan| plan.queue = settings.queue.clone());
    }
    let agent = agent(settings)?;
    let options = RunOptions {
        server_id: settings.server_id.clone(),
        parallel: usize::from(settings.parallel),
        stagger: settings.stagger.duration(),
        verbose,
        all: sections.is_empty(),
    };
    tokio::spawn(Arc::clone(&agent).stop_when_asked());
    Ok(agent.run(plans, &options).await)
}

async fn flush(settings: &Settings) -> anyhow::Result<Exit> {
    let agent = agent(settings)?;
    let pushed = agent.flush().await;
    let spool = agent.spool_beat();
    println!("{} waiting, {} sent and not yet reported", spool.waiting, spool.sent);
    Ok(match pushed {
        Ok(()) if agent.pusher.faults() > 0 => Exit::FoundWrong,
        Ok(()) => Exit::Done,
        Err(error) => {
            tracing::error!("{error}");
            Exit::Kept
        }
    })
}

fn show_status(settings: &Settings, json: bool) -> anyhow::Result<Exit> {
    let status = status::status(settings)?;
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &status)?;
        writeln!(out)?;
    } else {
        status.print(&mut out)?;
    }
    Ok(status.exit())
}

async fn hand_over(settings: &Settings, submission: Submission) -> anyhow::Result<Exit> {
    let spooled = submit::job(settings, &submission)?;
    let agent = agent(settings)?;
    let folder = InstanceFolder::new(&settings.state_dir, &spooled.job.key());
    agent.pusher.spool().put(&spooled).context(Exit::FoundWrong)?;
    longshore_core::step::reached("agent.spooled");
    if folder.path().is_dir() {
        finish::remember(&folder, None, &spooled);
    }
    println!("{}", spooled.job.id);
    match agent.flush().await {
        Ok(()) => Ok(Exit::Done),
        Err(error) => {
            tracing::error!("{error}; kept in {}, the next run or `flush` pushes it", settings.state_dir.display());
            Ok(Exit::Kept)
        }
    }
}

/// The agent with its real neighbours; nothing is asked of Redis yet.
fn agent(settings: &Settings) -> anyhow::Result<Arc<Agent>> {
    // A spool that cannot be made is not the end: results are then pushed without being kept.
    let spool = Spool::open(&settings.state_dir).unwrap_or_else(|error| {
        tracing::error!("{error}");
        Spool::at(&settings.state_dir)
    });
    let queue = Queue::new(RedisLink::new(&settings.redis));
    let state_dir = settings.state_dir.clone();
    Ok(Arc::new(Agent {
        pusher: Pusher::new(queue, spool, state_dir.clone(), settings.server_id.clone()),
        state_dir,
        shutdown: Shutdown::on_signals()?,
        stop: Arc::new(AtomicBool::new(false)),
        wake: Notify::new(),
        scripts_ended: AtomicBool::new(false),
    }))
}
