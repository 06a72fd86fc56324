//! Fetching a plan's files: each resumed where an earlier try ended, checked by size and digest as it arrives, and put under
//! its name by one rename. A node that fails in passing is asked again; one that fails for good gives way to the next that
//! holds a copy.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use longshore_core::{
    digest::{Blake3, DigestChoice, Digests, FileEntry, Hasher, Xxh3, digest_reader, directory_digest},
    exit::Exit,
    job::ContentKind,
};
use reqwest::{StatusCode, header};
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncReadExt as _, AsyncWriteExt as _},
};

use super::{
    folder::Folder,
    node::{Listed, Nodes, Trouble, passing},
    permission::Permission,
    plan::{Plan, Step},
    progress::Progress,
};
use crate::{commands::Context, failure::Failure};

/// A node is asked so often in a row without bringing anything of a file before the next place is tried.
const TRIES: u32 = 5;
/// Files of one directory that are fetched at once.
const AT_ONCE: usize = 4;
const BUFFER_BYTES: usize = 256 * 1024;

/// What came of it.
pub(crate) struct Fetched {
    /// The files and directories, in the order in which they apply.
    pub(crate) files: Vec<PathBuf>,
    /// Bytes that came over the network this time.
    pub(crate) bytes_moved: u64,
}

/// What a file must be.
#[derive(Debug, Clone)]
struct Wanted {
    path: String,
    size_bytes: u64,
    xxh3_128: Option<Xxh3>,
    blake3: Option<Blake3>,
}

impl Wanted {
    fn choice(&self) -> DigestChoice {
        if self.blake3.is_some() { DigestChoice::Both } else { DigestChoice::Xxh3 }
    }

    /// What of it `found` is not.
    fn differs(&self, found: &Digests) -> Option<String> {
        if found.size_bytes != self.size_bytes {
            return Some(format!("{} bytes instead of {}", found.size_bytes, self.size_bytes));
        }
        let xxh3 = self.xxh3_128.zip(found.xxh3_128).filter(|(wanted, found)| wanted != found);
        let blake3 = self.blake3.zip(found.blake3).filter(|(wanted, found)| wanted != found);
        let xxh3 = xxh3.map(|(wanted, found)| format!("digest {found} instead of {wanted}"));
        xxh3.or_else(|| blake3.map(|(wanted, found)| format!("digest {found} instead of {wanted}")))
    }
}

struct Fetch<'a> {
    nodes: Nodes<'a>,
    folder: &'a Folder,
    progress: &'a Progress,
    bytes_moved: AtomicU64,
}

/// Fetches everything of `plan`.
pub(crate) async fn perform(
    context: &Context,
    plan: &Plan,
    folder: &Folder,
    progress: &Progress,
) -> Result<Fetched, Failure> {
    let nodes = Nodes::new(Permission::new(&context.client, plan))?;
    let fetch = Fetch { nodes, folder, progress, bytes_moved: AtomicU64::new(0) };
    let mut files = Vec::new();
    for step in &plan.steps {
        fetch.step(step, plan.steps.len()).await?;
        files.push(folder.place(step.number, step.name.as_str()));
    }
    folder.tidy();
    Ok(Fetched { files, bytes_moved: fetch.bytes_moved.into_inner() })
}

impl Fetch<'_> {
    /// From the first place that can give all of it.
    async fn step(&self, step: &Step, of: usize) -> Result<(), Failure> {
        let name = step.name.as_str();
        if name.contains('/') {
            return Err(Failure::new(Exit::Bug, format!("the plan calls a backup {name}, which is a path")));
        }
        let mut troubles = Vec::new();
        let mut passing = false;
        for place in &step.places {
            let node = &place.node_id;
            let Some(serve) = &place.serve else {
                troubles.push(format!(
                    "node {node} does not say where it serves files (is its puller running, with [serve]?)"
                ));
                passing = true;
                continue;
            };
            self.progress.step(step.number, of, name, node, step.size_bytes);
            match self.try_place(step, serve).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Ours(failure)) => return Err(failure),
                Err(Trouble::Passing(why)) => {
                    passing = true;
                    troubles.push(format!("node {node} at {serve}: {why}"));
                }
                Err(Trouble::Lasting(why)) => troubles.push(format!("node {node} at {serve}: {why}")),
            }
            self.progress.note(&format!("{name}: {}", troubles.last().map_or("", String::as_str)));
        }
        let exit = if passing { Exit::ServiceRefused } else { Exit::FoundWrong };
        let mut failure = Failure::new(exit, format!("{name} (backup {}) can't be fetched", step.job));
        failure.notes = troubles;
        if passing {
            failure = failure.note("what has arrived is kept: the same command goes on from there");
        }
        Err(failure)
    }

    async fn try_place(&self, step: &Step, serve: &str) -> Result<(), Trouble> {
        let mut tries = 0;
        let listing = loop {
            match self.nodes.listing(serve, step.job).await {
                Err(Trouble::Passing(_)) if tries + 1 < TRIES => {}
                other => break other?,
            }
            tries += 1;
            tokio::time::sleep(pause(tries)).await;
        };
        let wanted = wanted(step, listing.files).map_err(Trouble::Lasting)?;
        let fetched: Vec<FileEntry> = futures_util::stream::iter(wanted)
            .map(|wanted| self.file(step, serve, wanted))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        if step.kind == ContentKind::Directory {
            self.directory(step, fetched).map_err(Trouble::Lasting)?;
        }
        Ok(())
    }

    /// All files are there: is it the directory that was backed up?
    fn directory(&self, step: &Step, mut files: Vec<FileEntry>) -> Result<(), String> {
        let folder = self.folder.place(step.number, step.name.as_str());
        // An empty directory has no file that would have made it.
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let Some(wanted) = step.xxh3_128 else { return Ok(()) };
        let found = directory_digest(&mut files);
        if found == wanted { Ok(()) } else { Err(format!("the directory has digest {found} instead of {wanted}")) }
    }

    /// One file; its path below the backup, for the directory's digest.
    async fn file(&self, step: &Step, serve: &str, wanted: Wanted) -> Result<FileEntry, Trouble> {
        let place = self.folder.place(step.number, &wanted.path);
        let partial = self.folder.partial(step.number, &wanted.path);
        let below = wanted.path.strip_prefix(step.name.as_str()).map_or("", |rest| rest.trim_start_matches('/'));
        let entry = |found: &Digests| FileEntry {
            path: below.to_owned(),
            size_bytes: found.size_bytes,
            // Always made: see `Wanted::choice`.
            xxh3_128: found.xxh3_128.unwrap_or(Xxh3::from_bytes([0; 16])),
        };
        if let Some(found) = there(&place, wanted.choice()).await? {
            if wanted.differs(&found).is_none() {
                self.progress.add(found.size_bytes);
                return Ok(entry(&found));
            }
            fs::remove_file(&place).await.map_err(|error| disk(&place, &error))?;
        }
        for folder in [place.parent(), partial.parent()].into_iter().flatten() {
            fs::create_dir_all(folder).await.map_err(|error| disk(folder, &error))?;
        }
        let mut tries = 0;
        let mut arrived = length(&partial).await;
        let found = loop {
            match self.attempt(step, serve, &wanted, &partial).await {
                Err(Trouble::Passing(why)) if tries + 1 < TRIES => {
                    let now = length(&partial).await;
                    tries = if now > arrived { 1 } else { tries + 1 };
                    arrived = now;
                    self.progress.note(&format!("{}: {why}; trying again", wanted.path));
                    tokio::time::sleep(pause(tries)).await;
                }
                other => break other?,
            }
        };
        fs::rename(&partial, &place).await.map_err(|error| disk(&place, &error))?;
        Ok(entry(&found))
    }

    /// Brings the partial file to its full size, from where it is, and checks it.
    async fn attempt(&self, step: &Step, serve: &str, wanted: &Wanted, partial: &Path) -> Result<Digests, Trouble> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let mut file = options.open(partial).await.map_err(|error| disk(partial, &error))?;
        let mut hasher = Hasher::new(wanted.choice());
        let mut have = self.known(&mut file, &mut hasher, wanted, partial).await?;
        let mut resumed = have > 0;
        // What this try has counted as there, to be taken back when it ends badly.
        let mut counted = Counted { progress: self.progress, bytes: have };
        self.progress.add(have);
        if have < wanted.size_bytes {
            let response = self.nodes.file(serve, step.job, &wanted.path, have).await?;
            if have > 0 && !continues(&response, have) {
                hasher = Hasher::new(wanted.choice());
                file.set_len(0).await.map_err(|error| disk(partial, &error))?;
                tokio::io::AsyncSeekExt::rewind(&mut file).await.map_err(|error| disk(partial, &error))?;
                self.progress.take_back(have);
                (have, resumed, counted.bytes) = (0, false, 0);
            }
            let mut stream = response.bytes_stream();
            let arrived: Result<(), Trouble> = async {
                while let Some(chunk) = stream.next().await {
                    let chunk = chunk.map_err(passing)?;
                    have += chunk.len() as u64;
                    if have > wanted.size_bytes {
                        let (path, size_bytes) = (&wanted.path, wanted.size_bytes);
                        return Err(Trouble::Lasting(format!("{path} is longer than {size_bytes} bytes")));
                    }
                    file.write_all(&chunk).await.map_err(|error| disk(partial, &error))?;
                    hasher.update(&chunk);
                    self.progress.add(chunk.len() as u64);
                    counted.bytes += chunk.len() as u64;
                    self.bytes_moved.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                }
                Ok(())
            }
            .await;
            // Also when it broke off: the next try begins where the file ends, and no write of this one may come later.
            file.flush().await.map_err(|error| disk(partial, &error))?;
            arrived?;
        }
        let found = hasher.finish();
        if found.size_bytes < wanted.size_bytes {
            return Err(Trouble::Passing(format!("{} ended after {} bytes", wanted.path, found.size_bytes)));
        }
        if let Some(how) = wanted.differs(&found) {
            drop(file);
            fs::remove_file(partial).await.map_err(|error| disk(partial, &error))?;
            let why = format!("{} has {how}", wanted.path);
            // An earlier try may have left what was wrong; from its beginning it is the node's.
            return Err(if resumed { Trouble::Passing(why) } else { Trouble::Lasting(why) });
        }
        file.sync_all().await.map_err(|error| disk(partial, &error))?;
        counted.bytes = 0;
        Ok(found)
    }

    /// What an earlier try left, digested; the file stands at its end.
    async fn known(
        &self,
        file: &mut File,
        hasher: &mut Hasher,
        wanted: &Wanted,
        partial: &Path,
    ) -> Result<u64, Trouble> {
        let length = file.metadata().await.map_err(|error| disk(partial, &error))?.len();
        if length > wanted.size_bytes {
            file.set_len(0).await.map_err(|error| disk(partial, &error))?;
            return Ok(0);
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut have = 0;
        loop {
            match file.read(&mut buffer).await.map_err(|error| disk(partial, &error))? {
                0 => return Ok(have),
                read => {
                    hasher.update(&buffer[..read]);
                    have += read as u64;
                }
            }
        }
    }
}

async fn length(partial: &Path) -> u64 {
    fs::metadata(partial).await.map_or(0, |found| found.len())
}

/// Takes back from the progress what a failed try had counted.
struct Counted<'a> {
    progress: &'a Progress,
    bytes: u64,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.progress.take_back(self.bytes);
    }
}

/// Whether the answer begins at byte `from`.
fn continues(response: &reqwest::Response, from: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && first == Some(from)
}

/// Before the try after `tries` failed ones: 1, 2, 4, 8 s.
fn pause(tries: u32) -> Duration {
    Duration::from_secs(1 << tries.saturating_sub(1).min(4))
}

/// The digests of a file that is there already.
async fn there(place: &Path, choice: DigestChoice) -> Result<Option<Digests>, Trouble> {
    let file = match std::fs::File::open(place) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk(place, &error)),
    };
    let read = tokio::task::spawn_blocking(move || digest_reader(file, choice)).await;
    read.map_err(io::Error::other).flatten().map(Some).map_err(|error| disk(place, &error))
}

fn disk(path: &Path, error: &io::Error) -> Trouble {
    Trouble::Ours(Failure::refused(format!("{}: {error}", path.display())).note("the same command goes on from there"))
}

/// What the node lists, held against the plan: nothing missing, nothing else, and no path that would leave the folder.
fn wanted(step: &Step, listed: Vec<Listed>) -> Result<Vec<Wanted>, String> {
    let name = step.name.as_str();
    if step.kind == ContentKind::File {
        let [file] = listed.as_slice() else { return Err(format!("it lists {} files for {name}", listed.len())) };
        if file.path != name || file.size_bytes != step.size_bytes {
            return Err(format!(
                "it lists {} with {} bytes, not {name} with {}",
                file.path, file.size_bytes, step.size_bytes
            ));
        }
        let xxh3_128 = step.xxh3_128.or(file.xxh3_128);
        return Ok(vec![Wanted {
            path: file.path.clone(),
            size_bytes: file.size_bytes,
            xxh3_128,
            blake3: step.blake3,
        }]);
    }
    let bytes: u64 = listed.iter().map(|file| file.size_bytes).sum();
    if listed.len() as u64 != step.files || bytes != step.size_bytes {
        let count = listed.len();
        return Err(format!("it lists {count} files with {bytes} bytes, not {} with {}", step.files, step.size_bytes));
    }
    let mut wanted = Vec::with_capacity(listed.len());
    for file in listed {
        let inside = file.path.strip_prefix(name).and_then(|rest| rest.strip_prefix('/'));
        let safe = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
        if !inside.is_some_and(|inside| inside.split('/').all(safe)) {
            return Err(format!("it lists {:?}, which is not inside {name}", file.path));
        }
        wanted.push(Wanted { path: file.path, size_bytes: file.size_bytes, xxh3_128: file.xxh3_128, blake3: None });
    }
    Ok(wanted)
}
