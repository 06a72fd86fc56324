//! The registry's tables. A step is never changed once released; a new one is added after it.
//!
//! `id` of `business` and `backup_type` is the row number that the seed's tables use to point at them; everything else
//! points by the ids that messages carry.

use rusqlite_migration::{M, Migrations};

const STEPS: &[M<'_>] = &[
    M::up(
        "
    CREATE TABLE business (
        id INTEGER PRIMARY KEY,
        business_id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL
    ) STRICT;
    CREATE TABLE backup_type (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE cluster (
        cluster_id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL,
        queue_address TEXT,
        queue_size INTEGER,
        reported_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE node (
        node_id TEXT NOT NULL PRIMARY KEY,
        cluster_id TEXT REFERENCES cluster (cluster_id),
        name TEXT NOT NULL,
        address TEXT,
        weight INTEGER,
        bandwidth_bytes_per_second INTEGER,
        size_bytes INTEGER,
        used_bytes INTEGER,
        reported_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE instance (
        key TEXT NOT NULL PRIMARY KEY,
        server_id TEXT NOT NULL,
        type TEXT NOT NULL REFERENCES backup_type (name),
        instance TEXT NOT NULL,
        business_id TEXT NOT NULL REFERENCES business (business_id),
        name TEXT NOT NULL,
        address TEXT,
        interval_seconds INTEGER,
        UNIQUE (server_id, type, instance)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX instance_by_business ON instance (business_id);
    CREATE INDEX instance_by_type ON instance (type);
    CREATE INDEX node_by_cluster ON node (cluster_id);
    CREATE TABLE version (number INTEGER NOT NULL) STRICT;
    INSERT INTO version VALUES (0);
    ",
    ),
    M::up(
        "
    CREATE TABLE queue (
        queue TEXT NOT NULL PRIMARY KEY,
        max_wait TEXT,
        job_order TEXT,
        open_hours TEXT,
        urgent INTEGER,
        bandwidth TEXT,
        copies INTEGER,
        verify TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE host (
        server_id TEXT NOT NULL PRIMARY KEY,
        transfers INTEGER,
        starts_per_second REAL,
        modules TEXT NOT NULL,
        bandwidth TEXT,
        open_hours TEXT
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE backup_type ADD COLUMN copies INTEGER;
    ALTER TABLE backup_type ADD COLUMN verify TEXT;
    ALTER TABLE cluster ADD COLUMN bandwidth TEXT;
    ALTER TABLE cluster ADD COLUMN restore_bandwidth TEXT;
    ALTER TABLE node ADD COLUMN bandwidth TEXT;
    ALTER TABLE node ADD COLUMN restore_bandwidth TEXT;
    ALTER TABLE node ADD COLUMN open_hours TEXT;
    UPDATE node SET bandwidth = max(bandwidth_bytes_per_second, 1000) || 'B/s'
        WHERE bandwidth_bytes_per_second IS NOT NULL;
    ALTER TABLE node DROP COLUMN bandwidth_bytes_per_second;
    ",
    ),
];

/// All steps, oldest first.
pub(super) const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);

#[cfg(test)]
mod tests {
    #[test]
    fn every_step_is_valid() {
        assert_eq!(super::MIGRATIONS.validate(), Ok(()));
    }
}
