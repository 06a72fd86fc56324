//! A node, as a restore asks it: what a backup consists of, and each file from where an earlier try ended.

use std::time::Duration;

use longshore_core::{JobId, digest::Xxh3};
use reqwest::{Response, StatusCode, Url, header};
use serde::Deserialize;

use super::permission::Permission;
use crate::failure::Failure;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Without a byte for so long, a transfer is given up and begun again where it ended.
const SILENCE: Duration = Duration::from_secs(60);

/// What a node says of a backup.
#[derive(Debug, Deserialize)]
pub(crate) struct Listing {
    pub(crate) files: Vec<Listed>,
}

/// One file of it; the path begins with the backup's name.
#[derive(Debug, Deserialize)]
pub(crate) struct Listed {
    pub(crate) path: String,
    pub(crate) size_bytes: u64,
    #[serde(default)]
    pub(crate) xxh3_128: Option<Xxh3>,
}

/// Why a node did not give what it was asked.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It may when it is asked again.
    Passing(String),
    /// It will not.
    Lasting(String),
    /// The dashboard gave no token, or this machine's disk failed: no node can help.
    Ours(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Ours(failure)
    }
}

/// Speaks to nodes.
pub(crate) struct Nodes<'a> {
    http: reqwest::Client,
    permission: Permission<'a>,
}

impl<'a> Nodes<'a> {
    pub(crate) fn new(permission: Permission<'a>) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().connect_timeout(CONNECT_WITHIN).read_timeout(SILENCE).build();
        Ok(Self { http: http.map_err(Failure::refused)?, permission })
    }

    pub(crate) async fn listing(&self, serve: &str, job: JobId) -> Result<Listing, Trouble> {
        let response = self.get(url(serve, job, None)?, 0).await?;
        let bytes = response.bytes().await.map_err(passing)?;
        serde_json::from_slice(&bytes).map_err(|error| Trouble::Lasting(format!("its listing can't be read: {error}")))
    }

    /// The file from byte `from` on: 206, or 200 from its beginning.
    pub(crate) async fn file(&self, serve: &str, job: JobId, path: &str, from: u64) -> Result<Response, Trouble> {
        self.get(url(serve, job, Some(path))?, from).await
    }

    async fn get(&self, url: Url, from: u64) -> Result<Response, Trouble> {
        let mut fresh = false;
        loop {
            let mut request = self.http.get(url.clone()).bearer_auth(self.permission.token(fresh).await?);
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let response = request.send().await.map_err(passing)?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            if refused && !fresh {
                fresh = true;
                continue;
            }
            let detail = response.json::<serde_json::Value>().await.ok();
            let detail = detail.and_then(|problem| Some(problem.get("detail")?.as_str()?.to_owned()));
            let detail = detail.unwrap_or_else(|| status.to_string());
            return Err(match status {
                _ if refused => Trouble::Lasting(format!(
                    "{detail} (does its [serve] public_key come from this dashboard's restore.pub, and is its clock right?)"
                )),
                _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => Trouble::Passing(detail),
                _ => Trouble::Lasting(detail),
            });
        }
    }
}

fn url(serve: &str, job: JobId, path: Option<&str>) -> Result<Url, Trouble> {
    let wrong = || Trouble::Lasting(format!("it says it serves at {serve:?}, which is no address"));
    let mut url = Url::parse(serve).map_err(|_| wrong())?;
    let job = job.to_string();
    {
        let mut segments = url.path_segments_mut().map_err(|()| wrong())?;
        segments.pop_if_empty().extend(["v1", "backups", &job]);
        if let Some(path) = path {
            segments.push("files").extend(path.split('/'));
        }
    }
    Ok(url)
}

/// What went wrong on the line, by its innermost cause.
pub(super) fn passing(error: reqwest::Error) -> Trouble {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        why = inner.to_string();
        source = inner.source();
    }
    Trouble::Passing(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_of_a_name_reaches_the_node_as_it_is() {
        let job = JobId::fresh();
        let url = url("http://10.0.1.5:7480/", job, Some("dir/a b?c#d%e/库.xb")).unwrap();
        let wanted = format!("http://10.0.1.5:7480/v1/backups/{job}/files/dir/a%20b%3Fc%23d%25e/%E5%BA%93.xb");
        assert_eq!(url.as_str(), wanted);
        assert!(super::url("nonsense", job, None).is_err());
    }
}
