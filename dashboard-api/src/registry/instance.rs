//! Instances that are expected to be backed up.

use longshore_core::{BackupType, BusinessId, InstanceKey, InstanceName, ServerId, job::HostAddress};
use rusqlite::{Connection, OptionalExtension as _, Row, types::Value as SqlValue};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Label,
    entity::{self, Entity},
    import::Fields,
};

/// An instance that is expected to be backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RegisteredInstance)]
pub struct InstanceEntry {
    /// The host.
    #[schema(value_type = String, example = "111111")]
    pub server_id: ServerId,
    /// The type; must be registered.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "mysql")]
    pub backup_type: BackupType,
    /// Which one.
    #[schema(value_type = String, example = "3306")]
    pub instance: InstanceName,
    /// The business; must be registered.
    #[schema(value_type = String, example = "31")]
    pub business_id: BusinessId,
    /// For people.
    #[serde(default)]
    #[schema(value_type = String)]
    pub name: Label,
    /// Where its jobs must say they come from. Not checked when left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "10.0.0.1")]
    pub address: Option<HostAddress>,
    /// How often it is to be backed up. What its jobs say, when left out.
    #[serde(default)]
    pub interval_seconds: Option<u64>,
}

impl InstanceEntry {
    /// (`server_id`, `type`, `instance`).
    pub fn instance_key(&self) -> InstanceKey {
        InstanceKey {
            server_id: self.server_id.clone(),
            backup_type: self.backup_type.clone(),
            instance: self.instance.clone(),
        }
    }
}

impl Entity for InstanceEntry {
    const KIND: &'static str = "instance";
    const TABLE: &'static str = "instance";
    const KEY_COLUMN: &'static str = "key";
    const COLUMNS: &'static [&'static str] =
        &["key", "server_id", "type", "instance", "business_id", "name", "address", "interval_seconds"];

    fn key(&self) -> String {
        self.instance_key().to_string()
    }

    fn values(&self) -> Vec<SqlValue> {
        vec![
            self.key().into(),
            self.server_id.to_string().into(),
            self.backup_type.to_string().into(),
            self.instance.to_string().into(),
            self.business_id.to_string().into(),
            self.name.to_string().into(),
            entity::text_or_null(self.address.as_ref()),
            entity::number(self.interval_seconds),
        ]
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            server_id: entity::parsed(row, "server_id")?,
            backup_type: entity::parsed(row, "type")?,
            instance: entity::parsed(row, "instance")?,
            business_id: entity::parsed(row, "business_id")?,
            name: entity::parsed(row, "name")?,
            address: entity::parsed_or_null(row, "address")?,
            interval_seconds: entity::unsigned(row, "interval_seconds")?,
        })
    }

    fn missing_reference(&self, connection: &Connection) -> rusqlite::Result<Option<String>> {
        if !entity::exists(connection, "backup_type", "name", self.backup_type.as_str())? {
            return Ok(Some(format!("type {} is not registered; add it first", self.backup_type)));
        }
        if !entity::exists(connection, "business", "business_id", self.business_id.as_str())? {
            return Ok(Some(format!("business {} is not registered; add it first", self.business_id)));
        }
        Ok(None)
    }

    fn users_of(_: &str, _: &Connection) -> rusqlite::Result<Option<String>> {
        Ok(None)
    }

    /// A row of the seed's table points at rows of its business and type tables (`backup_type_id`, `business_id`), or, as
    /// its API printed it, carries them whole (`backup_type`, `business`). Ours names them (`type`, `business_id`).
    fn from_import(fields: &Fields, connection: &Connection) -> Result<Self, String> {
        const OURS: &[&str] = &["server_id", "type", "instance", "business_id", "name", "address", "interval_seconds"];
        const SEED: &[&str] = &["id", "backup_type_id", "backup_type", "business"];
        fields.only(&[OURS, SEED].concat())?;
        let backup_type = match (fields.optional("type")?, fields.nested("backup_type", "name")?) {
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => pointed_at(fields, "backup_type_id", "backup_type", "name", connection)?,
        };
        let business_id = match fields.nested("business", "business_id")? {
            Some(business_id) => business_id,
            None if fields.has("backup_type_id") => {
                pointed_at(fields, "business_id", "business", "business_id", connection)?
            }
            None => fields.needed("business_id")?,
        };
        Ok(Self {
            server_id: fields.needed("server_id")?,
            backup_type,
            instance: fields.needed("instance")?,
            business_id,
            name: fields.optional("name")?.unwrap_or_default(),
            address: fields.optional("address")?,
            interval_seconds: fields.optional("interval_seconds")?,
        })
    }
}

/// The key of the row of `table` whose number is in field `name`.
fn pointed_at<T: std::str::FromStr<Err: std::fmt::Display>>(
    fields: &Fields,
    name: &str,
    table: &str,
    key: &str,
    connection: &Connection,
) -> Result<T, String> {
    let number: i64 = fields.needed(name)?;
    let found: Option<String> = connection
        .query_row(&format!("SELECT {key} FROM {table} WHERE id = ?1"), [number], |row| row.get(0))
        .optional()
        .map_err(|error| error.to_string())?;
    let found =
        found.ok_or_else(|| format!("{name} is {number}, but no {table} has that id; import that table first"))?;
    found.parse().map_err(|error: T::Err| error.to_string())
}
