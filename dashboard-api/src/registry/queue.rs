//! What operators set for a level.

use longshore_core::{
    QueueName,
    calendar::{RatePlan, Window},
    config::Span,
    policy::{Copies, QueueRule},
    queue::Order,
    report::Verified,
};
use rusqlite::{Connection, Row, types::Value as SqlValue};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    entity::{self, Entity},
    import::Fields,
};

/// A level's rule. What is left out, the nodes' own files decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = QueueRule)]
pub struct QueueEntry {
    /// The level.
    #[schema(value_type = String, example = "level1")]
    pub queue: QueueName,
    /// A job that waited longer is lifted over others; without it, the limit comes from the interval of its instance.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "2h")]
    pub max_wait: Option<Span>,
    /// `age` or `deadline`: which of its jobs is first.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "deadline")]
    pub order: Option<Order>,
    /// When its jobs may be claimed.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "22:00-06:00 Mon-Fri Europe/Berlin, 00:00-24:00 Sat-Sun")]
    pub window: Option<Window>,
    /// Whether its jobs may be claimed although the node's or the host's window is closed.
    #[serde(default)]
    pub urgent: Option<bool>,
    /// For all its transfers of one node together.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "40MB/s")]
    pub bandwidth: Option<RatePlan>,
    /// On how many nodes a backup is kept: 1 or 2.
    #[serde(default)]
    #[schema(value_type = Option<u8>, example = 2)]
    pub copies: Option<Copies>,
    /// `received` or `reread`: how what was fetched is checked.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "reread")]
    pub verify: Option<Verified>,
}

impl QueueEntry {
    /// As nodes are told.
    pub fn rule(self) -> (QueueName, QueueRule) {
        let Self { queue, max_wait, order, window, urgent, bandwidth, copies, verify } = self;
        (queue, QueueRule { max_wait, order, window, urgent, bandwidth, copies, verify })
    }
}

impl Entity for QueueEntry {
    const KIND: &'static str = "level";
    const TABLE: &'static str = "queue";
    const KEY_COLUMN: &'static str = "queue";
    const COLUMNS: &'static [&'static str] =
        &["queue", "max_wait", "job_order", "open_hours", "urgent", "bandwidth", "copies", "verify"];

    fn key(&self) -> String {
        self.queue.to_string()
    }

    fn values(&self) -> Vec<SqlValue> {
        vec![
            self.queue.to_string().into(),
            entity::word_or_null(self.max_wait.as_ref()),
            entity::word_or_null(self.order.as_ref()),
            entity::word_or_null(self.window.as_ref()),
            entity::number(self.urgent.map(u64::from)),
            entity::word_or_null(self.bandwidth.as_ref()),
            entity::number(self.copies.map(|copies| copies.get().into())),
            entity::word_or_null(self.verify.as_ref()),
        ]
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            queue: entity::parsed(row, "queue")?,
            max_wait: entity::word(row, "max_wait")?,
            order: entity::word(row, "job_order")?,
            window: entity::word(row, "open_hours")?,
            urgent: row.get("urgent")?,
            bandwidth: entity::word(row, "bandwidth")?,
            copies: entity::checked(row, "copies")?,
            verify: entity::word(row, "verify")?,
        })
    }

    fn missing_reference(&self, _: &Connection) -> rusqlite::Result<Option<String>> {
        Ok(None)
    }

    fn users_of(_: &str, _: &Connection) -> rusqlite::Result<Option<String>> {
        Ok(None)
    }

    fn from_import(fields: &Fields, _: &Connection) -> Result<Self, String> {
        fields.entry()
    }
}
