//! P6: 100,000 reports through the indexer into Elasticsearch, against the bare `_bulk` of the same documents, and against one
//! POST a document (as the seed's indexer did).
//!
//! Ours is the whole way: read from the Redis stream, parsed, put with results per item, each instance's freshness read,
//! merged and written, acknowledged and deleted. The clock runs from the first entry read to the stream's emptiness; the
//! indexer is the real program and has been started before. The reference sends bodies that were built before, of the
//! indexer's own documents with the same version, by as many connections as the indexer has workers, and looks only at
//! the status. Both write into new indexes of the same template in the same server, in turns.

use std::{
    fs,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use longshore_catalog::{Access, CatalogConfig, CatalogKind, ElasticsearchConfig};
use longshore_tests::{Elasticsearch, Process, Redis, binary, free_port, wait_until};
use redis::Connection;
use reqwest::{Client, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::{line, median, sample::Sample};

const REPORTS: u64 = 100_000;
/// Of hourly backups a day's worth.
const INSTANCES: u64 = 4000;
const ROUNDS: usize = 3;
const WORKERS: usize = 2;
/// Documents in one body of the reference.
const BODY: usize = 5000;
const POSTS: usize = 2000;
const DEADLINE: Duration = Duration::from_secs(300);

/// Prints `P6.bulk` and `P6.post`.
pub(crate) fn measure() -> anyhow::Result<()> {
    let server = Elasticsearch::start();
    let redis = Redis::start();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(compare(&server, &redis))
}

async fn compare(server: &Elasticsearch, redis: &Redis) -> anyhow::Result<()> {
    let client = Client::new();
    let sample = Sample::new(INSTANCES)?;
    let bodies: Vec<String> = (0..REPORTS)
        .map(|number| Ok(serde_json::to_string(&sample.report(number, true)?)?))
        .collect::<anyhow::Result<_>>()?;
    let (mut ours, mut bulk) = (Vec::new(), Vec::new());
    let mut documents = Vec::new();
    for round in 0..=ROUNDS {
        let prefix = format!("ours{round}");
        let rate = indexer(server, redis, &prefix, &bodies).await?;
        if round == 0 {
            documents = dump(&client, server, &prefix).await?;
        }
        remove(&client, server, &prefix).await?;
        let prefix = format!("bare{round}");
        let bare = bare_bulk(&client, server, &prefix, &documents).await?;
        remove(&client, server, &prefix).await?;
        eprintln!(
            "P6 round {round}: {rate:.0}/s through the indexer, {bare:.0}/s by bare bulk{}",
            if round == 0 { " (to warm up)" } else { "" }
        );
        if round > 0 {
            ours.push(rate);
            bulk.push(bare);
        }
    }
    let post = posts(&client, server, &documents[..POSTS]).await?;
    let (ours, bulk) = (median(ours), median(bulk));
    line("P6.bulk", "indexer-against-bare-bulk", ours / bulk, ours, bulk, "reports/s", ">=0.7");
    line("P6.post", "indexer-against-post-each", ours / post, ours, post, "reports/s", ">=100");
    Ok(())
}

/// Reports a second, through the real program.
async fn indexer(server: &Elasticsearch, redis: &Redis, prefix: &str, bodies: &[String]) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let (file, port) = (folder.path().join("indexer.toml"), free_port());
    fs::write(
        &file,
        format!(
            "[redis]\naddress = \"{}\"\n[status]\nlisten = \"127.0.0.1:{port}\"\n[stream]\nworkers = {WORKERS}\n\
             [catalog]\nkind = \"elasticsearch\"\n[catalog.elasticsearch]\nurls = [\"{}\"]\nprefix = \"{prefix}\"\n\
             replicas = 0\n",
            redis.address(),
            server.url()
        ),
    )?;
    let mut connection = redis.connection();
    stage(&mut connection, bodies)?;
    let mut command = Command::new(binary("longshore-indexer"));
    command.arg("run").arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process::spawn(&mut command)?;
    let health = format!("http://127.0.0.1:{port}/healthz");
    wait_until("the indexer is healthy", DEADLINE, async || {
        reqwest::get(&health).await.is_ok_and(|answer| answer.status().is_success())
    })
    .await;
    let () = redis::cmd("RENAME").arg("staged").arg("longshore:reports").query(&mut connection)?;
    wait_until("the first batch is read", DEADLINE, async || pending(&mut connection) > 0).await;
    let began = Instant::now();
    wait_until("the stream is empty", DEADLINE, async || {
        redis::cmd("XLEN").arg("longshore:reports").query::<u64>(&mut connection).unwrap_or(1) == 0
    })
    .await;
    let seconds = began.elapsed().as_secs_f64();
    drop(process);
    let () = redis::cmd("FLUSHALL").query(&mut connection)?;
    #[allow(clippy::cast_precision_loss)] // thousands
    Ok(bodies.len() as f64 / seconds)
}

/// Writes the reports to a stream beside, with the indexers' group on it.
fn stage(connection: &mut Connection, bodies: &[String]) -> anyhow::Result<()> {
    for chunk in bodies.chunks(5000) {
        let mut pipe = redis::pipe();
        for body in chunk {
            pipe.cmd("XADD").arg(&["staged", "*", "kind", "report", "body", body]).ignore();
        }
        pipe.query::<()>(connection)?;
    }
    Ok(redis::cmd("XGROUP").arg(&["CREATE", "staged", "indexers", "0"]).query(connection)?)
}

fn pending(connection: &mut Connection) -> u64 {
    let summary: Result<Vec<redis::Value>, _> =
        redis::cmd("XPENDING").arg(&["longshore:reports", "indexers"]).query(connection);
    let count = summary.ok().and_then(|summary| summary.into_iter().next());
    count.and_then(|count| redis::from_redis_value(count).ok()).unwrap_or(0)
}

/// A document: its id, its version, itself.
type Document = (String, u64, String);

/// All documents that the indexer wrote.
async fn dump(client: &Client, server: &Elasticsearch, prefix: &str) -> anyhow::Result<Vec<Document>> {
    let url = format!("{}/{prefix}-backups", server.url());
    client.post(format!("{url}/_refresh")).send().await?.error_for_status()?;
    let mut documents = Vec::new();
    let mut after = Value::Null;
    loop {
        let mut body = json!({"size": BODY, "version": true, "sort": ["id"]});
        if !after.is_null() {
            body["search_after"] = after;
        }
        let mut page: Value = client.post(format!("{url}/_search")).json(&body).send().await?.json().await?;
        let hits = page["hits"]["hits"].as_array_mut().context("hits")?;
        let Some(last) = hits.last() else { break };
        after = last["sort"].clone();
        for hit in hits {
            let id = hit["_id"].as_str().context("_id")?.to_owned();
            documents.push((id, hit["_version"].as_u64().context("_version")?, hit["_source"].to_string()));
        }
    }
    ensure!(documents.len() as u64 == REPORTS, "the indexer wrote {} documents", documents.len());
    Ok(documents)
}

async fn prepare(server: &Elasticsearch, prefix: &str) -> anyhow::Result<()> {
    let elasticsearch = ElasticsearchConfig {
        urls: vec![server.url()],
        prefix: prefix.to_owned(),
        replicas: 0,
        ..ElasticsearchConfig::default()
    };
    let config = CatalogConfig { kind: CatalogKind::Elasticsearch, elasticsearch, ..CatalogConfig::default() };
    Ok(longshore_catalog::open(&config, Access::Write)?.ensure_schema().await?)
}

/// Documents a second, bodies built before.
async fn bare_bulk(
    client: &Client,
    server: &Elasticsearch,
    prefix: &str,
    documents: &[Document],
) -> anyhow::Result<f64> {
    prepare(server, prefix).await?;
    let index = format!("{prefix}-backups-2026-11");
    let body = |chunk: &[Document]| {
        chunk
            .iter()
            .map(|(id, version, source)| {
                let target = json!({"_index": index, "_id": id, "version": version, "version_type": "external_gte"});
                format!("{}\n{source}\n", json!({"index": target}))
            })
            .collect::<String>()
    };
    let bodies: Vec<String> = documents.chunks(BODY).map(body).collect();
    let bodies = Arc::new(std::sync::Mutex::new(bodies));
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..WORKERS {
        let (client, bodies, url) = (client.clone(), Arc::clone(&bodies), format!("{}/_bulk", server.url()));
        tasks.spawn(async move {
            loop {
                let next = bodies.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.pop();
                let Some(body) = next else { return anyhow::Ok(()) };
                let sent = client.post(&url).header(CONTENT_TYPE, "application/x-ndjson").body(body).send().await?;
                sent.error_for_status()?.bytes().await?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let seconds = began.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)] // thousands
    Ok(documents.len() as f64 / seconds)
}

/// Documents a second, each with a request of its own over one kept connection.
async fn posts(client: &Client, server: &Elasticsearch, documents: &[Document]) -> anyhow::Result<f64> {
    prepare(server, "posts").await?;
    let url = format!("{}/posts-backups-2026-11/_doc", server.url());
    let began = Instant::now();
    for (.., source) in documents {
        let sent = client.post(&url).header(CONTENT_TYPE, "application/json").body(source.clone()).send().await?;
        sent.error_for_status()?.bytes().await?;
    }
    #[allow(clippy::cast_precision_loss)] // thousands
    Ok(documents.len() as f64 / began.elapsed().as_secs_f64())
}

async fn remove(client: &Client, server: &Elasticsearch, prefix: &str) -> anyhow::Result<()> {
    for index in ["backups-2026-11", "freshness", "hosts"] {
        client.delete(format!("{}/{prefix}-{index}", server.url())).send().await?.error_for_status()?;
    }
    Ok(())
}
