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
    let levels = levels(queues);
    let is_known = queues.clusters.iter().all(|cluster| cluster.away.is_none());
    let mut text = match levels.is_empty() {
        false => show::rendered(&levels),
        true if is_known => "no job was ever queued here\n".to_owned(),
        true => String::new(),
    };
    notes(queues).iter().for_each(|note| text.push_str(&show::note(note)));
    for cluster in queues.clusters.iter().filter(|cluster| !cluster.resting.is_empty()) {
        text.push('\n');
        text.push_str(&show::rendered(&resting(cluster)));
        let more = cluster.resting_total.saturating_sub(SHOWN_HOSTS as u64);
        if more > 0 {
            text.push_str(&format!("and {more} more hosts; --json lists 100\n"));
        }
    }
    text
}

fn levels(queues: &Queues) -> Table {
    let levels = || queues.clusters.iter().flat_map(|cluster| &cluster.levels);
    // What is kept back is seen wherever there is some; columns of nothing are left out.
    let needed = |is: bool| if is { Room::Needed } else { Room::Spare };
    let several = queues.clusters.len() > 1;
    let mut table = Table::new()
        .column("LEVEL", Room::Middle)
        .number("WAITING", Room::Needed)
        .number("RUNS", Room::Needed)
        .number("BYTES", Room::Needed)
        .number("OLDEST", Room::Needed)
        .number("SPEED", Room::Spare)
        .number("LASTS", Room::Needed)
        .number("HELD", needed(levels().any(|level| level.held > 0)))
        .number("RETRY", needed(levels().any(|level| level.delayed > 0)))
        .number("INBOX", Room::Spare)
        .column("CLUSTER", Room::Middle);
    let span =
        |seconds: Option<u64>| seconds.map_or_else(String::new, |seconds| text::span(Duration::from_secs(seconds)));
    let some = |count: u64| if count > 0 { count.to_string() } else { String::new() };
    for cluster in &queues.clusters {
        for level in &cluster.levels {
            let speed = level.bytes_per_second;
            table.row([
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
    table
}

fn notes(queues: &Queues) -> Vec<String> {
    let mut notes = Vec::new();
    for cluster in &queues.clusters {
        let name = &cluster.cluster;
        if let Some(away) = &cluster.away {
            notes.push(format!("the Redis of cluster {name} is away since {}: {}", text::moment(away.since), away.why));
        }
        if let Some(size) = cluster.reported_size {
            let when = cluster.reported_at.map_or_else(String::new, |at| format!(", {}", text::ago(at)));
            notes.push(format!("a reporter counted {size} waiting in cluster {name}{when}"));
        }
    }
    notes
}

fn resting(cluster: &Cluster) -> Table {
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
    hosts
}

#[cfg(test)]
mod tests {
    use console::measure_text_width;
    use serde_json::{Value, json};

    use super::*;

    fn queues(value: Value) -> Queues {
        client::read(value).unwrap()
    }

    /// A busy level of large figures.
    fn level(name: &str, more: &Value) -> Value {
        let mut level = json!({"queue": name, "copies_of": null, "waiting": 1_000_000, "inbox": 0, "delayed": 0, "held": 0,
            "leased": 1024, "bytes": 1023_u64 << 30, "oldest_age_seconds": 86_340, "bytes_per_second": 1023 << 20,
            "eta_seconds": 89 * 86_400 + 23 * 3600});
        level.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        level
    }

    fn cluster(name: &str, levels: &[Value]) -> Value {
        json!({"cluster": name, "away": null, "levels": levels, "resting": [], "resting_total": 0, "reported_size": null,
            "reported_at": null})
    }

    #[track_caller]
    fn at_80_columns(table: &Table, needed: &[&str]) -> String {
        let text = table.render(Some(80));
        assert!(text.lines().all(|line| measure_text_width(line) <= 80), "{text}");
        needed.iter().for_each(|needed| assert!(text.contains(needed), "{needed} in {text}"));
        text
    }

    #[test]
    fn a_level_with_its_speed_and_how_long_it_lasts() {
        let one = queues(json!({"clusters": [cluster("default", &[level("level1", &json!({}))])]}));
        let text = at_80_columns(&levels(&one), &[]);
        let cells = text.lines().nth(1).unwrap().split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        assert_eq!(
            cells.collect::<Vec<_>>(),
            ["level1", "1000000", "1024", "1023 GiB", "23h 59m", "1023 MiB/s", "89d 23h"]
        );
        for empty in ["HELD", "RETRY", "INBOX", "CLUSTER"] {
            assert!(!text.contains(empty), "{text}");
        }
        // Nothing was stored to measure it by.
        let still = json!({"bytes_per_second": 0, "eta_seconds": null});
        let text = levels(&queues(json!({"clusters": [cluster("default", &[level("level1", &still)])]}))).render(None);
        assert!(!text.contains("/s") && text.lines().nth(1).unwrap().ends_with("23h 59m"), "{text}");
    }

    #[test]
    fn levels_of_copies_and_several_clusters_fit_80_columns() {
        let copies = |node: &str| level(&format!("longshore:copies@{node}"), &json!({"copies_of": node}));
        let kept = json!({"held": 12_345, "delayed": 23_456, "inbox": 34_567});
        let one = queues(json!({"clusters": [cluster("default", &[level("level1", &kept), copies("store1")])]}));
        at_80_columns(&levels(&one), &["copies of store1", "12345", "23456", "89d 23h"]);
        let two = queues(json!({"clusters": [
            cluster("default", &[level("level1", &json!({})), copies("store1")]),
            cluster("other", &[level("level1", &json!({}))]),
        ]}));
        at_80_columns(&levels(&two), &["copies of store1", "1023 MiB/s", "default", "other"]);
        let two = queues(json!({"clusters": [
            cluster("frankfurt-1", &[level("level1", &kept), copies("storage-node-12"), copies("storage-node-13")]),
            cluster("frankfurt-2", &[level("level1", &kept)]),
        ]}));
        at_80_columns(&levels(&two), &["e-12", "e-13", "level1", "12345", "23456", "rt-1", "rt-2"]);
    }

    #[test]
    fn hosts_left_alone_are_told_with_when_they_are_asked_again_and_why() {
        let now = Millis::now().0;
        let host = |until: i64| {
            json!({"server_id": "10.20.30.40", "failures": 12, "since": now - 86_340_500, "until": until,
                "reason_code": "rsync_refused", "reason": "连接失败 connection refused by 10.20.30.40, port 873"})
        };
        let mut default = cluster("default", &[]);
        default["resting"] = (0..12).map(|place| host(if place == 0 { now - 1 } else { now + 7_230_500 })).collect();
        default["resting_total"] = 150.into();
        let queues = queues(json!({"clusters": [default]}));
        let text = at_80_columns(&resting(&queues.clusters[0]), &["HOST LEFT ALONE", "ASKED AGAIN", "rsync_refused: "]);
        let row = |line: usize| text.lines().nth(line).unwrap().to_owned();
        assert!(row(1).starts_with("10.20.30.40      23h 59m ago  now              12  rsync_refused"), "{text}");
        assert!(row(2).starts_with("10.20.30.40      23h 59m ago  in 2h            12  rsync_refused"), "{text}");
        assert_eq!(text.lines().count(), 1 + SHOWN_HOSTS);
        assert!(shown(&queues).ends_with("and 140 more hosts; --json lists 100\n"));
    }
}
