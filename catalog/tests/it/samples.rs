//! Reports for the suite, all made of the format's own example.

use std::sync::atomic::{AtomicU64, Ordering};

use longshore_core::{
    ChainLink, ChainPosition, FullBackup, HostBeat, InstanceKey, JobId, Millis, Outcome, ReasonCode, RelativePath,
    Report, beat::SpoolBeat, report::Reason,
};

/// 2026-11-20T00:00:00Z.
pub(crate) const DAY: Millis = Millis(1_795_132_800_000);
pub(crate) const HOUR: i64 = 3_600_000;

/// The full example of the format.
pub(crate) fn example() -> Report {
    serde_json::from_str(include_str!("../../../core/fixtures/report-v1.json")).unwrap()
}

/// A stored backup of `111111/mysql/{instance}` without a chain, made `hours` after [`DAY`] and stored a minute later.
pub(crate) fn stored(instance: &str, hours: i64) -> Report {
    static REVISION: AtomicU64 = AtomicU64::new(1_795_132_800_000_000);
    let mut report = example();
    let made_at = Millis(DAY.0 + hours * HOUR);
    report.job.id = JobId::from_content(made_at, u128::from_be_bytes(*JobId::fresh().as_bytes()));
    report.job.instance = instance.parse().unwrap();
    report.job.made_at = made_at;
    report.job.chain = None;
    report.stored_at = Millis(made_at.0 + 60_000);
    report.revision = REVISION.fetch_add(1, Ordering::Relaxed);
    report
}

/// The same, failed with this text.
pub(crate) fn failed(instance: &str, hours: i64, text: &str) -> Report {
    let mut report = stored(instance, hours);
    report.outcome = Outcome::Failed;
    report.reason = Some(Reason::new(ReasonCode::TransferFailed, text));
    report.path = None;
    report.verified = None;
    report
}

/// A link to the full named `full`, made `full_hours` after [`DAY`].
pub(crate) fn link(
    position: ChainPosition,
    full: &str,
    full_hours: i64,
    sequence: u32,
    previous: Option<&Report>,
) -> ChainLink {
    ChainLink {
        position,
        full: FullBackup { name: RelativePath::new(full).unwrap(), made_at: Millis(DAY.0 + full_hours * HOUR) },
        previous: previous.map(|report| report.job.id),
        sequence: Some(sequence),
        from: None,
        to: None,
        extra: serde_json::Map::new(),
    }
}

/// A full and `increments`, one an hour, the full `hours` after [`DAY`].
pub(crate) fn chain(instance: &str, hours: i64, increments: u32) -> Vec<Report> {
    let mut reports: Vec<Report> = Vec::new();
    for sequence in 0..=increments {
        let mut report = stored(instance, hours + i64::from(sequence));
        let position = if sequence == 0 { ChainPosition::Full } else { ChainPosition::Increment };
        report.job.chain = Some(link(position, &format!("full-{hours}"), hours, sequence, reports.last()));
        reports.push(report);
    }
    reports
}

/// `111111/mysql/{instance}`.
pub(crate) fn key(instance: &str) -> InstanceKey {
    stored(instance, 0).job.key()
}

/// A host's beat.
pub(crate) fn beat(server_id: &str, at: Millis) -> HostBeat {
    HostBeat {
        v: 1,
        server_id: server_id.parse().unwrap(),
        at,
        agent_version: "0.1.0".to_owned(),
        sections: Vec::new(),
        spool: SpoolBeat::default(),
        rsync_version: None,
        extra: serde_json::Map::new(),
    }
}
