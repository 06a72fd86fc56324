//! What the readers ask. Every list is ordered by an index and ends at its limit; the statistics read one covering index.

use jiff::civil;
use longshore_core::{InstanceKey, JobId, Millis, Outcome, chain::FullBackup};
use rusqlite::{Connection, Params, Row, params, params_from_iter};

use super::{SqliteError, conditions::Conditions};
use crate::{
    Backup, Bucket, CatalogError, CountBy, Cursor, Filter, Freshness, FreshnessQuery, HostSeen, Order, Page,
    SearchQuery, Standing, Totals,
    freshness::{HOSTS_LIST, INSTANCES_LIST},
    search::page_limit,
};

type Read<T> = Result<T, SqliteError>;

pub(super) fn by_id(connection: &Connection, id: JobId) -> Read<Option<Backup>> {
    one(connection, "SELECT report FROM backup WHERE id = ?1", [&id.as_bytes()[..]])
}

pub(super) fn standing(connection: &Connection, id: JobId) -> Read<Option<Standing>> {
    let mut statement = connection.prepare_cached("SELECT revision, outcome = ?2 FROM backup WHERE id = ?1")?;
    let mut rows = statement.query(params![&id.as_bytes()[..], Outcome::Stored.as_str()])?;
    let standing = |row| Ok(Standing { revision: unsigned(row, 0)?, is_stored: row.get(1)? });
    rows.next()?.map(standing).transpose()
}

/// The stored backup of the instance made last, at or before `at`.
pub(super) fn last_good(connection: &Connection, key: &InstanceKey, at: Millis) -> Read<Option<Backup>> {
    one(
        connection,
        "SELECT report FROM backup
         WHERE server_id = ?1 AND type = ?2 AND instance = ?3 AND made_at <= ?4 AND outcome = ?5
         ORDER BY made_at DESC, id DESC LIMIT 1",
        params![
            key.server_id.as_str(),
            key.backup_type.as_str(),
            key.instance.as_str(),
            at.0,
            Outcome::Stored.as_str()
        ],
    )
}

/// The stored backups of the instance that belong to `full` and were made at or before `at`.
pub(super) fn members(connection: &Connection, key: &InstanceKey, full: &FullBackup, at: Millis) -> Read<Vec<Backup>> {
    many(
        connection,
        "SELECT report FROM backup
         WHERE server_id = ?1 AND type = ?2 AND instance = ?3 AND full_made_at = ?4 AND full_name = ?5
           AND made_at <= ?6 AND outcome = ?7",
        params![
            key.server_id.as_str(),
            key.backup_type.as_str(),
            key.instance.as_str(),
            full.made_at.0,
            full.name.as_str(),
            at.0,
            Outcome::Stored.as_str()
        ],
    )
}

pub(super) fn search(connection: &Connection, query: &SearchQuery) -> Read<Page<Backup>> {
    let mut conditions = Conditions::of_filter(&query.filter);
    let column = query.sort.as_str();
    let (direction, beyond) = match query.order {
        Order::Ascending => ("ASC", ">"),
        Order::Descending => ("DESC", "<"),
    };
    if let Some((value, id)) = query.after()? {
        conditions.add(format!("({column}, id) {beyond} (?, ?)"), [value.into(), id.as_bytes().to_vec().into()]);
    }
    let limit = query.limit();
    let sql = format!(
        "SELECT report FROM backup{} ORDER BY {column} {direction}, id {direction} LIMIT {}",
        conditions.clause(),
        limit + 1
    );
    let mut items = many(connection, &sql, params_from_iter(conditions.values()))?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| query.cursor_after(last));
    Ok(Page { items, next })
}

/// Of announced sizes, which may add up beyond an integer: exact up to 9 PB, as in Elasticsearch, and never an error.
const BYTES: &str = "CAST(total(size_bytes) AS INTEGER)";

pub(super) fn counts(connection: &Connection, by: CountBy, filter: &Filter) -> Read<Vec<Bucket>> {
    const DAY_MILLIS: i64 = 86_400_000;
    let mut conditions = Conditions::of_filter(filter);
    let value = match by {
        CountBy::Day { utc_offset_minutes } => {
            format!("(made_at + {}) / {DAY_MILLIS}", i64::from(utc_offset_minutes) * 60_000)
        }
        CountBy::Business => "business_id".to_owned(),
        CountBy::Type => "type".to_owned(),
        CountBy::Node => "node_id".to_owned(),
        CountBy::Outcome => "outcome".to_owned(),
    };
    conditions.add(format!("{value} IS NOT NULL"), []);
    let sql = format!("SELECT {value}, count(*), {BYTES} FROM backup{} GROUP BY 1 ORDER BY 1", conditions.clause());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(conditions.values()))?;
    let mut buckets = Vec::new();
    while let Some(row) = rows.next()? {
        let key = match by {
            CountBy::Day { .. } => day(row.get(0)?),
            _ => row.get(0)?,
        };
        buckets.push(Bucket { key, count: unsigned(row, 1)?, bytes: unsigned(row, 2)? });
    }
    Ok(buckets)
}

/// The date of a day counted from 1970-01-01.
fn day(number: i64) -> String {
    let start = civil::date(1970, 1, 1);
    start.saturating_add(jiff::Span::new().days(number.clamp(-1_000_000, 3_000_000))).to_string()
}

pub(super) fn totals(connection: &Connection, filter: &Filter) -> Read<Totals> {
    let conditions = Conditions::of_filter(filter);
    let sql = format!("SELECT count(*), {BYTES}, min(made_at), max(made_at) FROM backup{}", conditions.clause());
    Ok(connection.prepare_cached(&sql)?.query_row(params_from_iter(conditions.values()), |row| {
        Ok(Totals {
            count: unsigned(row, 0)?,
            bytes: unsigned(row, 1)?,
            first_made_at: row.get::<_, Option<i64>>(2)?.map(Millis),
            last_made_at: row.get::<_, Option<i64>>(3)?.map(Millis),
        })
    })?)
}

const FRESHNESS: &str = "SELECT record, seen_at FROM freshness LEFT JOIN host ON host.server_id = freshness.server_id";

pub(super) fn freshness(connection: &Connection, query: &FreshnessQuery) -> Read<Page<Freshness>> {
    let mut conditions = Conditions::of_freshness(query);
    if let Some(cursor) = &query.cursor {
        let (server_id, backup_type, instance): (String, String, String) = cursor.place(INSTANCES_LIST)?;
        let after = [server_id.into(), backup_type.into(), instance.into()];
        conditions.add("(freshness.server_id, type, instance) > (?, ?, ?)", after);
    }
    let limit = page_limit(query.limit);
    let sql =
        format!("{FRESHNESS}{} ORDER BY freshness.server_id, type, instance LIMIT {}", conditions.clause(), limit + 1);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(conditions.values()))?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(freshness_row(row)?);
    }
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(Freshness::cursor_after);
    Ok(Page { items, next })
}

pub(super) fn freshness_of(connection: &Connection, key: &InstanceKey) -> Read<Option<Freshness>> {
    let mut statement = connection
        .prepare_cached(&format!("{FRESHNESS} WHERE freshness.server_id = ?1 AND type = ?2 AND instance = ?3"))?;
    let mut rows = statement.query(params![key.server_id.as_str(), key.backup_type.as_str(), key.instance.as_str()])?;
    rows.next()?.map(freshness_row).transpose()
}

fn freshness_row(row: &Row<'_>) -> Read<Freshness> {
    let mut record: Freshness = parse("freshness", &row.get::<_, String>(0)?)?;
    record.host_seen = row.get::<_, Option<i64>>(1)?.map(Millis);
    Ok(record)
}

pub(super) fn host(connection: &Connection, server_id: &str) -> Read<Option<HostSeen>> {
    let mut statement = connection.prepare_cached("SELECT seen_at, beat FROM host WHERE server_id = ?1")?;
    let mut rows = statement.query([server_id])?;
    rows.next()?.map(host_row).transpose()
}

pub(super) fn hosts(connection: &Connection, limit: u32, cursor: Option<&Cursor>) -> Read<Page<HostSeen>> {
    let limit = page_limit(limit);
    let after: String = cursor.map(|cursor| cursor.place(HOSTS_LIST)).transpose()?.unwrap_or_default();
    let most = limit + 1;
    let sql = format!("SELECT seen_at, beat FROM host WHERE server_id > ?1 ORDER BY server_id LIMIT {most}");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([after])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(host_row(row)?);
    }
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(HostSeen::cursor_after);
    Ok(Page { items, next })
}

fn host_row(row: &Row<'_>) -> Read<HostSeen> {
    Ok(HostSeen { seen_at: Millis(row.get(0)?), beat: parse("host", &row.get::<_, String>(1)?)? })
}

fn one(connection: &Connection, sql: &str, params: impl Params) -> Read<Option<Backup>> {
    Ok(many(connection, sql, params)?.pop())
}

fn many(connection: &Connection, sql: &str, params: impl Params) -> Read<Vec<Backup>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut backups = Vec::new();
    while let Some(row) = rows.next()? {
        let json = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        backups.push(Backup { report: parse("backup", json)? });
    }
    Ok(backups)
}

fn parse<T: serde::de::DeserializeOwned>(id: &str, json: &str) -> Result<T, CatalogError> {
    serde_json::from_str(json).map_err(|error| CatalogError::Damaged { id: id.to_owned(), why: error.to_string() })
}

/// Sums and counts are never negative.
fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}
