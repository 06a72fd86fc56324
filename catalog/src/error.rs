//! What a catalog call can end with, sorted by what the caller does about it.

/// Why a call gave nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogError {
    /// Not reachable, locked or overloaded now: the same call may succeed later.
    #[error("the catalog at {place} is not available: {why}")]
    Unavailable {
        /// The file or address.
        place: String,
        /// What it said.
        why: String,
    },
    /// Nothing there yet to read.
    #[error("there is no catalog at {place} yet: start longshore-indexer once with the same [catalog], it creates it")]
    NotCreated {
        /// The file or address.
        place: String,
    },
    /// Refused by what is there: a wrong password, a schema of a newer version, a file that is no catalog.
    #[error("the catalog at {place} can't be used: {why}")]
    Unusable {
        /// The file or address.
        place: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// An entry that can't be read.
    #[error("the catalog's entry {id} can't be read: {why}")]
    Damaged {
        /// Which.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// A cursor of another query, or cut.
    #[error("this cursor is not of this query: start again without one")]
    Cursor,
    /// The configuration doesn't say enough.
    #[error("[catalog] {0}")]
    Config(String),
}

impl CatalogError {
    /// Whether the same call may succeed later without anyone doing anything about it here.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
