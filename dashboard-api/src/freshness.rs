//! How an instance stands: what the registry expects of it beside what the catalog knows of it. The registry's interval wins
//! over the one that its jobs carry.

use std::time::Duration;

use longshore_catalog::{Freshness, GoodPoint, LastReport};
use longshore_core::{BackupType, BusinessId, InstanceKey, InstanceName, Millis, ServerId, job::HostAddress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::registry::{InstanceEntry, Label};

/// How fresh an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Its last good backup is recent enough.
    Fresh,
    /// Its next good backup is overdue by more than the grace.
    Late,
    /// There never was a good backup.
    Never,
}

impl Standing {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Late => "late",
            Self::Never => "never",
        }
    }
}

/// An instance.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Instance)]
pub struct InstanceView {
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
    /// The business: the registry's, or what its jobs say.
    #[schema(value_type = Option<String>)]
    pub business_id: Option<BusinessId>,
    /// For people, from the registry.
    #[schema(value_type = String)]
    pub name: Label,
    /// Whether the registry has it.
    pub registered: bool,
    /// Where its jobs must come from, when the registry says.
    #[schema(value_type = Option<String>)]
    pub address: Option<HostAddress>,
    /// How fresh it is.
    pub standing: Standing,
    /// How often it is to be backed up.
    pub interval_seconds: Option<u64>,
    /// When its next good backup is due, UTC milliseconds.
    #[schema(value_type = Option<i64>)]
    pub due_at: Option<Millis>,
    /// The last good backup: `job`, `point`, `stored_at`, `size_bytes`.
    #[schema(value_type = Option<Object>)]
    pub last_good: Option<GoodPoint>,
    /// The last report, whatever its outcome: `job`, `outcome`, `reason`, `at`.
    #[schema(value_type = Option<Object>)]
    pub last_report: Option<LastReport>,
    /// When its host was last heard of, UTC milliseconds.
    #[schema(value_type = Option<i64>)]
    pub host_seen: Option<Millis>,
}

impl InstanceView {
    /// Of what is known; one of `known` and `expected` is there.
    pub fn new(
        key: InstanceKey,
        known: Option<Freshness>,
        expected: Option<InstanceEntry>,
        now: Millis,
        grace: Duration,
    ) -> Self {
        let interval_seconds = expected
            .as_ref()
            .and_then(|entry| entry.interval_seconds)
            .or(known.as_ref().map(|known| known.interval_seconds));
        let good = known.as_ref().and_then(|known| known.last_good.clone());
        let due_at =
            good.as_ref().zip(interval_seconds).map(|(good, interval)| good.point.plus(Duration::from_secs(interval)));
        let standing = match due_at {
            None => Standing::Never,
            Some(due) if due.plus(grace) < now => Standing::Late,
            Some(_) => Standing::Fresh,
        };
        Self {
            server_id: key.server_id,
            backup_type: key.backup_type,
            instance: key.instance,
            business_id: expected
                .as_ref()
                .map(|entry| entry.business_id.clone())
                .or(known.as_ref().map(|known| known.business_id.clone())),
            name: expected.as_ref().map(|entry| entry.name.clone()).unwrap_or_default(),
            registered: expected.is_some(),
            address: expected.and_then(|entry| entry.address),
            standing,
            interval_seconds,
            due_at,
            last_good: good,
            host_seen: known.as_ref().and_then(|known| known.host_seen),
            last_report: known.map(|known| known.last_report),
        }
    }

    /// The instance.
    pub fn key(&self) -> InstanceKey {
        InstanceKey {
            server_id: self.server_id.clone(),
            backup_type: self.backup_type.clone(),
            instance: self.instance.clone(),
        }
    }
}

/// The known instances most like a mistyped one, best first: letters compared, and each part that is right counts more.
pub fn nearest<'a>(wanted: &InstanceKey, known: impl IntoIterator<Item = &'a InstanceKey>, most: usize) -> Vec<String> {
    let text = wanted.to_string();
    let score = |key: &InstanceKey| {
        let parts =
            [key.server_id == wanted.server_id, key.backup_type == wanted.backup_type, key.instance == wanted.instance];
        let right = parts.into_iter().filter(|part| *part).count();
        strsim::normalized_damerau_levenshtein(&text, &key.to_string()) + 0.2 * [0.0, 1.0, 2.0, 3.0][right]
    };
    let mut scored: Vec<(f64, &InstanceKey)> = known.into_iter().map(|key| (score(key), key)).collect();
    scored.retain(|(score, _)| *score >= 0.5);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(most).map(|(_, key)| key.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(interval: &str) -> InstanceEntry {
        serde_json::from_str(&format!(
            "{{\"server_id\":\"1\",\"type\":\"mysql\",\"instance\":\"3306\",\"business_id\":\"31\",\"interval_seconds\":{interval}}}"
        ))
        .unwrap()
    }

    #[test]
    fn the_registry_says_how_often_and_an_instance_that_never_reported_is_never_fresh() {
        let report: longshore_core::Report =
            serde_json::from_str(include_str!("../../core/fixtures/report-v1.json")).unwrap();
        let known = Freshness::of(&report);
        let now = report.job.made_at.plus(Duration::from_secs(3 * 3600));
        let grace = Duration::from_secs(60);
        let of = |known: Option<&Freshness>, expected: Option<InstanceEntry>| {
            InstanceView::new(report.job.key(), known.cloned(), expected, now, grace).standing
        };
        assert_eq!(of(Some(&known), None), Standing::Late, "its jobs say every hour");
        assert_eq!(of(Some(&known), Some(entry("86400"))), Standing::Fresh);
        assert_eq!(of(Some(&known), Some(entry("60"))), Standing::Late);
        assert_eq!(of(None, Some(entry("86400"))), Standing::Never);
    }

    #[test]
    fn a_mistyped_instance_finds_what_was_meant() {
        let known: Vec<InstanceKey> =
            ["111111/mysql/3306", "111111/mysql/3307", "111111/redis/6379", "222222/mysql/3306", "x/folder/etc"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        let near = |text: &str| nearest(&text.parse().unwrap(), &known, 3);
        assert_eq!(near("111111/mysql/3360")[..2], ["111111/mysql/3306", "111111/mysql/3307"]);
        assert_eq!(near("11111/redis/6379")[0], "111111/redis/6379");
        assert_eq!(near("x/floder/etc")[0], "x/folder/etc");
        assert!(near("zzzz/qqq/99").is_empty());
    }
}
