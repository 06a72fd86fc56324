//! One transfer by rsync into a job's own folder: starts it, reads what it says, watches that bytes keep coming, and judges
//! its end by the exit code.
//!
//! A daemon that does not know xxh128 fails at once; then it is asked again without, and remembered.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use longshore_core::{
    Content, ContentKind, JobId, ReasonCode, RelativePath, Source, Transport, digest::Xxh3, job::HostAddress, step,
};
use tokio::{io::AsyncReadExt, time};
use tokio_util::sync::CancellationToken;

use crate::{
    bandwidth::{Bandwidth, Lane},
    failure::{Class, Failure},
    incoming::{Incoming, Size},
    progress::{DiskWatch, Progress},
    rsync::{
        arguments::{self, Checksum, Shape, Wanted},
        exit_code,
        output::{Event, Parser},
        process::{self, Rsync},
    },
    settings::{LocalModules, RsyncSettings, Settings, SshSettings},
    watchdog::{Alarm, Watchdog},
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of a host that seemed not to know it.
const ASK_FOR_XXH128_AGAIN: Duration = Duration::from_secs(3600);
/// Output that comes after rsync's own end: only a process that inherited its pipes can make this long.
const DRAIN: Duration = Duration::from_secs(2);
/// What is kept of rsync's messages.
const SAID_BYTES: usize = 2048;

/// What a transfer brought.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Digests of the files that came over the line, by their name as rsync writes it.
    pub digests: HashMap<Vec<u8>, Xxh3>,
    /// Bytes that came over the line.
    pub received_bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Bytes that were here before it began.
    pub found_bytes: u64,
    /// Whether rsync says that all went well. Otherwise even a file of full length may hold what was never sent: `--inplace` keeps
    /// what could not be read on the host.
    pub whole: bool,
}

/// One fetch: from where, what was announced, what its bytes have to pass, how far it is, and what ends it.
#[derive(Debug, Clone, Copy)]
pub struct Errand<'a> {
    /// From where.
    pub source: &'a Source,
    /// What was announced.
    pub content: &'a Content,
    /// The limits on its bytes.
    pub lane: &'a Lane,
    /// How far it is.
    pub progress: &'a Progress,
    /// Ends it, when it is cancelled.
    pub stop: &'a CancellationToken,
}

/// Fetches by rsync, and remembers of hosts what has to be remembered.
#[derive(Debug)]
pub struct Fetcher {
    rsync: RsyncSettings,
    ssh: SshSettings,
    local: LocalModules,
    bandwidth: Arc<Bandwidth>,
    xxh128: Mutex<HashMap<HostAddress, Xxh128>>,
}

/// Whether a host's rsync knows the digest.
#[derive(Debug, Clone, Copy)]
enum Xxh128 {
    Known,
    /// Seen then; it may have been a line that broke just as it began.
    Unknown(Instant),
}

/// What a session brings, as rsync is told.
#[derive(Debug, Clone, Copy)]
struct Load {
    shape: Shape,
    largest_bytes: u64,
}

/// One run of rsync.
#[derive(Debug, Default)]
struct Run {
    end: Option<End>,
    said: Vec<u8>,
    /// Received by this run, with a digest or without, by hashes of their names: rsync tells of one twice when it fetches it anew,
    /// because the first time it did not come as the host has it.
    files: HashSet<u64>,
    hashes: RandomState,
    digests: HashMap<Vec<u8>, Xxh3>,
    /// Made by this run.
    folders: u64,
    /// Of files; rsync tells it at a good end.
    literal_bytes: Option<u64>,
    received_bytes: u64,
}

#[derive(Debug)]
enum End {
    Exit(ExitStatus),
    Alarm(Alarm),
    Stopped,
    /// Its way is no longer allowed: it goes on by another.
    Moved,
}

impl Fetcher {
    /// With the node's settings and its limits.
    pub fn new(settings: &Settings, bandwidth: Arc<Bandwidth>) -> Self {
        let mut rsync = settings.rsync.clone();
        rsync.program = in_path(rsync.program);
        Self {
            rsync,
            ssh: settings.ssh.clone(),
            local: settings.local_modules.clone(),
            bandwidth,
            xxh128: Mutex::default(),
        }
    }

    /// Fetches into `incoming`, using what an earlier transfer left there.
    ///
    /// # Errors
    /// [`Failure`]; what arrived stays.
    pub async fn fetch(&self, incoming: &Incoming, errand: Errand<'_>) -> Result<Fetched, Failure> {
        let shape = match errand.content.kind {
            ContentKind::File => Shape::File,
            ContentKind::Directory => Shape::Directory,
        };
        let load = Load { shape, largest_bytes: errand.content.size_bytes };
        let found = incoming.prepare(Some(arguments::names([&errand.source.path]))).await;
        let found = found.map_err(|error| Failure::store("the transfer's folder", &error))?;
        let (fetched, failure) = self.session(incoming, errand, load, found).await?;
        failure.map_or(Ok(fetched), Err)
    }

    /// Fetches several files of one module in one session: each comes to lie at its path below the module. The source of
    /// `errand` is that of any of them, its content that of all together. Beside what came it is told why not all did; where
    /// only some could not be had, nothing is.
    ///
    /// # Errors
    /// [`Failure`] of the node; what arrived stays.
    pub async fn fetch_files(
        &self,
        incoming: &Incoming,
        errand: Errand<'_>,
        paths: &[&RelativePath],
        largest_bytes: u64,
    ) -> Result<(Fetched, Option<Failure>), Failure> {
        let load = Load { shape: Shape::Files, largest_bytes };
        let found = incoming.prepare(Some(arguments::names(paths.iter().copied()))).await;
        let found = found.map_err(|error| Failure::store("the batch's folder", &error))?;
        self.session(incoming, errand, load, found).await
    }

    /// One session that begins with what was `found`, and why it ended before its time. Digests are of what came whole: none,
    /// when it did not end well.
    async fn session(
        &self,
        incoming: &Incoming,
        errand: Errand<'_>,
        load: Load,
        found: Size,
    ) -> Result<(Fetched, Option<Failure>), Failure> {
        let Errand { source, progress, .. } = errand;
        progress.reached(found.bytes);
        progress.stored(found.allocated_bytes);
        let started = Instant::now();
        let known = self.xxh128.lock().unwrap_or_else(PoisonError::into_inner).get(&source.address).copied();
        let remember = |xxh128: Xxh128| {
            self.xxh128.lock().unwrap_or_else(PoisonError::into_inner).insert(source.address.clone(), xxh128);
        };
        let mut checksum = match known {
            Some(Xxh128::Unknown(since)) if since.elapsed() < ASK_FOR_XXH128_AGAIN => Checksum::Negotiated,
            _ => Checksum::Xxh128,
        };
        let mut run = self.run(incoming, errand, load, found, checksum).await?;
        let succeeded = |run: &Run| matches!(&run.end, Some(End::Exit(status)) if status.success());
        if checksum == Checksum::Xxh128 {
            if succeeded(&run) {
                remember(Xxh128::Known);
            } else if run.may_be_old_daemon()
                // A line that broke in the middle says nothing of the daemon.
                && !matches!(known, Some(Xxh128::Known))
                && incoming.here().await.bytes == found.bytes
            {
                checksum = Checksum::Negotiated;
                run = self.run(incoming, errand, load, found, checksum).await?;
                if succeeded(&run) {
                    tracing::info!(host = %source.address, "its rsync does not know xxh128; digests are made by reading");
                    remember(Xxh128::Unknown(Instant::now()));
                }
            }
        }
        let whole = succeeded(&run);
        let failure = self.judge(&run, incoming, errand, load, found).await;
        // A digest is printed before it is known whether the file came whole.
        let are_known = whole && checksum == Checksum::Xxh128;
        let fetched = Fetched {
            digests: if are_known { run.digests } else { HashMap::new() },
            received_bytes: run.received_bytes,
            seconds: started.elapsed().as_secs_f64(),
            found_bytes: found.bytes,
            whole,
        };
        Ok((fetched, failure))
    }

    async fn judge(
        &self,
        run: &Run,
        incoming: &Incoming,
        errand: Errand<'_>,
        load: Load,
        found: Size,
    ) -> Option<Failure> {
        let said = String::from_utf8_lossy(&run.said).trim().to_owned();
        Some(match &run.end {
            Some(End::Exit(status)) if status.success() => return None,
            Some(End::Exit(status)) => {
                let exit = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                if load.shape == Shape::Files && exit_code::is_partial(exit) {
                    return None;
                }
                let here = incoming.here().await;
                let exit = match errand.source.transport {
                    Transport::Ssh => exit_code::over_ssh(exit, here.bytes > found.bytes),
                    Transport::RsyncDaemon | Transport::Local => exit,
                };
                Failure::rsync(exit, here.bytes > 0, &said)
            }
            Some(End::Alarm(alarm)) => alarm.failure(errand.content, self.rsync.stall.duration()),
            // It never comes out of a session so.
            Some(End::Moved) | None => Alarm::Stalled.failure(errand.content, self.rsync.stall.duration()),
            Some(End::Stopped) => Failure::ended(),
        })
    }

    /// Runs rsync until it ends by itself, or for good: by another way, from where it was, when a limit has come up.
    async fn run(
        &self,
        incoming: &Incoming,
        errand: Errand<'_>,
        load: Load,
        found: Size,
        checksum: Checksum,
    ) -> Result<Run, Failure> {
        let (mut before, mut fresh) = (0, load.shape == Shape::Files || found.bytes == 0);
        loop {
            let mut run = self.run_once(incoming, errand, load, fresh, checksum).await?;
            fresh = load.shape == Shape::Files;
            run.received_bytes += before;
            if !matches!(run.end, Some(End::Moved)) {
                return Ok(run);
            }
            before = run.received_bytes;
            tracing::info!(received = before, "a limit has come up; the transfer goes on through the proxy");
        }
    }

    async fn run_once(
        &self,
        incoming: &Incoming,
        errand: Errand<'_>,
        load: Load,
        fresh: bool,
        checksum: Checksum,
    ) -> Result<Run, Failure> {
        let Errand { source, content, lane, progress, stop } = errand;
        let broken = |what: &str, error: &std::io::Error| Failure::store(what, error);
        let unfit = |failure| Failure { class: Class::NodeUnfit, ..failure };
        let route = self.bandwidth.route(source, lane).await;
        let mut route = route.map_err(|error| unfit(broken("starting the proxy", &error)))?;
        let proxy = route.proxy();
        let (into, names) = (incoming.backup(), incoming.names());
        let marker = JobId::fresh().to_string();
        let wanted = Wanted {
            source,
            shape: load.shape,
            largest_bytes: load.largest_bytes,
            fresh,
            checksum,
            marker: &marker,
            names: &names,
            into: &into,
            proxy: proxy.as_deref(),
        };
        let line = arguments::build(&wanted, &self.rsync, &self.ssh, &self.local)
            .map_err(|error| Failure::new(ReasonCode::NotConfigured, error.to_string()))?;
        let lock = incoming.lock().map_err(|error| broken("the transfer's lock", &error))?;
        let (mut rsync, stdout, stderr) = Rsync::start(&line, lock)
            .map_err(|error| unfit(broken(&format!("starting {}", line.program.display()), &error)))?;
        step::reached("puller.fetching");
        let mut run = Run::default();
        let mut watchdog = Watchdog::new(content, self.rsync.stall.duration());
        let (mut stdout, mut stderr) = (Some(stdout), Some(stderr));
        let mut parser = Parser::new(&marker);
        let (mut out, mut err) = (vec![0; 8192], vec![0; 2048]);
        let mut looks = time::interval_at(time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
        let mut drained = time::Instant::now();
        let mut disk = DiskWatch::new(incoming.backup());
        // Reads until both pipes are closed and rsync has ended, whichever is last.
        while run.end.is_none() || stdout.is_some() || stderr.is_some() {
            tokio::select! {
                read = read_some(&mut stdout, &mut out), if stdout.is_some() => {
                    parser.push(&out[..read], |event| run.heard(event, progress));
                    // Each is remembered: a host must not fill the memory with names.
                    if run.files.len() as u64 > content.files.max(1) {
                        run.end = Some(End::Alarm(Alarm::TooManyFiles));
                        break;
                    }
                    // Nobody announces them, and each takes of the disk.
                    if run.folders > content.most_folders() {
                        run.end = Some(End::Alarm(Alarm::TooManyFolders));
                        break;
                    }
                }
                read = read_some(&mut stderr, &mut err), if stderr.is_some() => run.said(&err[..read]),
                status = rsync.ended(), if run.end.is_none() => {
                    let status = status.map_err(|error| broken("waiting for rsync", &error))?;
                    run.end = Some(End::Exit(status));
                    drained = time::Instant::now() + DRAIN;
                }
                () = stop.cancelled(), if run.end.is_none() => {
                    run.end = Some(End::Stopped);
                    break;
                }
                () = route.must_change(lane), if run.end.is_none() => {
                    // Only while it runs is there a connection, which may not have been looked at yet.
                    let _ = route.received(rsync.id());
                    run.end = Some(End::Moved);
                    break;
                }
                _ = looks.tick(), if run.end.is_none() => {
                    let here = disk.look(progress);
                    run.end = match route.received(rsync.id()) {
                        // What it reads counts too: before a resume it reads all that is here, and nothing arrives.
                        Ok(received) => {
                            let read = process::bytes_read(rsync.id()).unwrap_or(0);
                            watchdog.look(received, read, progress.bytes(), here.entries).map(End::Alarm)
                        }
                        Err(error) => {
                            self.bandwidth.hide_sockets(source.transport, &error);
                            Some(End::Moved)
                        }
                    };
                    if run.end.is_some() {
                        break;
                    }
                }
                () = time::sleep_until(drained), if run.end.is_some() => break,
            }
        }
        // Ended by us, when it was not by itself: what it has is kept.
        rsync.end().await.map_err(|error| broken("ending rsync", &error))?;
        run.received_bytes = match (&run.end, run.literal_bytes) {
            (_, Some(bytes)) => bytes,
            // It is not told of a fresh file; whether it is as long as announced is verified.
            (Some(End::Exit(status)), None) if status.success() && load.shape == Shape::File => content.size_bytes,
            (_, None) => route.received(rsync.id()).unwrap_or(0),
        };
        Ok(run)
    }
}

/// A program without a slash, by its place in PATH: looked up once, and started without a copy of this process.
fn in_path(program: PathBuf) -> PathBuf {
    if program.components().count() != 1 {
        return program;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(&program)).find(|file| file.is_file());
    found.unwrap_or(program)
}

impl Run {
    fn heard(&mut self, event: Event, progress: &Progress) {
        match event {
            Event::File { name, digest } => {
                self.files.insert(self.hashes.hash_one(&name));
                self.digests.extend(digest.map(|digest| (name, digest)));
            }
            Event::Folder => self.folders += 1,
            Event::Matched(_) => {}
            Event::Progress(bytes) => progress.reached(bytes),
            Event::Literal(bytes) => self.literal_bytes = Some(bytes),
        }
    }

    fn said(&mut self, bytes: &[u8]) {
        let room = SAID_BYTES.saturating_sub(self.said.len());
        self.said.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn may_be_old_daemon(&self) -> bool {
        match &self.end {
            Some(End::Exit(status)) => self.files.is_empty() && status.code().is_some_and(exit_code::may_be_old_daemon),
            _ => false,
        }
    }
}

/// Reads what is there, 0 and `None` at the end.
async fn read_some(pipe: &mut Option<impl AsyncReadExt + Unpin>, buffer: &mut [u8]) -> usize {
    let Some(open) = pipe else { return 0 };
    let read = open.read(buffer).await.unwrap_or(0);
    if read == 0 {
        *pipe = None;
    }
    read
}
