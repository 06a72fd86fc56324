-- Version 1. Times are UTC milliseconds, ids of jobs 16 bytes; text compares bytewise, as keywords do in Elasticsearch.

CREATE TABLE backup (
    entry        INTEGER PRIMARY KEY,
    id           BLOB    NOT NULL UNIQUE,
    revision     INTEGER NOT NULL,
    server_id    TEXT    NOT NULL,
    type         TEXT    NOT NULL,
    instance     TEXT    NOT NULL,
    business_id  TEXT    NOT NULL,
    node_id      TEXT,
    outcome      TEXT    NOT NULL,
    reason       TEXT,
    made_at      INTEGER NOT NULL,
    stored_at    INTEGER NOT NULL,
    size_bytes   INTEGER NOT NULL,
    full_name    TEXT,
    full_made_at INTEGER,
    report       TEXT    NOT NULL
) STRICT;

-- The list of an instance, its last good backup, its backup at a time.
CREATE INDEX backup_of_instance ON backup (server_id, type, instance, made_at, id, outcome);
-- The members of a chain.
CREATE INDEX backup_of_full ON backup (server_id, type, instance, full_made_at) WHERE full_made_at IS NOT NULL;
-- Lists by time; and all that the statistics need, so that they never read the reports.
CREATE INDEX backup_by_made_at ON backup (made_at, id, business_id, type, node_id, outcome, size_bytes);
CREATE INDEX backup_by_stored_at ON backup (stored_at, id);
CREATE INDEX backup_by_size ON backup (size_bytes, id);
CREATE INDEX backup_of_business ON backup (business_id, made_at, id);
CREATE INDEX backup_of_node ON backup (node_id, made_at, id);
CREATE INDEX backup_of_outcome ON backup (outcome, made_at, id);

-- The words of the reasons, by entry.
CREATE VIRTUAL TABLE reason_words USING fts5 (
    words, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 0'
);

CREATE TABLE freshness (
    server_id   TEXT    NOT NULL,
    type        TEXT    NOT NULL,
    instance    TEXT    NOT NULL,
    business_id TEXT    NOT NULL,
    due_at      INTEGER,
    record      TEXT    NOT NULL,
    PRIMARY KEY (server_id, type, instance)
) STRICT, WITHOUT ROWID;

CREATE TABLE host (
    server_id TEXT    NOT NULL PRIMARY KEY,
    seen_at   INTEGER NOT NULL,
    beat      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
