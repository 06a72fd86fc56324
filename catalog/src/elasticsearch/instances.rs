//! Freshness of instances and beats of hosts, each one document that is merged, not replaced.
//!
//! An instance's document is read, merged and written under the condition that nobody wrote it in between
//! (`if_seq_no`); where somebody did, that one is read again. So any number of indexers may write at once, and no
//! script runs inside the cluster. A host's beat needs no reading: its time is the document's version.

use std::collections::HashMap;

use bytes::Bytes;
use elasticsearch::http::Method;
use longshore_core::{HostBeat, InstanceKey, Millis};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Hits, Link, Names,
    bulk::{BulkAnswer, SHORT},
    query,
};
use crate::{
    CatalogError, Cursor, Freshness, FreshnessQuery, HostSeen, Page, Result,
    freshness::{HOSTS_LIST, INSTANCES_LIST},
    search::page_limit,
};

/// Records written with one request.
const CHUNK: usize = 2000;
/// How often a record that others write at the same time is read again.
const ROUNDS: usize = 50;

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    key: &'a InstanceKey,
    business_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<Millis>,
    record: &'a Freshness,
}

#[derive(Deserialize)]
struct Stored {
    record: Freshness,
}

#[derive(Serialize, Deserialize)]
struct HostDocument {
    seen_at: Millis,
    beat: HostBeat,
}

/// The answer to `_mget`.
#[derive(Deserialize)]
struct Found<T> {
    docs: Vec<FoundOne<T>>,
}

#[derive(Deserialize)]
struct FoundOne<T> {
    #[serde(rename = "_seq_no")]
    seq_no: Option<u64>,
    #[serde(rename = "_primary_term")]
    primary_term: Option<u64>,
    #[serde(rename = "_source")]
    source: Option<T>,
    #[serde(default)]
    error: Value,
}

/// Merges records into what is kept.
pub(super) async fn put_freshness(link: &Link, names: &Names, records: &[Freshness]) -> Result<()> {
    let index = names.freshness();
    for chunk in records.chunks(CHUNK) {
        let mut waiting: Vec<&Freshness> = chunk.iter().collect();
        let mut rounds = 0;
        while !waiting.is_empty() {
            if rounds == ROUNDS {
                let why = format!("{} records of freshness are written by others all the time", waiting.len());
                return Err(CatalogError::Unavailable { place: link.place().to_owned(), why });
            }
            waiting = merge_once(link, &index, waiting).await?;
            rounds += 1;
        }
    }
    Ok(())
}

/// Reads, merges and writes; gives back those that somebody else wrote meanwhile (or that stood twice in the chunk).
async fn merge_once<'a>(link: &Link, index: &str, records: Vec<&'a Freshness>) -> Result<Vec<&'a Freshness>> {
    let ids: Vec<String> = records.iter().map(|record| record.key.to_string()).collect();
    let found: Vec<FoundOne<Stored>> = get(link, index, &ids).await?;
    let mut body = Vec::new();
    let mut written = Vec::new();
    for ((record, id), kept) in records.into_iter().zip(&ids).zip(found) {
        let position = kept.seq_no.zip(kept.primary_term);
        let merged = match kept.source {
            Some(Stored { record: mut kept }) => {
                let before = kept.clone();
                kept.merge(record.clone());
                if kept == before {
                    continue;
                }
                kept
            }
            None => Freshness { host_seen: None, ..record.clone() },
        };
        let action = match position {
            Some((seq_no, primary_term)) => {
                json!({"index": {"_id": id, "if_seq_no": seq_no, "if_primary_term": primary_term}})
            }
            None => json!({"create": {"_id": id}}),
        };
        let document = Document {
            key: &merged.key,
            business_id: merged.business_id.as_str(),
            due_at: merged.due_at(),
            record: &merged,
        };
        line(&mut body, &action)?;
        line(&mut body, &document)?;
        written.push(record);
    }
    let statuses = bulk(link, index, body, written.len()).await?;
    Ok(written.into_iter().zip(statuses).filter(|&(_, status)| status == 409).map(|(record, _)| record).collect())
}

/// The documents of these ids, in their order.
async fn get<T: serde::de::DeserializeOwned>(link: &Link, index: &str, ids: &[String]) -> Result<Vec<FoundOne<T>>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let answer = link.json(Method::Post, &format!("{index}/_mget"), Some(&json!({"ids": ids}))).await?;
    let found: Found<T> = answer.read()?;
    match found.docs.iter().find(|doc| !doc.error.is_null()) {
        None => Ok(found.docs),
        Some(doc) if doc.error["type"] == "index_not_found_exception" => {
            Err(CatalogError::NotCreated { place: link.place().to_owned() })
        }
        Some(doc) => {
            Err(CatalogError::Unavailable { place: link.place().to_owned(), why: doc.error["reason"].to_string() })
        }
    }
}

/// Sends `items` items; gives the status of each, where none failed but by a conflict.
async fn bulk(link: &Link, index: &str, body: Vec<u8>, items: usize) -> Result<Vec<u16>> {
    if items == 0 {
        return Ok(Vec::new());
    }
    let answer: BulkAnswer = link.bulk_into(index, Bytes::from(body), &[SHORT]).await?.read()?;
    if !answer.errors {
        return Ok(vec![200; items]);
    }
    let failed = answer.items.iter().find(|item| item.end.status >= 300 && item.end.status != 409);
    if let Some(failed) = failed {
        let why = failed.end.error.as_ref().map(super::link::Fault::to_text).unwrap_or_default();
        return Err(CatalogError::Unavailable { place: link.place().to_owned(), why });
    }
    Ok(answer.items.into_iter().map(|item| item.end.status).collect())
}

fn line(body: &mut Vec<u8>, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *body, value)
        .map_err(|error| CatalogError::Damaged { id: "a record to be written".to_owned(), why: error.to_string() })?;
    body.push(b'\n');
    Ok(())
}

pub(super) async fn freshness(link: &Link, names: &Names, query: &FreshnessQuery) -> Result<Page<Freshness>> {
    let after: Option<Value> = match &query.cursor {
        Some(cursor) => Some(json!(cursor.place::<(String, String, String)>(INSTANCES_LIST)?)),
        None => None,
    };
    let limit = page_limit(query.limit);
    let body = query::freshness(query, limit + 1, after.as_ref());
    let hits: Hits<Stored> = search(link, &names.freshness(), &body).await?;
    let mut items: Vec<Freshness> = hits.into_sources().map(|stored| stored.record).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(Freshness::cursor_after);
    fill_in_hosts(link, names, &mut items).await?;
    Ok(Page { items, next })
}

pub(super) async fn freshness_of(link: &Link, names: &Names, key: &InstanceKey) -> Result<Option<Freshness>> {
    let found: Vec<FoundOne<Stored>> = get(link, &names.freshness(), &[key.to_string()]).await?;
    let mut items: Vec<Freshness> = found.into_iter().filter_map(|doc| Some(doc.source?.record)).collect();
    fill_in_hosts(link, names, &mut items).await?;
    Ok(items.pop())
}

async fn fill_in_hosts(link: &Link, names: &Names, items: &mut [Freshness]) -> Result<()> {
    #[derive(Deserialize)]
    struct Seen {
        seen_at: Millis,
    }
    let mut ids: Vec<String> = items.iter().map(|record| record.key.server_id.to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    let found: Vec<FoundOne<Seen>> = get(link, &names.hosts(), &ids).await?;
    let seen: HashMap<&str, Millis> =
        ids.iter().zip(found).filter_map(|(id, doc)| Some((id.as_str(), doc.source?.seen_at))).collect();
    for record in items {
        record.host_seen = seen.get(record.key.server_id.as_str()).copied();
    }
    Ok(())
}

pub(super) async fn put_hosts(link: &Link, names: &Names, hosts: &[HostSeen]) -> Result<()> {
    for chunk in hosts.chunks(CHUNK) {
        let mut body = Vec::new();
        for host in chunk {
            let server_id = &host.beat.server_id;
            let version = host.seen_at.0.max(0);
            let action = json!({"index": {"_id": server_id, "version": version, "version_type": "external_gte"}});
            line(&mut body, &action)?;
            line(&mut body, &json!({"server_id": server_id, "seen_at": host.seen_at, "beat": host.beat}))?;
        }
        bulk(link, &names.hosts(), body, chunk.len()).await?;
    }
    Ok(())
}

pub(super) async fn host(link: &Link, names: &Names, server_id: &str) -> Result<Option<HostSeen>> {
    let found: Vec<FoundOne<HostDocument>> = get(link, &names.hosts(), &[server_id.to_owned()]).await?;
    Ok(found.into_iter().find_map(|doc| doc.source).map(HostDocument::seen))
}

pub(super) async fn hosts(link: &Link, names: &Names, limit: u32, cursor: Option<&Cursor>) -> Result<Page<HostSeen>> {
    let limit = page_limit(limit);
    let after: Option<Value> = match cursor {
        Some(cursor) => Some(json!([cursor.place::<String>(HOSTS_LIST)?])),
        None => None,
    };
    let hits: Hits<HostDocument> = search(link, &names.hosts(), &query::hosts(limit + 1, after.as_ref())).await?;
    let mut items: Vec<HostSeen> = hits.into_sources().map(HostDocument::seen).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(HostSeen::cursor_after);
    Ok(Page { items, next })
}

async fn search<T: serde::de::DeserializeOwned>(link: &Link, index: &str, body: &Value) -> Result<Hits<T>> {
    link.json(Method::Post, &format!("{index}/_search"), Some(body)).await?.read()
}

impl HostDocument {
    fn seen(self) -> HostSeen {
        HostSeen { seen_at: self.seen_at, beat: self.beat }
    }
}
