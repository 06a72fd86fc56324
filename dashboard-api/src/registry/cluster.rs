//! Clusters and nodes: one queue Redis and the machines that drain it.

use longshore_core::{
    Millis, NodeId, QueueName,
    calendar::{RatePlan, Window},
    job::HostAddress,
    policy::{ClusterRule, NodeRule},
};
use rusqlite::{Connection, Row, types::Value as SqlValue};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Label,
    entity::{self, Entity},
    import::Fields,
};

/// Bytes of the seed's GB: 1024³.
pub const SEED_GB_BYTES: u64 = 1 << 30;

/// A cluster's id has the form of a queue's name.
pub type ClusterId = QueueName;

/// One queue Redis and the nodes that drain it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its id, as the queue reporter names it.
    #[schema(value_type = String, example = "1")]
    pub cluster_id: ClusterId,
    /// For people.
    #[serde(default)]
    #[schema(value_type = String)]
    pub name: Label,
    /// Where its Redis is, for people.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "10.0.0.9:6379")]
    pub queue_address: Option<Label>,
    /// For all transfers from hosts to its nodes together.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "09:00-18:00 Mon-Fri 200MB/s Europe/Berlin, else unlimited")]
    pub bandwidth: Option<RatePlan>,
    /// For all restores from its nodes together.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "100MB/s")]
    pub restore_bandwidth: Option<RatePlan>,
    /// Jobs waiting, as the reporter last said.
    #[serde(default)]
    pub queue_size: Option<u64>,
    /// When the reporter said it, UTC milliseconds.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    pub reported_at: Option<Millis>,
}

/// One storage machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RegisteredNode)]
pub struct NodeEntry {
    /// Its id, as in its configuration.
    #[schema(value_type = String, example = "5")]
    pub node_id: NodeId,
    /// Its cluster; must be registered.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub cluster_id: Option<ClusterId>,
    /// For people.
    #[serde(default)]
    #[schema(value_type = String)]
    pub name: Label,
    /// Its address, for people.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub address: Option<HostAddress>,
    /// Overrides the weight in the node's own file; 0 drains it.
    #[serde(default)]
    pub weight: Option<u32>,
    /// For all its transfers from hosts together; overrides the node's own file.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "40MB/s")]
    pub bandwidth: Option<RatePlan>,
    /// For all restores from it together; overrides the node's own file.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "20MB/s")]
    pub restore_bandwidth: Option<RatePlan>,
    /// When it claims; overrides the node's own file.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "22:00-06:00 Mon-Fri Europe/Berlin")]
    pub window: Option<Window>,
    /// Size of its disk, as a disk reporter last said. A node's heartbeat knows better.
    #[serde(default)]
    pub size_bytes: Option<u64>,
    /// Used bytes of its disk, as a disk reporter last said.
    #[serde(default)]
    pub used_bytes: Option<u64>,
    /// When the reporter said it, UTC milliseconds.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    pub reported_at: Option<Millis>,
}

impl Cluster {
    /// As its nodes are told.
    pub fn rule(self) -> ClusterRule {
        ClusterRule { bandwidth: self.bandwidth, restore_bandwidth: self.restore_bandwidth }
    }
}

impl NodeEntry {
    /// As nodes are told.
    pub fn rule(self) -> (NodeId, NodeRule) {
        let Self { node_id, weight, bandwidth, restore_bandwidth, window, .. } = self;
        (node_id, NodeRule { weight, bandwidth, restore_bandwidth, window })
    }
}

fn at(value: Option<Millis>) -> SqlValue {
    value.map_or(SqlValue::Null, |at| SqlValue::Integer(at.0))
}

impl Entity for Cluster {
    const KIND: &'static str = "cluster";
    const TABLE: &'static str = "cluster";
    const KEY_COLUMN: &'static str = "cluster_id";
    const COLUMNS: &'static [&'static str] =
        &["cluster_id", "name", "queue_address", "bandwidth", "restore_bandwidth", "queue_size", "reported_at"];

    fn key(&self) -> String {
        self.cluster_id.to_string()
    }

    fn values(&self) -> Vec<SqlValue> {
        vec![
            self.cluster_id.to_string().into(),
            self.name.to_string().into(),
            entity::text_or_null(self.queue_address.as_ref()),
            entity::word_or_null(self.bandwidth.as_ref()),
            entity::word_or_null(self.restore_bandwidth.as_ref()),
            entity::number(self.queue_size),
            at(self.reported_at),
        ]
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            cluster_id: entity::parsed(row, "cluster_id")?,
            name: entity::parsed(row, "name")?,
            queue_address: entity::parsed_or_null(row, "queue_address")?,
            bandwidth: entity::word(row, "bandwidth")?,
            restore_bandwidth: entity::word(row, "restore_bandwidth")?,
            queue_size: entity::unsigned(row, "queue_size")?,
            reported_at: row.get::<_, Option<i64>>("reported_at")?.map(Millis),
        })
    }

    fn missing_reference(&self, _: &Connection) -> rusqlite::Result<Option<String>> {
        Ok(None)
    }

    fn users_of(key: &str, connection: &Connection) -> rusqlite::Result<Option<String>> {
        let users = entity::count(connection, "node", "cluster_id", key)?;
        Ok((users > 0).then(|| format!("{users} registered node{}", if users == 1 { "" } else { "s" })))
    }

    fn from_import(fields: &Fields, _: &Connection) -> Result<Self, String> {
        fields.only(&[Self::COLUMNS, &["id", "nodes"]].concat())?;
        let cluster_id = match fields.optional("cluster_id")? {
            Some(id) => id,
            None => fields.needed("id")?,
        };
        Ok(Self {
            cluster_id,
            name: fields.optional("name")?.unwrap_or_default(),
            queue_address: fields.optional("queue_address")?,
            bandwidth: fields.optional("bandwidth")?,
            restore_bandwidth: fields.optional("restore_bandwidth")?,
            queue_size: fields.optional("queue_size")?,
            reported_at: fields.optional::<i64>("reported_at")?.map(Millis),
        })
    }
}

impl Entity for NodeEntry {
    const KIND: &'static str = "node";
    const TABLE: &'static str = "node";
    const KEY_COLUMN: &'static str = "node_id";
    const COLUMNS: &'static [&'static str] = &[
        "node_id",
        "cluster_id",
        "name",
        "address",
        "weight",
        "bandwidth",
        "restore_bandwidth",
        "open_hours",
        "size_bytes",
        "used_bytes",
        "reported_at",
    ];

    fn key(&self) -> String {
        self.node_id.to_string()
    }

    fn values(&self) -> Vec<SqlValue> {
        vec![
            self.node_id.to_string().into(),
            entity::text_or_null(self.cluster_id.as_ref()),
            self.name.to_string().into(),
            entity::text_or_null(self.address.as_ref()),
            entity::number(self.weight.map(u64::from)),
            entity::word_or_null(self.bandwidth.as_ref()),
            entity::word_or_null(self.restore_bandwidth.as_ref()),
            entity::word_or_null(self.window.as_ref()),
            entity::number(self.size_bytes),
            entity::number(self.used_bytes),
            at(self.reported_at),
        ]
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            node_id: entity::parsed(row, "node_id")?,
            cluster_id: entity::parsed_or_null(row, "cluster_id")?,
            name: entity::parsed(row, "name")?,
            address: entity::parsed_or_null(row, "address")?,
            weight: row.get("weight")?,
            bandwidth: entity::word(row, "bandwidth")?,
            restore_bandwidth: entity::word(row, "restore_bandwidth")?,
            window: entity::word(row, "open_hours")?,
            size_bytes: entity::unsigned(row, "size_bytes")?,
            used_bytes: entity::unsigned(row, "used_bytes")?,
            reported_at: row.get::<_, Option<i64>>("reported_at")?.map(Millis),
        })
    }

    fn missing_reference(&self, connection: &Connection) -> rusqlite::Result<Option<String>> {
        match &self.cluster_id {
            Some(id) if !entity::exists(connection, "cluster", "cluster_id", id.as_str())? => {
                Ok(Some(format!("cluster {id} is not registered; add it first")))
            }
            _ => Ok(None),
        }
    }

    fn users_of(_: &str, _: &Connection) -> rusqlite::Result<Option<String>> {
        Ok(None)
    }

    /// The seed's rows have `id`, `cluster_id` (or `cluster` whole), `ip`, and `size` and `used` in GB.
    fn from_import(fields: &Fields, _: &Connection) -> Result<Self, String> {
        const SEED: &[&str] = &["id", "cluster", "ip", "size", "used"];
        fields.only(&[Self::COLUMNS, &["window"], SEED].concat())?;
        let node_id = match fields.optional("node_id")? {
            Some(id) => id,
            None => fields.needed("id")?,
        };
        let seed_bytes = |name| -> Result<Option<u64>, String> {
            Ok(fields.optional::<u64>(name)?.map(|gb| gb.saturating_mul(SEED_GB_BYTES)))
        };
        let first = |ours: Option<u64>, seed: Option<u64>| ours.or(seed);
        Ok(Self {
            node_id,
            cluster_id: match fields.optional("cluster_id")? {
                Some(id) => Some(id),
                None => fields.nested("cluster", "id")?,
            },
            name: fields.optional("name")?.unwrap_or_default(),
            address: match fields.optional("address")? {
                Some(address) => Some(address),
                None => fields.optional("ip")?,
            },
            weight: fields.optional("weight")?,
            bandwidth: fields.optional("bandwidth")?,
            restore_bandwidth: fields.optional("restore_bandwidth")?,
            window: fields.optional("window")?,
            size_bytes: first(fields.optional("size_bytes")?, seed_bytes("size")?),
            used_bytes: first(fields.optional("used_bytes")?, seed_bytes("used")?),
            reported_at: fields.optional::<i64>("reported_at")?.map(Millis),
        })
    }
}
