//! `longshore nodes`.

use std::{collections::BTreeMap, time::Duration};

use longshore_core::{Millis, NodeBeat, exit::Exit};
use serde::Deserialize;

use super::Context;
use crate::{
    client,
    failure::Failure,
    show::{
        self,
        table::{Cell, Room, Table, Tone},
        text,
    },
};

#[derive(Debug, Deserialize)]
struct Nodes {
    items: Vec<Node>,
    away: BTreeMap<String, Away>,
}

#[derive(Debug, Deserialize)]
struct Node {
    node_id: String,
    cluster: Option<String>,
    age_seconds: Option<u64>,
    silent: bool,
    weight: Option<u32>,
    stored_last_hour_bytes: u64,
    share_percent: Option<f64>,
    weight_percent: Option<f64>,
    room_bytes: u64,
    bytes_per_second: u64,
    beat: Option<NodeBeat>,
    registered: Option<Registered>,
}

#[derive(Debug, Deserialize)]
struct Registered {
    size_bytes: Option<u64>,
    used_bytes: Option<u64>,
}

/// A service that does not answer.
#[derive(Debug, Deserialize)]
pub(super) struct Away {
    pub(super) since: Millis,
    pub(super) why: String,
}

impl Node {
    fn age(&self) -> String {
        self.age_seconds.map_or_else(String::new, |age| text::span(Duration::from_secs(age)))
    }

    fn state(&self) -> Cell {
        match &self.beat {
            None => Cell::toned("unheard", Tone::Bad),
            Some(_) if self.silent => Cell::toned(format!("silent {}", self.age()), Tone::Bad),
            Some(_) if self.weight == Some(0) => Cell::toned("draining", Tone::Warn),
            Some(beat) if beat.paused.is_some() => Cell::toned("paused", Tone::Warn),
            Some(_) => Cell::toned("claiming", Tone::Good),
        }
    }

    /// What a person should know of it, in full.
    fn note(&self) -> Option<String> {
        let id = &self.node_id;
        let Some(beat) = &self.beat else {
            return Some(format!("node {id} is registered and was never heard of"));
        };
        if self.weight == Some(0) && !self.silent {
            return Some(format!("node {id} drains: its weight is 0, it takes nothing more"));
        }
        match (&beat.paused, &beat.last_error) {
            (Some(why), _) => Some(format!("node {id} is paused: {why}")),
            (None, Some(error)) => Some(format!("node {id}, last error: {error}")),
            (None, None) => None,
        }
    }

    /// Its disk's size and what is free there: of its beat, else as reported.
    fn disk(&self) -> (Option<u64>, Option<u64>) {
        match (&self.beat, &self.registered) {
            (Some(beat), _) => (Some(beat.disk.size_bytes), Some(beat.disk.free_bytes)),
            (None, Some(Registered { size_bytes, used_bytes })) => {
                let free = size_bytes.zip(*used_bytes).map(|(size, used)| size.saturating_sub(used));
                (*size_bytes, free)
            }
            (None, None) => (None, None),
        }
    }
}

/// Exit code 1 when a cluster's Redis is away, so that how its nodes stand is not known.
pub(super) async fn list(context: &Context) -> Result<Exit, Failure> {
    let value = context.client.get(&["api", "v1", "nodes"], &[]).await?;
    let nodes: Nodes = client::read(value.clone())?;
    let exit = if nodes.away.is_empty() { Exit::Done } else { Exit::FoundWrong };
    if context.json {
        show::json(&value)?;
        return Ok(exit);
    }
    for (cluster, away) in &nodes.away {
        show::lines(&show::note(&format!(
            "the Redis of cluster {cluster} is away since {}: {}; its nodes are as last heard of",
            text::moment(away.since),
            away.why
        )))?;
    }
    if nodes.items.is_empty() {
        if exit == Exit::Done {
            show::lines("no node was heard of yet; start longshore-puller on a storage machine")?;
        }
        return Ok(exit);
    }
    show::table(&table(&nodes.items))?;
    for note in nodes.items.iter().filter_map(Node::note) {
        show::lines(&show::note(&note))?;
    }
    let running = nodes.items.iter().filter(|node| !node.silent).filter_map(|node| node.beat.as_ref());
    let mut transfers = Table::new()
        .column("TRANSFER", Room::Needed)
        .column("NODE", Room::Needed)
        .number("DONE", Room::Needed)
        .number("OF", Room::Needed)
        .number("SPEED", Room::Needed)
        .column("SINCE", Room::Spare);
    for beat in running {
        for transfer in &beat.running {
            transfers.row([
                transfer.key.to_string().into(),
                beat.node_id.to_string().into(),
                text::size(transfer.bytes).into(),
                text::size(transfer.size_bytes).into(),
                format!("{}/s", text::size(transfer.bytes_per_second)).into(),
                text::ago(transfer.since).into(),
            ]);
        }
    }
    if !transfers.is_empty() {
        show::lines("\n")?;
        show::table(&transfers)?;
    }
    Ok(exit)
}

fn table(nodes: &[Node]) -> Table {
    let mut table = Table::new()
        .column("NODE", Room::Needed)
        .column("STATE", Room::Needed)
        .number("WEIGHT", Room::Needed)
        .number("RUNS", Room::Needed)
        .number("SPEED", Room::Needed)
        .number("LAST HOUR", Room::Needed)
        .number("SHARE (DUE)", Room::Needed)
        .number("ROOM", Room::Needed)
        .column("HEARD", Room::Spare)
        .number("FREE", Room::Spare)
        .number("DISK", Room::Spare)
        .number("RESERVE", Room::Spare)
        .number("CAP", Room::Spare)
        .column("CLUSTER", Room::Spare)
        .column("VERSION", Room::Spare)
        .column("RSYNC", Room::Spare);
    let some = |bytes: Option<u64>| bytes.map_or_else(String::new, text::size);
    for node in nodes {
        let beat = node.beat.as_ref();
        let of_beat = |of: &dyn Fn(&NodeBeat) -> String| beat.map_or_else(String::new, of);
        let (disk, free) = node.disk();
        let share = node
            .share_percent
            .map_or_else(String::new, |share| format!("{share:.0}% ({:.0}%)", node.weight_percent.unwrap_or_default()));
        table.row([
            (&*node.node_id).into(),
            node.state(),
            node.weight.map_or_else(String::new, |weight| weight.to_string()).into(),
            of_beat(&|beat| format!("{}/{}", beat.running.len(), beat.slots)).into(),
            of_beat(&|_| format!("{}/s", text::size(node.bytes_per_second))).into(),
            of_beat(&|_| text::size(node.stored_last_hour_bytes)).into(),
            share.into(),
            of_beat(&|_| text::size(node.room_bytes)).into(),
            beat.map_or_else(String::new, |_| format!("{} ago", node.age())).into(),
            some(free).into(),
            some(disk).into(),
            of_beat(&|beat| text::size(beat.disk.reserve_bytes)).into(),
            of_beat(&|beat| beat.bandwidth.map_or_else(String::new, |cap| format!("{}/s", text::size(cap)))).into(),
            node.cluster.clone().unwrap_or_default().into(),
            of_beat(&|beat| beat.version.clone()).into(),
            of_beat(&|beat| beat.rsync_version.clone()).into(),
        ]);
    }
    table
}
