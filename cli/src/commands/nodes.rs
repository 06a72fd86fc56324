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
    beat: Option<NodeBeat>,
    registered: Option<Registered>,
}

#[derive(Debug, Deserialize)]
struct Registered {
    weight: Option<u32>,
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
    fn state(&self) -> Cell {
        match &self.beat {
            None => Cell::toned("never heard", Tone::Bad),
            Some(_) if self.silent => Cell::toned("silent", Tone::Bad),
            Some(beat) if beat.paused.is_some() => Cell::toned("paused", Tone::Warn),
            Some(_) => Cell::toned("claiming", Tone::Good),
        }
    }
}

pub(super) async fn list(context: &Context) -> Result<Exit, Failure> {
    let value = context.client.get(&["api", "v1", "nodes"], &[]).await?;
    if context.json {
        show::json(&value)?;
        return Ok(Exit::Done);
    }
    let nodes: Nodes = client::read(value)?;
    for (cluster, away) in &nodes.away {
        show::lines(&format!(
            "the Redis of cluster {cluster} is away since {}: {}; its nodes are as last heard of",
            text::moment(away.since),
            away.why
        ))?;
    }
    if nodes.items.is_empty() {
        show::lines("no node was heard of yet; start longshore-puller on a storage machine")?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new()
        .column("NODE", Room::Needed)
        .column("STATE", Room::Needed)
        .column("HEARD", Room::Needed)
        .number("WEIGHT", Room::Needed)
        .number("RUNS", Room::Needed)
        .number("SPEED", Room::Needed)
        .number("FREE", Room::Needed)
        .column("WHY", Room::Cut)
        .number("DISK", Room::Spare)
        .number("RESERVE", Room::Spare)
        .column("CLUSTER", Room::Spare)
        .column("VERSION", Room::Spare)
        .column("RSYNC", Room::Spare);
    for node in &nodes.items {
        let heard =
            node.age_seconds.map_or_else(String::new, |age| format!("{} ago", text::span(Duration::from_secs(age))));
        let registered = node.registered.as_ref();
        let weight = registered.and_then(|entry| entry.weight).or(node.beat.as_ref().map(|beat| beat.weight));
        let (runs, speed, why, free, disk, reserve, version, rsync) = match &node.beat {
            Some(beat) => (
                format!("{}/{}", beat.running.len(), beat.slots),
                format!("{}/s", text::size(beat.running.iter().map(|transfer| transfer.bytes_per_second).sum())),
                beat.paused.clone().or_else(|| beat.last_error.clone()).unwrap_or_default(),
                text::size(beat.disk.free_bytes),
                text::size(beat.disk.size_bytes),
                text::size(beat.disk.reserve_bytes),
                beat.version.clone(),
                beat.rsync_version.clone(),
            ),
            None => {
                let size = registered.and_then(|entry| entry.size_bytes);
                let used = registered.and_then(|entry| entry.used_bytes);
                let free =
                    size.zip(used).map_or_else(String::new, |(size, used)| text::size(size.saturating_sub(used)));
                let disk = size.map_or_else(String::new, text::size);
                let none = String::new;
                (none(), none(), "registered only".to_owned(), free, disk, none(), none(), none())
            }
        };
        table.row([
            (&*node.node_id).into(),
            node.state(),
            heard.into(),
            weight.map_or_else(String::new, |weight| weight.to_string()).into(),
            runs.into(),
            speed.into(),
            free.into(),
            why.into(),
            disk.into(),
            reserve.into(),
            node.cluster.clone().unwrap_or_default().into(),
            version.into(),
            rsync.into(),
        ]);
    }
    show::table(&table)?;
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
    Ok(Exit::Done)
}
