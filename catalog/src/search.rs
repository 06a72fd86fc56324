//! What can be asked of the catalog: filters, sort orders, pages, counts.
//!
//! Paging needs no state in the catalog: a cursor is the sort value and the id of the last entry seen, so it never
//! expires, an entry that stays is never skipped or shown twice, and one written meanwhile is shown if it sorts later.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use longshore_core::{BackupType, BusinessId, InstanceName, JobId, Millis, NodeId, Outcome, ReasonCode, ServerId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Backup, CatalogError, Result};

/// The most entries of one page; a larger limit is cut to it.
pub const MAX_LIMIT: u32 = 1000;

/// A half-open span of time, open at an end that is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TimeSpan {
    /// The first moment in it.
    pub from: Option<Millis>,
    /// The first moment after it.
    pub until: Option<Millis>,
}

impl TimeSpan {
    /// Whether `at` is in it.
    pub fn contains(&self, at: Millis) -> bool {
        self.from.is_none_or(|from| at >= from) && self.until.is_none_or(|until| at < until)
    }
}

/// Which entries: all that pass every given part. The default passes all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// The host.
    pub server_id: Option<ServerId>,
    /// The type.
    pub backup_type: Option<BackupType>,
    /// Which one on its host.
    pub instance: Option<InstanceName>,
    /// The business.
    pub business_id: Option<BusinessId>,
    /// The node that stored it or gave up.
    pub node_id: Option<NodeId>,
    /// Any of these; empty for any at all.
    pub outcomes: Vec<Outcome>,
    /// The reason's code.
    pub reason: Option<ReasonCode>,
    /// When its run started.
    pub made: TimeSpan,
    /// When it was stored, or ended.
    pub stored: TimeSpan,
    /// A phrase in the reason's text: whole words in this order, for Chinese and its like whole characters. Case is ignored.
    pub text: Option<String>,
}

/// What entries are sorted by; equal ones by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SortBy {
    /// When the run started.
    #[default]
    MadeAt,
    /// When it was stored, or ended.
    StoredAt,
    /// Bytes announced.
    SizeBytes,
}

impl SortBy {
    /// As in JSON, which is the column's name too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MadeAt => "made_at",
            Self::StoredAt => "stored_at",
            Self::SizeBytes => "size_bytes",
        }
    }
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Largest or latest first.
    #[default]
    Descending,
    /// Smallest or earliest first.
    Ascending,
}

/// A search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchQuery {
    /// Which entries.
    pub filter: Filter,
    /// Sorted by.
    pub sort: SortBy,
    /// Which way.
    pub order: Order,
    /// How many of them at most, 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
}

impl Default for SearchQuery {
    fn default() -> Self {
        Self { filter: Filter::default(), sort: SortBy::default(), order: Order::default(), limit: 50, cursor: None }
    }
}

/// A page of a longer list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// For the next page; `None` when this is the last.
    pub next: Option<Cursor>,
}

/// Where a page ended: an opaque text, safe in a URL, good for the same query only, never out of date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From what a client sent back; whether it fits is found out by the query.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// `place` in a list named `list`.
    pub(crate) fn of(list: &str, place: &impl Serialize) -> Self {
        Self(URL_SAFE_NO_PAD.encode(serde_json::json!([list, place]).to_string()))
    }

    /// The place, when the cursor is of `list`.
    pub(crate) fn place<T: DeserializeOwned>(&self, list: &str) -> Result<T> {
        let bytes = URL_SAFE_NO_PAD.decode(&self.0).map_err(|_| CatalogError::Cursor)?;
        let (of, place): (String, T) = serde_json::from_slice(&bytes).map_err(|_| CatalogError::Cursor)?;
        if of == list { Ok(place) } else { Err(CatalogError::Cursor) }
    }
}

impl SearchQuery {
    /// The cursor's list: the same sort and direction, whatever the filter.
    fn list(&self) -> &'static str {
        match (self.sort, self.order) {
            (SortBy::MadeAt, Order::Descending) => "made-",
            (SortBy::MadeAt, Order::Ascending) => "made+",
            (SortBy::StoredAt, Order::Descending) => "stored-",
            (SortBy::StoredAt, Order::Ascending) => "stored+",
            (SortBy::SizeBytes, Order::Descending) => "size-",
            (SortBy::SizeBytes, Order::Ascending) => "size+",
        }
    }

    /// The sort value and id after which this page begins.
    pub(crate) fn after(&self) -> Result<Option<(i64, JobId)>> {
        self.cursor.as_ref().map(|cursor| cursor.place(self.list())).transpose()
    }

    /// The cursor after an entry.
    pub(crate) fn cursor_after(&self, last: &Backup) -> Cursor {
        let value = match self.sort {
            SortBy::MadeAt => last.report.job.made_at.0,
            SortBy::StoredAt => last.report.stored_at.0,
            SortBy::SizeBytes => i64::try_from(last.size_bytes()).unwrap_or(i64::MAX),
        };
        Cursor::of(self.list(), &(value, last.id()))
    }

    /// The limit within its bounds.
    pub(crate) fn limit(&self) -> usize {
        page_limit(self.limit)
    }
}

/// `limit` within 1 to [`MAX_LIMIT`].
pub(crate) fn page_limit(limit: u32) -> usize {
    limit.clamp(1, MAX_LIMIT) as usize
}

/// What entries are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountBy {
    /// The day of `made_at` as `2026-11-20`, in a zone this many minutes ahead of UTC (480 for China).
    Day {
        /// Minutes ahead of UTC.
        utc_offset_minutes: i16,
    },
    /// The business.
    Business,
    /// The type.
    Type,
    /// The node.
    Node,
    /// The outcome.
    Outcome,
}

/// One value, and the entries that have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The value.
    pub key: String,
    /// How many entries.
    pub count: u64,
    /// Their bytes, as announced.
    pub bytes: u64,
}

/// All entries that pass a filter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// How many.
    pub count: u64,
    /// Their bytes, as announced.
    pub bytes: u64,
    /// The earliest `made_at`.
    pub first_made_at: Option<Millis>,
    /// The latest `made_at`.
    pub last_made_at: Option<Millis>,
}
