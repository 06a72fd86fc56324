//! `[catalog]`: which back-end, and where.

use std::path::PathBuf;

use longshore_core::config::{Secret, Span};
use serde::{Deserialize, Serialize};

/// The back-end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatalogKind {
    /// One file on this machine, one indexer.
    #[default]
    Sqlite,
    /// A cluster, any number of indexers.
    Elasticsearch,
}

impl CatalogKind {
    /// As in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Elasticsearch => "elasticsearch",
        }
    }
}

/// `[catalog]`, the same in every program that opens it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CatalogConfig {
    /// `sqlite` or `elasticsearch`.
    pub kind: CatalogKind,
    /// SQLite's file; on a local disk, never on NFS.
    pub path: PathBuf,
    /// `[catalog.elasticsearch]`.
    pub elasticsearch: ElasticsearchConfig,
}

impl Default for CatalogConfig {
    fn default() -> Self {
        Self {
            kind: CatalogKind::Sqlite,
            path: PathBuf::from("/var/lib/longshore/catalog.db"),
            elasticsearch: ElasticsearchConfig::default(),
        }
    }
}

/// `[catalog.elasticsearch]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ElasticsearchConfig {
    /// `http://host:9200` or `https://...`, with a path when a proxy wants one. Several: tried in turn.
    pub urls: Vec<String>,
    /// What the name of every index begins with.
    pub prefix: String,
    /// For basic authentication.
    pub username: Option<String>,
    /// For basic authentication.
    pub password: Option<Secret>,
    /// Instead of them: an API key as Elasticsearch gives it, encoded.
    pub api_key: Option<Secret>,
    /// A private certificate authority, PEM.
    pub ca_file: Option<PathBuf>,
    /// How long one request may take.
    pub timeout: Span,
    /// Shards of each month's index.
    pub shards: u32,
    /// Copies of each shard on other machines.
    pub replicas: u32,
}

impl Default for ElasticsearchConfig {
    fn default() -> Self {
        Self {
            urls: vec!["http://127.0.0.1:9200".to_owned()],
            prefix: "longshore".to_owned(),
            username: None,
            password: None,
            api_key: None,
            ca_file: None,
            timeout: Span::seconds(30),
            shards: 1,
            replicas: 1,
        }
    }
}
