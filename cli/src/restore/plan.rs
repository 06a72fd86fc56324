//! The dashboard's plan, as it is read here, and as people read it.

use std::time::Duration;

use longshore_core::{
    JobId, Millis, RelativePath,
    chain::ChainState,
    digest::{Blake3, Xxh3},
    job::ContentKind,
};
use serde::Deserialize;

use crate::{
    failure::Failure,
    show::{
        self,
        table::{Room, Table},
        text,
    },
};

/// What to fetch and apply.
#[derive(Debug, Deserialize)]
pub(crate) struct Plan {
    pub(crate) server_id: String,
    #[serde(rename = "type")]
    pub(crate) backup_type: String,
    pub(crate) instance: String,
    pub(crate) at: Millis,
    pub(crate) point: Millis,
    pub(crate) chain: ChainState,
    pub(crate) steps: Vec<Step>,
    pub(crate) bytes_to_move: u64,
    pub(crate) space_needed_bytes: u64,
    pub(crate) forecast_seconds: Option<f64>,
    pub(crate) forecast_basis: String,
    pub(crate) warnings: Vec<String>,
}

/// One backup of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    pub(crate) number: u32,
    pub(crate) job: JobId,
    /// One component: it becomes a name on this machine's disk.
    pub(crate) name: RelativePath,
    pub(crate) kind: ContentKind,
    pub(crate) size_bytes: u64,
    pub(crate) files: u64,
    pub(crate) xxh3_128: Option<Xxh3>,
    pub(crate) blake3: Option<Blake3>,
    pub(crate) made_at: Millis,
    pub(crate) position: Option<String>,
    pub(crate) places: Vec<Place>,
}

/// Where it is.
#[derive(Debug, Deserialize)]
pub(crate) struct Place {
    pub(crate) node_id: String,
    pub(crate) serve: Option<String>,
    pub(crate) silent: Option<bool>,
}

impl Plan {
    /// `SERVER/TYPE/INSTANCE`.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}/{}", self.server_id, self.backup_type, self.instance)
    }

    /// Why its chain can't be restored in full, when that is so.
    pub(crate) fn broken(&self) -> Option<&str> {
        match &self.chain {
            ChainState::Broken { why } => Some(why),
            ChainState::Whole | ChainState::Unproven => None,
        }
    }

    pub(crate) fn show(&self) -> Result<(), Failure> {
        let chain = match &self.chain {
            ChainState::Whole => "whole".to_owned(),
            ChainState::Unproven => "unproven".to_owned(),
            ChainState::Broken { why } => format!("BROKEN: {why}"),
        };
        let forecast = self.forecast_seconds.map_or_else(
            || self.forecast_basis.clone(),
            |seconds| {
                let span = Duration::try_from_secs_f64(seconds.ceil()).unwrap_or_default();
                format!("about {}, by {}", text::span(span), self.forecast_basis)
            },
        );
        show::fields(&[
            ("instance", self.key()),
            ("brings back", format!("{} ({})", text::moment(self.point), text::ago(self.point))),
            ("chain", chain),
            ("to move", text::size(self.bytes_to_move)),
            (
                "space needed",
                format!("{}, and what the restore script makes of it", text::size(self.space_needed_bytes)),
            ),
            ("forecast", forecast),
        ])?;
        let mut table = Table::new()
            .number("#", Room::Needed)
            .column("NAME", Room::Middle)
            .column("POSITION", Room::Needed)
            .number("SIZE", Room::Needed)
            .column(format!("MADE ({})", text::zone()), Room::Needed)
            .column("NODE", Room::Needed)
            .column("SERVED AT", Room::Spare)
            .column("BACKUP", Room::Spare);
        for step in &self.steps {
            let first = step.places.first();
            let others = step.places.len().saturating_sub(1);
            let node = first.map_or("none", |place| &place.node_id);
            let silent = if first.is_some_and(|place| place.silent == Some(true)) { " (silent)" } else { "" };
            let more = if others > 0 { format!(" +{others}") } else { String::new() };
            table.row([
                step.number.to_string().into(),
                step.name.as_str().into(),
                step.position.clone().unwrap_or_default().into(),
                text::size(step.size_bytes).into(),
                text::local(step.made_at).into(),
                format!("{node}{silent}{more}").into(),
                first.and_then(|place| place.serve.clone()).unwrap_or_default().into(),
                step.job.to_string().into(),
            ]);
        }
        show::lines("\n")?;
        show::table(&table)?;
        self.warnings.iter().try_for_each(|warning| show::lines(&format!("warning: {warning}")))
    }
}
