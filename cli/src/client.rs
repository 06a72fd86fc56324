//! The dashboard's API, as the commands ask it. Its refusals become failures that say what to do.

use std::time::Duration;

use longshore_core::exit::Exit;
use reqwest::{
    Method, StatusCode, Url,
    header::{HeaderName, HeaderValue},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::failure::Failure;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(130);

/// Who asks: the dashboard writes it beside what is changed.
const OPERATOR: HeaderName = HeaderName::from_static("x-longshore-operator");

/// The dashboard.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Url,
    token: Option<String>,
}

/// What a problem says, of what the command line can use.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    /// Of a dashboard it begins so: see [`Problem::of`].
    #[serde(rename = "type")]
    kind: String,
    detail: String,
    nearest: Vec<String>,
    rows: Vec<WrongRow>,
}

#[derive(Debug, Deserialize)]
struct WrongRow {
    line: u64,
    error: String,
}

impl Problem {
    /// `None` when no dashboard has said it.
    fn of(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok().filter(|problem: &Self| problem.kind.starts_with("urn:longshore:problem:"))
    }
}

impl Client {
    pub(crate) fn new(server: &str, token: Option<String>) -> Result<Self, Failure> {
        let wrong = |why: &dyn std::fmt::Display| {
            Failure::new(
                Exit::Configuration,
                format!("{server:?} is not a server's address ({why}); write it like http://10.0.2.1:7400"),
            )
        };
        let url = Url::parse(server).map_err(|error| wrong(&error))?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return Err(wrong(&"neither http nor https"));
        }
        let http = reqwest::Client::builder()
            .default_headers(operator().map(|name| (OPERATOR, name)).into_iter().collect())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .build()
            .map_err(Failure::refused)?;
        Ok(Self { http, server: url, token })
    }

    /// `segments` below the server's address, each escaped.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.server.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    pub(crate) async fn get(&self, segments: &[&str], query: &[(&str, String)]) -> Result<Value, Failure> {
        let mut url = self.url(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(self.http.request(Method::GET, url)).await
    }

    /// For who would rather ask again than wait.
    pub(crate) async fn get_within(&self, limit: Duration, segments: &[&str]) -> Result<Value, Failure> {
        self.send(self.http.get(self.url(segments)).timeout(limit)).await
    }

    pub(crate) async fn send_json(&self, method: Method, segments: &[&str], body: &Value) -> Result<Value, Failure> {
        self.send(self.http.request(method, self.url(segments)).json(body)).await
    }

    pub(crate) async fn send_text(&self, method: Method, segments: &[&str], body: String) -> Result<Value, Failure> {
        self.send(self.http.request(method, self.url(segments)).body(body)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            if bytes.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&bytes).map_err(|error| {
                Failure::refused(format!(
                    "{} answered what is no JSON ({error}); is it a longshore-dashboard?",
                    self.server
                ))
            });
        }
        Err(self.refusal(status, Problem::of(&bytes)))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut why = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            why = inner.to_string();
            source = inner.source();
        }
        Failure::refused(format!("no answer from {}: {why}", self.server))
            .note("is longshore-dashboard running there? --server or LONGSHORE_SERVER names another")
    }

    fn refusal(&self, status: StatusCode, problem: Option<Problem>) -> Failure {
        let exit = match status {
            StatusCode::UNAUTHORIZED => Exit::Configuration,
            _ if problem.is_none() => Exit::ServiceRefused,
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => Exit::Usage,
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Exit::FoundWrong,
            StatusCode::INTERNAL_SERVER_ERROR => Exit::Bug,
            _ => Exit::ServiceRefused,
        };
        if status == StatusCode::UNAUTHORIZED {
            let what = if self.token.is_some() { "does not take this token" } else { "wants a token" };
            return Failure::new(exit, format!("{} {what}", self.server))
                .note("--token-file FILE, or LONGSHORE_TOKEN, or token_file in ~/.config/longshore.toml gives it")
                .note(problem.unwrap_or_default().detail);
        }
        let Some(problem) = problem else {
            let guess = match status {
                StatusCode::GATEWAY_TIMEOUT => "it took too long, and may still be at it",
                _ => "is it a longshore-dashboard?",
            };
            return Failure::new(exit, format!("{} answered {status}; {guess}", self.server));
        };
        let mut failure = Failure::new(exit, problem.detail);
        for row in problem.rows {
            failure = failure.note(format!("line {}: {}", row.line, row.error));
        }
        if problem.nearest.len() > 1 {
            failure = failure.note(format!("known and like it: {}", problem.nearest.join(", ")));
        }
        failure
    }
}

/// `alice@control`, as far as it is known.
fn operator() -> Option<HeaderValue> {
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    HeaderValue::from_str(&format!("{}@{}", user?, machine.trim())).ok()
}

/// A value read into what a command shows; a server of another version may give what can't be read.
pub(crate) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| {
        Failure::new(Exit::Bug, format!("the dashboard's answer can't be read ({error}); is it of another version?"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_hangs_is_told_within_the_limit() {
        let hangs = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let client = Client::new(&format!("http://{}", hangs.local_addr().unwrap()), None).unwrap();
        let asked = client.get_within(Duration::from_millis(100), &["api"]);
        let failure = tokio::time::timeout(ANSWER_WITHIN / 2, asked).await.unwrap().unwrap_err();
        assert!(failure.message.starts_with("no answer from http://127.0.0.1:"), "{failure}");
        assert_eq!(failure.exit, Exit::ServiceRefused);
    }
}
