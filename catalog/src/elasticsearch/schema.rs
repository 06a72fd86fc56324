//! Index templates: strict, so that a field that we don't know of is an error and never a guess of the server's. What is
//! asked for is a column; the report itself is kept but not indexed. Nothing here needs more than what Elasticsearch 7 to 9
//! and OpenSearch have in common.

use elasticsearch::http::Method;
use longshore_core::JobId;
use serde_json::{Value, json};

use super::{Link, Names};
use crate::{ElasticsearchConfig, Result};

/// Raised with every change of a mapping; older programs leave a newer template alone.
const VERSION: u32 = 1;

/// Creates or renews the templates, and the indexes that every search needs.
pub(super) async fn ensure(link: &Link, names: &Names, config: &ElasticsearchConfig) -> Result<()> {
    let backups = names.backups();
    let aliases = json!({ backups.clone(): {} });
    let this_month = names.month_of(JobId::fresh());
    for (name, pattern, properties, aliases, index) in [
        (backups, names.months(), backup_properties(), aliases, this_month),
        (names.freshness(), names.freshness(), freshness_properties(), json!({}), names.freshness()),
        (names.hosts(), names.hosts(), host_properties(), json!({}), names.hosts()),
    ] {
        let template = json!({
            "index_patterns": [pattern],
            "priority": 500,
            "version": VERSION,
            "template": {
                "settings": {
                    "number_of_shards": config.shards,
                    "number_of_replicas": config.replicas,
                },
                "mappings": {"dynamic": "strict", "properties": properties},
                "aliases": aliases,
            },
        });
        let path = format!("_index_template/{name}");
        if template_version(link, &path).await? <= Some(VERSION) {
            link.json(Method::Put, &path, Some(&template)).await?.read::<Value>()?;
        }
        let created = link.json(Method::Put, &index, None).await?;
        let exists = created.status == 400 && created.fault().kind == "resource_already_exists_exception";
        if !exists {
            created.read::<Value>()?;
        }
    }
    Ok(())
}

async fn template_version(link: &Link, path: &str) -> Result<Option<u32>> {
    let answer = link.json(Method::Get, path, None).await?;
    if answer.is_missing() {
        return Ok(None);
    }
    let found: Value = answer.read()?;
    let version = &found["index_templates"][0]["index_template"]["version"];
    Ok(version.as_u64().and_then(|version| u32::try_from(version).ok()))
}

fn keyword() -> Value {
    json!({"type": "keyword"})
}

fn date() -> Value {
    json!({"type": "date", "format": "epoch_millis"})
}

/// Kept as it was written, never indexed: unknown fields of a report are no fields of the index.
fn kept() -> Value {
    json!({"type": "object", "enabled": false})
}

fn backup_properties() -> Value {
    json!({
        "id": keyword(),
        "server_id": keyword(),
        "type": keyword(),
        "instance": keyword(),
        "business_id": keyword(),
        "node_id": keyword(),
        "outcome": keyword(),
        "reason": keyword(),
        "made_at": date(),
        "stored_at": date(),
        "size_bytes": {"type": "long"},
        "full_name": keyword(),
        "full_made_at": date(),
        // Already cut into words.
        "words": {"type": "text", "analyzer": "whitespace", "norms": false},
        "report": kept(),
    })
}

fn freshness_properties() -> Value {
    json!({
        "server_id": keyword(),
        "type": keyword(),
        "instance": keyword(),
        "business_id": keyword(),
        "due_at": date(),
        "record": kept(),
    })
}

fn host_properties() -> Value {
    json!({"server_id": keyword(), "seen_at": date(), "beat": kept()})
}
