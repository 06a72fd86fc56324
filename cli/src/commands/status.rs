//! `longshore status`: all at one look.

use std::time::Duration;

use longshore_core::{Millis, exit::Exit};
use serde::Deserialize;

use super::{Context, nodes::Away};
use crate::{
    client,
    failure::Failure,
    show::{self, text},
};

#[derive(Debug, Deserialize)]
struct Summary {
    now: Millis,
    version: String,
    catalog: Catalog,
    clusters: Vec<Cluster>,
    instances: Option<Instances>,
    last_day: Option<Vec<Bucket>>,
    stored: Option<Stored>,
}

#[derive(Debug, Deserialize)]
struct Catalog {
    kind: String,
    away: Option<Away>,
}

#[derive(Debug, Deserialize)]
struct Cluster {
    cluster: String,
    away: Option<Away>,
    nodes: u64,
    nodes_silent: u64,
    nodes_paused: u64,
    running: u64,
    bytes_per_second: u64,
    waiting: u64,
    oldest_age_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Instances {
    registered: u64,
    late: u64,
}

#[derive(Debug, Deserialize)]
struct Bucket {
    key: String,
    count: u64,
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Stored {
    count: u64,
    bytes: u64,
}

/// Exit code 1 when an instance is late, a node silent, or a service away.
pub(super) async fn run(context: &Context) -> Result<Exit, Failure> {
    let value = context.client.get(&["api", "v1", "summary"], &[]).await?;
    if context.json {
        let summary: Summary = client::read(value.clone())?;
        show::json(&value)?;
        return Ok(exit_of(&summary));
    }
    let summary: Summary = client::read(value)?;
    let gone = |away: &Away| format!("AWAY since {}: {}", text::moment(away.since), away.why);
    let mut lines = vec![("as of", format!("{}, dashboard {}", text::moment(summary.now), summary.version))];
    match &summary.instances {
        Some(instances) if instances.late > 0 => {
            lines.push((
                "instances",
                format!(
                    "{} LATE, {} registered; see: longshore instances list --late",
                    instances.late, instances.registered
                ),
            ));
        }
        Some(instances) => lines.push(("instances", format!("none late, {} registered", instances.registered))),
        None => lines.push(("instances", "not known".to_owned())),
    }
    if let Some(day) = &summary.last_day {
        let of = |bucket: &Bucket| match bucket.bytes {
            0 => format!("{} {}", bucket.count, bucket.key),
            bytes => format!("{} {} ({})", bucket.count, bucket.key, text::size(bytes)),
        };
        let ends = day.iter().map(of).collect::<Vec<_>>().join(", ");
        lines.push(("last 24 h", if ends.is_empty() { "nothing ended".to_owned() } else { ends }));
    }
    if let Some(stored) = &summary.stored {
        lines.push(("kept", format!("{} backups, {}", stored.count, text::size(stored.bytes))));
    }
    lines.push((
        "catalog",
        summary.catalog.away.as_ref().map_or_else(|| format!("{}, answers", summary.catalog.kind), gone),
    ));
    for cluster in &summary.clusters {
        let oldest = cluster
            .oldest_age_seconds
            .map_or_else(String::new, |age| format!(", the oldest for {}", text::span(Duration::from_secs(age))));
        let silent =
            if cluster.nodes_silent > 0 { format!(", {} SILENT", cluster.nodes_silent) } else { String::new() };
        let paused =
            if cluster.nodes_paused > 0 { format!(", {} paused", cluster.nodes_paused) } else { String::new() };
        lines.push((
            "cluster",
            match &cluster.away {
                Some(away) => format!("{}: Redis {}", cluster.cluster, gone(away)),
                None => cluster.cluster.clone(),
            },
        ));
        lines.push(("  nodes", format!("{}{silent}{paused}", cluster.nodes)));
        lines.push(("  transfers", format!("{} at {}/s", cluster.running, text::size(cluster.bytes_per_second))));
        lines.push(("  waiting", format!("{}{oldest}", cluster.waiting)));
    }
    show::fields(&lines)?;
    Ok(exit_of(&summary))
}

fn exit_of(summary: &Summary) -> Exit {
    let late = summary.instances.as_ref().is_some_and(|instances| instances.late > 0);
    let clusters = summary.clusters.iter().any(|cluster| cluster.away.is_some() || cluster.nodes_silent > 0);
    if late || clusters || summary.catalog.away.is_some() { Exit::FoundWrong } else { Exit::Done }
}
