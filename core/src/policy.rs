//! What operators set for queues, types, nodes, hosts and the cluster. The registry's copy goes to every node through Redis;
//! a node's own file has the same tables, and what the registry says wins key by key ([`Over`]).
//!
//! Every key may be left out. Unknown ones of later versions are passed over, so that a dashboard may be newer than its
//! nodes.

use std::{collections::BTreeMap, num::NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::{
    BackupType, NodeId, QueueName, ServerId,
    calendar::{RatePlan, Window},
    config::Span,
    job::ModuleName,
    queue::{Level, Order},
    report::Verified,
};

/// The version of the policy's form.
pub const POLICY_VERSION: u32 = 1;

/// One layer of settings over another.
pub trait Over {
    /// What this layer says, and where it is silent, what is `below`.
    #[must_use]
    fn over(self, below: Self) -> Self;
}

impl<T> Over for Option<T> {
    fn over(self, below: Self) -> Self {
        self.or(below)
    }
}

/// A value that is given wins whole.
impl Over for NonZeroU32 {
    fn over(self, _: Self) -> Self {
        self
    }
}

impl<K: Ord, V: Over> Over for BTreeMap<K, V> {
    fn over(self, mut below: Self) -> Self {
        for (key, value) in self {
            let value = match below.remove(&key) {
                Some(under) => value.over(under),
                None => value,
            };
            below.insert(key, value);
        }
        below
    }
}

macro_rules! layered {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Over for $name {
            fn over(self, below: Self) -> Self {
                Self { $($field: self.$field.over(below.$field),)* }
            }
        }
    )*};
}

layered! {
    /// For the jobs of one level.
    QueueRule {
        /// A job that waited longer is lifted over others; without it, the limit comes from the interval of its instance.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_wait: Option<Span>,
        /// Which of its jobs is first.
        #[serde(skip_serializing_if = "Option::is_none")]
        order: Option<Order>,
        /// When its jobs may be claimed. Transfers that run when it closes go on.
        #[serde(skip_serializing_if = "Option::is_none")]
        window: Option<Window>,
        /// Whether its jobs may be claimed although the node's or the host's window is closed.
        #[serde(skip_serializing_if = "Option::is_none")]
        urgent: Option<bool>,
        /// For all its transfers of one node together.
        #[serde(skip_serializing_if = "Option::is_none")]
        bandwidth: Option<RatePlan>,
        /// On how many nodes a backup is kept.
        #[serde(skip_serializing_if = "Option::is_none")]
        copies: Option<Copies>,
        /// How what was fetched is checked.
        #[serde(skip_serializing_if = "Option::is_none")]
        verify: Option<Verified>,
    }

    /// For the jobs of one type.
    TypeRule {
        /// On how many nodes a backup is kept.
        #[serde(skip_serializing_if = "Option::is_none")]
        copies: Option<Copies>,
        /// How what was fetched is checked.
        #[serde(skip_serializing_if = "Option::is_none")]
        verify: Option<Verified>,
    }

    /// For one node.
    NodeRule {
        /// Share of the stream; 0 drains.
        #[serde(skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
        /// For all its transfers together.
        #[serde(skip_serializing_if = "Option::is_none")]
        bandwidth: Option<RatePlan>,
        /// For all restores from it together.
        #[serde(skip_serializing_if = "Option::is_none")]
        restore_bandwidth: Option<RatePlan>,
        /// When it claims; of urgent levels it always does.
        #[serde(skip_serializing_if = "Option::is_none")]
        window: Option<Window>,
    }

    /// For one host.
    HostRule {
        /// Transfers at once from it, over all nodes.
        #[serde(skip_serializing_if = "Option::is_none")]
        transfers: Option<NonZeroU32>,
        /// Transfers begun a second, over all nodes.
        #[serde(skip_serializing_if = "Option::is_none")]
        starts_per_second: Option<PerSecond>,
        /// Transfers at once from one of its modules, over all nodes.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        modules: BTreeMap<ModuleName, NonZeroU32>,
        /// For all transfers from it to one node together.
        #[serde(skip_serializing_if = "Option::is_none")]
        bandwidth: Option<RatePlan>,
        /// When it may be asked; for jobs of urgent levels always.
        #[serde(skip_serializing_if = "Option::is_none")]
        window: Option<Window>,
    }

    /// For all nodes of the cluster together.
    ClusterRule {
        /// For all transfers from hosts.
        #[serde(skip_serializing_if = "Option::is_none")]
        bandwidth: Option<RatePlan>,
        /// For all restores.
        #[serde(skip_serializing_if = "Option::is_none")]
        restore_bandwidth: Option<RatePlan>,
    }

    /// All of it. `hosts` are by `server_id`.
    Rules {
        /// For all nodes together.
        cluster: ClusterRule,
        /// By level.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        queues: BTreeMap<QueueName, QueueRule>,
        /// By type.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        types: BTreeMap<BackupType, TypeRule>,
        /// By node.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        nodes: BTreeMap<NodeId, NodeRule>,
        /// By host.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        hosts: BTreeMap<ServerId, HostRule>,
    }
}

/// [`Rules`] as the registry publishes them to a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Always [`POLICY_VERSION`].
    pub v: u32,
    /// Grows with every change.
    pub version: u64,
    /// What it says.
    pub rules: Rules,
}

/// Why a text is not a [`Policy`].
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A key's value is wrong, or it is not JSON.
    #[error("policy: {path}: {source}")]
    Form {
        /// The key.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Of a later version.
    #[error("policy of form {found}, this program knows {POLICY_VERSION}; update it")]
    Version {
        /// The form found.
        found: u32,
    },
}

impl Policy {
    /// From its JSON.
    ///
    /// # Errors
    /// [`PolicyError`] names the key that is wrong.
    pub fn read(text: &str) -> Result<Self, PolicyError> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let policy: Self = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| PolicyError::Form { path: error.path().to_string(), source: error.into_inner() })?;
        match policy.v {
            POLICY_VERSION => Ok(policy),
            found => Err(PolicyError::Version { found }),
        }
    }
}

impl Rules {
    /// The level of this queue, with the rule that its jobs wait by.
    pub fn level(&self, queue: &QueueName) -> Level {
        let Some(rule) = self.queues.get(queue) else { return Level::new(queue.clone()) };
        Level {
            name: queue.clone(),
            max_wait: rule.max_wait.map(Span::duration),
            order: rule.order.unwrap_or_default(),
            urgent: rule.urgent.unwrap_or_default(),
        }
    }

    /// What is asked of a backup: of what its level and its type say, the stricter.
    pub fn of_backup(&self, queue: &QueueName, backup_type: &BackupType) -> TypeRule {
        let of_queue = self.queues.get(queue);
        let of_type = self.types.get(backup_type).cloned().unwrap_or_default();
        TypeRule {
            copies: of_queue.and_then(|rule| rule.copies).max(of_type.copies),
            verify: of_queue.and_then(|rule| rule.verify).max(of_type.verify),
        }
    }
}

/// A count a second, more than 0.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct PerSecond(f64);

impl PerSecond {
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl From<PerSecond> for f64 {
    fn from(rate: PerSecond) -> Self {
        rate.0
    }
}

impl TryFrom<f64> for PerSecond {
    type Error = String;

    fn try_from(rate: f64) -> Result<Self, String> {
        let range = 0.001..=1_000_000.0;
        if range.contains(&rate) { Ok(Self(rate)) } else { Err(format!("{rate} is not between 0.001 and 1000000")) }
    }
}

/// On how many nodes a backup is kept: 1 or 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Copies(u8);

impl Copies {
    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl From<Copies> for u8 {
    fn from(copies: Copies) -> Self {
        copies.0
    }
}

impl TryFrom<u8> for Copies {
    type Error = String;

    fn try_from(copies: u8) -> Result<Self, String> {
        if (1..=2).contains(&copies) { Ok(Self(copies)) } else { Err(format!("{copies} copies; 1 or 2 can be kept")) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const EXAMPLE: &str = include_str!("../fixtures/policy-v1.json");

    fn rules(json: &str) -> Rules {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_example_round_trips() {
        let policy = Policy::read(EXAMPLE).unwrap();
        assert_eq!(serde_json::to_value(&policy).unwrap(), serde_json::from_str::<serde_json::Value>(EXAMPLE).unwrap());
    }

    #[test]
    fn a_layer_wins_key_by_key_and_is_silent_elsewhere() {
        let above =
            rules(r#"{"nodes":{"a":{"weight":0}},"hosts":{"h":{"modules":{"x":1}}},"queues":{"level1":{"copies":2}}}"#);
        let below = rules(
            r#"{"nodes":{"a":{"weight":50,"window":"never"},"b":{"weight":7}},
                "hosts":{"h":{"transfers":3,"modules":{"x":5,"y":6}}},"cluster":{"bandwidth":"1MB/s"}}"#,
        );
        let wanted = rules(
            r#"{"nodes":{"a":{"weight":0,"window":"never"},"b":{"weight":7}},"queues":{"level1":{"copies":2}},
                "hosts":{"h":{"transfers":3,"modules":{"x":1,"y":6}}},"cluster":{"bandwidth":"1MB/s"}}"#,
        );
        assert_eq!(above.over(below), wanted);
    }

    #[test]
    fn of_level_and_type_the_stricter_counts() {
        let rules = rules(
            r#"{"queues":{"level1":{"copies":2,"verify":"received"}},
                "types":{"mysql":{"copies":1,"verify":"reread"},"redis":{}}}"#,
        );
        let of = |queue: &str, backup_type: &str| {
            let rule = rules.of_backup(&queue.parse().unwrap(), &backup_type.parse().unwrap());
            (rule.copies.map(Copies::get), rule.verify)
        };
        assert_eq!(of("level1", "mysql"), (Some(2), Some(Verified::Reread)));
        assert_eq!(of("level1", "redis"), (Some(2), Some(Verified::Received)));
        assert_eq!(of("level2", "mysql"), (Some(1), Some(Verified::Reread)));
        assert_eq!(of("level2", "folder"), (None, None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            (r#"{"v":1,"version":1,"rules":{"nodes":{"a":{"weight":-1}}}}"#, "rules.nodes.a.weight"),
            (r#"{"v":1,"version":1,"rules":{"hosts":{"h":{"transfers":0}}}}"#, "rules.hosts.h.transfers"),
            (r#"{"v":1,"version":1,"rules":{"hosts":{"h":{"starts_per_second":0}}}}"#, "0.001"),
            (r#"{"v":1,"version":1,"rules":{"types":{"t":{"copies":3}}}}"#, "1 or 2"),
            (r#"{"v":1,"version":1,"rules":{"queues":{"q":{"window":"25:00-26:00"}}}}"#, "rules.queues.q.window"),
            (r#"{"v":2,"version":1,"rules":{}}"#, "form 2"),
            ("", "EOF"),
        ] {
            let error = Policy::read(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let later = r#"{"v":1,"version":9,"later":1,"rules":{"nodes":{"a":{"weight":1,"later":{}}},"later":[]}}"#;
        assert_eq!(Policy::read(later).unwrap().version, 9);
    }
}
