//! What operators set for a host.

use std::{collections::BTreeMap, num::NonZeroU32};

use longshore_core::{
    ServerId,
    calendar::{RatePlan, Window},
    job::ModuleName,
    policy::{HostRule, PerSecond},
};
use rusqlite::{Connection, Row, types::Value as SqlValue};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    entity::{self, Entity},
    import::Fields,
};

/// A host's rule. What is left out, the nodes' own files decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HostRule)]
pub struct HostEntry {
    /// The host.
    #[schema(value_type = String, example = "111111")]
    pub server_id: ServerId,
    /// Transfers at once from it, over all nodes.
    #[serde(default)]
    #[schema(value_type = Option<u32>, example = 1)]
    pub transfers: Option<NonZeroU32>,
    /// Transfers begun a second, over all nodes.
    #[serde(default)]
    #[schema(value_type = Option<f64>, example = 5.0)]
    pub starts_per_second: Option<PerSecond>,
    /// Transfers at once from one of its modules, over all nodes.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, u32>)]
    pub modules: BTreeMap<ModuleName, NonZeroU32>,
    /// For all transfers from it to one node together.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "40MB/s")]
    pub bandwidth: Option<RatePlan>,
    /// When it may be asked.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "22:00-06:00 Europe/Berlin")]
    pub window: Option<Window>,
}

impl HostEntry {
    /// As nodes are told.
    pub fn rule(self) -> (ServerId, HostRule) {
        let Self { server_id, transfers, starts_per_second, modules, bandwidth, window } = self;
        (server_id, HostRule { transfers, starts_per_second, modules, bandwidth, window })
    }
}

impl Entity for HostEntry {
    const KIND: &'static str = "host";
    const TABLE: &'static str = "host";
    const KEY_COLUMN: &'static str = "server_id";
    const COLUMNS: &'static [&'static str] =
        &["server_id", "transfers", "starts_per_second", "modules", "bandwidth", "open_hours"];

    fn key(&self) -> String {
        self.server_id.to_string()
    }

    fn values(&self) -> Vec<SqlValue> {
        vec![
            self.server_id.to_string().into(),
            entity::number(self.transfers.map(|transfers| transfers.get().into())),
            self.starts_per_second.map_or(SqlValue::Null, |rate| SqlValue::Real(rate.get())),
            serde_json::json!(self.modules).to_string().into(),
            entity::word_or_null(self.bandwidth.as_ref()),
            entity::word_or_null(self.window.as_ref()),
        ]
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let starts_per_second: Option<f64> = row.get("starts_per_second")?;
        Ok(Self {
            server_id: entity::parsed(row, "server_id")?,
            transfers: row.get::<_, Option<u32>>("transfers")?.and_then(NonZeroU32::new),
            starts_per_second: starts_per_second.and_then(|rate| rate.try_into().ok()),
            modules: entity::from_json(row, "modules")?,
            bandwidth: entity::word(row, "bandwidth")?,
            window: entity::word(row, "open_hours")?,
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
