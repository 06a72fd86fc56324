//! `longshore queue`: what waits, and what operators do with it.

mod change;
mod dead;
mod jobs;
mod watch;

use std::time::Duration;

use longshore_core::{Millis, exit::Exit};
use serde::Deserialize;

use super::{Context, nodes::Away, rules};
use crate::{
    arguments::{DeadCommand, QueueCommand},
    client,
    failure::Failure,
    show::{
        self,
        table::{Room, Table},
        text,
    },
};

/// Of the hosts that are left alone so many are shown.
const SHOWN_HOSTS: usize = 10;

pub(super) async fn run(context: &Context, command: QueueCommand) -> Result<Exit, Failure> {
    match command {
        QueueCommand::List => list(context).await,
        QueueCommand::Set(set) => rules::queue(context, &set).await,
        QueueCommand::Watch { every } => watch::run(context, every.duration()).await,
        QueueCommand::Jobs { filter, limit } => jobs::list(context, &filter, limit).await,
        QueueCommand::Cancel(change) => change::run(context, "cancel", &change, None).await,
        QueueCommand::Hold(change) => change::run(context, "hold", &change, None).await,
        QueueCommand::Release(change) => change::run(context, "release", &change, None).await,
        QueueCommand::Move { to, change } => change::run(context, "move", &change, Some(&to)).await,
        QueueCommand::Requeue(change) => change::run(context, "requeue", &change, None).await,
        QueueCommand::Dead { command: None, list } => dead::list(context, list).await,
        QueueCommand::Dead { command: Some(DeadCommand::Retry(change)), .. } => {
            dead::change(context, "retry", &change).await
        }
        QueueCommand::Dead { command: Some(DeadCommand::Drop(change)), .. } => {
            dead::change(context, "drop", &change).await
        }
    }
}

#[derive(Debug, Deserialize)]
struct Queues {
    clusters: Vec<Cluster>,
}

#[derive(Debug, Deserialize)]
struct Cluster {
    cluster: String,
    away: Option<Away>,
    levels: Vec<Level>,
    resting: Vec<Host>,
    resting_total: u64,
    reported_size: Option<u64>,
    reported_at: Option<Millis>,
}

#[derive(Debug, Deserialize)]
struct Level {
    queue: String,
    copies_of: Option<String>,
    waiting: u64,
    inbox: u64,
    delayed: u64,
    held: u64,
    leased: u64,
    bytes: u64,
    oldest_age_seconds: Option<u64>,
    bytes_per_second: u64,
    eta_seconds: Option<u64>,
}

impl Level {
    /// Second copies wait in levels of Longshore's own.
    fn name(&self) -> String {
        self.copies_of.as_ref().map_or_else(|| self.queue.clone(), |node| format!("copies of {node}"))
    }
}

#[derive(Debug, Deserialize)]
struct Host {
    server_id: String,
    failures: u32,
    since: Millis,
    until: Millis,
    reason_code: String,
    reason: String,
}

/// Exit code 1 when a cluster's Redis is away, so that what it holds is not known.
async fn list(context: &Context) -> Result<Exit, Failure> {
    let value = context.client.get(&["api", "v1", "queues"], &[]).await?;
    let queues: Queues = client::read(value.clone())?;
    let exit = if queues.clusters.iter().any(|cluster| cluster.away.is_some()) { Exit::FoundWrong } else { Exit::Done };
    if context.json {
        show::json(&value)?;
    } else {
        show::lines(&shown(&queues))?;
    }
    Ok(exit)
}

/// All queues, as a person reads them.
fn shown(queues: &Queues) -> String {
    let several = queues.clusters.len() > 1;
    let mut levels = Table::new()
        .column("LEVEL", Room::Needed)
        .number("WAITING", Room::Needed)
        .number("RUNS", Room::Needed)
        .number("BYTES", Room::Needed)
        .number("OLDEST", Room::Needed)
        .number("SPEED", Room::Needed)
        .number("LASTS", Room::Needed)
        .number("HELD", Room::Needed)
        .number("RETRY", Room::Needed)
        .number("INBOX", Room::Spare)
        .column("CLUSTER", if several { Room::Needed } else { Room::Spare });
    let span =
        |seconds: Option<u64>| seconds.map_or_else(String::new, |seconds| text::span(Duration::from_secs(seconds)));
    let some = |count: u64| if count > 0 { count.to_string() } else { String::new() };
    let mut notes = Vec::new();
    for cluster in &queues.clusters {
        if let Some(away) = &cluster.away {
            let (since, name) = (text::moment(away.since), &cluster.cluster);
            notes.push(format!("the Redis of cluster {name} is away since {since}: {}", away.why));
        }
        if let Some(size) = cluster.reported_size {
            let when = cluster.reported_at.map_or_else(String::new, |at| format!(", {}", text::ago(at)));
            notes.push(format!("a reporter counted {size} waiting in cluster {}{when}", cluster.cluster));
        }
        for level in &cluster.levels {
            let speed = level.bytes_per_second;
            levels.row([
                level.name().into(),
                level.waiting.to_string().into(),
                level.leased.to_string().into(),
                text::size(level.bytes).into(),
                span(level.oldest_age_seconds).into(),
                if speed > 0 { format!("{}/s", text::size(speed)) } else { String::new() }.into(),
                span(level.eta_seconds).into(),
                some(level.held).into(),
                some(level.delayed).into(),
                some(level.inbox).into(),
                if several { &*cluster.cluster } else { "" }.into(),
            ]);
        }
    }
    let is_known = queues.clusters.iter().all(|cluster| cluster.away.is_none());
    let mut text = match levels.is_empty() {
        false => show::rendered(&levels),
        true if is_known => "no job was ever queued here\n".to_owned(),
        true => String::new(),
    };
    notes.iter().for_each(|note| text.push_str(&show::note(note)));
    for cluster in queues.clusters.iter().filter(|cluster| !cluster.resting.is_empty()) {
        text.push('\n');
        text.push_str(&resting(cluster));
    }
    text
}

fn resting(cluster: &Cluster) -> String {
    let mut hosts = Table::new()
        .column("HOST LEFT ALONE", Room::Needed)
        .column("SINCE", Room::Needed)
        .column("ASKED AGAIN", Room::Needed)
        .number("FAILED", Room::Needed)
        .column("WHY", Room::Cut);
    for host in cluster.resting.iter().take(SHOWN_HOSTS) {
        hosts.row([
            (&*host.server_id).into(),
            text::ago(host.since).into(),
            if host.until > Millis::now() { text::ago(host.until) } else { "now".to_owned() }.into(),
            host.failures.to_string().into(),
            format!("{}: {}", host.reason_code, host.reason).into(),
        ]);
    }
    let mut text = show::rendered(&hosts);
    let more = cluster.resting_total.saturating_sub(SHOWN_HOSTS as u64);
    if more > 0 {
        text.push_str(&format!("and {more} more hosts; --json lists 100\n"));
    }
    text
}
