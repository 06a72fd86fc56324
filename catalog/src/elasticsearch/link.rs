//! Requests to the cluster. The official client carries them with plain JSON types and nothing else, which is why one build
//! serves Elasticsearch 7, 8, 9 and OpenSearch: versioned media types would be refused by half of them.
//!
//! Every request that we send may be repeated, so one that an address did not answer goes to the next; the last one that
//! answered is asked first. An answer is classified here, once, into what the caller can do about it.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use elasticsearch::{
    auth::Credentials,
    cert::{Certificate, CertificateValidation},
    http::{
        Method, Url,
        headers::{CONTENT_TYPE, HeaderMap, HeaderValue},
        transport::{SingleNodeConnectionPool, Transport, TransportBuilder},
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{CatalogError, ElasticsearchConfig, Result};

/// The cluster's addresses.
#[derive(Debug)]
pub(super) struct Link {
    transports: Vec<(String, Transport)>,
    preferred: AtomicUsize,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    body: Bytes,
    place: String,
}

/// What Elasticsearch says of an error, of a request or of an item in a bulk.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Fault {
    /// Such as `version_conflict_engine_exception`.
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    /// For people.
    #[serde(default)]
    pub(super) reason: String,
}

impl Link {
    /// Checks the configuration and prepares; nothing is sent yet.
    pub(super) fn new(config: &ElasticsearchConfig) -> Result<Self> {
        let transports = config.urls.iter().map(|url| transport(config, url)).collect::<Result<Vec<_>>>()?;
        if transports.is_empty() {
            return Err(wrong("elasticsearch.urls is empty; give at least one, such as \"http://127.0.0.1:9200\""));
        }
        Ok(Self { transports, preferred: AtomicUsize::new(0) })
    }

    /// The address that is asked first.
    pub(super) fn place(&self) -> &str {
        &self.transports[self.preferred.load(Ordering::Relaxed) % self.transports.len()].0
    }

    /// A request with a JSON body, or none.
    pub(super) async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        self.send(method, path, &[], body.map(|body| Bytes::from(body.to_string())), HeaderMap::new()).await
    }

    /// A bulk request whose items name their indexes.
    pub(super) async fn bulk(&self, body: Bytes, query: &[(&str, &str)]) -> Result<Answer> {
        self.send(Method::Post, "_bulk", query, Some(body), lines_of_json()).await
    }

    /// A bulk request into one index.
    pub(super) async fn bulk_into(&self, index: &str, body: Bytes, query: &[(&str, &str)]) -> Result<Answer> {
        self.send(Method::Post, &format!("{index}/_bulk"), query, Some(body), lines_of_json()).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Bytes>,
        headers: HeaderMap,
    ) -> Result<Answer> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failure = None;
        for turn in 0..self.transports.len() {
            let at = (first + turn) % self.transports.len();
            let (place, transport) = &self.transports[at];
            let unavailable =
                |error: elasticsearch::Error| CatalogError::Unavailable { place: place.clone(), why: explain(&error) };
            let sent = transport.send(method, path, headers.clone(), Some(query), body.clone(), None).await;
            let answer = match sent {
                Ok(response) => {
                    let status = response.status_code().as_u16();
                    response.bytes().await.map(|body| Answer { status, body, place: place.clone() })
                }
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => failure = Some(unavailable(error)),
            }
        }
        Err(failure.unwrap_or_else(|| wrong("elasticsearch.urls is empty")))
    }
}

impl Answer {
    /// The body of a good answer; an error otherwise.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T> {
        if self.is_good() { self.parse() } else { Err(self.error()) }
    }

    /// Whether it is neither an error nor a redirection.
    pub(super) fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether it says that there is no such index, or no such document.
    pub(super) fn is_missing(&self) -> bool {
        self.status == 404
    }

    /// What it complains of.
    pub(super) fn fault(&self) -> Fault {
        #[derive(Deserialize)]
        struct Body {
            error: Fault,
        }
        serde_json::from_slice::<Body>(&self.body).map(|body| body.error).unwrap_or_else(|_| Fault {
            kind: String::new(),
            reason: String::from_utf8_lossy(&self.body).chars().take(300).collect(),
        })
    }

    /// What a bad answer means for the caller.
    pub(super) fn error(self) -> CatalogError {
        let fault = self.fault();
        let place = self.place;
        let why = format!("{} {}", self.status, fault.to_text());
        match self.status {
            401 | 403 if !fault.is_passing() => CatalogError::Unusable {
                place,
                why: format!("{why}; check username and password, or api_key, and what they are allowed"),
            },
            404 if fault.kind == "index_not_found_exception" => CatalogError::NotCreated { place },
            408 | 429 | 500.. => CatalogError::Unavailable { place, why },
            _ if fault.is_passing() => CatalogError::Unavailable { place, why },
            _ => CatalogError::Unusable { place, why },
        }
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|error| CatalogError::Damaged { id: format!("answer of {}", self.place), why: error.to_string() })
    }
}

impl Fault {
    /// Whether it speaks of the state of the cluster, not of what was sent: a full disk, too many shards, an index that
    /// is missing or closed.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "cluster_block_exception"
                | "es_rejected_execution_exception"
                | "circuit_breaking_exception"
                | "unavailable_shards_exception"
                | "index_not_found_exception"
                | "index_closed_exception"
                | "validation_exception"
                | "process_cluster_event_timeout_exception"
                | "security_exception"
        )
    }

    /// For people.
    pub(super) fn to_text(&self) -> String {
        if self.kind.is_empty() { self.reason.clone() } else { format!("{}: {}", self.kind, self.reason) }
    }
}

fn lines_of_json() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers
}

fn transport(config: &ElasticsearchConfig, url: &str) -> Result<(String, Transport)> {
    let mut url: Url = url.parse().map_err(|error| wrong(format!("elasticsearch.urls: {url:?}: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong(format!("elasticsearch.urls: {url} is not http://host:port or https://host:port")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "elasticsearch.urls: write username and password under their own keys, not into the address",
        ));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    let place = url.to_string();
    let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url))
        .disable_proxy()
        .enable_meta_header(false)
        .timeout(config.timeout.0);
    match (&config.username, &config.password, &config.api_key) {
        (None, None, None) => {}
        (Some(username), Some(password), None) => {
            builder = builder.auth(Credentials::Basic(username.clone(), password.expose().to_owned()));
        }
        (None, None, Some(key)) => {
            // The client panics on a key that can't stand in a header.
            if !key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(wrong("elasticsearch.api_key has a character that no encoded key has"));
            }
            builder = builder.auth(Credentials::EncodedApiKey(key.expose().to_owned()));
        }
        _ => {
            return Err(wrong(
                "give elasticsearch.username with elasticsearch.password, or elasticsearch.api_key alone",
            ));
        }
    }
    if let Some(file) = &config.ca_file {
        let shown = file.display();
        let pem = std::fs::read(file).map_err(|error| wrong(format!("elasticsearch.ca_file: {shown}: {error}")))?;
        let certificate = Certificate::from_pem(&pem)
            .map_err(|error| wrong(format!("elasticsearch.ca_file: {shown} is no PEM certificate: {error}")))?;
        builder = builder.cert_validation(CertificateValidation::Full(certificate));
    }
    let transport = builder.build().map_err(|error| wrong(format!("elasticsearch: {error}")))?;
    Ok((place, transport))
}

/// The whole of an error's causes: the client's own text ends before the one that helps ("connection refused").
fn explain(error: &elasticsearch::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

fn wrong(why: impl Into<String>) -> CatalogError {
    CatalogError::Config(why.into())
}
