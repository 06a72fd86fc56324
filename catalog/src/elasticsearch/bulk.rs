//! Writing entries: bulk requests no larger than a few megabytes, and the result of each item by itself. HTTP 200 says
//! nothing about the items; each has a status of its own.

use std::ops::Range;

use bytes::Bytes;
use longshore_core::{
    BackupType, BusinessId, InstanceName, JobId, Millis, NodeId, Outcome, RelativePath, Report, ServerId,
};
use serde::{Deserialize, Serialize};

use super::{
    Link, Names,
    link::{Answer, Fault},
};
use crate::{
    CatalogError, Put, Result, Standing,
    entry::{Entry, REVISION_LIMIT},
};

/// The bytes of one request: enough to be worth it, far below what a server or a proxy refuses.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// An entry as it is stored. Only `report` is ever read back; the rest is to find it by.
#[derive(Serialize)]
struct Document<'a> {
    id: JobId,
    server_id: &'a ServerId,
    #[serde(rename = "type")]
    backup_type: &'a BackupType,
    instance: &'a InstanceName,
    business_id: &'a BusinessId,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<&'a NodeId>,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    made_at: Millis,
    stored_at: Millis,
    size_bytes: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_name: Option<&'a RelativePath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_made_at: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<&'a str>,
    report: &'a Report,
}

/// One line before a document.
#[derive(Serialize)]
struct Action<'a> {
    index: Target<'a>,
}

#[derive(Serialize)]
struct Target<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_id")]
    id: JobId,
    version: i64,
    /// Equal or greater: a repetition is written again, an older one is refused.
    version_type: &'static str,
}

/// The answer to a bulk, cut to what is needed.
#[derive(Deserialize)]
pub(super) struct BulkAnswer {
    /// Must be there: without it, it is no answer to a bulk, and nothing is known to be written.
    pub(super) errors: bool,
    #[serde(default)]
    pub(super) items: Vec<Item>,
}

/// One item's end.
#[derive(Deserialize)]
pub(super) struct Item {
    #[serde(alias = "index", alias = "create")]
    pub(super) end: ItemEnd,
}

/// See [`Item`].
#[derive(Deserialize)]
pub(super) struct ItemEnd {
    pub(super) status: u16,
    #[serde(default)]
    pub(super) error: Option<Fault>,
}

/// In a version, that its report is stored. No revision reaches it ([`Entry::of`]).
const STORED: i64 = REVISION_LIMIT;

/// What keeps an answer to a bulk short.
pub(super) const SHORT: (&str, &str) = ("filter_path", "errors,items.*.status,items.*.error.type,items.*.error.reason");

/// The two lines of one report, or why it has none.
type Lines = std::result::Result<Vec<u8>, String>;

/// Writes reports; one result for each, in order.
pub(super) async fn put(link: &Link, names: &Names, reports: &[Report]) -> Result<Vec<Put>> {
    let mut results: Vec<Option<Put>> = vec![None; reports.len()];
    let mut first_error = None;
    let mut answered = false;
    let mut at = 0;
    while at < reports.len() {
        let mut body = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
        // Where each document of this chunk began, and whose it is.
        let mut starts: Vec<(usize, usize)> = Vec::new();
        while at < reports.len() && body.len() < CHUNK_BYTES {
            match lines(names, &reports[at]) {
                Ok(lines) => {
                    starts.push((at, body.len()));
                    body.extend_from_slice(&lines);
                }
                Err(why) => results[at] = Some(Put::Refused(why)),
            }
            at += 1;
        }
        match send(link, Bytes::from(body), &starts, &mut results).await {
            Ok(()) => answered = true,
            // What an earlier chunk wrote is known; what this one wrote is not, and may be put again.
            Err(error) => {
                first_error.get_or_insert(error);
                break;
            }
        }
    }
    match first_error {
        Some(error) if !answered => Err(error),
        error => {
            let why = error.map_or_else(String::new, |error| error.to_string());
            Ok(results.into_iter().map(|put| put.unwrap_or_else(|| Put::Overloaded(why.clone()))).collect())
        }
    }
}

/// Sends one chunk. A chunk that is too large for the server (or a proxy before it) is halved; a single document that is
/// too large is refused.
async fn send(link: &Link, body: Bytes, starts: &[(usize, usize)], results: &mut [Option<Put>]) -> Result<()> {
    // Pieces still to be sent, the first last: ranges of `starts`.
    let mut pieces: Vec<Range<usize>> = std::iter::once(0..starts.len()).collect();
    while let Some(piece) = pieces.pop() {
        let Some(&(first, from)) = starts.get(piece.start).filter(|_| !piece.is_empty()) else { continue };
        let until = starts.get(piece.end).map_or(body.len(), |&(_, until)| until);
        let answer = link.bulk(body.slice(from..until), &[SHORT]).await?;
        if answer.status == 413 && piece.len() == 1 {
            results[first] = Some(Put::Refused("too large for one request (413)".to_owned()));
        } else if answer.status == 413 {
            let middle = piece.start + piece.len() / 2;
            pieces.push(middle..piece.end);
            pieces.push(piece.start..middle);
        } else {
            let ends = ends(answer, piece.len())?;
            for (&(at, _), put) in starts[piece].iter().zip(ends) {
                results[at] = Some(put);
            }
        }
    }
    Ok(())
}

fn ends(answer: Answer, expected: usize) -> Result<Vec<Put>> {
    let answer: BulkAnswer = answer.read()?;
    if !answer.errors {
        return Ok(vec![Put::Written; expected]);
    }
    if answer.items.len() != expected {
        let why = format!("{} results for {expected} items", answer.items.len());
        return Err(CatalogError::Damaged { id: "answer to a bulk".to_owned(), why });
    }
    Ok(answer.items.into_iter().map(|item| end(item.end)).collect())
}

/// What one item's status means.
fn end(end: ItemEnd) -> Put {
    let fault = end.error.unwrap_or_default();
    match end.status {
        200..300 => Put::Written,
        409 => Put::Older,
        429 | 500.. => Put::Overloaded(format!("{} {}", end.status, fault.to_text())),
        _ if fault.is_passing() => Put::Overloaded(format!("{} {}", end.status, fault.to_text())),
        _ => Put::Refused(format!("{} {}", end.status, fault.to_text())),
    }
}

/// The one number that a cluster compares: the revision, above all others for what is stored.
fn version_of(entry: &Entry<'_>) -> i64 {
    if entry.report.outcome == Outcome::Stored { entry.revision | STORED } else { entry.revision }
}

/// How the entry of this version stands.
pub(super) fn standing_of(version: u64) -> Standing {
    let stored = STORED.cast_unsigned();
    Standing { is_stored: version & stored != 0, revision: version & !stored }
}

fn lines(names: &Names, report: &Report) -> Lines {
    let entry = Entry::of(report)?;
    let report = &*entry.report;
    let job = &report.job;
    let index = names.month_of(job.id);
    let action = Action {
        index: Target { index: &index, id: job.id, version: version_of(&entry), version_type: "external_gte" },
    };
    let full = entry.full();
    let document = Document {
        id: job.id,
        server_id: &job.server_id,
        backup_type: &job.backup_type,
        instance: &job.instance,
        business_id: &job.business_id,
        node_id: report.node_id.as_ref(),
        outcome: report.outcome,
        reason: report.reason.as_ref().map(|reason| reason.code.as_str()),
        made_at: job.made_at,
        stored_at: report.stored_at,
        size_bytes: entry.size_bytes,
        full_name: full.map(|full| &full.name),
        full_made_at: full.map(|full| full.made_at),
        words: entry.words.as_deref(),
        report,
    };
    let mut bytes = Vec::with_capacity(2048);
    line(&mut bytes, &action)?;
    line(&mut bytes, &document)?;
    Ok(bytes)
}

/// Adds `value` as one line of JSON.
fn line(bytes: &mut Vec<u8>, value: &impl Serialize) -> std::result::Result<(), String> {
    serde_json::to_writer(&mut *bytes, value).map_err(|error| format!("not JSON: {error}"))?;
    bytes.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{BulkAnswer, end};
    use crate::Put;

    #[test]
    fn each_item_has_an_end_of_its_own() {
        let answer: BulkAnswer = serde_json::from_str(
            r#"{"errors": true, "items": [
                {"index": {"status": 201}},
                {"index": {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "newer"}}},
                {"index": {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "queue full"}}},
                {"index": {"status": 403, "error": {"type": "cluster_block_exception", "reason": "read-only"}}},
                {"index": {"status": 400, "error": {"type": "validation_exception", "reason": "too many shards"}}},
                {"create": {"status": 400, "error": {"type": "document_parsing_exception", "reason": "bad field"}}}
            ]}"#,
        )
        .unwrap();
        let ends: Vec<Put> = answer.items.into_iter().map(|item| end(item.end)).collect();
        let overloaded = |put: &Put| matches!(put, Put::Overloaded(_));
        assert_eq!(ends[..2], [Put::Written, Put::Older]);
        assert!(ends[2..5].iter().all(overloaded), "{ends:?}");
        assert_eq!(ends[5], Put::Refused("400 document_parsing_exception: bad field".to_owned()));
    }
}
