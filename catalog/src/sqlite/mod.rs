//! The catalog in one SQLite file of this machine. One process writes; others on the same machine read it at the same time.

mod conditions;
mod connections;
mod read;
mod write;

use std::path::Path;

use async_trait::async_trait;
use longshore_core::{InstanceKey, JobId, Millis, Report, ServerId};
use rusqlite::Connection;

use self::connections::{Connections, classify};
use crate::{
    Access, Backup, Bucket, Catalog, CatalogError, CatalogKind, Chain, CountBy, Cursor, Filter, Freshness,
    FreshnessQuery, Health, HostSeen, Page, Put, Result, SearchQuery, Standing, Totals, assemble, entry::Entry,
};

/// A catalog in a SQLite file.
#[derive(Debug)]
pub(crate) struct SqliteCatalog {
    connections: Connections,
}

/// What a reader can end with; only [`SqliteCatalog::read`] knows the file's name.
#[derive(Debug)]
enum SqliteError {
    Sqlite(rusqlite::Error),
    Catalog(CatalogError),
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<CatalogError> for SqliteError {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}

impl SqliteCatalog {
    /// Prepares; the file is opened when first asked.
    pub(crate) fn new(path: &Path, access: Access) -> Result<Self> {
        Ok(Self { connections: Connections::new(path, access)? })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> std::result::Result<T, SqliteError> + Send + 'static,
    ) -> Result<T> {
        let path = self.connections.path().to_owned();
        let work = move |connection: &Connection| {
            work(connection).map_err(|error| match error {
                SqliteError::Sqlite(error) => classify(&path, &error),
                SqliteError::Catalog(error) => error,
            })
        };
        self.connections.read(work).await
    }
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn ensure_schema(&self) -> Result<()> {
        self.connections.migrate().await
    }

    async fn health(&self) -> Result<Health> {
        self.read(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM (SELECT 1 FROM backup LIMIT 1)", [], |_| Ok(()))?)
        })
        .await?;
        Ok(Health {
            kind: CatalogKind::Sqlite,
            place: self.connections.path().display().to_string(),
            detail: format!("SQLite {}", rusqlite::version()),
        })
    }

    async fn put(&self, reports: &[Report]) -> Result<Vec<Put>> {
        let owned = |report| Entry::of(report).map(Entry::into_owned);
        let entries: Vec<std::result::Result<Entry<'static>, String>> = reports.iter().map(owned).collect();
        self.connections
            .write(move |transaction| {
                let put = |entry: std::result::Result<Entry<'_>, String>| match entry {
                    Ok(entry) => write::put(transaction, &entry),
                    Err(why) => Ok(Put::Refused(why)),
                };
                entries.into_iter().map(put).collect()
            })
            .await
    }

    async fn refresh(&self) -> Result<()> {
        Ok(())
    }

    async fn by_id(&self, id: JobId) -> Result<Option<Backup>> {
        self.read(move |connection| read::by_id(connection, id)).await
    }

    async fn standings(&self, ids: &[JobId]) -> Result<Vec<Option<Standing>>> {
        let ids = ids.to_vec();
        self.read(move |connection| ids.iter().map(|&id| read::standing(connection, id)).collect()).await
    }

    async fn search(&self, query: &SearchQuery) -> Result<Page<Backup>> {
        let query = query.clone();
        self.read(move |connection| read::search(connection, &query)).await
    }

    async fn latest_good(&self, key: &InstanceKey) -> Result<Option<Backup>> {
        let key = key.clone();
        self.read(move |connection| read::last_good(connection, &key, Millis(i64::MAX))).await
    }

    async fn chain(&self, key: &InstanceKey, at: Millis) -> Result<Option<Chain>> {
        let key = key.clone();
        self.read(move |connection| {
            let Some(wanted) = read::last_good(connection, &key, at)? else { return Ok(None) };
            let members = match assemble::full_needed(&wanted) {
                Some(full) => read::members(connection, &key, full, at)?,
                None => Vec::new(),
            };
            Ok(Some(assemble::assemble(wanted, members)))
        })
        .await
    }

    async fn counts(&self, by: CountBy, filter: &Filter) -> Result<Vec<Bucket>> {
        let filter = filter.clone();
        self.read(move |connection| read::counts(connection, by, &filter)).await
    }

    async fn totals(&self, filter: &Filter) -> Result<Totals> {
        let filter = filter.clone();
        self.read(move |connection| read::totals(connection, &filter)).await
    }

    async fn put_freshness(&self, records: &[Freshness]) -> Result<()> {
        let records = records.to_vec();
        self.connections
            .write(move |transaction| {
                records.into_iter().try_for_each(|record| write::put_freshness(transaction, record))
            })
            .await
    }

    async fn freshness(&self, query: &FreshnessQuery) -> Result<Page<Freshness>> {
        let query = query.clone();
        self.read(move |connection| read::freshness(connection, &query)).await
    }

    async fn freshness_of(&self, key: &InstanceKey) -> Result<Option<Freshness>> {
        let key = key.clone();
        self.read(move |connection| read::freshness_of(connection, &key)).await
    }

    async fn put_hosts(&self, hosts: &[HostSeen]) -> Result<()> {
        let hosts = hosts.to_vec();
        self.connections
            .write(move |transaction| hosts.iter().try_for_each(|host| write::put_host(transaction, host)))
            .await
    }

    async fn host(&self, server_id: &ServerId) -> Result<Option<HostSeen>> {
        let server_id = server_id.clone();
        self.read(move |connection| read::host(connection, server_id.as_str())).await
    }

    async fn hosts(&self, limit: u32, cursor: Option<&Cursor>) -> Result<Page<HostSeen>> {
        let cursor = cursor.cloned();
        self.read(move |connection| read::hosts(connection, limit, cursor.as_ref())).await
    }
}
