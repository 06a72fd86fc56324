//! What the writer does, each inside one transaction.

use longshore_core::{InstanceKey, NodeId, Outcome};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::{Freshness, HostSeen, Put, Standing, entry::Entry};

/// Writes one entry, unless one that stands above it is there.
pub(super) fn put(transaction: &Transaction<'_>, entry: &Entry<'_>) -> rusqlite::Result<Put> {
    let job = &entry.report.job;
    let id = job.id.as_bytes();
    let kept: Option<(i64, bool, Standing)> = transaction
        .prepare_cached("SELECT entry, reason IS NOT NULL, revision, outcome = ?2 FROM backup WHERE id = ?1")?
        .query_row(params![&id[..], Outcome::Stored.as_str()], |row| {
            let revision = row.get::<_, i64>(2)?.cast_unsigned();
            Ok((row.get(0)?, row.get(1)?, Standing { revision, is_stored: row.get(3)? }))
        })
        .optional()?;
    if let Some((number, had_words, standing)) = kept {
        if standing > Standing::of(&entry.report) {
            return Ok(Put::Older);
        }
        if had_words {
            transaction.prepare_cached("DELETE FROM reason_words WHERE rowid = ?1")?.execute([number])?;
        }
    }
    let full = entry.full();
    let number: i64 = transaction
        .prepare_cached(
            "INSERT INTO backup (entry, id, revision, server_id, type, instance, business_id, node_id, outcome, reason,
                                 made_at, stored_at, size_bytes, full_name, full_made_at, report)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
             ON CONFLICT (entry) DO UPDATE SET
                revision = excluded.revision, server_id = excluded.server_id, type = excluded.type,
                instance = excluded.instance, business_id = excluded.business_id, node_id = excluded.node_id,
                outcome = excluded.outcome, reason = excluded.reason, made_at = excluded.made_at,
                stored_at = excluded.stored_at, size_bytes = excluded.size_bytes, full_name = excluded.full_name,
                full_made_at = excluded.full_made_at, report = excluded.report
             RETURNING entry",
        )?
        .query_row(
            params![
                kept.map(|(number, ..)| number),
                &id[..],
                entry.revision,
                job.server_id.as_str(),
                job.backup_type.as_str(),
                job.instance.as_str(),
                job.business_id.as_str(),
                entry.report.node_id.as_ref().map(NodeId::as_str),
                entry.report.outcome.as_str(),
                entry.report.reason.as_ref().map(|reason| reason.code.as_str()),
                job.made_at.0,
                entry.report.stored_at.0,
                entry.size_bytes,
                full.map(|full| full.name.as_str()),
                full.map(|full| full.made_at.0),
                to_json(&*entry.report)?,
            ],
            |row| row.get(0),
        )?;
    if let Some(words) = &entry.words {
        transaction
            .prepare_cached("INSERT INTO reason_words (rowid, words) VALUES (?1, ?2)")?
            .execute(params![number, words])?;
    }
    Ok(Put::Written)
}

/// Merges one record into the one kept for its instance.
pub(super) fn put_freshness(transaction: &Transaction<'_>, record: Freshness) -> rusqlite::Result<()> {
    let InstanceKey { server_id, backup_type, instance } = record.key.clone();
    let kept: Option<String> = transaction
        .prepare_cached("SELECT record FROM freshness WHERE server_id = ?1 AND type = ?2 AND instance = ?3")?
        .query_row(params![server_id.as_str(), backup_type.as_str(), instance.as_str()], |row| row.get(0))
        .optional()?;
    // A record that can't be read any more is replaced by what is known now.
    let merged = match kept.and_then(|json| serde_json::from_str::<Freshness>(&json).ok()) {
        Some(mut kept) => {
            kept.merge(record);
            kept
        }
        None => record,
    };
    transaction
        .prepare_cached(
            "INSERT INTO freshness (server_id, type, instance, business_id, due_at, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (server_id, type, instance) DO UPDATE SET
                business_id = excluded.business_id, due_at = excluded.due_at, record = excluded.record",
        )?
        .execute(params![
            server_id.as_str(),
            backup_type.as_str(),
            instance.as_str(),
            merged.business_id.as_str(),
            merged.due_at().map(|due| due.0),
            to_json(&merged)?,
        ])?;
    Ok(())
}

/// Keeps the host's beat, unless a later one is there.
pub(super) fn put_host(transaction: &Transaction<'_>, host: &HostSeen) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO host (server_id, seen_at, beat) VALUES (?1, ?2, ?3)
             ON CONFLICT (server_id) DO UPDATE SET seen_at = excluded.seen_at, beat = excluded.beat
             WHERE excluded.seen_at >= seen_at",
        )?
        .execute(params![host.beat.server_id.as_str(), host.seen_at.0, to_json(&host.beat)?])?;
    Ok(())
}

fn to_json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
