//! One `run`: every section once, up to `parallel` scripts at a time, while what is ready goes to the queue. A section's
//! steps are those of [`crate::intent`]; a section whose earlier run is not over is skipped, and said so.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use longshore_core::{
    HostBeat, Millis, ServerId,
    beat::{BEAT_VERSION, SpoolBeat},
    exit::Exit,
    shutdown::Shutdown,
    step,
};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    intent::InstanceFolder,
    plan::Plan,
    push::{PushError, Pusher},
    rsync_version::rsync_version,
    section::{Earlier, SectionEnd, skipped},
    spool::Half,
};

/// After the last script, the queue is tried for this long; what is left then waits for the next run.
const PUSH_WITHIN: Duration = Duration::from_secs(20);
/// While scripts run and the queue is away, it is tried again this often.
const PUSH_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What the steps of a run share.
#[derive(Debug)]
pub struct Agent {
    /// Spool, locks, intents.
    pub state_dir: PathBuf,
    /// To the queue.
    pub pusher: Pusher,
    /// The stop request.
    pub shutdown: Shutdown,
    /// The same, for work that blocks.
    pub stop: Arc<AtomicBool>,
    /// Something new is in the spool.
    pub wake: Notify,
    /// Nothing more will come into the spool.
    pub scripts_ended: AtomicBool,
}

/// How a run is to be done.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The host.
    pub server_id: ServerId,
    /// Scripts at once.
    pub parallel: usize,
    /// Between the starts of two scripts.
    pub stagger: Duration,
    /// Print each script's output.
    pub verbose: bool,
    /// Whether these are all sections: then what instances left behind that are no longer configured is finished too.
    pub all: bool,
}

impl Agent {
    /// Runs `plans`, pushes, beats.
    ///
    /// [`Exit::FoundWrong`] when a script or its log failed or the disk did; else [`Exit::Kept`] when something waits for
    /// the queue.
    pub async fn run(self: &Arc<Self>, plans: Vec<Plan>, options: &RunOptions) -> Exit {
        let began = Instant::now();
        let pushing = tokio::spawn({
            let agent = Arc::clone(self);
            async move { agent.keep_pushing().await }
        });
        let version = tokio::spawn(rsync_version(self.state_dir.clone()));
        let mut wrong = options.all && self.finish_unconfigured(&plans).await;
        let ends = self.run_sections(plans, options).await;
        wrong |= ends.iter().any(|end| end.wrong);
        self.scripts_ended.store(true, Ordering::Relaxed);
        self.wake.notify_one();
        // Where only our own disk failed, the beat still tells that this host lives.
        let mut queue_answers = true;
        let is_pushed = match timeout(PUSH_WITHIN, pushing).await {
            Ok(Ok(Ok(()))) => true,
            Ok(Ok(Err(error))) => {
                tracing::error!("{error}");
                queue_answers = matches!(error, PushError::State(_));
                false
            }
            Ok(Err(error)) => {
                tracing::error!("pushing ended badly: {error}");
                false
            }
            Err(_) => {
                tracing::error!("the queue {} took too long", self.pusher.queue().link().name());
                queue_answers = false;
                false
            }
        };
        let spool = self.spool_beat();
        if !is_pushed {
            tracing::error!(
                waiting = spool.waiting,
                "kept in {}: the next run pushes it, or `longshore-agent flush`",
                self.state_dir.join("spool").display()
            );
        }
        let sections = ends.into_iter().map(|end| end.beat).collect();
        let rsync_version = version.await.ok().flatten();
        let beat = HostBeat {
            v: BEAT_VERSION,
            server_id: options.server_id.clone(),
            at: Millis::now(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            sections,
            spool,
            rsync_version,
            extra: serde_json::Map::new(),
        };
        if queue_answers && let Err(error) = self.pusher.queue().host_beat(&beat).await {
            tracing::error!("the heartbeat could not be sent: {error}");
        }
        step::reached("agent.beat");
        tracing::info!(
            sections = beat.sections.len(),
            waiting = spool.waiting,
            sent = spool.sent,
            seconds = began.elapsed().as_secs_f64(),
            peak_memory_bytes = peak_memory_bytes(),
            "run ended"
        );
        wrong |= self.pusher.faults() > 0;
        match (wrong, is_pushed && spool.waiting == 0) {
            (true, _) => Exit::FoundWrong,
            (false, false) => Exit::Kept,
            (false, true) => Exit::Done,
        }
    }

    /// Settles `sent/` and pushes what waits, without running anything.
    ///
    /// # Errors
    /// [`PushError`] when something has to wait.
    pub async fn flush(&self) -> Result<(), PushError> {
        self.pusher.reconcile().await?;
        self.pusher.push_waiting().await
    }

    /// What the spool holds now.
    pub fn spool_beat(&self) -> SpoolBeat {
        let count = |half| self.pusher.spool().ids(half).map_or(0, |ids| ids.len() as u64);
        SpoolBeat { waiting: count(Half::Waiting), sent: count(Half::Sent) }
    }

    /// Pushes what becomes ready while scripts run, and once more after the last of them; the connection is made meanwhile,
    /// and `sent/` is settled.
    async fn keep_pushing(&self) -> Result<(), PushError> {
        let mut reconciled = false;
        loop {
            let is_last = self.scripts_ended.load(Ordering::Relaxed);
            let tried = async {
                if !reconciled {
                    self.pusher.reconcile().await?;
                    reconciled = true;
                }
                self.pusher.push_waiting().await
            };
            let tried = tried.await;
            if is_last {
                return tried;
            }
            let again_after = match tried {
                Ok(()) => Duration::MAX,
                Err(error) => {
                    tracing::warn!("{error}; it is tried again");
                    PUSH_AGAIN_AFTER
                }
            };
            let _ = timeout(again_after, self.wake.notified()).await;
        }
    }

    async fn run_sections(self: &Arc<Self>, plans: Vec<Plan>, options: &RunOptions) -> Vec<SectionEnd> {
        let permits = Arc::new(Semaphore::new(options.parallel));
        let mut sections = JoinSet::new();
        let mut next_start = Instant::now();
        let mut ends = Vec::new();
        for (number, plan) in plans.into_iter().enumerate() {
            let turn = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                sleep_until(next_start).await;
                permit
            };
            let Some(permit) = self.shutdown.unless_requested(turn).await else {
                tracing::warn!(section = plan.section, "not run: the agent was told to stop");
                ends.push((number, skipped(&plan)));
                continue;
            };
            next_start = Instant::now() + options.stagger;
            let (agent, verbose) = (Arc::clone(self), options.verbose);
            sections.spawn(async move {
                let end = agent.run_section(&plan, verbose).await;
                drop(permit);
                (number, end)
            });
        }
        while let Some(ended) = sections.join_next().await {
            match ended {
                Ok(end) => ends.push(end),
                Err(error) => tracing::error!("a section's task ended badly: {error}"),
            }
        }
        ends.sort_by_key(|(number, _)| *number);
        ends.into_iter().map(|(_, end)| end).collect()
    }

    /// What was begun for instances that are no longer in the configuration. Tells whether something was wrong.
    async fn finish_unconfigured(&self, plans: &[Plan]) -> bool {
        let folders = match InstanceFolder::all(&self.state_dir) {
            Ok(folders) => folders,
            Err(error) => {
                tracing::error!("{error}");
                return true;
            }
        };
        let configured: Vec<PathBuf> =
            plans.iter().map(|plan| InstanceFolder::new(&self.state_dir, &plan.key()).path().to_owned()).collect();
        let mut wrong = false;
        for folder in folders.into_iter().filter(|folder| !configured.iter().any(|path| path == folder.path())) {
            // Where the lock is taken, another configuration's run is on its way.
            if !folder.has_intent() {
                continue;
            }
            if let Ok(Some(_lock)) = folder.lock() {
                wrong |=
                    matches!(self.finish_earlier(&folder).await, Earlier::Finished { wrong: true } | Earlier::Nowhere);
            }
        }
        wrong
    }

    /// Passes the stop request on to work that blocks.
    pub async fn stop_when_asked(self: Arc<Self>) {
        self.shutdown.requested().await;
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The most memory that this process has had, from the kernel.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
