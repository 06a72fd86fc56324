//! What the page's tables show: every value as a person reads it, ready for the templates, which decide nothing.
//! Exact times are in UTC in the title of the age that is shown.

use std::time::Duration;

use longshore_core::{
    Millis,
    text::{self, size, span},
};

use crate::{
    api::{
        backups::BackupView,
        nodes::NodeView,
        problem::Problem,
        queues::{ClusterView, HostView, LevelView},
        summary::Summary,
    },
    freshness::{InstanceView, Standing},
    watch::Away,
};

/// A moment: how long ago, and exactly.
pub(super) struct Ago {
    pub(super) ago: String,
    pub(super) exact: String,
}

impl Ago {
    fn of(at: Millis) -> Self {
        Self { ago: text::ago(at), exact: at.timestamp().strftime("%Y-%m-%d %H:%M:%S UTC").to_string() }
    }
}

/// A part of the page that can't be shown, and why.
pub(super) struct Error {
    pub(super) title: String,
    pub(super) detail: String,
    pub(super) since: Option<Ago>,
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self { title: problem.title.into(), detail: problem.detail.into(), since: problem.since.map(Ago::of) }
    }
}

impl Error {
    fn away(what: &str, away: &Away) -> Self {
        Self { title: format!("{what} is away"), detail: away.why.clone(), since: Some(Ago::of(away.since)) }
    }
}

/// One figure of the bar.
pub(super) struct Figure {
    pub(super) label: &'static str,
    pub(super) value: String,
    pub(super) note: String,
    /// `good`, `warn`, `bad` or nothing.
    pub(super) tone: &'static str,
}

/// The figures above everything.
pub(super) struct SummaryBar {
    pub(super) figures: Vec<Figure>,
    pub(super) errors: Vec<Error>,
    pub(super) at: String,
}

impl SummaryBar {
    pub(super) fn failed(error: Error) -> Self {
        Self { figures: Vec::new(), errors: vec![error], at: clock() }
    }

    pub(super) fn of(summary: &Summary) -> Self {
        let clusters = &summary.clusters;
        let sum = |of: fn(&crate::api::summary::ClusterSummary) -> u64| clusters.iter().map(of).sum::<u64>();
        let (silent, paused) = (sum(|c| c.nodes_silent), sum(|c| c.nodes_paused));
        let nodes_note = match (silent, paused) {
            (0, 0) => "all heard of".to_owned(),
            (0, paused) => format!("{paused} paused"),
            (silent, 0) => format!("{silent} silent"),
            (silent, paused) => format!("{silent} silent, {paused} paused"),
        };
        let of_day = |key: &str| {
            let buckets = summary.last_day.as_ref()?;
            Some(buckets.iter().find(|bucket| bucket.key == key).map_or((0, 0), |bucket| (bucket.count, bucket.bytes)))
        };
        let unknown = || "?".to_owned();
        let (late, registered) =
            summary.instances.as_ref().map_or((None, None), |i| (Some(i.late), Some(i.registered)));
        let bad_day = of_day("failed").zip(of_day("refused")).map(|(failed, refused)| failed.0 + refused.0);
        let oldest = clusters.iter().filter_map(|cluster| cluster.oldest_age_seconds).max();
        let count = |count: Option<u64>| count.map_or_else(unknown, |count| count.to_string());
        let figures = vec![
            Figure {
                label: "late instances",
                value: count(late),
                note: registered.map_or_else(unknown, |registered| format!("{registered} registered")),
                tone: late.map_or("warn", |late| if late > 0 { "bad" } else { "good" }),
            },
            Figure {
                label: "stored in 24 h",
                value: count(of_day("stored").map(|day| day.0)),
                note: of_day("stored").map_or_else(unknown, |day| size(day.1)),
                tone: "",
            },
            Figure {
                label: "failed in 24 h",
                value: count(bad_day),
                note: "refused included".to_owned(),
                tone: bad_day.map_or("warn", |bad| if bad > 0 { "bad" } else { "good" }),
            },
            Figure {
                label: "waiting",
                value: sum(|c| c.waiting).to_string(),
                note: oldest.map_or_else(
                    || "none is old".to_owned(),
                    |age| format!("oldest {}", span(Duration::from_secs(age))),
                ),
                tone: "",
            },
            Figure {
                label: "transfers",
                value: sum(|c| c.running).to_string(),
                note: format!("{}/s", size(sum(|c| c.bytes_per_second))),
                tone: "",
            },
            Figure {
                label: "nodes",
                value: sum(|c| c.nodes).to_string(),
                note: nodes_note,
                tone: if silent > 0 {
                    "bad"
                } else if paused > 0 {
                    "warn"
                } else {
                    "good"
                },
            },
            Figure {
                label: "backups kept",
                value: count(summary.stored.as_ref().map(|stored| stored.count)),
                note: summary.stored.as_ref().map_or_else(unknown, |stored| size(stored.bytes)),
                tone: "",
            },
        ];
        let catalog = summary.catalog.away.as_ref().map(|away| Error::away("The catalog", away));
        let redis = clusters.iter().filter_map(|cluster| {
            Some(Error::away(&format!("The Redis of cluster {}", cluster.cluster), cluster.away.as_ref()?))
        });
        Self { figures, errors: catalog.into_iter().chain(redis).collect(), at: clock() }
    }
}

fn clock() -> String {
    Millis::now().timestamp().strftime("%H:%M:%S UTC").to_string()
}

/// One node.
pub(super) struct NodeRow {
    pub(super) node_id: String,
    pub(super) cluster: String,
    pub(super) state: &'static str,
    pub(super) tone: &'static str,
    pub(super) heard: Option<Ago>,
    pub(super) why: String,
    pub(super) weight: String,
    pub(super) slots: String,
    pub(super) speed: String,
    pub(super) share: String,
    pub(super) disk_percent: Option<u64>,
    pub(super) disk: String,
    pub(super) transfers: Vec<TransferRow>,
}

/// One transfer under way.
pub(super) struct TransferRow {
    pub(super) key: String,
    pub(super) percent: u64,
    pub(super) note: String,
}

impl NodeRow {
    pub(super) fn of(node: &NodeView) -> Self {
        let paused = node.beat.as_ref().and_then(|beat| beat.paused.clone());
        let (state, tone) = match (&node.beat, node.silent, &paused) {
            (None, _, _) => ("never heard", "bad"),
            (_, true, _) => ("silent", "bad"),
            _ if node.weight == Some(0) => ("draining", "warn"),
            (_, _, Some(_)) => ("paused", "warn"),
            _ => ("claiming", "good"),
        };
        let registered = node.registered.as_ref();
        let mut row = Self {
            node_id: node.node_id.to_string(),
            cluster: node.cluster.clone().unwrap_or_default(),
            state,
            tone,
            heard: node.heard_at.map(Ago::of),
            why: paused.unwrap_or_default(),
            weight: node.weight.map(|weight| weight.to_string()).unwrap_or_default(),
            slots: String::new(),
            speed: String::new(),
            share: String::new(),
            disk_percent: None,
            disk: String::new(),
            transfers: Vec::new(),
        };
        if let Some(beat) = &node.beat {
            if row.why.is_empty() {
                row.why = beat.last_error.clone().unwrap_or_default();
            }
            row.slots = format!("{} of {}", beat.running.len(), beat.slots);
            row.speed = format!("{}/s", size(node.bytes_per_second));
            row.share = size(node.stored_last_hour_bytes);
            if let Some((share, due)) = node.share_percent.zip(node.weight_percent) {
                row.share.push_str(&format!(", {share:.0} % of all; by weight {due:.0} %"));
            }
            row.disk_percent = percent(beat.disk.size_bytes.saturating_sub(beat.disk.free_bytes), beat.disk.size_bytes);
            let (free, reserve) = (size(beat.disk.free_bytes), size(beat.disk.reserve_bytes));
            row.disk = format!("room for {}; {free} free, {reserve} kept back", size(node.room_bytes));
            row.transfers = beat
                .running
                .iter()
                .map(|transfer| TransferRow {
                    key: transfer.key.to_string(),
                    percent: percent(transfer.bytes, transfer.size_bytes).unwrap_or(0),
                    note: format!(
                        "{} of {}, {}/s",
                        size(transfer.bytes),
                        size(transfer.size_bytes),
                        size(transfer.bytes_per_second)
                    ),
                })
                .collect();
        } else if let Some((used, all)) = registered.and_then(|entry| entry.used_bytes.zip(entry.size_bytes)) {
            row.disk_percent = percent(used, all);
            row.disk = format!("{} of {} used, as reported", size(used), size(all));
        }
        row
    }
}

fn percent(part: u64, whole: u64) -> Option<u64> {
    (whole > 0).then(|| (u128::from(part.min(whole)) * 100 / u128::from(whole)) as u64)
}

/// The queues of one cluster.
pub(super) struct ClusterBox {
    pub(super) cluster: String,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) away: Option<Error>,
    pub(super) levels: Vec<LevelRow>,
    pub(super) resting: Vec<HostRow>,
    pub(super) resting_more: u64,
    pub(super) reported: Option<(u64, Option<Ago>)>,
}

/// One level.
pub(super) struct LevelRow {
    pub(super) queue: String,
    pub(super) waiting: u64,
    pub(super) delayed: u64,
    pub(super) held: u64,
    pub(super) leased: u64,
    pub(super) bytes: String,
    pub(super) oldest: String,
    pub(super) speed: String,
    pub(super) lasts: String,
}

/// One host that is left alone.
pub(super) struct HostRow {
    pub(super) server_id: String,
    pub(super) since: Ago,
    pub(super) until: Ago,
    pub(super) failures: u32,
    pub(super) why: String,
}

/// So many of them are shown.
const SHOWN_HOSTS: usize = 20;

impl ClusterBox {
    pub(super) fn of(view: &ClusterView) -> Self {
        let spanned = |seconds: Option<u64>| seconds.map_or_else(|| "–".to_owned(), |s| span(Duration::from_secs(s)));
        let level = |level: &LevelView| LevelRow {
            queue: level.copies_of.as_ref().map_or_else(|| level.queue.to_string(), |node| format!("copies of {node}")),
            waiting: level.waiting,
            delayed: level.delayed,
            held: level.held,
            leased: level.leased,
            bytes: size(level.bytes),
            oldest: spanned(level.oldest_age_seconds),
            speed: format!("{}/s", size(level.bytes_per_second)),
            lasts: spanned(level.eta_seconds),
        };
        let host = |host: &HostView| HostRow {
            server_id: host.server_id.clone(),
            since: Ago::of(host.since),
            until: Ago::of(host.until),
            failures: host.failures,
            why: format!("{}: {}", host.reason_code, host.reason),
        };
        Self {
            cluster: view.cluster.clone(),
            name: view.name.clone(),
            address: view.address.clone().unwrap_or_default(),
            away: view.away.as_ref().map(|away| Error::away("Redis", away)),
            levels: view.levels.iter().map(level).collect(),
            resting: view.resting.iter().take(SHOWN_HOSTS).map(host).collect(),
            resting_more: view.resting_total.saturating_sub(SHOWN_HOSTS as u64),
            reported: view.reported_size.map(|jobs| (jobs, view.reported_at.map(Ago::of))),
        }
    }
}

/// One backup.
pub(super) struct BackupRow {
    pub(super) key: String,
    pub(super) name: String,
    pub(super) outcome: &'static str,
    pub(super) tone: &'static str,
    pub(super) position: String,
    pub(super) size: String,
    pub(super) node: String,
    pub(super) ended: Ago,
    pub(super) reason: String,
}

impl BackupRow {
    pub(super) fn of(backup: &BackupView) -> Self {
        let outcome = backup.outcome.as_str();
        Self {
            key: format!("{}/{}/{}", backup.server_id, backup.backup_type, backup.instance),
            name: backup.name.clone().unwrap_or_default(),
            tone: match outcome {
                "stored" => "good",
                "cancelled" => "warn",
                _ => "bad",
            },
            outcome,
            position: match (backup.position, backup.sequence) {
                (Some("increment"), Some(number)) => format!("increment {number}"),
                (Some(position), _) => position.to_owned(),
                (None, _) => String::new(),
            },
            size: if backup.size_bytes > 0 { size(backup.size_bytes) } else { String::new() },
            node: backup.node_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            ended: Ago::of(backup.stored_at),
            reason: backup.reason.clone().unwrap_or_default(),
        }
    }
}

/// One late instance.
pub(super) struct InstanceRow {
    pub(super) key: String,
    pub(super) name: String,
    pub(super) business: String,
    pub(super) last_good: Option<Ago>,
    pub(super) overdue: String,
    pub(super) why: String,
}

impl InstanceRow {
    pub(super) fn of(instance: &InstanceView) -> Self {
        let report = instance.last_report.as_ref();
        let why = match (report, instance.standing) {
            (Some(report), _) if report.reason.is_some() => {
                report.reason.as_ref().map(|reason| reason.text.clone()).unwrap_or_default()
            }
            (None, _) => "nothing was ever heard of it".to_owned(),
            (Some(_), Standing::Never) => "never stored".to_owned(),
            (Some(_), _) => "nothing since".to_owned(),
        };
        Self {
            key: instance.key().to_string(),
            name: instance.name.to_string(),
            business: instance.business_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            last_good: instance.last_good.as_ref().map(|good| Ago::of(good.point)),
            overdue: instance.due_at.map(|due| span(Millis::now().since(due))).unwrap_or_default(),
            why,
        }
    }
}
