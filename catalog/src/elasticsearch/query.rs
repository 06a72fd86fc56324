//! From filters and questions to Elasticsearch's query language. Plain filters: nothing is scored.

use longshore_core::{
    BackupType, BusinessId, InstanceKey, InstanceName, Millis, NodeId, Outcome, ReasonCode, ServerId, chain::FullBackup,
};
use serde_json::{Value, json};

use crate::{CountBy, Filter, FreshnessQuery, Order, Result, SearchQuery, TimeSpan, words};

/// The most buckets asked for; more businesses, types or nodes than this are cut.
const MOST_BUCKETS: u32 = 10_000;

/// The entries that pass `filter`.
pub(super) fn of_filter(filter: &Filter) -> Value {
    let mut parts = Vec::new();
    let mut equal = |field: &str, value: Option<&str>| {
        if let Some(value) = value {
            parts.push(term(field, value));
        }
    };
    equal("server_id", filter.server_id.as_ref().map(ServerId::as_str));
    equal("type", filter.backup_type.as_ref().map(BackupType::as_str));
    equal("instance", filter.instance.as_ref().map(InstanceName::as_str));
    equal("business_id", filter.business_id.as_ref().map(BusinessId::as_str));
    equal("node_id", filter.node_id.as_ref().map(NodeId::as_str));
    equal("reason", filter.reason.as_ref().map(ReasonCode::as_str));
    if !filter.outcomes.is_empty() {
        parts.push(json!({"terms": {"outcome": filter.outcomes}}));
    }
    parts.extend(span("made_at", filter.made));
    parts.extend(span("stored_at", filter.stored));
    if let Some(text) = &filter.text {
        let words = words::spaced(text);
        parts.push(match words.as_str() {
            "" => json!({"match_none": {}}),
            words => json!({"match_phrase": {"words": words}}),
        });
    }
    all_of(parts)
}

/// A page of entries; one more than the limit, to know whether there is a next one.
pub(super) fn search(query: &SearchQuery) -> Result<Value> {
    let direction = match query.order {
        Order::Ascending => "asc",
        Order::Descending => "desc",
    };
    let mut body = json!({
        "size": query.limit() + 1,
        "track_total_hits": false,
        "query": of_filter(&query.filter),
        "sort": [{query.sort.as_str(): direction}, {"id": direction}],
    });
    if let Some((value, id)) = query.after()? {
        body["search_after"] = json!([value, id]);
    }
    Ok(body)
}

/// The stored backup of the instance made last, at or before `at`.
pub(super) fn last_good(key: &InstanceKey, at: Millis) -> Value {
    let mut parts = of_instance(key);
    parts.push(term("outcome", Outcome::Stored.as_str()));
    // i64::MAX is beyond what a date may be; then there is no bound.
    if at < Millis(i64::MAX) {
        parts.push(json!({"range": {"made_at": {"lte": at}}}));
    }
    json!({
        "size": 1,
        "track_total_hits": false,
        "query": all_of(parts),
        "sort": [{"made_at": "desc"}, {"id": "desc"}],
    })
}

/// The stored backups of the instance that belong to `full` and were made at or before `at`; a page of them, by id.
pub(super) fn members(key: &InstanceKey, full: &FullBackup, at: Millis, size: usize, after: Option<&str>) -> Value {
    let mut parts = of_instance(key);
    parts.push(term("outcome", Outcome::Stored.as_str()));
    parts.push(term("full_name", full.name.as_str()));
    parts.push(json!({"term": {"full_made_at": full.made_at}}));
    parts.push(json!({"range": {"made_at": {"lte": at}}}));
    let mut body = json!({"size": size, "track_total_hits": false, "query": all_of(parts), "sort": [{"id": "asc"}]});
    if let Some(after) = after {
        body["search_after"] = json!([after]);
    }
    body
}

/// One bucket for each value.
pub(super) fn counts(by: CountBy, filter: &Filter) -> Value {
    let terms = |field: &str| json!({"terms": {"field": field, "size": MOST_BUCKETS, "order": {"_key": "asc"}}});
    let mut buckets = match by {
        CountBy::Day { utc_offset_minutes } => json!({"date_histogram": {
            "field": "made_at",
            "calendar_interval": "day",
            "time_zone": zone(utc_offset_minutes),
            "format": "yyyy-MM-dd",
            "min_doc_count": 1,
        }}),
        CountBy::Business => terms("business_id"),
        CountBy::Type => terms("type"),
        CountBy::Node => terms("node_id"),
        CountBy::Outcome => terms("outcome"),
    };
    buckets["aggs"] = json!({"bytes": {"sum": {"field": "size_bytes"}}});
    json!({"size": 0, "track_total_hits": false, "query": of_filter(filter), "aggs": {"by": buckets}})
}

/// Number, bytes, first and last of all that pass.
pub(super) fn totals(filter: &Filter) -> Value {
    json!({
        "size": 0,
        "track_total_hits": true,
        "query": of_filter(filter),
        "aggs": {
            "bytes": {"sum": {"field": "size_bytes"}},
            "first": {"min": {"field": "made_at"}},
            "last": {"max": {"field": "made_at"}},
        },
    })
}

/// A page of instances.
pub(super) fn freshness(query: &FreshnessQuery, size: usize, after: Option<&Value>) -> Value {
    let mut parts = Vec::new();
    let mut equal = |field: &str, value: Option<&str>| {
        if let Some(value) = value {
            parts.push(term(field, value));
        }
    };
    equal("server_id", query.server_id.as_ref().map(ServerId::as_str));
    equal("type", query.backup_type.as_ref().map(BackupType::as_str));
    equal("business_id", query.business_id.as_ref().map(BusinessId::as_str));
    if let Some(before) = query.due_before {
        parts.push(json!({"bool": {"minimum_should_match": 1, "should": [
            {"range": {"due_at": {"lt": before}}},
            {"bool": {"must_not": [{"exists": {"field": "due_at"}}]}},
        ]}}));
    }
    listed(all_of(parts), size, json!(["server_id", "type", "instance"]), after)
}

/// A page of hosts.
pub(super) fn hosts(size: usize, after: Option<&Value>) -> Value {
    listed(json!({"match_all": {}}), size, json!(["server_id"]), after)
}

fn listed(query: Value, size: usize, sort: Value, after: Option<&Value>) -> Value {
    let mut body = json!({"size": size, "track_total_hits": false, "query": query, "sort": sort});
    if let Some(after) = after {
        body["search_after"] = after.clone();
    }
    body
}

fn of_instance(key: &InstanceKey) -> Vec<Value> {
    vec![
        term("instance", key.instance.as_str()),
        term("server_id", key.server_id.as_str()),
        term("type", key.backup_type.as_str()),
    ]
}

fn term(field: &str, value: &str) -> Value {
    json!({"term": {field: value}})
}

fn span(field: &str, span: TimeSpan) -> Option<Value> {
    let mut bounds = serde_json::Map::new();
    if let Some(from) = span.from {
        bounds.insert("gte".to_owned(), json!(from));
    }
    if let Some(until) = span.until {
        bounds.insert("lt".to_owned(), json!(until));
    }
    (!bounds.is_empty()).then(|| json!({"range": {field: bounds}}))
}

fn all_of(parts: Vec<Value>) -> Value {
    if parts.is_empty() { json!({"match_all": {}}) } else { json!({"bool": {"filter": parts}}) }
}

/// `+08:00`.
fn zone(utc_offset_minutes: i16) -> String {
    let sign = if utc_offset_minutes < 0 { '-' } else { '+' };
    let minutes = utc_offset_minutes.unsigned_abs();
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}
