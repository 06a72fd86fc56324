//! `longshore nodes set`, `queue set`, `hosts set`, `types set`, `cluster set`: change a rule, wait until it is obeyed, and say
//! what is in force now and who says so. Without a change they only say it, and wait for nobody.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use longshore_core::{Millis, NodeBeat, calendar::Shut, config::ByteSize, exit::Exit};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Context;
use crate::{
    arguments::{ClusterSet, HostSet, NodeSet, QueueSet, TypeSet},
    client,
    failure::Failure,
    show::{
        self,
        table::{Room, Table},
        text,
    },
};

/// A change is in force within a second; this is for a machine under load.
const OBEYED_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A rule of the registry, and what is to be changed of it.
struct Rule<'a> {
    /// Of all of its kind.
    path: &'a [&'a str],
    /// The field that names it.
    key: (&'a str, String),
    /// In the order in which they are shown; null where nothing is said.
    fields: Vec<(&'a str, Value)>,
    /// Fields, as flags have them, that nothing is to be said of any more.
    unset: &'a [String],
}

impl Rule<'_> {
    fn change(&self) -> Map<String, Value> {
        let said = self.fields.iter().filter(|(_, value)| !value.is_null());
        let said = said.map(|(name, value)| ((*name).to_owned(), value.clone()));
        said.chain(self.unset.iter().map(|flag| (flag.replace('-', "_"), Value::Null))).collect()
    }

    fn path_of_one(&self) -> Vec<&str> {
        self.path.iter().copied().chain([self.key.1.as_str()]).collect()
    }

    /// Changes the entry when it is there, else adds it with what is set; as it is then, null where there is none.
    async fn put(&self, context: &Context) -> Result<Value, Failure> {
        let mut change = self.change();
        if change.is_empty() {
            return or_none(context.client.get(&self.path_of_one(), &[]).await);
        }
        let patched = or_none(context.client.send_json(Method::PATCH, &self.path_of_one(), &json!(change)).await)?;
        change.retain(|_, value| !value.is_null());
        if !patched.is_null() || change.is_empty() {
            return Ok(patched);
        }
        change.insert(self.key.0.to_owned(), json!(self.key.1));
        context.client.send_json(Method::POST, self.path, &json!(change)).await
    }
}

/// Null for what is not there.
fn or_none(found: Result<Value, Failure>) -> Result<Value, Failure> {
    match found {
        Err(failure) if failure.exit == Exit::FoundWrong => Ok(Value::Null),
        other => other,
    }
}

#[derive(Debug, Deserialize)]
struct Policies {
    items: Vec<Policy>,
}

/// The policy of one cluster.
#[derive(Debug, Deserialize)]
struct Policy {
    cluster: String,
    version: Option<u64>,
    nodes: BTreeMap<String, Option<u64>>,
    closed: Closed,
    away: Option<super::nodes::Away>,
}

#[derive(Debug, Deserialize)]
struct Closed {
    queues: BTreeMap<String, Shut>,
    nodes: BTreeMap<String, Shut>,
    hosts: BTreeMap<String, Shut>,
}

impl Policy {
    /// Nodes that do not obey the version in Redis yet.
    fn behind(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|(_, version)| **version < self.version).map(|(node, _)| node.as_str())
    }

    /// Whether all of `nodes` that are there, or when none is named all there are, obey what the registry says.
    fn is_obeyed(&self, node: Option<&str>) -> bool {
        self.version.is_some() && self.behind().all(|behind| node.is_some_and(|node| node != behind))
    }
}

/// Who is to obey: every node, or those of one cluster, or one.
#[derive(Clone, Copy, Default)]
struct Whose<'a> {
    cluster: Option<&'a str>,
    node: Option<&'a str>,
}

/// Of all clusters, or of one.
async fn policies(context: &Context, cluster: Option<&str>) -> Result<Vec<Policy>, Failure> {
    let value = context.client.get(&["api", "v1", "policy"], &[]).await?;
    let mut policies = client::read::<Policies>(value)?.items;
    policies.retain(|policy| cluster.is_none_or(|cluster| cluster == policy.cluster));
    Ok(policies)
}

/// Waits until what was changed is obeyed, or until it should have been.
async fn obeyed(context: &Context, rule: &Rule<'_>, whose: Whose<'_>) -> Result<Vec<Policy>, Failure> {
    let started = Instant::now();
    loop {
        let policies = policies(context, whose.cluster).await?;
        let done = policies.iter().all(|policy| policy.away.is_some() || policy.is_obeyed(whose.node));
        if done || rule.change().is_empty() || started.elapsed() > OBEYED_WITHIN {
            return Ok(policies);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

pub(super) async fn node(context: &Context, set: &NodeSet) -> Result<Exit, Failure> {
    let id = set.node_id.to_string();
    let rule = Rule {
        path: &["api", "v1", "nodes"],
        key: ("node_id", id.clone()),
        fields: vec![
            ("weight", json!(set.weight)),
            ("bandwidth", json!(set.bandwidth)),
            ("restore_bandwidth", json!(set.restore_bandwidth)),
            ("window", json!(set.window)),
        ],
        unset: &set.unset,
    };
    rule.put(context).await?;
    let seen = async || or_none(context.client.get(&rule.path_of_one(), &[]).await);
    let before = seen().await?;
    let whose = Whose { cluster: before["cluster"].as_str(), node: Some(&id) };
    let policies = obeyed(context, &rule, whose).await?;
    let node = seen().await?;
    let beat: Option<NodeBeat> = serde_json::from_value(node["beat"].clone()).ok();
    let of_file = |name: &str| {
        let beat = beat.as_ref()?;
        match name {
            "weight" => Some(beat.weight.to_string()),
            "bandwidth" => {
                Some(beat.bandwidth.map_or_else(|| "unlimited".to_owned(), |rate| format!("{}/s", ByteSize(rate))))
            }
            _ => None,
        }
    };
    let shut = policies.iter().find_map(|policy| policy.closed.nodes.get(&id));
    let exit = tell(context, &rule, &node["registered"], of_file, shut, &policies, whose.node)?;
    if node["beat"].is_null() && !context.json {
        let text = format!("node {id} was never heard of; `longshore nodes` shows those that were");
        show::lines(&show::note(&text))?;
    }
    Ok(exit)
}

pub(super) async fn queue(context: &Context, set: &QueueSet) -> Result<Exit, Failure> {
    let rule = Rule {
        path: &["api", "v1", "policy", "queues"],
        key: ("queue", set.queue.to_string()),
        fields: vec![
            ("max_wait", json!(set.max_wait)),
            ("order", json!(set.order)),
            ("window", json!(set.window)),
            ("urgent", json!(set.urgent)),
            ("bandwidth", json!(set.bandwidth)),
            ("copies", json!(set.copies)),
            ("verify", json!(set.verify)),
        ],
        unset: &set.unset,
    };
    let exit = everywhere(context, &rule, Whose::default(), |closed| closed.queues.get(set.queue.as_str())).await?;
    if !context.json && !has_level(context, set.queue.as_str()).await {
        let text = format!("no node has a level {} now; `longshore queue` shows those that there are", set.queue);
        show::lines(&show::note(&text))?;
    }
    Ok(exit)
}

pub(super) async fn host(context: &Context, set: &HostSet) -> Result<Exit, Failure> {
    let mut rule = Rule {
        path: &["api", "v1", "policy", "hosts"],
        key: ("server_id", set.server_id.to_string()),
        fields: vec![
            ("transfers", json!(set.transfers)),
            ("starts_per_second", json!(set.starts_per_second)),
            ("bandwidth", json!(set.bandwidth)),
            ("window", json!(set.window)),
            ("modules", Value::Null),
        ],
        unset: &set.unset,
    };
    if !set.modules.is_empty() {
        let before = or_none(context.client.get(&rule.path_of_one(), &[]).await)?;
        let mut modules = before["modules"].as_object().cloned().unwrap_or_default();
        for (name, transfers) in &set.modules {
            match transfers {
                0 => modules.remove(name),
                transfers => modules.insert(name.clone(), json!(transfers)),
            };
        }
        rule.fields.retain(|(name, _)| *name != "modules");
        // To take a limit away from a host of which nothing is said is no rule.
        let is_nothing = modules.is_empty() && before.is_null();
        rule.fields.push(("modules", if is_nothing { Value::Null } else { json!(modules) }));
    }
    let exit = everywhere(context, &rule, Whose::default(), |closed| closed.hosts.get(set.server_id.as_str())).await?;
    note_unheard(context, ("server_id", &rule.key.1), "host").await?;
    Ok(exit)
}

pub(super) async fn hosts(context: &Context) -> Result<Exit, Failure> {
    let value = context.client.get(&["api", "v1", "policy", "hosts"], &[]).await?;
    if context.json {
        show::json(&value)?;
        return Ok(Exit::Done);
    }
    let items = value["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        show::lines("no host has a rule of its own")?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new()
        .column("HOST", Room::Needed)
        .number("TRANSFERS", Room::Needed)
        .number("STARTS/S", Room::Needed)
        .column("MODULES", Room::Cut)
        .column("BANDWIDTH", Room::Cut)
        .column("WINDOW", Room::Cut);
    for item in items {
        table.cells(
            ["server_id", "transfers", "starts_per_second", "modules", "bandwidth", "window"]
                .map(|field| shown(&item[field]).into())
                .into(),
        );
    }
    show::table(&table)?;
    Ok(Exit::Done)
}

pub(super) async fn backup_type(context: &Context, set: &TypeSet) -> Result<Exit, Failure> {
    let rule = Rule {
        path: &["api", "v1", "types"],
        key: ("name", set.name.to_string()),
        fields: vec![("copies", json!(set.copies)), ("verify", json!(set.verify))],
        unset: &set.unset,
    };
    let exit = everywhere(context, &rule, Whose::default(), |_| None).await?;
    note_unheard(context, ("type", &rule.key.1), "type").await?;
    Ok(exit)
}

pub(super) async fn cluster(context: &Context, set: &ClusterSet) -> Result<Exit, Failure> {
    let id = set.cluster_id.as_str();
    if policies(context, Some(id)).await?.is_empty() {
        let message = format!("the dashboard looks at no cluster {id}; `longshore queue` shows which there are");
        return Err(Failure::wrong(message));
    }
    let rule = Rule {
        path: &["api", "v1", "clusters"],
        key: ("cluster_id", id.to_owned()),
        fields: vec![("bandwidth", json!(set.bandwidth)), ("restore_bandwidth", json!(set.restore_bandwidth))],
        unset: &set.unset,
    };
    everywhere(context, &rule, Whose { cluster: Some(id), node: None }, |_| None).await
}

/// A rule that all nodes obey.
async fn everywhere(
    context: &Context,
    rule: &Rule<'_>,
    whose: Whose<'_>,
    shut: impl Fn(&Closed) -> Option<&Shut>,
) -> Result<Exit, Failure> {
    let entry = rule.put(context).await?;
    let policies = obeyed(context, rule, whose).await?;
    let shut = policies.iter().find_map(|policy| shut(&policy.closed));
    tell(context, rule, &entry, |_| None, shut, &policies, None)
}

/// Whether a node has the level, or something was ever in it; also where nobody can say.
async fn has_level(context: &Context, name: &str) -> bool {
    let Ok(queues) = context.client.get(&["api", "v1", "queues"], &[]).await else { return true };
    let clusters = queues["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let has = |cluster: &Value| {
        let levels = cluster["levels"].as_array().map(Vec::as_slice).unwrap_or_default();
        !cluster["away"].is_null() || levels.iter().any(|level| level["queue"] == name)
    };
    clusters.iter().any(has)
}

/// Says that no instance is known of a host or type: its name may be misspelt.
async fn note_unheard(context: &Context, (field, name): (&str, &str), what: &str) -> Result<(), Failure> {
    let query = [(field, name.to_owned()), ("limit", "1".to_owned())];
    let found = context.client.get(&["api", "v1", "instances"], &query).await;
    let is_unheard = found.is_ok_and(|page| page["items"].as_array().is_some_and(Vec::is_empty));
    if context.json || !is_unheard {
        return Ok(());
    }
    let text = format!("no instance of {what} {name} is known; `longshore instances` shows those that are");
    show::lines(&show::note(&text))
}

/// Says what is in force: of each field the registry's value, else what the node's own file was seen to give.
fn tell(
    context: &Context,
    rule: &Rule<'_>,
    entry: &Value,
    of_file: impl Fn(&str) -> Option<String>,
    shut: Option<&Shut>,
    policies: &[Policy],
    node: Option<&str>,
) -> Result<Exit, Failure> {
    let waits =
        policies.iter().any(|policy| policy.away.is_some() || policy.version.is_none() || !policy.is_obeyed(node));
    let exit = if waits && !rule.change().is_empty() { Exit::Kept } else { Exit::Done };
    if context.json {
        let versions = policies.iter().map(|policy| (policy.cluster.clone(), json!(policy.version)));
        let nodes: BTreeMap<_, _> = policies.iter().flat_map(|policy| &policy.nodes).collect();
        show::json(&json!({
            "rule": entry, "versions": Map::from_iter(versions), "nodes": nodes, "closed": shut,
        }))?;
        return Ok(exit);
    }
    let mut table = Table::new().column("FIELD", Room::Needed).column("VALUE", Room::Cut).column("FROM", Room::Needed);
    for (field, _) in &rule.fields {
        let said = shown(&entry[*field]);
        let (value, from) = match (said.is_empty(), of_file(field)) {
            (false, _) => (said, "registry"),
            (true, Some(value)) => (value, "the node's own file"),
            (true, None) => {
                ("-".to_owned(), if node.is_some() { "the node's own file" } else { "the nodes' own files" })
            }
        };
        table.row([(*field).into(), value.into(), from.into()]);
    }
    show::table(&table)?;
    if let Some(shut) = shut {
        let until =
            shut.until.map_or_else(|| "for ever".to_owned(), |until: Millis| format!("until {}", text::moment(until)));
        show::lines(&format!("its window is closed now, {until}"))?;
    }
    for policy in policies {
        show::lines(&told(policy, node))?;
    }
    Ok(exit)
}

/// Whether a cluster's nodes obey, as a sentence.
fn told(policy: &Policy, node: Option<&str>) -> String {
    let cluster = &policy.cluster;
    if let Some(away) = &policy.away {
        return format!(
            "kept; the Redis of cluster {cluster} is away since {}, its nodes will hear of it",
            text::moment(away.since)
        );
    }
    let Some(version) = policy.version else {
        return format!("kept; on its way into the Redis of cluster {cluster}");
    };
    let behind: Vec<&str> = policy.behind().filter(|behind| node.is_none_or(|node| node == *behind)).collect();
    match node {
        Some(node) if !policy.nodes.contains_key(node) => {
            format!("cluster {cluster}: version {version}; node {node} is not heard of there now")
        }
        _ if behind.is_empty() => format!("cluster {cluster}: version {version}, obeyed"),
        _ => format!("cluster {cluster}: version {version}, not yet obeyed by {}", behind.join(", ")),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(object) => {
            object.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}
