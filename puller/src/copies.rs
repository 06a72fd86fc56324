//! A second copy of a backup: fetched from the node that stored it first, over the same HTTP that restores use, with a token
//! signed by this node's own key. What an earlier try left is used again; every file is compared with what the other node
//! lists before the whole is compared with what the host announced ([`crate::verify`]).

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use longshore_core::{
    Content, ContentKind, JobId, Millis, NodeId, ReasonCode, Report,
    digest::{DigestChoice, Hasher, Xxh3},
    step,
    token::{self, RestoreClaims, TOKEN_LIFE},
};
use reqwest::{Response, StatusCode, Url, header};
use serde::Deserialize;
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};
use tokio_util::sync::CancellationToken;

use crate::{
    bandwidth::Lane,
    failure::{Class, Failure},
    fetch::Fetched,
    incoming::{Incoming, on_disk},
    peers::Peers,
    progress::Progress,
    settings::Settings,
    store::{self, Store},
};

/// The header that says which node's key a token is signed with.
pub const NODE_HEADER: &str = "longshore-node";

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 256 * 1024;
/// A listing has the manifest, and for each file a path, a size and a digest.
const LISTING_BYTES: u64 = 1 << 20;
const LISTED_FILE_BYTES: u64 = 8 << 10;

/// Fetches backups that other nodes have.
#[derive(Debug)]
pub struct Copier {
    node_id: NodeId,
    store: Arc<Store>,
    peers: Arc<Peers>,
    stall: Duration,
}

/// One file that the other node lists; the path begins with the backup's name.
#[derive(Debug, Deserialize)]
struct Listed {
    path: String,
    size_bytes: u64,
    xxh3_128: Option<Xxh3>,
}

#[derive(Debug, Deserialize)]
struct Listing {
    files: Vec<Listed>,
}

/// A copy under way.
struct Copying<'a> {
    http: reqwest::Client,
    copier: &'a Copier,
    job: JobId,
    serve: Url,
    from: &'a NodeId,
    into: PathBuf,
    lane: &'a Lane,
    progress: &'a Progress,
    stop: &'a CancellationToken,
    /// Bytes of the files before the current one.
    done_bytes: u64,
    received_bytes: u64,
}

impl Copier {
    /// For the node of `store`, which signs with the store's key.
    pub fn new(settings: &Settings, store: Arc<Store>, peers: Arc<Peers>) -> Self {
        Self { node_id: settings.node_id.clone(), store, peers, stall: settings.rsync.stall.duration() }
    }

    /// Fetches the backup of `first`, the report of the node that has it, into `incoming`.
    ///
    /// # Errors
    /// [`Failure`]; what arrived stays.
    pub async fn fetch(
        &self,
        incoming: &Incoming,
        first: &Report,
        lane: &Lane,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<Fetched, Failure> {
        let malformed = || Failure::new(ReasonCode::Malformed, "the report of the first copy names no node or content");
        let from = first.node_id.as_ref().ok_or_else(malformed)?;
        let (Some(source), Some(content)) = (&first.job.source, &first.job.content) else { return Err(malformed()) };
        let serve = self.peers.get(from).await.and_then(|peer| peer.serve);
        let serve = serve.and_then(|serve| Url::parse(&serve).ok()).ok_or_else(|| {
            let text = format!("node {from} does not say where it serves files (does its puller run, with [serve]?)");
            Failure { class: Class::Host, ..Failure::new(ReasonCode::Unreachable, text) }
        })?;
        let found = incoming.prepare(None).await;
        let found = found.map_err(|error| Failure::store("the transfer's folder", &error))?;
        progress.reached(found.bytes);
        progress.stored(found.allocated_bytes);
        let started = Instant::now();
        let http = reqwest::Client::builder().connect_timeout(CONNECT_WITHIN).read_timeout(self.stall).build();
        let http = http.map_err(|error| Failure::new(ReasonCode::NotConfigured, error.to_string()))?;
        let mut copying = Copying {
            http,
            copier: self,
            job: first.job.id,
            serve,
            from,
            into: incoming.backup(),
            lane,
            progress,
            stop,
            done_bytes: 0,
            received_bytes: 0,
        };
        let mut digests = HashMap::new();
        for file in copying.listing(source.path.name(), content).await? {
            let digest = copying.file(&file).await?;
            digests.insert(file.path.into_bytes(), digest);
        }
        if content.kind == ContentKind::Directory {
            // An empty folder has no file that would have made it.
            copying.make_folders(Path::new(source.path.name())).await?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let (received_bytes, found_bytes) = (copying.received_bytes, found.bytes);
        Ok(Fetched { digests, received_bytes, seconds, found_bytes, whole: true })
    }

    fn token(&self, job: JobId) -> String {
        let expires_at = Millis::now().plus(TOKEN_LIFE);
        let claims =
            RestoreClaims { backups: vec![job], expires_at, subject: format!("a copy for node {}", self.node_id) };
        // Only a store that is worked on fetches copies, and that one has its key.
        self.store.key().map(|key| token::sign(key, &claims)).unwrap_or_default()
    }
}

impl Copying<'_> {
    /// The files of the backup: what was announced, and no path that would leave its folder.
    async fn listing(&self, name: &str, announced: &Content) -> Result<Vec<Listed>, Failure> {
        let mut response = self.get(None, 0).await?;
        let most = LISTING_BYTES.saturating_add(announced.files.saturating_mul(LISTED_FILE_BYTES));
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > most {
                return Err(self.differs(format!("its listing has more than {most} bytes")));
            }
        }
        let listing: Listing = serde_json::from_slice(&bytes)
            .map_err(|error| self.failed(ReasonCode::TransferFailed, format!("its listing can't be read: {error}")))?;
        let files = listing.files;
        let size: u64 = files.iter().map(|file| file.size_bytes).fold(0, u64::saturating_add);
        if files.len() as u64 != announced.files || size != announced.size_bytes {
            let (count, wanted) = (files.len(), announced.files);
            let text = format!("it lists {count} files with {size} bytes, not {wanted} with {}", announced.size_bytes);
            return Err(self.differs(text));
        }
        let is_part =
            |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
        let is_ours = |path: &str| match announced.kind {
            ContentKind::File => path == name,
            ContentKind::Directory => {
                let below = path.strip_prefix(name).and_then(|rest| rest.strip_prefix('/'));
                below.is_some_and(|below| below.split('/').all(is_part))
            }
        };
        match files.iter().find(|file| !is_ours(&file.path)) {
            Some(file) => Err(self.differs(format!("it lists {:?}, which is no part of {name}", file.path))),
            None => Ok(files),
        }
    }

    /// Brings one file to its full size from where it is, compares and syncs it.
    async fn file(&mut self, listed: &Listed) -> Result<Xxh3, Failure> {
        let path = self.into.join(&listed.path);
        let failed = |error: io::Error| disk(&path, &error);
        if let Some(above) = Path::new(&listed.path).parent() {
            self.make_folders(above).await?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let mut file = options.open(&path).await.map_err(failed)?;
        let mut hasher = Hasher::new(DigestChoice::Xxh3);
        let mut have = read_all(&mut file, &mut hasher).await.map_err(failed)?;
        if have > listed.size_bytes {
            have = begin_anew(&mut file, &mut hasher).await.map_err(failed)?;
        }
        let mut resumed = have > 0;
        loop {
            if have < listed.size_bytes {
                let arrived = self.arrive(&mut file, &mut hasher, listed, &mut have).await;
                // Also when it broke off: no write of this try may come after the next has begun.
                file.flush().await.map_err(failed)?;
                arrived?;
            }
            let found = hasher.finish().xxh3_128.unwrap_or(Xxh3::from_bytes([0; 16]));
            match listed.xxh3_128 {
                Some(wanted) if wanted != found && resumed => {
                    // What an earlier try left was wrong; from its beginning it is the other node's.
                    have = begin_anew(&mut file, &mut hasher).await.map_err(failed)?;
                    resumed = false;
                }
                Some(wanted) if wanted != found => {
                    let text = format!("it lists {} with digest {wanted}, and what came has {found}", listed.path);
                    return Err(self.failed(ReasonCode::DigestDiffers, text));
                }
                _ => {
                    file.sync_all().await.map_err(failed)?;
                    self.done_bytes += listed.size_bytes;
                    return Ok(found);
                }
            }
        }
    }

    /// Makes `below` and what is above it; not the backup's own folder: without that, the disk is away.
    async fn make_folders(&self, below: &Path) -> Result<(), Failure> {
        let (mut folder, below) = (self.into.clone(), below.to_owned());
        let made = on_disk(move || {
            below.components().try_for_each(|part| {
                folder.push(part);
                store::as_good_if_there(store::make_folder(&folder))
            })
        });
        made.await.map_err(|error| disk(&self.into, &error))
    }

    async fn arrive(
        &mut self,
        file: &mut File,
        hasher: &mut Hasher,
        listed: &Listed,
        have: &mut u64,
    ) -> Result<(), Failure> {
        let mut response = self.get(Some(&listed.path), *have).await?;
        let path = self.into.join(&listed.path);
        if *have > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            *have = begin_anew(file, hasher).await.map_err(|error| disk(&path, &error))?;
        }
        step::reached("puller.copying");
        while let Some(chunk) = self.chunk(&mut response).await? {
            self.lane.pass(chunk.len()).await;
            *have += chunk.len() as u64;
            if *have > listed.size_bytes {
                return Err(
                    self.differs(format!("{} is longer than the {} bytes listed", listed.path, listed.size_bytes))
                );
            }
            file.write_all(&chunk).await.map_err(|error| disk(&path, &error))?;
            hasher.update(&chunk);
            self.received_bytes += chunk.len() as u64;
            self.progress.reached(self.done_bytes + *have);
            self.progress.stored(self.done_bytes + *have);
        }
        if *have < listed.size_bytes {
            let text = format!("{} ended after {have} of {} bytes", listed.path, listed.size_bytes);
            return Err(self.failed(ReasonCode::TransferFailed, text));
        }
        Ok(())
    }

    /// The next bytes of an answer, unless the transfer is to end.
    async fn chunk(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, Failure> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Failure::ended()),
            chunk = response.chunk() => chunk.map_err(|error| self.broken(&error)),
        }
    }

    /// The listing, or the file at `path` from byte `from` on.
    async fn get(&self, path: Option<&str>, from: u64) -> Result<Response, Failure> {
        let mut url = self.serve.clone();
        let job = self.job.to_string();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["v1", "backups", &job]);
            if let Some(path) = path {
                segments.push("files").extend(path.split('/'));
            }
        }
        let mut request = self.http.get(url).bearer_auth(self.copier.token(self.job));
        request = request.header(NODE_HEADER, self.copier.node_id.as_str());
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let response = tokio::select! {
            () = self.stop.cancelled() => return Err(Failure::ended()),
            response = request.send() => response.map_err(|error| self.broken(&error))?,
        };
        let status = response.status();
        let code = match status {
            _ if status.is_success() => return Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ReasonCode::AccessDenied,
            StatusCode::NOT_FOUND => ReasonCode::SourceMissing,
            _ => ReasonCode::TransferFailed,
        };
        // All its slots are taken, or it starts or ends: it says nothing of this backup.
        let is_busy =
            matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
        let detail = response.json::<serde_json::Value>().await.ok();
        let detail = detail.and_then(|problem| Some(problem.get("detail")?.as_str()?.to_owned()));
        let failure = self.failed(code, detail.unwrap_or_else(|| status.to_string()));
        Err(if is_busy { Failure { class: Class::Host, ..failure } } else { failure })
    }

    /// The line to the other node broke, or it can't be reached. Nothing came of it: then it is asked again when it has rested, as
    /// any host that is down.
    fn broken(&self, error: &reqwest::Error) -> Failure {
        let code = if error.is_connect() { ReasonCode::Unreachable } else { ReasonCode::TransferFailed };
        let mut innermost: &dyn std::error::Error = error;
        while let Some(inner) = innermost.source() {
            innermost = inner;
        }
        let failure = self.failed(code, innermost.to_string());
        if self.received_bytes == 0 { Failure { class: Class::Host, ..failure } } else { failure }
    }

    fn differs(&self, text: String) -> Failure {
        self.failed(ReasonCode::SizeDiffers, text)
    }

    fn failed(&self, code: ReasonCode, text: String) -> Failure {
        Failure::new(code, format!("copying from node {}: {text}", self.from))
    }
}

/// Digests a file from its beginning, and stands at its end.
async fn read_all(file: &mut File, hasher: &mut Hasher) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut have = 0;
    loop {
        match file.read(&mut buffer).await? {
            0 => return Ok(have),
            read => {
                hasher.update(&buffer[..read]);
                have += read as u64;
            }
        }
    }
}

async fn begin_anew(file: &mut File, hasher: &mut Hasher) -> io::Result<u64> {
    file.set_len(0).await?;
    file.seek(io::SeekFrom::Start(0)).await?;
    *hasher = Hasher::new(DigestChoice::Xxh3);
    Ok(0)
}

fn disk(path: &Path, error: &io::Error) -> Failure {
    Failure::store(&format!("writing {}", path.display()), error)
}
