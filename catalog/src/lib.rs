//! Where backups are known: one [`Catalog`] trait, SQLite and Elasticsearch behind it, one contract suite that both pass.
//!
//! An entry is the final [`Report`] of a job, kept whole, with a few columns beside it to search by. Invariants: one entry
//! for a job, whatever is repeated or replayed; a write never undoes an entry that stands above it ([`Standing`]); what
//! [`Catalog::put`] calls written survives a power cut, because the report stream is acknowledged on its word. Only the
//! indexer writes; everyone else opens [`Access::Read`].

mod assemble;
mod backup;
mod config;
mod elasticsearch;
mod entry;
mod error;
mod freshness;
mod search;
mod sqlite;
mod words;

use std::sync::Arc;

use async_trait::async_trait;
use longshore_core::{InstanceKey, JobId, Millis, Report, ServerId};

pub use backup::{Backup, Chain, Put, Standing};
pub use config::{CatalogConfig, CatalogKind, ElasticsearchConfig};
pub use error::CatalogError;
pub use freshness::{Freshness, FreshnessQuery, GoodPoint, HostSeen, LastReport};
pub use search::{Bucket, CountBy, Cursor, Filter, MAX_LIMIT, Order, Page, SearchQuery, SortBy, TimeSpan, Totals};

/// What every call gives.
pub type Result<T> = std::result::Result<T, CatalogError>;

/// Whether the opener will write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The indexer: creates what is not there yet and writes.
    Write,
    /// Everyone else: reads only, creates nothing.
    Read,
}

/// Opens the catalog that the configuration names. Nothing is created or reached yet: that is the first call's, so a
/// program may start before its catalog does, and [`Catalog::health`] says how it stands.
///
/// # Errors
/// When the configuration can't be right.
pub fn open(config: &CatalogConfig, access: Access) -> Result<Arc<dyn Catalog>> {
    match config.kind {
        CatalogKind::Sqlite => Ok(Arc::new(sqlite::SqliteCatalog::new(&config.path, access)?)),
        CatalogKind::Elasticsearch => Ok(Arc::new(elasticsearch::ElasticsearchCatalog::new(&config.elasticsearch)?)),
    }
}

/// Whether the catalog answers, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// `sqlite` or `elasticsearch`.
    pub kind: CatalogKind,
    /// The file, or the address without credentials.
    pub place: String,
    /// For people: the version of SQLite, or the colour of the cluster.
    pub detail: String,
}

/// Backups, freshness and hosts. Every call may be repeated; none keeps state between calls.
///
/// A search sees a written entry at once in SQLite and within about a second in Elasticsearch ([`Catalog::refresh`] makes
/// it see everything); [`Catalog::by_id`] sees it at once in both.
#[async_trait]
pub trait Catalog: Send + Sync + std::fmt::Debug {
    /// Creates or migrates what the catalog needs: tables, the index template. For the indexer, at its start.
    ///
    /// # Errors
    /// Unavailable (transient), or a schema that a newer version made.
    async fn ensure_schema(&self) -> Result<()>;

    /// Whether it answers now.
    ///
    /// # Errors
    /// Says what doesn't, and what to do.
    async fn health(&self) -> Result<Health>;

    /// Writes reports as entries; the results stand in the order of `reports`. Idempotent by job id; an entry that stands above
    /// the report ([`Standing`]) stays as it is. Reason texts are cut at 8 KiB.
    ///
    /// # Errors
    /// Only when nothing is known about any item (not reachable); then the whole batch may be put again.
    async fn put(&self, reports: &[Report]) -> Result<Vec<Put>>;

    /// Makes everything put before visible to every search.
    ///
    /// # Errors
    /// Unavailable.
    async fn refresh(&self) -> Result<()>;

    /// The entry of a job.
    ///
    /// # Errors
    /// Unavailable, or an entry that can't be read.
    async fn by_id(&self, id: JobId) -> Result<Option<Backup>>;

    /// How each job's entry stands, in the order of `ids`; `None` where there is none. Sees what was written at once.
    ///
    /// # Errors
    /// Unavailable.
    async fn standings(&self, ids: &[JobId]) -> Result<Vec<Option<Standing>>>;

    /// Entries that pass the filter, sorted, a page at a time.
    ///
    /// # Errors
    /// A cursor that isn't of this query; unavailable.
    async fn search(&self, query: &SearchQuery) -> Result<Page<Backup>>;

    /// The stored backup of an instance with the latest `made_at`.
    ///
    /// # Errors
    /// Unavailable.
    async fn latest_good(&self, key: &InstanceKey) -> Result<Option<Backup>>;

    /// What to apply, in order, to have the instance as of its last stored backup made at or before `at`: the full and its
    /// increments up to that one, the full and that differential, or that backup alone. `None` when there is none.
    ///
    /// # Errors
    /// Unavailable.
    async fn chain(&self, key: &InstanceKey, at: Millis) -> Result<Option<Chain>>;

    /// Numbers and bytes of the entries that pass the filter, one bucket for each value, ordered by key. Values without an
    /// entry have no bucket; entries without the value (no node) are in none.
    ///
    /// # Errors
    /// Unavailable.
    async fn counts(&self, by: CountBy, filter: &Filter) -> Result<Vec<Bucket>>;

    /// Number, bytes and time span of all entries that pass the filter.
    ///
    /// # Errors
    /// Unavailable.
    async fn totals(&self, filter: &Filter) -> Result<Totals>;

    /// Merges each record into what is kept for its instance: the later good point and the later report stay. Safe to
    /// repeat, and for several writers at once.
    ///
    /// # Errors
    /// Unavailable; nothing or a part is written, and the call may be repeated.
    async fn put_freshness(&self, records: &[Freshness]) -> Result<()>;

    /// Freshness of all instances that ever reported, ordered by instance, a page at a time. `host_seen` is filled in.
    ///
    /// # Errors
    /// A cursor that isn't of this query; unavailable.
    async fn freshness(&self, query: &FreshnessQuery) -> Result<Page<Freshness>>;

    /// Freshness of one instance.
    ///
    /// # Errors
    /// Unavailable.
    async fn freshness_of(&self, key: &InstanceKey) -> Result<Option<Freshness>>;

    /// Keeps each host's latest beat (by `seen_at`).
    ///
    /// # Errors
    /// Unavailable; may be repeated.
    async fn put_hosts(&self, hosts: &[HostSeen]) -> Result<()>;

    /// The host's latest beat.
    ///
    /// # Errors
    /// Unavailable.
    async fn host(&self, server_id: &ServerId) -> Result<Option<HostSeen>>;

    /// All hosts' latest beats, ordered by id, a page at a time.
    ///
    /// # Errors
    /// A cursor that isn't of this query; unavailable.
    async fn hosts(&self, limit: u32, cursor: Option<&Cursor>) -> Result<Page<HostSeen>>;
}
