//! Reports in numbers: instances that are backed up every hour, a full a day and increments in between, one in twenty failed.

use longshore_core::{
    ChainLink, ChainPosition, FullBackup, JobId, Millis, Outcome, ReasonCode, RelativePath, Report, report::Reason,
};

/// 2026-11-01T00:00:00Z.
pub(crate) const START: i64 = 1_793_491_200_000;
const HOUR: i64 = 3_600_000;

/// Backups of `instances` instances, hour by hour.
pub(crate) struct Sample {
    pub(crate) instances: u64,
    example: Report,
}

impl Sample {
    pub(crate) fn new(instances: u64) -> anyhow::Result<Self> {
        let example = serde_json::from_str(include_str!("../../../core/fixtures/report-v1.json"))?;
        Ok(Self { instances, example })
    }

    /// The time of an instance's backup number `hour`.
    pub(crate) fn made_at(hour: u64) -> Millis {
        Millis(START + i64::try_from(hour).unwrap_or(0) * HOUR)
    }

    fn id(instance: u64, hour: u64) -> JobId {
        let hash = u128::from(instance).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) ^ u128::from(hour);
        JobId::from_content(Self::made_at(hour), hash)
    }

    /// Report number `number`, in the order in which they come. With `failures`, one in twenty is one.
    pub(crate) fn report(&self, number: u64, failures: bool) -> anyhow::Result<Report> {
        let (instance, hour) = (number % self.instances, number / self.instances);
        let (of_day, midnight) = (hour % 24, hour - hour % 24);
        let mut report = self.example.clone();
        let job = &mut report.job;
        job.id = Self::id(instance, hour);
        job.server_id = (100_000 + instance / 2).to_string().parse()?;
        job.instance = (3306 + instance % 2).to_string().parse()?;
        job.business_id = (instance % 40).to_string().parse()?;
        job.made_at = Self::made_at(hour);
        let name = |hour: u64| format!("database/backup-{hour:06}.xb");
        if let Some(source) = &mut job.source {
            source.path = RelativePath::new(&name(hour))?;
        }
        job.chain = Some(ChainLink {
            position: if of_day == 0 { ChainPosition::Full } else { ChainPosition::Increment },
            full: FullBackup { name: RelativePath::new(&name(midnight))?, made_at: Self::made_at(midnight) },
            previous: (of_day > 0).then(|| Self::id(instance, hour - 1)),
            sequence: Some(u32::try_from(of_day)?),
            from: Some((26_000_000 + hour * 1000).to_string()),
            to: Some((26_000_000 + (hour + 1) * 1000).to_string()),
            extra: serde_json::Map::new(),
        });
        report.revision = u64::try_from(report.job.made_at.0)? * 1000 + 123;
        report.stored_at = Millis(report.job.made_at.0 + 61_002);
        report.path = Some(RelativePath::new(&format!(
            "mysql/{}/{}/2026-11/{}",
            report.job.server_id, report.job.instance, report.job.id
        ))?);
        if failures && number % 20 == 7 {
            report.outcome = Outcome::Failed;
            report.reason = Some(Reason::new(ReasonCode::TransferFailed, "rsync: connection unexpectedly closed (12)"));
            report.path = None;
        }
        Ok(report)
    }
}
