//! Several small files of one host's module, fetched by one rsync: what a session costs is paid once for all of them.
//!
//! The session has a folder of its own, `.incoming/batch-ID/`, where each file arrives at its path below the module. What came is
//! moved by a rename into its own job's folder, and from there on each job is as if it had been fetched alone: verified,
//! published, reported or failed by itself. What a session that ended well did not bring (missing, larger than announced, of
//! another kind) is then fetched alone, which tells why.
//!
//! A kill at any point leaves files in the session's folder, which are nobody's and are removed by the next start, and whole
//! files in their jobs' folders, which their next transfers find.

use std::{collections::HashMap, fs, io, path::Path, sync::Arc};

use longshore_core::{Content, ContentKind, Job, JobId, RelativePath, Source, digest::Xxh3, report::Transfer, step};
use tokio_util::sync::CancellationToken;

use crate::{
    carrier::{Brought, Carrier, Turn, announced, blocking, place_of},
    failure::{Class, Failure},
    fetch::{Errand, Fetched},
    incoming::Incoming,
    progress::Progress,
    verify,
};

/// A longer path may be too long below the batch's folder.
const MOST_PATH_BYTES: usize = 2048;

/// One job to be brought.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// The job.
    pub job: &'a Job,
    /// Of its lease.
    pub turn: Turn<'a>,
    /// How far it is.
    pub progress: &'a Progress,
}

/// What bringing a job came to.
pub type Result<T = Brought> = std::result::Result<T, Failure>;

/// A job that is fetched with others, its folder locked.
struct Member<'a> {
    index: usize,
    task: Task<'a>,
    source: &'a Source,
    content: &'a Content,
    incoming: Incoming,
}

impl Carrier {
    /// Brings what can be brought together, in one session. Answers for each, in their order; what is to be fetched alone gets no
    /// answer.
    pub async fn bring_together(&self, tasks: &[Task<'_>], stop: &CancellationToken) -> Vec<Option<Result>> {
        let mut results: Vec<Option<Result>> = tasks.iter().map(|_| None).collect();
        let mut members = Vec::new();
        let chosen = together(tasks);
        let opened = self.open_new(chosen.iter().map(|&index| tasks[index].job)).await;
        for (index, opened) in chosen.into_iter().zip(opened) {
            let task = tasks[index];
            let Ok((source, content)) = announced(task.job) else { continue };
            match opened {
                Ok(Some(incoming)) => members.push(Member { index, task, source, content, incoming }),
                Ok(None) => {}
                Err(failure) => results[index] = Some(Err(failure)),
            }
        }
        if members.len() < 2 {
            return results;
        }
        let (came, failure) = match Box::pin(self.session(&members, stop)).await {
            Ok(session) => session,
            Err(failure) => (Came::default(), Some(failure)),
        };
        // More than was announced came for one of them: alone, each is judged by its own announcement.
        let shared = failure.filter(|failure| failure.class != Class::Corrupt);
        let indices: Vec<usize> = members.iter().map(|member| member.index).collect();
        for (index, result) in indices.into_iter().zip(self.sort_out(members, came).await) {
            results[index] = result.or_else(|| shared.clone().map(Err));
        }
        results
    }

    /// The folder of each job, locked; `None` for one that has something here already, a backup or a part of one.
    async fn open_new<'a>(&self, jobs: impl Iterator<Item = &'a Job>) -> Vec<Result<Option<Incoming>>> {
        let (store, jobs) = (Arc::clone(&self.store), jobs.map(|job| (job.id, place_of(job))).collect::<Vec<_>>());
        let count = jobs.len();
        let open = move |(job, place): (JobId, Result<RelativePath>)| {
            let failed = |error: io::Error| Failure::store("the transfer's folder", &error);
            // What has no place is told so when it goes alone.
            let Ok(place) = place else { return Ok(None) };
            if fs::exists(place.below(store.root())).map_err(failed)? {
                return Ok(None);
            }
            Incoming::open_new(&store, job).map_err(failed)
        };
        let opened = blocking(move || Ok(jobs.into_iter().map(open).collect())).await;
        opened.unwrap_or_else(|failure| (0..count).map(|_| Err(failure.clone())).collect())
    }

    /// Runs the session, and tells what to do with whatever did not come.
    async fn session(&self, members: &[Member<'_>], stop: &CancellationToken) -> Result<(Came, Option<Failure>)> {
        let failed = |error: io::Error| Failure::store("the batch's folder", &error);
        let Some(first) = members.first() else { return Ok((Came::default(), None)) };
        let folder = Incoming::open_batch(&self.store, JobId::fresh()).await.map_err(failed)?;
        let size_bytes = members.iter().map(|member| member.content.size_bytes).sum();
        let largest_bytes = members.iter().map(|member| member.content.size_bytes).max().unwrap_or(0);
        let all = Content {
            kind: ContentKind::File,
            size_bytes,
            files: members.len() as u64,
            // Those on the files' ways below the module, at most.
            folders: Some(
                members.iter().map(|member| member.source.path.as_str().matches('/').count() as u64 + 1).sum(),
            ),
            xxh3_128: None,
            blake3: None,
            extra: serde_json::Map::new(),
        };
        let lane = self.bandwidth.lane(&first.task.job.server_id, first.task.turn.queue);
        let progress = Progress::new(size_bytes);
        let errand = Errand { source: first.source, content: &all, lane: &lane, progress: &progress, stop };
        let paths: Vec<&RelativePath> = members.iter().map(|member| &member.source.path).collect();
        let fetched = self.fetcher.fetch_files(&folder, errand, &paths, largest_bytes).await;
        step::reached("puller.fetched");
        let (fetched, failure) = match fetched {
            Ok(fetched) => fetched,
            Err(failure) => (Fetched::default(), Some(failure)),
        };
        Ok((Came { folder: Some(folder), fetched, size_bytes }, failure))
    }

    /// Moves each file that came into its job's folder and verifies it there; `None` for what did not come.
    async fn sort_out(&self, members: Vec<Member<'_>>, came: Came) -> Vec<Option<Result>> {
        let Came { folder: Some(folder), fetched, size_bytes } = came else {
            return members.iter().map(|_| None).collect();
        };
        let from = folder.backup();
        let mut waiting = Vec::with_capacity(members.len());
        let mut rest = Vec::with_capacity(members.len());
        for Member { index: _, task, source, content, incoming } in members {
            let digest = fetched.digests.get(source.path.as_str().as_bytes()).copied();
            waiting.push(Waiting {
                from: source.path.below(&from),
                name: source.path.name().to_owned(),
                content: content.clone(),
                digest,
                how: task.turn.verify,
                unproven: !fetched.whole,
                incoming,
            });
            rest.push((task, content));
        }
        let store = Arc::clone(&self.store);
        let looked = tokio::task::spawn_blocking(move || {
            let found: Vec<_> = waiting.into_iter().map(Waiting::settle_in).collect();
            if let Err(error) = folder.retire(&store) {
                tracing::warn!(%error, "a batch's folder could not be removed; the sweep does it");
            }
            found
        });
        let looked = match looked.await {
            Ok(looked) => looked,
            Err(error) => {
                let failure = Failure::store("the batch's files", &io::Error::other(error));
                return rest.iter().map(|_| Some(Err(failure.clone()))).collect();
            }
        };
        step::reached("puller.verified");
        let of_all = |bytes: u64| fetched.seconds * bytes as f64 / (size_bytes.max(1) as f64);
        let mut results = Vec::with_capacity(rest.len());
        for ((incoming, found), (task, content)) in looked.into_iter().zip(rest) {
            results.push(match found {
                None => None,
                Some(Err(failure)) => Some(Err(self.aside(incoming, failure).await)),
                Some(Ok(found)) => {
                    task.progress.reached(content.size_bytes);
                    task.progress.stored(content.size_bytes);
                    let transfer =
                        Transfer { bytes: content.size_bytes, seconds: of_all(content.size_bytes), resumed_bytes: 0 };
                    Some(self.verified(task.job, task.turn, found, transfer, incoming))
                }
            });
        }
        results
    }
}

/// What a session left: its folder, unless there was none.
#[derive(Default)]
struct Came {
    folder: Option<Incoming>,
    fetched: Fetched,
    size_bytes: u64,
}

/// One file of a session, on its way into its job's folder.
struct Waiting {
    from: std::path::PathBuf,
    name: String,
    content: Content,
    digest: Option<Xxh3>,
    how: longshore_core::report::Verified,
    /// The session did not end well: only an announced digest tells whether this file came whole.
    unproven: bool,
    incoming: Incoming,
}

impl Waiting {
    /// Moves and verifies it; `None` when it is not there, or is what a session that did not end well left of it.
    fn settle_in(self) -> (Incoming, Option<Result<verify::Found>>) {
        if self.unproven && !self.content.is_provable() {
            return (self.incoming, None);
        }
        let found = match self.move_in() {
            Ok(()) => {
                step::reached("puller.moved");
                let digests: HashMap<_, _> =
                    self.digest.map(|digest| (self.name.clone().into_bytes(), digest)).into_iter().collect();
                let found = verify::verify(&self.incoming.backup(), &self.name, &self.content, &digests, self.how);
                let is_damage = found.as_ref().is_err_and(|failure| failure.class == Class::Corrupt);
                (!(self.unproven && is_damage)).then_some(found)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(Failure::store("moving a file out of its batch", &error))),
        };
        (self.incoming, found)
    }

    fn move_in(&self) -> io::Result<()> {
        self.incoming.make_backup()?;
        fs::rename(&self.from, self.incoming.backup().join(&self.name))
    }
}

/// Which of `tasks` go in one session: files that are fetched for the first time, from where the first such one comes, none at
/// or below another's path.
fn together(tasks: &[Task<'_>]) -> Vec<usize> {
    let mut chosen: Vec<(usize, &Source)> = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        let Ok((source, content)) = announced(task.job) else { continue };
        let fits = content.kind == ContentKind::File
            && task.turn.attempts == 1
            && task.turn.copy_of.is_none()
            && source.path.as_str().len() <= MOST_PATH_BYTES
            && chosen.first().is_none_or(|(_, first)| same_module(first, source))
            && !chosen.iter().any(|(_, other)| collide(&other.path, &source.path));
        if fits {
            chosen.push((index, source));
        }
    }
    chosen.into_iter().map(|(index, _)| index).collect()
}

fn same_module(one: &Source, other: &Source) -> bool {
    (one.transport, &one.address, one.port, &one.module) == (other.transport, &other.address, other.port, &other.module)
}

fn collide(one: &RelativePath, other: &RelativePath) -> bool {
    let (one, other) = (Path::new(one.as_str()), Path::new(other.as_str()));
    one.starts_with(other) || other.starts_with(one)
}
