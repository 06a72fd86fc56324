//! What holds at one moment: the rules, with their calendars read off.

use std::{collections::BTreeMap, fmt, sync::Arc};

use longshore_core::{
    BackupType, Millis, NodeId, QueueName, ServerId,
    calendar::{RatePlan, Shut},
    policy::{Copies, HostRule, Rules},
    queue::Level,
    report::Verified,
};

use crate::bandwidth::Caps;

/// What holds for this node now. Changes by what operators set, and by the clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// Of the registry's policy that is part of it; `None` while none was heard of.
    pub version: Option<u64>,
    /// Share of the stream; 0 drains.
    pub weight: u32,
    /// All levels that the node drains, most important first.
    pub levels: Vec<Level>,
    /// Those whose jobs may be claimed now.
    pub open: Vec<Level>,
    /// The others, and why.
    pub closed: Vec<Closed>,
    /// Whether the node's own window is open: otherwise only levels that are urgent are, and no second copies are made.
    pub is_open: bool,
    /// Rates in force.
    pub caps: Caps,
    /// Hosts whose window is closed: until when, and the window.
    pub closed_hosts: BTreeMap<ServerId, Shut>,
    rules: Arc<Rules>,
}

/// Whose a window is, when it is that of all the node's levels.
const NODE: &str = "the node's";

/// A level that this node claims nothing of now.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    /// The level.
    pub queue: QueueName,
    /// Whose window it is: `the level's` or `the node's`.
    pub whose: &'static str,
    /// Which and until when.
    pub shut: Shut,
}

/// What is asked of a job's backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupRule {
    /// On how many nodes it is to be.
    pub copies: u8,
    /// How what was fetched is checked.
    pub verify: Verified,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.whose, self.shut)
    }
}

impl Effective {
    /// Of `rules`, the registry's over the file's, at `now`.
    pub fn at(now: Millis, version: Option<u64>, rules: &Arc<Rules>, node_id: &NodeId, queues: &[QueueName]) -> Self {
        let node = rules.nodes.get(node_id).cloned().unwrap_or_default();
        let of_node = node.window.as_ref().and_then(|window| window.shut(now));
        let levels: Vec<Level> = queues.iter().map(|queue| rules.level(queue)).collect();
        let (mut open, mut closed, is_open) = (Vec::new(), Vec::new(), of_node.is_none());
        for level in &levels {
            let window = rules.queues.get(&level.name).and_then(|rule| rule.window.as_ref());
            let of_level = window.and_then(|window| window.shut(now));
            let of_node = of_node.clone().filter(|_| !level.urgent);
            let shut = of_level.map(|shut| ("the level's", shut)).or(of_node.map(|shut| (NODE, shut)));
            match shut {
                None => open.push(level.clone()),
                Some((whose, shut)) => closed.push(Closed { queue: level.name.clone(), whose, shut }),
            }
        }
        let rate = |plan: &Option<RatePlan>| plan.as_ref().and_then(|plan| plan.rate(now));
        let caps = Caps {
            node: rate(&node.bandwidth),
            restore: rate(&node.restore_bandwidth),
            cluster: rate(&rules.cluster.bandwidth),
            cluster_restore: rate(&rules.cluster.restore_bandwidth),
            hosts: named(&rules.hosts, |rule| rate(&rule.bandwidth)),
            queues: named(&rules.queues, |rule| rate(&rule.bandwidth)),
        };
        let closed_hosts = named(&rules.hosts, |rule| rule.window.as_ref()?.shut(now));
        let weight = node.weight.unwrap_or_default();
        Self { version, weight, levels, open, closed, is_open, caps, closed_hosts, rules: Arc::clone(rules) }
    }

    /// Hosts that have rules of their own.
    pub fn hosts(&self) -> &BTreeMap<ServerId, HostRule> {
        &self.rules.hosts
    }

    /// What is asked of a backup of this type that waited in this level.
    pub fn rule(&self, queue: &QueueName, backup_type: &BackupType) -> BackupRule {
        let rule = self.rules.of_backup(queue, backup_type);
        BackupRule { copies: rule.copies.map_or(1, Copies::get), verify: rule.verify.unwrap_or(Verified::Received) }
    }

    /// Why nothing at all may be claimed now, for people.
    pub fn closed_whole(&self) -> Option<String> {
        if self.weight == 0 {
            return Some("its weight is 0: it drains".to_owned());
        }
        let first = self.closed.iter().min_by_key(|closed| closed.shut.until.map_or(i64::MAX, |until| until.0))?;
        let which = || if first.whose == NODE { first.to_string() } else { format!("{first} ({})", first.queue) };
        self.open.is_empty().then(which)
    }
}

fn named<K: Ord + Clone, R, V>(rules: &BTreeMap<K, R>, value: impl Fn(&R) -> Option<V>) -> BTreeMap<K, V> {
    rules.iter().filter_map(|(key, rule)| Some((key.clone(), value(rule)?))).collect()
}
