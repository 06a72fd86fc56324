//! What the program does on each of its commands.

use std::{future::IntoFuture, io::Write, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::Router;
use longshore_core::{
    Millis, NodeBeat, Policy,
    config::{ByteSize, Loaded},
    exit::Exit,
    queue::Queue,
    redis_link::RedisLink,
    shutdown::Shutdown,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    node::{Node, serve_url},
    puller::{self, Until},
    rsync::version,
    serve,
    settings::Settings,
    space::{Promised, Space},
    status_server,
    store::{Store, StoreError},
};

/// How long downloads may go on after all else has ended.
const DOWNLOADS_END_WITHIN: Duration = Duration::from_secs(5);
/// A node that has not beaten for this long is not running.
const SILENT_AFTER: Duration = Duration::from_secs(15);

/// `run` and `once`: works until told to stop, or until nothing is left.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(settings: Settings, until: Until, shutdown: Shutdown) -> anyhow::Result<Exit> {
    allow_open_files();
    let rsync = version::check(&settings.rsync.program, settings.rsync.allow_unpatched);
    let rsync = rsync.await.context(Exit::Configuration)?;
    let key = serve::public_key(&settings.serve).context(Exit::Configuration)?;
    let queue = Queue::new(RedisLink::new(&settings.redis));
    let store = open_store(&settings, &queue).await.context(Exit::ServiceRefused)?;
    let stop_serving = Shutdown::new();
    let mut servers = Vec::new();
    let serving = key.is_some() && until == Until::Stopped;
    let url = if serving { serve_url(&settings) } else { None };
    let node = Arc::new(Node::new(settings, queue, store, rsync, url));
    if until == Until::Stopped {
        let settings = &node.settings;
        if let Some(key) = key {
            servers.push(listen(settings.serve.listen, serve::router(Arc::clone(&node), key), &stop_serving).await?);
        }
        servers.push(listen(settings.status.listen, status_server::router(Arc::clone(&node)), &stop_serving).await?);
    }
    tracing::info!(
        node = %node.settings.node_id,
        store = %node.store.root().display(),
        redis = node.queue.link().name(),
        rsync = %rsync,
        slots = node.settings.slots,
        "puller started"
    );
    puller::run(node, until, &shutdown).await;
    stop_serving.request();
    for server in servers {
        let _ = tokio::time::timeout(DOWNLOADS_END_WITHIN, server).await;
    }
    tracing::info!("puller stopped");
    Ok(Exit::Done)
}

/// The store. An empty folder becomes one only for a node that never ran: the disk of any other is away.
async fn open_store(settings: &Settings, queue: &Queue) -> anyhow::Result<Store> {
    let (path, node_id) = (&settings.store.path, &settings.node_id);
    match Store::open(path, node_id, false) {
        Err(StoreError::NoMarker(_)) if settings.store.create => {}
        opened => return Ok(opened?),
    }
    let known = queue.knows_node(node_id).await;
    if known.with_context(|| format!("whether {} is to become a store can't be asked", path.display()))? {
        return Err(StoreError::Away { path: path.clone(), node_id: node_id.clone() }.into());
    }
    Ok(Store::open(path, node_id, true)?)
}

/// As many open files as the system lets us have: removing a tree takes one for each of its levels, and a host chooses those.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
}

async fn listen(address: SocketAddr, router: Router, stop: &Shutdown) -> anyhow::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("listening on {address}")).context(Exit::ServiceRefused)?;
    let stop = stop.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move { stop.requested().await });
    Ok(tokio::spawn(async move {
        if let Err(error) = server.into_future().await {
            tracing::error!(%address, %error, "the server ended");
        }
    }))
}

/// `check`: everything that the configuration names, without starting anything.
///
/// # Errors
/// When standard output is closed.
pub async fn check(loaded: &Loaded<Settings>) -> anyhow::Result<Exit> {
    let settings = &loaded.value;
    let mut found = Vec::new();
    for file in &loaded.files {
        found.push(Ok(format!("configuration {}", file.display())));
    }
    found.push(match version::check(&settings.rsync.program, settings.rsync.allow_unpatched).await {
        Ok(version) => Ok(format!("rsync {version}")),
        Err(error) => Err(error.to_string()),
    });
    let queue = Queue::new(RedisLink::new(&settings.redis));
    let path = &settings.store.path;
    found.push(match Store::look(path, &settings.node_id) {
        Ok(store) => Ok(format!("store {} ({})", store.root().display(), store.marker().store_id)),
        Err(StoreError::NoMarker(_)) if settings.store.create => match queue.knows_node(&settings.node_id).await {
            Ok(true) => Err(StoreError::Away { path: path.clone(), node_id: settings.node_id.clone() }.to_string()),
            _ => {
                Ok(format!("store {}: not there yet; the first start makes it, if the folder is empty", path.display()))
            }
        },
        Err(error) => Err(error.to_string()),
    });
    let space = Space::new(&settings.store.path, settings.store.reserve);
    if settings.store.path.exists() {
        found.push(match space.measure().await {
            Ok(disk) => match space.room(&disk, Promised::default()) {
                Ok(room) => Ok(format!("space: {} for backups above the reserve", human(room.bytes))),
                Err(error) => Err(error.to_string()),
            },
            Err(error) => Err(error.to_string()),
        });
    }
    found.push(match serve::public_key(&settings.serve) {
        Ok(Some(_)) => Ok(format!("serving restores at {}", serve_url(settings).unwrap_or_default())),
        Ok(None) => Ok("not serving restores: no [serve] public_key".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    });
    match queue.link().requirements().await {
        Ok(missing) if missing.is_empty() => {
            found.push(Ok(format!("redis {}", queue.link().name())));
            found.push(policy_of(&queue).await);
        }
        Ok(missing) => found.extend(missing.into_iter().map(Err)),
        Err(error) => found.push(Err(error.to_string())),
    }
    let mut out = std::io::stdout().lock();
    for line in &found {
        match line {
            Ok(text) => writeln!(out, "ok     {text}")?,
            Err(text) => writeln!(out, "wrong  {text}")?,
        }
    }
    Ok(if found.iter().all(Result::is_ok) { Exit::Done } else { Exit::FoundWrong })
}

/// What the registry says over the file.
async fn policy_of(queue: &Queue) -> Result<String, String> {
    match queue.policy().await.map_err(|error| error.to_string())? {
        None => Ok("policy: none is published; this file decides".to_owned()),
        Some(body) => {
            let policy = Policy::read(&body).map_err(|error| error.to_string())?;
            Ok(format!("policy: version {} of the registry, over this file", policy.version))
        }
    }
}

/// `status`: this node as its heartbeat shows it.
///
/// # Errors
/// When Redis does not answer.
pub async fn status(settings: &Settings, json: bool) -> anyhow::Result<Exit> {
    let queue = Queue::new(RedisLink::new(&settings.redis));
    let nodes = queue.nodes().await.context(Exit::ServiceRefused)?;
    let now = queue.now_micros().await.context(Exit::ServiceRefused)? / 1000;
    let mut out = std::io::stdout().lock();
    let Some((beat, at)) = nodes.into_iter().find(|(beat, _)| beat.node_id == settings.node_id) else {
        writeln!(out, "node {} has never run on {}", settings.node_id, queue.link().name())?;
        return Ok(Exit::FoundWrong);
    };
    let age = Millis(now.cast_signed()).since(at);
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&beat)?)?;
    } else {
        write!(out, "{}", shown(&beat, age))?;
    }
    Ok(if age <= SILENT_AFTER { Exit::Done } else { Exit::FoundWrong })
}

fn shown(beat: &NodeBeat, age: Duration) -> String {
    let state = match &beat.paused {
        _ if age > SILENT_AFTER => "silent: is the puller running?".to_owned(),
        Some(why) => format!("paused: {why}"),
        None => "claiming".to_owned(),
    };
    let disk = beat.disk;
    let mut text = format!(
        "node      {} (puller {}, rsync {})\nstate     {state}\nbeat      {} s ago\nslots     {} of {} busy, weight {}\n\
         disk      {} free of {}, {} kept free, {} promised\ntotals    {} stored ({}), {} given up, {} put back\n",
        beat.node_id,
        beat.version,
        beat.rsync_version,
        age.as_secs(),
        beat.running.len(),
        beat.slots,
        beat.weight,
        human(disk.free_bytes),
        human(disk.size_bytes),
        human(disk.reserve_bytes),
        human(disk.promised_bytes),
        beat.totals.stored,
        human(beat.totals.stored_bytes),
        beat.totals.failed,
        beat.totals.retried,
    );
    for one in &beat.running {
        let line = format!(
            "running   {} {}: {} of {}, {}/s\n",
            one.key,
            one.job,
            human(one.bytes),
            human(one.size_bytes),
            human(one.bytes_per_second)
        );
        text.push_str(&line);
    }
    if let Some(error) = &beat.last_error {
        text.push_str(&format!("last error {error}\n"));
    }
    text
}

/// A size for people: at most one digit after the point.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = None;
    for name in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = Some(name);
    }
    match unit {
        Some(unit) => format!("{value:.1} {unit}"),
        None => ByteSize(bytes).to_string(),
    }
}

/// `init`: makes the configured folder this node's store.
///
/// # Errors
/// Why it can't be one.
pub fn init(settings: &Settings, force: bool) -> anyhow::Result<Exit> {
    let marker = Store::init(&settings.store.path, &settings.node_id, force).context(Exit::FoundWrong)?;
    let path = settings.store.path.display();
    writeln!(std::io::stdout(), "{path} is the store of node {} ({})", marker.node_id, marker.store_id)?;
    Ok(Exit::Done)
}
