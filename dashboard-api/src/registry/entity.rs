//! What every kind of registry entry has in common: a key, columns, and one set of SQL statements made from them.

use std::{fmt::Display, str::FromStr};

use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, types::Type, types::Value as SqlValue};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{RegistryError, import::Fields};

/// One kind of entry. Its JSON form is what the API takes and gives; unknown fields are refused.
pub trait Entity: Serialize + DeserializeOwned + Clone + Send + 'static {
    /// In messages: `business`.
    const KIND: &'static str;
    /// The table.
    const TABLE: &'static str;
    /// The column that holds [`Entity::key`].
    const KEY_COLUMN: &'static str;
    /// Every column, in the order of [`Entity::values`].
    const COLUMNS: &'static [&'static str];

    /// What addresses it in URLs.
    fn key(&self) -> String;
    /// Its columns' values.
    fn values(&self) -> Vec<SqlValue>;
    /// From a row of [`Entity::COLUMNS`].
    ///
    /// # Errors
    /// When a column holds what no constructor would have accepted.
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self>;
    /// What it points at and is not there, as a sentence; checked before it is written.
    ///
    /// # Errors
    /// The database's own.
    fn missing_reference(&self, connection: &Connection) -> rusqlite::Result<Option<String>>;
    /// Who points at this key, as a sentence; an entry with users is not removed.
    ///
    /// # Errors
    /// The database's own.
    fn users_of(key: &str, connection: &Connection) -> rusqlite::Result<Option<String>>;
    /// From one row of a CSV or JSON file, of our own names or of the seed's.
    ///
    /// # Errors
    /// What is wrong with the row, for people.
    fn from_import(fields: &Fields, connection: &Connection) -> Result<Self, String>;
}

pub(super) fn get<E: Entity>(connection: &Connection, key: &str) -> Result<Option<E>, RegistryError> {
    let sql = format!("SELECT {} FROM {} WHERE {} = ?1", E::COLUMNS.join(", "), E::TABLE, E::KEY_COLUMN);
    Ok(connection.prepare_cached(&sql)?.query_row([key], |row| E::from_row(row)).optional()?)
}

pub(super) fn list<E: Entity>(connection: &Connection) -> Result<Vec<E>, RegistryError> {
    let sql = format!("SELECT {} FROM {} ORDER BY {}", E::COLUMNS.join(", "), E::TABLE, E::KEY_COLUMN);
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([], |row| E::from_row(row))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Writes the entry, over one of the same key when there is one. The row number of an entry that has one stays.
pub(super) fn put<E: Entity>(connection: &Connection, entry: &E) -> Result<(), RegistryError> {
    if let Some(missing) = entry.missing_reference(connection)? {
        return Err(RegistryError::Reference(missing));
    }
    let marks = (1..=E::COLUMNS.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
    let updates = E::COLUMNS
        .iter()
        .filter(|column| **column != E::KEY_COLUMN)
        .map(|column| match *column {
            "id" => "id = coalesce(excluded.id, id)".to_owned(),
            column => format!("{column} = excluded.{column}"),
        })
        .collect::<Vec<_>>()
        .join(", ");
    let sql = format!(
        "INSERT INTO {} ({}) VALUES ({marks}) ON CONFLICT ({}) DO UPDATE SET {updates}",
        E::TABLE,
        E::COLUMNS.join(", "),
        E::KEY_COLUMN
    );
    let values = entry.values();
    let values: Vec<&dyn ToSql> = values.iter().map(|value| value as &dyn ToSql).collect();
    connection.prepare_cached(&sql)?.execute(values.as_slice()).map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::ConstraintViolation) => {
            RegistryError::Taken { kind: E::KIND, key: entry.key(), why: "its id is another entry's".to_owned() }
        }
        _ => error.into(),
    })?;
    Ok(())
}

pub(super) fn remove<E: Entity>(connection: &Connection, key: &str) -> Result<bool, RegistryError> {
    if let Some(users) = E::users_of(key, connection)? {
        return Err(RegistryError::InUse { kind: E::KIND, key: key.to_owned(), users });
    }
    let sql = format!("DELETE FROM {} WHERE {} = ?1", E::TABLE, E::KEY_COLUMN);
    Ok(connection.execute(&sql, [key])? > 0)
}

/// A column that holds an id as text.
pub(super) fn parsed<T: FromStr<Err: Display>>(row: &Row<'_>, column: &'static str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error: T::Err| broken(column, &error))
}

/// A column that holds an id as text, or nothing.
pub(super) fn parsed_or_null<T: FromStr<Err: Display>>(
    row: &Row<'_>,
    column: &'static str,
) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error: T::Err| broken(column, &error))).transpose()
}

fn broken(column: &'static str, error: &dyn Display) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, format!("{column}: {error}").into())
}

/// A column that holds a size or a count, or nothing; what is below zero reads as zero.
pub(super) fn unsigned(row: &Row<'_>, column: &'static str) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(|value| u64::try_from(value).unwrap_or(0)))
}

/// A number as SQLite keeps it; what is over its range is its largest.
pub(super) fn number(value: Option<u64>) -> SqlValue {
    value.map_or(SqlValue::Null, |value| SqlValue::Integer(i64::try_from(value).unwrap_or(i64::MAX)))
}

/// A column that holds what JSON has as a text, or nothing.
pub(super) fn word<T: DeserializeOwned>(row: &Row<'_>, column: &'static str) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| serde_json::from_value(Value::String(text)).map_err(|error| broken(column, &error))).transpose()
}

/// What JSON has as a text, bare; or nothing.
pub(super) fn word_or_null(value: Option<&impl Serialize>) -> SqlValue {
    match value.map(serde_json::to_value) {
        Some(Ok(Value::String(text))) => SqlValue::Text(text),
        _ => SqlValue::Null,
    }
}

/// A column that holds a small number which its type checks, or nothing.
pub(super) fn checked<T: TryFrom<u8, Error: Display>>(
    row: &Row<'_>,
    column: &'static str,
) -> rusqlite::Result<Option<T>> {
    let number: Option<u8> = row.get(column)?;
    number.map(|number| T::try_from(number).map_err(|error| broken(column, &error))).transpose()
}

/// A column that holds JSON.
pub(super) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &'static str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| broken(column, &error))
}

/// A text, or nothing.
pub(super) fn text_or_null(value: Option<&impl Display>) -> SqlValue {
    value.map_or(SqlValue::Null, |value| SqlValue::Text(value.to_string()))
}

/// Whether a row of `table` has `value` in `column`.
pub(super) fn exists(connection: &Connection, table: &str, column: &str, value: &str) -> rusqlite::Result<bool> {
    connection
        .query_row(&format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {column} = ?1)"), [value], |row| row.get(0))
}

/// How many rows of `table` have `value` in `column`.
pub(super) fn count(connection: &Connection, table: &str, column: &str, value: &str) -> rusqlite::Result<u64> {
    let sql = format!("SELECT count(*) FROM {table} WHERE {column} = ?1");
    connection.query_row(&sql, [value], |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()))
}

/// RFC 7396: members of `patch` replace those of `entry`; null puts a field back to its default.
pub(super) fn merged<E: Entity>(entry: &E, patch: serde_json::Map<String, Value>) -> Result<E, RegistryError> {
    let mut value = serde_json::to_value(entry).map_err(|error| RegistryError::Invalid(error.to_string()))?;
    if let Some(fields) = value.as_object_mut() {
        for (name, change) in patch {
            if change.is_null() {
                fields.remove(&name);
            } else {
                fields.insert(name, change);
            }
        }
    }
    serde_json::from_value(value).map_err(|error| RegistryError::Invalid(error.to_string()))
}
