//! What the parts of one puller share: the node's settings and services, what is running, and what is known about why nothing
//! is. Its picture is the heartbeat.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use longshore_core::{
    InstanceKey, Job, JobId, Millis, NodeBeat, QueueName, Report,
    beat::{BEAT_VERSION, DiskBeat, NodeTotals, RunningTransfer},
    policy::PolicyError,
    queue::{End, Level, Queue, Room},
    report::Verified,
    token,
};

use crate::{
    bandwidth::Bandwidth,
    carrier::Carrier,
    disk_watch::DiskWatch,
    metrics::NodeMetrics,
    peers::Peers,
    policy::NodePolicy,
    progress::Progress,
    rsync::version::Version,
    settings::Settings,
    space::{Disk, NoRoom, Promised, Space},
    store::Store,
    throughput::LastHour,
};

/// How long a node takes no job after its own disk failed one.
pub const REST_AFTER_FAULT: Duration = Duration::from_secs(30);
/// An error of before is no news: what it was about has gone well since, or has failed again.
const ERROR_IS_TOLD: Duration = Duration::from_secs(3600);
/// What a backup takes of a disk beside its data at most, which the queue doesn't count: its last block, the manifest, the
/// transfer's folder with its list, and at worst four new directories above its place.
const BESIDE_BYTES: u64 = 10 * 4096;
/// A disk that has not given or taken a few bytes within this doesn't answer.
const DISK_ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// A running puller.
#[derive(Debug)]
pub struct Node {
    /// Its configuration.
    pub settings: Settings,
    /// The queue of its cluster.
    pub queue: Queue,
    /// Its store.
    pub store: Arc<Store>,
    /// The store's file system.
    pub space: Space,
    /// What transfers and downloads may take of the line.
    pub bandwidth: Arc<Bandwidth>,
    /// What operators set.
    pub policy: NodePolicy,
    /// What brings jobs onto the disk.
    pub carrier: Carrier,
    /// Whether the store's disk takes writes.
    pub disk_watch: DiskWatch,
    /// The other nodes.
    pub peers: Arc<Peers>,
    /// What is counted.
    pub metrics: NodeMetrics,
    rsync_version: Version,
    serve: Option<String>,
    started_at: Millis,
    running: Mutex<HashMap<JobId, Running>>,
    state: Mutex<State>,
    totals: Totals,
    last_hour: Mutex<LastHour>,
    changed: tokio::sync::Notify,
    woken: tokio::sync::Notify,
}

#[derive(Debug, Clone)]
struct Running {
    key: InstanceKey,
    progress: Arc<Progress>,
}

#[derive(Debug, Default)]
struct State {
    paused: Option<String>,
    last_error: Option<(Instant, String)>,
    disk: Disk,
    rests_until: Option<Instant>,
    ends: bool,
}

#[derive(Debug, Default)]
struct Totals {
    stored: AtomicU64,
    stored_bytes: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
}

/// A transfer that the heartbeat shows until this is dropped.
#[derive(Debug)]
pub struct Shown {
    node: Arc<Node>,
    job: JobId,
    progress: Arc<Progress>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        // The same job may have been claimed again meanwhile: what is shown and promised then is that transfer's.
        let mut running = locked(&self.node.running);
        if running.get(&self.job).is_some_and(|shown| Arc::ptr_eq(&shown.progress, &self.progress)) {
            running.remove(&self.job);
        }
        drop(running);
        self.node.metrics.running.dec();
    }
}

impl Node {
    /// Of an open store; `serve` is the address that others reach its files at.
    pub fn new(settings: Settings, queue: Queue, store: Store, rsync_version: Version, serve: Option<String>) -> Self {
        let (store, bandwidth) = (Arc::new(store), Arc::<Bandwidth>::default());
        let peers = Arc::new(Peers::new(queue.clone(), settings.node_id.clone()));
        Self {
            space: Space::new(store.root(), settings.store.reserve),
            carrier: Carrier::new(&settings, Arc::clone(&store), Arc::clone(&bandwidth), Arc::clone(&peers)),
            peers,
            disk_watch: DiskWatch::new(settings.store.hang.duration()),
            policy: NodePolicy::open(&settings, Arc::clone(&store)),
            bandwidth,
            metrics: NodeMetrics::new(),
            settings,
            queue,
            store,
            rsync_version,
            serve,
            started_at: Millis::now(),
            running: Mutex::default(),
            state: Mutex::default(),
            totals: Totals::default(),
            last_hour: Mutex::new(LastHour::new(Instant::now())),
            changed: tokio::sync::Notify::new(),
            woken: tokio::sync::Notify::new(),
        }
    }

    /// The levels that the node may claim from now: its own, and after them those of second copies.
    pub async fn levels(&self) -> Vec<Level> {
        let policy = self.policy.now();
        let mut levels = policy.open.clone();
        // When all are closed, nothing is claimed.
        if policy.is_open && !levels.is_empty() {
            levels.extend(self.peers.copy_levels().await);
        }
        levels
    }

    /// How the backup of `job` is checked.
    pub fn verify_of(&self, job: &Job) -> Verified {
        self.policy.now().rule(&job.queue, &job.backup_type).verify
    }

    /// How a job ends whose backup is stored: over, or with a second copy wanted.
    pub fn end_of(&self, report: &Report) -> End {
        let copies = self.policy.now().rule(&report.job.queue, &report.job.backup_type).copies;
        if copies > 1 && report.copies.is_empty() { End::Copy } else { End::Final }
    }

    /// Shows a transfer, and keeps room for its bytes.
    pub fn show(self: &Arc<Self>, job: JobId, key: InstanceKey, progress: Arc<Progress>) -> Shown {
        locked(&self.running).insert(job, Running { key, progress: Arc::clone(&progress) });
        self.metrics.running.inc();
        Shown { node: Arc::clone(self), job, progress }
    }

    /// Whether this process works on `job`.
    pub fn is_running(&self, job: JobId) -> bool {
        locked(&self.running).contains_key(&job)
    }

    /// What a new job may have now.
    ///
    /// # Errors
    /// Why it may have none, for people.
    pub async fn room(&self) -> Result<Room, String> {
        if let Some(why) = self.policy.now().closed_whole() {
            return Err(why);
        }
        if let Some(until) = locked(&self.state).rests_until
            && until > Instant::now()
        {
            return Err("resting after its disk failed a transfer".to_owned());
        }
        if let Some(time) = self.disk_watch.hangs() {
            return Err(format!("its store's disk has taken nothing for {} s: it hangs", time.as_secs()));
        }
        // What is promised is added up before the disk is asked: bytes written between the two are counted twice, never not.
        let promised = self.promised();
        // First, since a disk that hangs is noticed there without a thread lost for each question.
        let disk = self.measure().await.map_err(|error| error.to_string())?;
        let store = Arc::clone(&self.store);
        let there = tokio::task::spawn_blocking(move || store.still_there());
        let there = tokio::time::timeout(DISK_ANSWERS_WITHIN, there).await;
        let there = there.map_err(|_| "its store's marker can't be read: the disk does not answer".to_owned())?;
        there.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let room = self.space.room(&disk, promised).map_err(|error| error.to_string())?;
        // A claim may bring as many as this.
        let beside = BESIDE_BYTES.saturating_mul(u64::from(self.settings.batch().jobs));
        Ok(Room { bytes: room.bytes.saturating_sub(beside), ..room })
    }

    /// Asks the disk, and remembers the answer for the heartbeat.
    ///
    /// # Errors
    /// [`NoRoom::Silent`].
    pub async fn measure(&self) -> Result<Disk, NoRoom> {
        let disk = self.space.measure().await?;
        locked(&self.state).disk = disk;
        self.metrics.free_bytes.set(disk.free_bytes.cast_signed());
        Ok(disk)
    }

    fn promised(&self) -> Promised {
        let running = locked(&self.running);
        let beside = Promised { bytes: BESIDE_BYTES.saturating_mul(running.len() as u64), inodes: 0 };
        running.values().map(|running| running.progress.promised()).fold(beside, Promised::and)
    }

    /// Whether the disk is at or below its reserve.
    pub async fn is_full(&self) -> bool {
        self.measure().await.is_ok_and(|disk| self.space.room(&disk, Promised::default()).is_err())
    }

    /// Whether the disk is above its reserve, and takes a file now.
    pub async fn can_store(&self) -> bool {
        let store = Arc::clone(&self.store);
        let tried = tokio::task::spawn_blocking(move || store.try_writing());
        let tried = tokio::time::timeout(DISK_ANSWERS_WITHIN, tried).await;
        matches!(tried, Ok(Ok(Ok(())))) && !self.is_full().await
    }

    /// Says why nothing is claimed now, or that it is again.
    pub fn paused(&self, why: Option<String>) {
        let mut state = locked(&self.state);
        if state.paused == why {
            return;
        }
        match (&state.paused, &why) {
            // The end is told by whoever asked for it.
            (_, Some(_)) if state.ends => {}
            // A disk at its reserve says other numbers each time.
            (Some(before), Some(why)) if same_but_for_numbers(before, why) => {}
            (_, Some(why)) => tracing::warn!(%why, "paused"),
            (Some(before), None) => tracing::info!(%before, "claiming again"),
            (None, None) => {}
        }
        state.paused = why;
        self.metrics.paused.set(i64::from(state.paused.is_some()));
        drop(state);
        self.changed.notify_one();
    }

    /// Says in the heartbeat that the puller ends, or has ended.
    pub fn ends(&self, how: &str) {
        locked(&self.state).ends = true;
        self.paused(Some(how.to_owned()));
    }

    /// The last error, for people who look at the node within the next hour; tells whether it is another than the one before.
    pub fn failed_with(&self, text: String) -> bool {
        let before = locked(&self.state).last_error.replace((Instant::now(), text.clone()));
        before.is_none_or(|(_, before)| before != text)
    }

    /// The registry's policy is not one: the last good one stays in force.
    pub fn policy_is_unreadable(&self, error: &PolicyError) {
        tracing::error!(%error, "the registry's policy can't be read; the last good one stays in force");
        self.failed_with(error.to_string());
    }

    /// Takes no job for [`REST_AFTER_FAULT`].
    pub fn rest(&self) {
        locked(&self.state).rests_until = Some(Instant::now() + REST_AFTER_FAULT);
    }

    /// Counts a stored backup of a level.
    pub fn count_stored(&self, queue: &QueueName, bytes: u64) {
        locked(&self.last_hour).stored(Instant::now(), queue, bytes);
        self.totals.stored.fetch_add(1, Relaxed);
        self.totals.stored_bytes.fetch_add(bytes, Relaxed);
        self.metrics.stored.inc();
        self.metrics.stored_bytes.inc_by(bytes);
    }

    /// Counts a job that was given up.
    pub fn count_failed(&self, code: &str) {
        self.totals.failed.fetch_add(1, Relaxed);
        self.metrics.failed.get_or_create(&vec![("code", code.to_owned())]).inc();
    }

    /// Counts a job that was put back for later.
    pub fn count_retried(&self, code: &str) {
        self.totals.retried.fetch_add(1, Relaxed);
        self.metrics.retried.get_or_create(&vec![("code", code.to_owned())]).inc();
    }

    /// Returns when something changed that the heartbeat should tell at once.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Says that there may be something to claim.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Returns when there may be something to claim; at once when that was said since this last returned.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// The node as others see it.
    pub fn beat(&self) -> NodeBeat {
        let running: Vec<RunningTransfer> = locked(&self.running)
            .iter()
            .map(|(&job, Running { key, progress })| RunningTransfer {
                job,
                key: key.clone(),
                size_bytes: progress.size_bytes,
                bytes: progress.bytes(),
                bytes_per_second: progress.bytes_per_second(),
                since: progress.since,
            })
            .collect();
        let promised = self.promised();
        let (stored_last_hour_bytes, by_queue) = locked(&self.last_hour).told(Instant::now());
        let state = locked(&self.state);
        let (totals, policy) = (&self.totals, self.policy.now());
        let last_error = state.last_error.as_ref().filter(|(at, _)| at.elapsed() < ERROR_IS_TOLD);
        NodeBeat {
            v: BEAT_VERSION,
            node_id: self.settings.node_id.clone(),
            at: Millis::now(),
            started_at: self.started_at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            weight: policy.weight,
            slots: self.settings.slots,
            disk: DiskBeat {
                size_bytes: state.disk.size_bytes,
                free_bytes: state.disk.free_bytes,
                reserve_bytes: self.space.reserve_bytes(&state.disk),
                promised_bytes: promised.bytes,
            },
            running,
            paused: state.paused.clone(),
            last_error: last_error.map(|(_, text)| text.clone()),
            serve: self.serve.clone(),
            public_key: self.store.key().map(|key| token::public_key_text(&key.verifying_key())),
            rsync_version: self.rsync_version.to_string(),
            totals: NodeTotals {
                stored: totals.stored.load(Relaxed),
                stored_bytes: totals.stored_bytes.load(Relaxed),
                failed: totals.failed.load(Relaxed),
                retried: totals.retried.load(Relaxed),
            },
            room_bytes: self.space.room(&state.disk, promised).map_or(0, |room| room.bytes),
            stored_last_hour_bytes,
            by_queue,
            closed: policy.closed.iter().map(|shut| (shut.queue.clone(), shut.to_string())).collect(),
            policy: policy.version,
            bandwidth: policy.caps.node,
            extra: serde_json::Map::new(),
        }
    }
}

/// How others reach `settings.serve`: a URL without a last slash. `None` when nothing is served.
pub fn serve_url(settings: &Settings) -> Option<String> {
    let serve = &settings.serve;
    if serve.public_key.is_none() && serve.public_key_file.is_none() {
        return None;
    }
    let port = serve.listen.port();
    let address = match &serve.address {
        Some(address) => address.trim_end_matches('/').to_owned(),
        None if serve.listen.ip().is_unspecified() => host_name(Path::new("/proc/sys/kernel/hostname")),
        None => match serve.listen.ip() {
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            std::net::IpAddr::V4(ip) => ip.to_string(),
        },
    };
    if address.contains("://") {
        return Some(address);
    }
    let after_brackets = address.rsplit(']').next().unwrap_or(&address);
    Some(if after_brackets.contains(':') { format!("http://{address}") } else { format!("http://{address}:{port}") })
}

fn host_name(file: &Path) -> String {
    std::fs::read_to_string(file).map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}

fn same_but_for_numbers(one: &str, other: &str) -> bool {
    let rest = |c: &char| !c.is_ascii_digit();
    one.chars().filter(rest).eq(other.chars().filter(rest))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
