//! The catalog in Elasticsearch, for any number of indexers: an index a month behind one alias, instances and hosts in
//! indexes of their own.

mod bulk;
mod instances;
mod link;
mod names;
mod query;
mod schema;

use async_trait::async_trait;
use elasticsearch::http::Method;
use longshore_core::{InstanceKey, JobId, Millis, Report, ServerId, chain::FullBackup};
use serde::Deserialize;
use serde_json::{Value, json};

use self::{link::Link, names::Names};
use crate::{
    Backup, Bucket, Catalog, CatalogError, CatalogKind, Chain, CountBy, Cursor, ElasticsearchConfig, Filter, Freshness,
    FreshnessQuery, Health, HostSeen, Page, Put, Result, SearchQuery, Standing, Totals, assemble,
};

/// Members of a chain read with one request.
const MEMBERS: usize = 1000;

/// A catalog in Elasticsearch.
#[derive(Debug)]
pub(crate) struct ElasticsearchCatalog {
    config: ElasticsearchConfig,
    link: Link,
    names: Names,
}

/// An answer to a search.
#[derive(Deserialize)]
struct Hits<T> {
    hits: HitList<T>,
}

#[derive(Deserialize)]
struct HitList<T> {
    hits: Vec<Hit<T>>,
}

#[derive(Deserialize)]
struct Hit<T> {
    #[serde(rename = "_source")]
    source: T,
}

impl<T> Hits<T> {
    fn into_sources(self) -> impl Iterator<Item = T> {
        self.hits.hits.into_iter().map(|hit| hit.source)
    }
}

/// The part of a backup's document that is read back.
#[derive(Deserialize)]
struct Kept {
    report: Report,
}

impl From<Kept> for Backup {
    fn from(kept: Kept) -> Self {
        Self { report: kept.report }
    }
}

impl ElasticsearchCatalog {
    /// Checks the configuration; nothing is sent yet.
    pub(crate) fn new(config: &ElasticsearchConfig) -> Result<Self> {
        if !Names::is_valid(&config.prefix) {
            return Err(CatalogError::Config(format!(
                "elasticsearch.prefix {:?} can't begin an index's name; use lower-case letters, digits, - and _",
                config.prefix
            )));
        }
        Ok(Self { config: config.clone(), link: Link::new(config)?, names: Names::new(&config.prefix) })
    }

    async fn find(&self, body: &Value) -> Result<Vec<Backup>> {
        let hits: Hits<Kept> = self.ask(body).await?;
        Ok(hits.into_sources().map(Backup::from).collect())
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, body: &Value) -> Result<T> {
        let path = format!("{}/_search", self.names.backups());
        self.link.json(Method::Post, &path, Some(body)).await?.read()
    }

    async fn last_good(&self, key: &InstanceKey, at: Millis) -> Result<Option<Backup>> {
        Ok(self.find(&query::last_good(key, at)).await?.pop())
    }

    async fn members(&self, key: &InstanceKey, full: &FullBackup, at: Millis) -> Result<Vec<Backup>> {
        let mut members: Vec<Backup> = Vec::new();
        loop {
            let after = members.last().map(|backup| backup.id().to_string());
            let page = self.find(&query::members(key, full, at, MEMBERS, after.as_deref())).await?;
            let complete = page.len() < MEMBERS;
            members.extend(page);
            if complete {
                return Ok(members);
            }
        }
    }
}

#[async_trait]
impl Catalog for ElasticsearchCatalog {
    async fn ensure_schema(&self) -> Result<()> {
        schema::ensure(&self.link, &self.names, &self.config).await
    }

    async fn health(&self) -> Result<Health> {
        #[derive(Deserialize)]
        struct Cluster {
            cluster_name: String,
            status: String,
            number_of_nodes: u64,
        }
        // Health waits for an index that is missing; a search says so at once.
        self.ask::<Value>(&json!({"size": 0, "track_total_hits": false})).await?;
        let path = format!("_cluster/health/{}?timeout=5s", self.names.backups());
        let answer = self.link.json(Method::Get, &path, None).await?;
        let cluster: Cluster = answer.read()?;
        let place = self.link.place().to_owned();
        if cluster.status == "red" {
            let why = "a shard of the backups is missing (status red)".to_owned();
            return Err(CatalogError::Unavailable { place, why });
        }
        let Cluster { cluster_name, status, number_of_nodes } = cluster;
        let detail = format!("cluster {cluster_name}, {number_of_nodes} nodes, {status}");
        Ok(Health { kind: CatalogKind::Elasticsearch, place, detail })
    }

    async fn put(&self, reports: &[Report]) -> Result<Vec<Put>> {
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        bulk::put(&self.link, &self.names, reports).await
    }

    async fn refresh(&self) -> Result<()> {
        let path = format!("{},{},{}/_refresh", self.names.backups(), self.names.freshness(), self.names.hosts());
        self.link.json(Method::Post, &path, None).await?.read::<Value>().map(drop)
    }

    async fn by_id(&self, id: JobId) -> Result<Option<Backup>> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(rename = "_source")]
            source: Kept,
        }
        let path = format!("{}/_doc/{id}", self.names.month_of(id));
        let answer = self.link.json(Method::Get, &path, None).await?;
        // No such document, or no backup of its month yet.
        if answer.is_missing() {
            return Ok(None);
        }
        Ok(Some(answer.read::<Document>()?.source.into()))
    }

    async fn standings(&self, ids: &[JobId]) -> Result<Vec<Option<Standing>>> {
        #[derive(Deserialize)]
        struct Found {
            docs: Vec<Version>,
        }
        #[derive(Deserialize)]
        struct Version {
            #[serde(rename = "_version")]
            version: Option<u64>,
        }
        let mut standings = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MEMBERS) {
            let one = |&id: &JobId| json!({"_index": self.names.month_of(id), "_id": id, "_source": false});
            let body = json!({"docs": ids.iter().map(one).collect::<Vec<_>>()});
            let found: Found = self.link.json(Method::Post, "_mget", Some(&body)).await?.read()?;
            // An entry without a version is not there, or its month is not.
            standings.extend(found.docs.into_iter().map(|doc| doc.version.map(bulk::standing_of)));
        }
        Ok(standings)
    }

    async fn search(&self, query: &SearchQuery) -> Result<Page<Backup>> {
        let limit = query.limit();
        let mut items = self.find(&query::search(query)?).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| query.cursor_after(last));
        Ok(Page { items, next })
    }

    async fn latest_good(&self, key: &InstanceKey) -> Result<Option<Backup>> {
        self.last_good(key, Millis(i64::MAX)).await
    }

    async fn chain(&self, key: &InstanceKey, at: Millis) -> Result<Option<Chain>> {
        let Some(wanted) = self.last_good(key, at).await? else { return Ok(None) };
        let members = match assemble::full_needed(&wanted) {
            Some(full) => self.members(key, full, wanted.report.job.made_at).await?,
            None => Vec::new(),
        };
        Ok(Some(assemble::assemble(wanted, members)))
    }

    async fn counts(&self, by: CountBy, filter: &Filter) -> Result<Vec<Bucket>> {
        #[derive(Deserialize)]
        struct Answer {
            aggregations: Option<Aggregations>,
        }
        #[derive(Deserialize)]
        struct Aggregations {
            by: Buckets,
        }
        #[derive(Deserialize)]
        struct Buckets {
            buckets: Vec<Counted>,
        }
        #[derive(Deserialize)]
        struct Counted {
            key: Value,
            key_as_string: Option<String>,
            doc_count: u64,
            bytes: Number,
        }
        let answer: Answer = self.ask(&query::counts(by, filter)).await?;
        let bucket = |counted: Counted| Bucket {
            key: counted.key_as_string.or_else(|| counted.key.as_str().map(str::to_owned)).unwrap_or_default(),
            count: counted.doc_count,
            bytes: counted.bytes.whole().unwrap_or(0),
        };
        let buckets = answer.aggregations.map(|aggregations| aggregations.by.buckets).unwrap_or_default();
        Ok(buckets.into_iter().map(bucket).collect())
    }

    async fn totals(&self, filter: &Filter) -> Result<Totals> {
        #[derive(Deserialize)]
        struct Answer {
            hits: Matches,
            aggregations: Option<Aggregations>,
        }
        #[derive(Deserialize)]
        struct Matches {
            total: Total,
        }
        #[derive(Deserialize)]
        struct Total {
            value: u64,
        }
        #[derive(Deserialize)]
        struct Aggregations {
            bytes: Number,
            first: Number,
            last: Number,
        }
        let answer: Answer = self.ask(&query::totals(filter)).await?;
        let millis = |number: &Number| number.whole().and_then(|millis| i64::try_from(millis).ok()).map(Millis);
        Ok(match answer.aggregations {
            Some(Aggregations { bytes, first, last }) => Totals {
                count: answer.hits.total.value,
                bytes: bytes.whole().unwrap_or(0),
                first_made_at: millis(&first),
                last_made_at: millis(&last),
            },
            None => Totals::default(),
        })
    }

    async fn put_freshness(&self, records: &[Freshness]) -> Result<()> {
        instances::put_freshness(&self.link, &self.names, records).await
    }

    async fn freshness(&self, query: &FreshnessQuery) -> Result<Page<Freshness>> {
        instances::freshness(&self.link, &self.names, query).await
    }

    async fn freshness_of(&self, key: &InstanceKey) -> Result<Option<Freshness>> {
        instances::freshness_of(&self.link, &self.names, key).await
    }

    async fn put_hosts(&self, hosts: &[HostSeen]) -> Result<()> {
        instances::put_hosts(&self.link, &self.names, hosts).await
    }

    async fn host(&self, server_id: &ServerId) -> Result<Option<HostSeen>> {
        instances::host(&self.link, &self.names, server_id.as_str()).await
    }

    async fn hosts(&self, limit: u32, cursor: Option<&Cursor>) -> Result<Page<HostSeen>> {
        instances::hosts(&self.link, &self.names, limit, cursor).await
    }
}

/// An aggregation's value: a double, exact up to 9 PB; null over nothing.
#[derive(Deserialize)]
struct Number {
    value: Option<f64>,
}

impl Number {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // sums and times are whole and not negative
    fn whole(&self) -> Option<u64> {
        self.value.map(|value| value.max(0.0) as u64)
    }
}
