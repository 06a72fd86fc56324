//! Businesses and types: the two plain lists that instances point at.

use longshore_core::{
    BackupType, BusinessId,
    policy::{Copies, TypeRule},
    report::Verified,
};
use rusqlite::{Connection, Row, types::Value as SqlValue};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Label,
    entity::{self, Entity},
    import::Fields,
};

/// A product line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Business {
    /// What messages carry.
    #[schema(value_type = String, example = "31")]
    pub business_id: BusinessId,
    /// For people.
    #[serde(default)]
    #[schema(value_type = String)]
    pub name: Label,
    /// The row's number; UBackup's instance table points at it. Given by the registry when left out.
    #[serde(default)]
    pub id: Option<u64>,
}

/// A type of backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Type)]
pub struct TypeEntry {
    /// Its name, as messages carry it.
    #[schema(value_type = String, example = "mysql")]
    pub name: BackupType,
    /// The row's number; UBackup's instance table points at it. Given by the registry when left out.
    #[serde(default)]
    pub id: Option<u64>,
    /// On how many nodes its backups are kept: 1 or 2.
    #[serde(default)]
    #[schema(value_type = Option<u8>, example = 2)]
    pub copies: Option<Copies>,
    /// `received` or `reread`: how what was fetched is checked.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "reread")]
    pub verify: Option<Verified>,
}

impl TypeEntry {
    /// As nodes are told.
    pub fn rule(self) -> (BackupType, TypeRule) {
        (self.name, TypeRule { copies: self.copies, verify: self.verify })
    }
}

fn instances_of(connection: &Connection, column: &str, key: &str) -> rusqlite::Result<Option<String>> {
    let users = entity::count(connection, "instance", column, key)?;
    Ok((users > 0).then(|| format!("{users} registered instance{}", if users == 1 { "" } else { "s" })))
}

impl Entity for Business {
    const KIND: &'static str = "business";
    const TABLE: &'static str = "business";
    const KEY_COLUMN: &'static str = "business_id";
    const COLUMNS: &'static [&'static str] = &["business_id", "name", "id"];

    fn key(&self) -> String {
        self.business_id.to_string()
    }

    fn values(&self) -> Vec<SqlValue> {
        vec![self.business_id.to_string().into(), self.name.to_string().into(), entity::number(self.id)]
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            business_id: entity::parsed(row, "business_id")?,
            name: entity::parsed(row, "name")?,
            id: entity::unsigned(row, "id")?,
        })
    }

    fn missing_reference(&self, _: &Connection) -> rusqlite::Result<Option<String>> {
        Ok(None)
    }

    fn users_of(key: &str, connection: &Connection) -> rusqlite::Result<Option<String>> {
        instances_of(connection, "business_id", key)
    }

    fn from_import(fields: &Fields, _: &Connection) -> Result<Self, String> {
        fields.only(&["id", "business_id", "name"])?;
        Ok(Self {
            business_id: fields.needed("business_id")?,
            name: fields.optional("name")?.unwrap_or_default(),
            id: fields.optional("id")?,
        })
    }
}

impl Entity for TypeEntry {
    const KIND: &'static str = "type";
    const TABLE: &'static str = "backup_type";
    const KEY_COLUMN: &'static str = "name";
    const COLUMNS: &'static [&'static str] = &["name", "id", "copies", "verify"];

    fn key(&self) -> String {
        self.name.to_string()
    }

    fn values(&self) -> Vec<SqlValue> {
        vec![
            self.name.to_string().into(),
            entity::number(self.id),
            entity::number(self.copies.map(|copies| copies.get().into())),
            entity::word_or_null(self.verify.as_ref()),
        ]
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: entity::parsed(row, "name")?,
            id: entity::unsigned(row, "id")?,
            copies: entity::checked(row, "copies")?,
            verify: entity::word(row, "verify")?,
        })
    }

    fn missing_reference(&self, _: &Connection) -> rusqlite::Result<Option<String>> {
        Ok(None)
    }

    fn users_of(key: &str, connection: &Connection) -> rusqlite::Result<Option<String>> {
        instances_of(connection, "type", key)
    }

    fn from_import(fields: &Fields, _: &Connection) -> Result<Self, String> {
        fields.only(Self::COLUMNS)?;
        fields.entry()
    }
}
