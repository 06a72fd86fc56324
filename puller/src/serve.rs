//! Stored files for restores, read only, to the bearer of a token that names the backup: signed by the dashboard, or, for a
//! second copy, by another node of the cluster with its own key ([`crate::peers`]).
//!
//! `GET /v1/backups/{job}` is the manifest with a list `files` in it; `GET /v1/backups/{job}/files/{path}` is one of those,
//! with ranges. A path is opened below its backup's own folder by the kernel's own rule (no link, no way out), so whatever a
//! request says, nothing else is read.
//!
//! Restores and copies have slots apart, and bandwidth: neither waits for the other. What a copy takes is limited where it
//! arrives, by that node's own limit.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use axum::{
    Json, Router,
    body::Body,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::{Bytes, BytesMut};
use ed25519_dalek::VerifyingKey;
use futures_util::stream;
use longshore_core::{
    JobId, Millis, RelativePath, Report,
    digest::{FileEntry, Xxh3},
    token,
};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, Take},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    bandwidth::{Bandwidth, Lane},
    copies::NODE_HEADER,
    node::Node,
    problem::Problem,
    range::{self, Part},
    settings::ServeSettings,
    store::Store,
};

const NO_TOKEN: Problem = Problem::new(StatusCode::UNAUTHORIZED, "a restore token is needed; the dashboard makes one");
const WRONG_TOKEN: Problem = Problem::new(StatusCode::FORBIDDEN, "the token does not open this backup, or has ended");
const NOT_HERE: Problem = Problem::new(StatusCode::NOT_FOUND, "this node has no such backup or file");
const BUSY: Problem =
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "all download slots of this node are taken; try again");
const OUT_OF_RANGE: Problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "the file has no such bytes");
const BROKEN: Problem =
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the store could not be read; see the node's log");

/// Places remembered; more than any restore has.
const MOST_PLACES: usize = 10_000;

struct Served {
    node: Arc<Node>,
    key: VerifyingKey,
    restore_slots: Arc<Semaphore>,
    copy_slots: Arc<Semaphore>,
    places: Mutex<HashMap<JobId, RelativePath>>,
}

/// What a request is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Restore,
    /// On another node of the cluster.
    Copy,
}

impl Purpose {
    fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(NODE_HEADER) { Self::Copy } else { Self::Restore }
    }

    fn lane(self, bandwidth: &Bandwidth) -> Lane {
        match self {
            Self::Restore => bandwidth.restores(),
            Self::Copy => bandwidth.peers(),
        }
    }
}

/// The key that tokens must be signed with; `None` when nothing is to be served.
///
/// # Errors
/// When the file can't be read, or what it holds is no key.
pub fn public_key(settings: &ServeSettings) -> anyhow::Result<Option<VerifyingKey>> {
    let text = match (&settings.public_key, &settings.public_key_file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => std::fs::read_to_string(file).with_context(|| {
            format!("[serve] public_key_file {}: copy the dashboard's restore.pub there", file.display())
        })?,
        (None, None) => return Ok(None),
    };
    let key =
        token::parse_public_key(&text).context("[serve] public_key is not a key; copy the dashboard's restore.pub")?;
    Ok(Some(key))
}

/// The routes.
pub fn router(node: Arc<Node>, key: VerifyingKey) -> Router {
    let slots = || Arc::new(Semaphore::new(node.settings.serve.slots.max(1)));
    let (restore_slots, copy_slots) = (slots(), slots());
    let served = Arc::new(Served { node, key, restore_slots, copy_slots, places: Mutex::default() });
    Router::new()
        .route("/v1/backups/{job}", get(listing))
        .route("/v1/backups/{job}/files/{*path}", get(file))
        .fallback(async || NOT_HERE)
        .with_state(served)
}

async fn listing(
    State(served): State<Arc<Served>>,
    UrlPath(job): UrlPath<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    counted(&served, async {
        let job = served.admitted(&job, &headers).await?;
        let _permit = served.slot(Purpose::of(&headers))?;
        let (place, report) = served.backup(job).await?;
        let folder = place.below(served.node.store.root());
        let files = tokio::task::spawn_blocking(move || Store::file_list(&folder)).await;
        let files = files.map_err(io::Error::other).flatten().map_err(|error| broken(job, &error))?;
        let mut listing = serde_json::to_value(&report).map_err(|error| broken(job, &error))?;
        listing["files"] = serde_json::to_value(file_paths(&report, files)).map_err(|error| broken(job, &error))?;
        Ok(Json(listing).into_response())
    })
    .await
}

async fn file(
    State(served): State<Arc<Served>>,
    UrlPath((job, path)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    counted(&served, async {
        let job = served.admitted(&job, &headers).await?;
        let purpose = Purpose::of(&headers);
        let permit = served.slot(purpose)?;
        let (place, report) = served.backup(job).await?;
        // Only what was backed up, not what lies beside it.
        if path.split('/').next() != report.job.name() {
            return Err(NOT_HERE);
        }
        let folder = place.below(served.node.store.root());
        let opened = tokio::task::spawn_blocking(move || open_below(&folder, &path)).await;
        let (file, size_bytes) = match opened.map_err(io::Error::other).flatten() {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NOT_HERE),
            Err(error) => return Err(broken(job, &error)),
        };
        let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        let lane = purpose.lane(&served.node.bandwidth);
        send(File::from_std(file), size_bytes, range::read(range, size_bytes), permit, lane)
            .await
            .map_err(|error| broken(job, &error))
    })
    .await
}

impl Served {
    /// The job that the request names, when its token opens it.
    async fn admitted(&self, job: &str, headers: &HeaderMap) -> Result<JobId, Problem> {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or(NO_TOKEN)?;
        let (scheme, bearer) = value.split_once(' ').ok_or(NO_TOKEN)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(NO_TOKEN);
        }
        let job: JobId = job.parse().map_err(|_| WRONG_TOKEN)?;
        let key = match headers.get(NODE_HEADER) {
            None => self.key,
            Some(node) => self.key_of(node).await.ok_or(WRONG_TOKEN)?,
        };
        match token::verify(&key, bearer.trim(), job, Millis::now()) {
            Ok(claims) => {
                tracing::debug!(%job, subject = claims.subject, "served");
                Ok(job)
            }
            Err(error) => {
                tracing::warn!(%job, %error, "a restore was refused");
                Err(WRONG_TOKEN)
            }
        }
    }

    /// The key of another node of the cluster.
    async fn key_of(&self, node: &HeaderValue) -> Option<VerifyingKey> {
        let node_id = node.to_str().ok()?.parse().ok()?;
        self.node.peers.get(&node_id).await?.key
    }

    /// One of the slots that listings and downloads share: a list of a million files costs the disk as a download does.
    fn slot(&self, purpose: Purpose) -> Result<OwnedSemaphorePermit, Problem> {
        let slots = match purpose {
            Purpose::Restore => &self.restore_slots,
            Purpose::Copy => &self.copy_slots,
        };
        Arc::clone(slots).try_acquire_owned().map_err(|_| BUSY)
    }

    async fn backup(&self, job: JobId) -> Result<(RelativePath, Report), Problem> {
        let known = self.places.lock().unwrap_or_else(PoisonError::into_inner).get(&job).cloned();
        let store = Arc::clone(&self.node.store);
        let found = tokio::task::spawn_blocking(move || -> io::Result<Option<(RelativePath, Report)>> {
            let remembered = known.filter(|place| place.below(store.root()).is_dir());
            let place = match remembered {
                Some(place) => Some(place),
                None => store.find(job)?,
            };
            place.map(|place| Ok((place.clone(), Store::manifest(&place.below(store.root()))?))).transpose()
        });
        let found = found.await.map_err(io::Error::other).flatten().map_err(|error| broken(job, &error))?;
        let (place, report) = found.ok_or(NOT_HERE)?;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MOST_PLACES {
            places.clear();
        }
        places.insert(job, place.clone());
        Ok((place, report))
    }
}

/// The list of what can be fetched: paths as the URL wants them.
fn file_paths(report: &Report, files: Option<Vec<FileEntry>>) -> Vec<serde_json::Value> {
    let name = report.job.name().unwrap_or_default();
    let entry = |path: String, size_bytes: u64, digest: Option<Xxh3>| serde_json::json!({"path": path, "size_bytes": size_bytes, "xxh3_128": digest});
    match files {
        Some(files) => files
            .into_iter()
            .map(|file| entry(format!("{name}/{}", file.path), file.size_bytes, Some(file.xxh3_128)))
            .collect(),
        None => {
            let announced = report.job.content.as_ref().and_then(|content| content.xxh3_128);
            let received = || report.extra.get(crate::carrier::RECEIVED_DIGEST)?.as_str()?.parse().ok();
            vec![entry(name.to_owned(), report.job.size_bytes(), announced.or_else(received))]
        }
    }
}

/// Opens a regular file below `folder`; everything else is not found, but for a store that fails.
fn open_below(folder: &std::path::Path, path: &str) -> io::Result<(std::fs::File, u64)> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let folder = std::fs::File::open(folder)?;
    // Not blocking: a FIFO must not hold a thread.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(&folder, path, flags, Mode::empty(), resolve).map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::NAMETOOLONG | Errno::INVAL => {
            missing()
        }
        other => other.into(),
    })?;
    let file = std::fs::File::from(file);
    let found = file.metadata()?;
    if found.is_file() { Ok((file, found.len())) } else { Err(missing()) }
}

async fn send(
    mut file: File,
    size_bytes: u64,
    part: Part,
    permit: OwnedSemaphorePermit,
    lane: Lane,
) -> io::Result<Response> {
    let (first, length, status) = match part {
        Part::Whole => (0, size_bytes, StatusCode::OK),
        Part::Bytes { first, last } => (first, last - first + 1, StatusCode::PARTIAL_CONTENT),
        Part::OutOfRange => {
            let mut response = OUT_OF_RANGE.into_response();
            response.headers_mut().insert(header::CONTENT_RANGE, value(&format!("bytes */{size_bytes}")));
            return Ok(response);
        }
    };
    file.seek(io::SeekFrom::Start(first)).await?;
    let sending = Sending { file: file.take(length), lane, _permit: permit };
    let chunks = stream::try_unfold(sending, async |mut sending| -> io::Result<_> {
        Ok(sending.chunk().await?.map(|chunk| (chunk, sending)))
    });
    let mut response = Body::from_stream(chunks).into_response();
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if status == StatusCode::PARTIAL_CONTENT {
        let last = first + length - 1;
        headers.insert(header::CONTENT_RANGE, value(&format!("bytes {first}-{last}/{size_bytes}")));
    }
    Ok(response)
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A file under way, which keeps its slot until it is sent or dropped.
struct Sending {
    file: Take<File>,
    lane: Lane,
    _permit: OwnedSemaphorePermit,
}

impl Sending {
    /// What may pass next, when it may; `None` at the end.
    async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        // Asked for each: a limit may have come up.
        let mut chunk = BytesMut::with_capacity(self.lane.quantum());
        if self.file.read_buf(&mut chunk).await? == 0 {
            return Ok(None);
        }
        self.lane.pass(chunk.len()).await;
        Ok(Some(chunk.freeze()))
    }
}

fn broken(job: JobId, error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%job, %error, "a stored backup could not be served");
    BROKEN
}

async fn counted(
    served: &Served,
    answer: impl Future<Output = Result<Response, Problem>>,
) -> Result<Response, Problem> {
    let answer = answer.await;
    let status = match &answer {
        Ok(response) => response.status(),
        Err(problem) => problem.status,
    };
    served.node.metrics.served.get_or_create(&vec![("code", status.as_str().to_owned())]).inc();
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bandwidth::Caps;

    #[tokio::test]
    async fn a_limit_that_comes_up_holds_the_next_chunk() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 300_000]).unwrap();
        let (bandwidth, slots) = (Bandwidth::default(), Arc::new(Semaphore::new(1)));
        let permit = Arc::clone(&slots).try_acquire_owned().unwrap();
        let file = File::open(file.path()).await.unwrap().take(1_000_000);
        let mut sending = Sending { file, lane: Purpose::Restore.lane(&bandwidth), _permit: permit };
        assert_eq!(sending.chunk().await.unwrap().unwrap().len(), 256 << 10);
        bandwidth.set_caps(Caps { restore: Some(2_000_000), ..Caps::default() });
        let mut sizes = Vec::new();
        while let Some(chunk) = sending.chunk().await.unwrap() {
            sizes.push(chunk.len());
        }
        assert_eq!((sizes[0], sizes.iter().sum::<usize>()), (4 << 10, 300_000 - (256 << 10)));
        assert_eq!(slots.available_permits(), 0);
        drop(sending);
        assert_eq!(slots.available_permits(), 1);
    }
}
