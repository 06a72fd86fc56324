//! `longshore nodes`: how each stands, as far as it is known, and forgetting one.

use std::{collections::BTreeMap, time::Duration};

use longshore_core::{Millis, NodeBeat, NodeId, exit::Exit};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

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
    heard_at: Option<Millis>,
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

    /// Whether its puller said with its last beat that it ended.
    fn has_stopped(&self) -> bool {
        self.beat.as_ref().is_some_and(NodeBeat::has_stopped)
    }

    /// Its beat, where that says how it is now: nobody knows it of a silent node.
    fn living(&self) -> Option<&NodeBeat> {
        self.beat.as_ref().filter(|_| !self.silent && !self.has_stopped())
    }

    fn state(&self) -> Cell {
        match &self.beat {
            None => Cell::toned("unheard", Tone::Bad),
            Some(_) if self.has_stopped() => Cell::toned("stopped", Tone::Warn),
            Some(_) if self.silent => Cell::toned("silent", Tone::Bad),
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
        let heard = self.heard_at.map_or_else(String::new, |at| format!("{}, {} ago", text::moment(at), self.age()));
        if self.has_stopped() {
            let forget = format!(", with weight 0: `longshore nodes forget {id}` takes it out of the cluster");
            let forget = if self.weight == Some(0) { &*forget } else { "" };
            return Some(format!("node {id} stopped at {heard}{forget}"));
        }
        if self.silent {
            let error = beat.last_error.as_ref().map_or_else(String::new, |error| format!(" Its last error: {error}"));
            return Some(format!("node {id} is silent since {heard}: is longshore-puller running there?{error}"));
        }
        if self.weight == Some(0) {
            return Some(format!("node {id} drains: its weight is 0, it takes nothing more"));
        }
        match (&beat.paused, &beat.last_error) {
            (Some(why), _) => Some(format!("node {id} is paused: {why}")),
            (None, Some(error)) => Some(format!("node {id}, last error: {error}")),
            (None, None) => None,
        }
    }

    /// Its disk's size and what is free there now: of its beat, else as reported.
    fn disk(&self) -> (Option<u64>, Option<u64>) {
        match (&self.beat, &self.registered) {
            (Some(beat), _) => (Some(beat.disk.size_bytes), self.living().map(|beat| beat.disk.free_bytes)),
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
    let is_known = |node: &&Node| node.cluster.as_ref().is_none_or(|cluster| !nodes.away.contains_key(cluster));
    for note in nodes.items.iter().filter(is_known).filter_map(Node::note) {
        show::lines(&show::note(&note))?;
    }
    let transfers = transfers(&nodes.items);
    if !transfers.is_empty() {
        show::lines("\n")?;
        show::table(&transfers)?;
    }
    Ok(exit)
}

fn transfers(nodes: &[Node]) -> Table {
    let mut transfers = Table::new()
        .column("TRANSFER", Room::Middle)
        .column("NODE", Room::Middle)
        .number("DONE", Room::Needed)
        .number("OF", Room::Needed)
        .number("SPEED", Room::Needed)
        .column("SINCE", Room::Spare);
    for beat in nodes.iter().filter_map(Node::living) {
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
    transfers
}

fn table(nodes: &[Node]) -> Table {
    let mut table = Table::new()
        .column("NODE", Room::Needed)
        .column("STATE", Room::Needed)
        .number("WEIGHT", Room::Needed)
        .number("RUNS", Room::Needed)
        .number("SPEED", Room::Needed)
        .number("SHARE (DUE)", Room::Spare)
        .number("LAST HOUR", Room::Spare)
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
        let now = |of: &dyn Fn(&NodeBeat) -> String| node.living().map_or_else(String::new, of);
        let (disk, free) = node.disk();
        let share = node.share_percent.filter(|_| node.living().is_some());
        let share = share
            .map_or_else(String::new, |share| format!("{share:.0}% ({:.0}%)", node.weight_percent.unwrap_or_default()));
        table.row([
            (&*node.node_id).into(),
            node.state(),
            node.weight.map_or_else(String::new, |weight| weight.to_string()).into(),
            now(&|beat| format!("{}/{}", beat.running.len(), beat.slots)).into(),
            now(&|_| format!("{}/s", text::size(node.bytes_per_second))).into(),
            share.into(),
            now(&|_| text::size(node.stored_last_hour_bytes)).into(),
            now(&|_| text::size(node.room_bytes)).into(),
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

pub(super) async fn forget(context: &Context, node_id: &NodeId) -> Result<Exit, Failure> {
    let path = ["api", "v1", "nodes", node_id.as_str()];
    let forgotten = context.client.send_json(Method::DELETE, &path, &Value::Null).await?;
    if context.json {
        show::json(&forgotten)?;
    } else {
        show::lines(&format!("node {node_id}: forgotten"))?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use console::measure_text_width;
    use serde_json::json;

    use super::*;

    const HEARD_AT: i64 = 1_795_143_642_000;

    /// A node that has much of everything, its beat changed so.
    fn node(id: &str, more: &Value, of_beat: &Value) -> Node {
        let with = |mut value: Value, more: &Value| {
            value.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
            value
        };
        let beat = serde_json::from_str(include_str!("../../../core/fixtures/node-beat-v1.json")).unwrap();
        let beat = with(with(beat, &json!({"node_id": id, "slots": 16})), of_beat);
        let node = json!({"node_id": id, "cluster": "frankfurt-1", "heard_at": HEARD_AT, "age_seconds": 12_000,
            "silent": false, "weight": 100, "stored_last_hour_bytes": 1023_u64 << 30, "share_percent": 100.0,
            "weight_percent": 33.3, "room_bytes": 1023_u64 << 30, "bytes_per_second": 1023 << 20, "beat": beat,
            "registered": null});
        client::read(with(node, more)).unwrap()
    }

    fn silent(id: &str, weight: u32, of_beat: &Value) -> Node {
        node(id, &json!({"silent": true, "weight": weight, "share_percent": null, "weight_percent": null}), of_beat)
    }

    #[track_caller]
    fn rows(nodes: &[Node]) -> Vec<Vec<String>> {
        let text = table(nodes).render(Some(80));
        assert!(text.lines().all(|line| measure_text_width(line) <= 80), "{text}");
        let cells =
            |line: &str| line.split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect();
        text.lines().map(cells).collect()
    }

    #[test]
    fn large_figures_fit_80_columns() {
        let nodes = [node("store1", &json!({}), &json!({})), silent("store2", 100, &json!({}))];
        let rows = rows(&nodes);
        assert_eq!(rows[0], ["NODE", "STATE", "WEIGHT", "RUNS", "SPEED", "SHARE (DUE)", "LAST HOUR", "ROOM"]);
        let full = ["store1", "claiming", "100", "1/16", "1023 MiB/s", "100% (33%)", "1023 GiB", "1023 GiB"];
        assert_eq!(rows[1], full);
        let long = [node("backup-store-01", &json!({}), &json!({})), node("s", &json!({"weight": 0}), &json!({}))];
        let rows = self::rows(&long);
        assert_eq!(rows[1], [&["backup-store-01"], &full[1..6], &full[7..]].concat());
        assert_eq!(rows[2][1], "draining");
        self::rows(&[node("x".repeat(33).as_str(), &json!({"weight": 0}), &json!({}))]);
    }

    #[test]
    fn of_a_node_that_does_not_speak_nothing_is_told_as_if_it_were_so_now() {
        let nodes = [silent("store1", 50, &json!({})), node("store2", &json!({}), &json!({"paused": "stopped"}))];
        let rows = rows(&nodes);
        assert_eq!(rows[1], ["store1", "silent", "50", "3h 20m ago", "3.6 TiB", "1000 GiB"]);
        assert_eq!(rows[2][..3], ["store2", "stopped", "100"], "also before it counts as silent");
        let text = table(&nodes).render(None);
        assert!(!text.contains("1/16") && !text.contains("1023") && !text.contains("2.3 TiB"), "{text}");
        assert!(transfers(&nodes).is_empty());
        let text = transfers(&[node("store1", &json!({}), &json!({}))]).render(Some(80));
        assert!(text.contains("111111/mysql/3306  store1  10.0 MiB  70.0 MiB  50.0 MiB/s"), "{text}");
    }

    #[test]
    fn transfers_of_long_names_fit_80_columns() {
        let running = json!([{"job": "01a1f6e5-8780-7a3c-8f21-3f0e6b1c9d77", "size_bytes": 1023_u64 << 30,
            "key": {"server_id": "backup-source-17.frankfurt.example", "type": "postgres", "instance": "main-16"},
            "bytes": 1023_u64 << 20, "bytes_per_second": 1023 << 20, "since": HEARD_AT}]);
        let node = node(&"x".repeat(33), &json!({}), &json!({"running": running}));
        let text = transfers(&[node]).render(Some(80));
        assert!(text.lines().all(|line| measure_text_width(line) <= 80), "{text}");
        for needed in ["backup-s", "main-16", "1023 MiB", "1023 GiB", "1023 MiB/s"] {
            assert!(text.contains(needed), "{needed} in {text}");
        }
    }

    #[test]
    fn a_note_says_what_a_state_means_and_what_to_do() {
        let when = format!("{}, 3h 20m ago", text::moment(Millis(HEARD_AT)));
        let registered = json!({"beat": null, "heard_at": null, "age_seconds": null, "silent": true});
        for (node, state, wanted) in [
            (node("5", &json!({}), &json!({})), "claiming", String::new()),
            (
                node("5", &json!({}), &json!({"paused": "the disk is full"})),
                "paused",
                "node 5 is paused: the disk is full".into(),
            ),
            (node("5", &json!({}), &json!({"last_error": "x"})), "claiming", "node 5, last error: x".into()),
            (
                node("5", &json!({"weight": 0}), &json!({})),
                "draining",
                "node 5 drains: its weight is 0, it takes nothing more".into(),
            ),
            (
                silent("5", 0, &json!({})),
                "silent",
                format!("node 5 is silent since {when}: is longshore-puller running there?"),
            ),
            (
                silent("5", 1, &json!({"last_error": "x"})),
                "silent",
                format!("node 5 is silent since {when}: is longshore-puller running there? Its last error: x"),
            ),
            (silent("5", 1, &json!({"paused": "stopped"})), "stopped", format!("node 5 stopped at {when}")),
            (
                silent("5", 0, &json!({"paused": "stopped"})),
                "stopped",
                format!(
                    "node 5 stopped at {when}, with weight 0: `longshore nodes forget 5` takes it out of the cluster"
                ),
            ),
            (node("5", &registered, &json!({})), "unheard", "node 5 is registered and was never heard of".into()),
        ] {
            let rows = rows(std::slice::from_ref(&node));
            assert_eq!((rows[1][1].as_str(), node.note().unwrap_or_default()), (state, wanted));
        }
    }
}
