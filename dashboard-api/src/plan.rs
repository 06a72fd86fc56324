//! A restore plan: what to fetch from where, in the order in which it is applied, what it moves and how long that may take.
//! It is computed from what is known and changes nothing.

use std::collections::HashMap;

use longshore_catalog::{Backup, Chain};
use longshore_core::{
    BackupType, InstanceKey, InstanceName, JobId, Millis, NodeId, Report, ServerId,
    chain::ChainState,
    digest::{Blake3, Xxh3},
    job::ContentKind,
};
use serde::Serialize;
use utoipa::ToSchema;

/// Transfers smaller than this say more of a connection's latency than of the line.
const TELLING_BYTES: u64 = 1 << 20;

/// What is known of a node, for a plan.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// Where it serves stored files.
    pub serve: Option<String>,
    /// Whether it was heard of lately. `None` when its cluster's Redis is away.
    pub silent: Option<bool>,
    /// Bytes a second, the median of its recent transfers.
    pub bytes_per_second: Option<u64>,
}

/// A place that holds a backup.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Place {
    /// The node.
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Where it serves stored files, such as `http://10.0.1.5:7480`; null when the node has not said so.
    pub serve: Option<String>,
    /// The backup's directory below the node's store.
    pub path: Option<String>,
    /// True when the node has not been heard of lately; null when that is not known.
    pub silent: Option<bool>,
}

/// One backup to fetch and apply.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PlanStep {
    /// 1 for the first to apply.
    pub number: u32,
    /// The backup.
    #[schema(value_type = String)]
    pub job: JobId,
    /// Its file's or directory's name.
    pub name: String,
    /// `file` or `directory`.
    #[schema(value_type = String)]
    pub kind: ContentKind,
    /// Bytes of it.
    pub size_bytes: u64,
    /// Files of it.
    pub files: u64,
    /// Digest of the file, or of the directory.
    #[schema(value_type = Option<String>)]
    pub xxh3_128: Option<Xxh3>,
    /// BLAKE3 of a file.
    #[schema(value_type = Option<String>)]
    pub blake3: Option<Blake3>,
    /// When its run started, UTC milliseconds.
    #[schema(value_type = i64)]
    pub made_at: Millis,
    /// `full`, `increment` or `differential`; null for a backup without a chain.
    pub position: Option<&'static str>,
    /// Where it is; the first that answers serves.
    pub places: Vec<Place>,
    /// Seconds to fetch it from the first place; null when that node's speed is not known.
    pub forecast_seconds: Option<f64>,
}

/// What to fetch and apply to have an instance as of a time.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RestorePlan {
    /// The host.
    #[schema(value_type = String)]
    pub server_id: ServerId,
    /// The type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub backup_type: BackupType,
    /// Which one.
    #[schema(value_type = String)]
    pub instance: InstanceName,
    /// The time asked for, UTC milliseconds.
    #[schema(value_type = i64)]
    pub at: Millis,
    /// The moment the last backup of it protects: what a restore brings back, UTC milliseconds.
    #[schema(value_type = i64)]
    pub point: Millis,
    /// `state`: whole, unproven or broken; broken with `why`.
    #[schema(value_type = Object)]
    pub chain: ChainState,
    /// In the order in which they are applied.
    pub steps: Vec<PlanStep>,
    /// To be moved over the network.
    pub bytes_to_move: u64,
    /// Free space that the fetched files need. What the restore script makes of them comes on top.
    pub space_needed_bytes: u64,
    /// To fetch all of it, one after the other; null when a node's speed is not known.
    pub forecast_seconds: Option<f64>,
    /// Where the forecast comes from, or why there is none.
    pub forecast_basis: String,
    /// What to know before starting.
    pub warnings: Vec<String>,
}

impl RestorePlan {
    /// The plan of a chain. `facts` of every node in it that is known.
    pub fn new(key: InstanceKey, at: Millis, chain: &Chain, facts: &HashMap<NodeId, NodeFacts>) -> Self {
        let steps: Vec<PlanStep> =
            chain.backups.iter().zip(1..).map(|(backup, number)| step(number, &backup.report, facts)).collect();
        let bytes: u64 = steps.iter().map(|step| step.size_bytes).sum();
        let forecast_seconds = steps.iter().map(|step| step.forecast_seconds).sum::<Option<f64>>();
        let forecast_basis = match forecast_seconds {
            Some(_) => "the median speed of each node's recent transfers".to_owned(),
            None => {
                let silent = steps.iter().find(|step| step.forecast_seconds.is_none());
                let node = silent.and_then(|step| step.places.first()).map(|place| place.node_id.to_string());
                format!("not known: no transfer of node {} to learn from", node.unwrap_or_else(|| "?".to_owned()))
            }
        };
        Self {
            server_id: key.server_id,
            backup_type: key.backup_type,
            instance: key.instance,
            at,
            point: chain.backups.last().map_or(at, Backup::point),
            warnings: warnings(&chain.state, &steps),
            chain: chain.state.clone(),
            steps,
            bytes_to_move: bytes,
            space_needed_bytes: bytes,
            forecast_seconds,
            forecast_basis,
        }
    }
}

fn step(number: u32, report: &Report, facts: &HashMap<NodeId, NodeFacts>) -> PlanStep {
    let job = &report.job;
    let content = job.content.as_ref();
    let place = |node_id: &NodeId, path: Option<String>| {
        let known = facts.get(node_id);
        Place {
            node_id: node_id.clone(),
            serve: known.and_then(|facts| facts.serve.clone()),
            path,
            silent: known.and_then(|facts| facts.silent),
        }
    };
    let first = report.node_id.iter().map(|node| place(node, report.path.as_ref().map(ToString::to_string)));
    let mut places: Vec<Place> =
        first.chain(report.copies.iter().map(|copy| place(&copy.node_id, Some(copy.path.to_string())))).collect();
    // Those that can serve now come first; among equals the original before its copies.
    places.sort_by_key(|place| (place.serve.is_none(), place.silent == Some(true)));
    let speed = places.first().and_then(|place| facts.get(&place.node_id)?.bytes_per_second);
    PlanStep {
        number,
        job: job.id,
        name: job.name().unwrap_or_default().to_owned(),
        kind: content.map_or(ContentKind::File, |content| content.kind),
        size_bytes: job.size_bytes(),
        files: content.map_or(0, |content| content.files),
        xxh3_128: content.and_then(|content| content.xxh3_128),
        blake3: content.and_then(|content| content.blake3),
        made_at: job.made_at,
        position: job.chain.as_ref().map(|link| link.position.as_str()),
        forecast_seconds: speed.filter(|speed| *speed > 0).map(|speed| job.size_bytes() as f64 / speed as f64),
        places,
    }
}

fn warnings(state: &ChainState, steps: &[PlanStep]) -> Vec<String> {
    let mut warnings = Vec::new();
    match state {
        ChainState::Whole => {}
        ChainState::Unproven => warnings.push(
            "the chain is unproven: its host's old client doesn't say which backup follows which, so a missing increment \
             can't be seen"
                .to_owned(),
        ),
        ChainState::Broken { why } => warnings.push(format!("the chain is broken: {why}")),
    }
    for step in steps {
        let name = &step.name;
        match step.places.first() {
            None => warnings.push(format!("{name} is on no node")),
            Some(Place { serve: None, node_id, .. }) => {
                warnings.push(format!("{name} is on node {node_id}, which does not say where it serves files"));
            }
            Some(Place { silent: Some(true), node_id, .. }) => {
                warnings.push(format!("{name} is on node {node_id}, which is silent"));
            }
            Some(_) => {}
        }
        if step.xxh3_128.is_none() && step.blake3.is_none() {
            warnings.push(format!("{name} has no digest: only its size can be checked"));
        }
    }
    warnings
}

/// Bytes a second of a node's transfers, the middle one: of the telling ones where there are any, else of all.
pub fn median_speed<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Option<u64> {
    let transfers: Vec<_> = reports
        .into_iter()
        .filter_map(|report| report.transfer)
        .filter(|transfer| transfer.bytes > 0 && transfer.seconds > 0.0)
        .collect();
    let speed = |transfer: &longshore_core::report::Transfer| (transfer.bytes as f64 / transfer.seconds) as u64;
    let mut speeds: Vec<u64> = transfers.iter().filter(|t| t.bytes >= TELLING_BYTES).map(speed).collect();
    if speeds.is_empty() {
        speeds = transfers.iter().map(speed).collect();
    }
    speeds.sort_unstable();
    speeds.get(speeds.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use longshore_core::{RelativePath, report::Copy};

    use super::*;

    fn report() -> Report {
        serde_json::from_str(include_str!("../../core/fixtures/report-v1.json")).unwrap()
    }

    fn facts(serve: Option<&str>, silent: bool, speed: Option<u64>) -> NodeFacts {
        NodeFacts { serve: serve.map(str::to_owned), silent: Some(silent), bytes_per_second: speed }
    }

    #[test]
    fn a_plan_adds_up_and_says_how_long_only_when_it_is_known() {
        let report = report();
        let chain = Chain {
            backups: vec![Backup { report: report.clone() }, Backup { report: report.clone() }],
            state: ChainState::Whole,
        };
        let node: NodeId = "5".parse().unwrap();
        let known = HashMap::from([(node.clone(), facts(Some("http://n5"), false, Some(7_340_032)))]);
        let plan = RestorePlan::new(report.job.key(), Millis(1), &chain, &known);
        assert_eq!((plan.bytes_to_move, plan.forecast_seconds), (2 * 73_400_320, Some(20.0)));
        assert_eq!(plan.steps.iter().map(|step| step.number).collect::<Vec<_>>(), [1, 2]);
        assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
        let plan = RestorePlan::new(report.job.key(), Millis(1), &chain, &HashMap::new());
        assert_eq!(plan.forecast_seconds, None);
        assert!(plan.forecast_basis.contains("node 5"), "{}", plan.forecast_basis);
        assert!(plan.warnings.iter().any(|warning| warning.contains("where it serves")), "{:?}", plan.warnings);
    }

    #[test]
    fn a_copy_on_a_node_that_answers_comes_before_a_silent_original() {
        let mut report = report();
        report.copies.push(Copy {
            node_id: "6".parse().unwrap(),
            path: RelativePath::new("mysql/x").unwrap(),
            stored_at: Millis(2),
        });
        let known = HashMap::from([
            ("5".parse().unwrap(), facts(Some("http://n5"), true, None)),
            ("6".parse().unwrap(), facts(Some("http://n6"), false, None)),
        ]);
        let places = step(1, &report, &known).places;
        assert_eq!(places.iter().map(|place| place.node_id.as_str()).collect::<Vec<_>>(), ["6", "5"]);
    }

    #[test]
    fn small_transfers_do_not_tell_a_nodes_speed_when_large_ones_do() {
        let with = |bytes, seconds| {
            let mut report = report();
            report.transfer = Some(longshore_core::report::Transfer { bytes, seconds, resumed_bytes: 0 });
            report
        };
        let small = with(1000, 1.0);
        assert_eq!(median_speed([&small]), Some(1000));
        let large = [with(10 << 20, 1.0), with(20 << 20, 1.0), with(90 << 20, 1.0)];
        assert_eq!(median_speed(large.iter().chain([&small, &small, &small, &small])), Some(20 << 20));
        assert_eq!(median_speed([&with(0, 0.0)]), None);
    }
}
