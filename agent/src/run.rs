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
    HostBeat, InstanceKey, JobId, Millis, ReasonCode, ServerId,
    beat::{BEAT_VERSION, SectionBeat, SectionOutcome, SpoolBeat},
    exit::Exit,
    report::Reason,
    shutdown::Shutdown,
    step,
};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    durable::StateError,
    finish::{self, FinishError, Finished},
    intent::{INTENT_VERSION, InstanceFolder, InstanceLock, Intent, LOG_SETTLES_WITHIN, Outcome, look_at_logs},
    plan::Plan,
    push::{PushError, Pusher},
    rsync_version::rsync_version,
    script::{self, Found},
    spool::{Failure, Half, SPOOL_VERSION, Spooled},
};

/// After the last script, the queue is tried for this long; what is left then waits for the next run.
const PUSH_WITHIN: Duration = Duration::from_secs(20);
/// While scripts run and the queue is away, it is tried again this often.
const PUSH_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// A file system's clock ticks at least this often, unless it keeps whole seconds.
const CLOCK_TICK: Duration = Duration::from_millis(5);

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

/// One section's end.
struct SectionEnd {
    beat: SectionBeat,
    /// A failure was found, or something of ours did not work.
    wrong: bool,
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
        let is_pushed = match timeout(PUSH_WITHIN, pushing).await {
            Ok(Ok(Ok(()))) => true,
            Ok(Ok(Err(error))) => {
                tracing::error!("{error}");
                false
            }
            Ok(Err(error)) => {
                tracing::error!("pushing ended badly: {error}");
                false
            }
            Err(_) => {
                tracing::error!("the queue {} took too long", self.pusher.queue().link().name());
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
        if is_pushed && let Err(error) = self.pusher.queue().host_beat(&beat).await {
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

    async fn run_section(&self, plan: &Plan, verbose: bool) -> SectionEnd {
        let (section, instance) = (&plan.section, plan.key());
        let folder = InstanceFolder::new(&self.state_dir, &instance);
        let mut wrong = false;
        let lock = match folder.lock() {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                tracing::warn!(section, %instance, "skipped: its earlier run is not over");
                return skipped(plan);
            }
            Err(error) => return self.cannot_begin(&folder, plan, &error, ReasonCode::ScriptStart).await,
        };
        step::reached("agent.locked");
        match self.finish_earlier(&folder).await {
            Earlier::Finished { wrong: found } => wrong |= found,
            Earlier::Runs => {
                tracing::warn!(section, %instance, "skipped: the script of its earlier run is not over");
                return skipped(plan);
            }
            Earlier::Stopped => return skipped(plan),
        }
        let (back_log, last_all_log) = match look_at_logs(plan) {
            Ok(logs) => logs,
            Err(error) => return self.cannot_begin(&folder, plan, &error, ReasonCode::LogUnreadable).await,
        };
        let intent = Intent {
            v: INTENT_VERSION,
            job: JobId::fresh(),
            made_at: Millis::now(),
            plan: plan.clone(),
            back_log,
            last_all_log,
        };
        if let Err(error) = begin(&folder, &intent).await {
            // A full disk, most likely. A backup without our safety is better than none.
            tracing::error!(section, "{error}; the script is run all the same");
            wrong = true;
        }
        step::reached("agent.intent");
        let outcome = script::run(&folder, &intent, &lock, &self.shutdown).await;
        if verbose {
            print_output(section, &outcome);
        }
        let end = self.conclude(&folder, &intent, outcome).await;
        let outcome = match &end {
            Some(true) => SectionOutcome::Ok,
            Some(false) | None => SectionOutcome::Failed,
        };
        wrong |= end != Some(true);
        drop::<InstanceLock>(lock);
        SectionEnd { beat: section_beat(section, instance, outcome, Some(intent.job)), wrong }
    }

    /// From a script's end to the spool. Tells whether a job was made; `None` when neither could be kept.
    async fn conclude(
        &self,
        folder: &InstanceFolder,
        intent: &Intent,
        outcome: Result<Outcome, String>,
    ) -> Option<bool> {
        let (stop, intent_too, folder_too) = (Arc::clone(&self.stop), intent.clone(), folder.clone());
        let finished = tokio::task::spawn_blocking(move || {
            finish::finish(&folder_too, &intent_too, outcome.as_ref().map_err(String::as_str), &stop)
        });
        let Finished { spooled, examined } = match finished.await {
            Ok(Ok(finished)) => finished,
            Ok(Err(error @ FinishError::Stopped)) => {
                tracing::warn!(section = intent.plan.section, "{error}");
                return None;
            }
            Err(error) => {
                tracing::error!(section = intent.plan.section, "finishing the run ended badly: {error}");
                return None;
            }
        };
        tell_result(&intent.plan.section, &spooled, examined);
        self.keep(folder, &spooled).await.then_some(spooled.failure.is_none())
    }

    /// Spools a result, and ends its intent. When the disk does not take it, it goes to the queue at once, and the intent
    /// stays, so that the next run does what could not be done now.
    async fn keep(&self, folder: &InstanceFolder, spooled: &Spooled) -> bool {
        match self.pusher.spool().put(spooled) {
            Ok(()) => {
                step::reached("agent.spooled");
                if let Err(error) = folder.remove_intent() {
                    tracing::error!("{error}");
                }
                step::reached("agent.intent_removed");
                self.wake.notify_one();
                true
            }
            Err(error) => {
                let job = spooled.job.id;
                match self.pusher.push_unspooled(spooled).await {
                    Ok(()) => tracing::error!(%job, "{error}; pushed without being kept. Make room on that disk"),
                    Err(away) => tracing::error!(%job, "{error}; and it could not be pushed either: {away}"),
                }
                false
            }
        }
    }

    /// A run that cannot even begin is a failure of its instance like any other.
    async fn cannot_begin(
        &self,
        folder: &InstanceFolder,
        plan: &Plan,
        error: &StateError,
        code: ReasonCode,
    ) -> SectionEnd {
        let now = Millis::now();
        let failure = Some(Failure { reason: Reason::new(code, format!("the script was not run: {error}")), at: now });
        let spooled = Spooled { v: SPOOL_VERSION, job: plan.job(JobId::fresh(), now), failure };
        tell_result(&plan.section, &spooled, None);
        finish::remember(folder, Some(&plan.section), &spooled);
        self.keep(folder, &spooled).await;
        let beat = section_beat(&plan.section, plan.key(), SectionOutcome::Failed, Some(spooled.job.id));
        SectionEnd { beat, wrong: true }
    }

    /// Finishes what an earlier run of this instance, whose agent was killed, had begun. The lock must be held.
    async fn finish_earlier(&self, folder: &InstanceFolder) -> Earlier {
        let intent = match folder.intent() {
            Ok(None) => return Earlier::Finished { wrong: false },
            Ok(Some(intent)) => intent,
            Err(error) => {
                match folder.set_intent_aside() {
                    Ok(aside) => tracing::error!("{error}; kept as {}", aside.display()),
                    Err(other) => tracing::error!("{error}; {other}"),
                }
                return Earlier::Finished { wrong: true };
            }
        };
        let (job, instance) = (intent.job, intent.plan.key());
        if self.pusher.spool().holds(job) {
            // Killed after the commit point: only the intent's removal was missing.
            if let Err(error) = folder.remove_intent() {
                tracing::error!("{error}");
            }
            return Earlier::Finished { wrong: false };
        }
        let lost = "the agent and its wrapper were killed, or the host went down, while it ran".to_owned();
        let outcome = match script::found(folder, &intent).await {
            Ok(Found::Ended(outcome)) => Ok(outcome),
            Ok(Found::Unknown) => Err(lost),
            Ok(Found::Runs(group)) => {
                if script::leave_or_end(&intent, group).await {
                    return Earlier::Runs;
                }
                Err(format!("{lost}; it was ended after its timeout"))
            }
            Err(error) => Err(error.to_string()),
        };
        tracing::warn!(%job, %instance, made_at = %intent.made_at, "finishing an earlier run, whose agent was killed");
        match self.conclude(folder, &intent, outcome).await {
            Some(made) => Earlier::Finished { wrong: !made },
            None if self.shutdown.is_requested() => Earlier::Stopped,
            None => Earlier::Finished { wrong: true },
        }
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
                wrong |= matches!(self.finish_earlier(&folder).await, Earlier::Finished { wrong: true });
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

/// How the earlier run of an instance stands.
enum Earlier {
    /// There is nothing left of it.
    Finished { wrong: bool },
    /// Its script has lost its wrapper, and is not over.
    Runs,
    /// The agent was told to stop before it was finished.
    Stopped,
}

/// Syncs the intent, and waits until a log written from now on can be told from the one before: until the file system's
/// clock has passed the logs' times. It nearly always has.
async fn begin(folder: &InstanceFolder, intent: &Intent) -> Result<(), StateError> {
    let began = Instant::now();
    loop {
        let probe = folder.write_intent(intent)?;
        let mut logs = intent.back_log.iter().chain(&intent.last_all_log);
        if logs.all(|log| log.is_older_than(&probe)) || began.elapsed() > LOG_SETTLES_WITHIN {
            return Ok(());
        }
        sleep(CLOCK_TICK).await;
    }
}

fn skipped(plan: &Plan) -> SectionEnd {
    let beat = section_beat(&plan.section, plan.key(), SectionOutcome::Skipped, None);
    SectionEnd { beat, wrong: false }
}

fn section_beat(name: &str, key: InstanceKey, outcome: SectionOutcome, job: Option<JobId>) -> SectionBeat {
    SectionBeat { name: name.to_owned(), key, outcome, job }
}

fn tell_result(section: &str, spooled: &Spooled, examined: Option<Duration>) {
    let job = &spooled.job;
    match (&spooled.failure, &job.source) {
        (Some(failure), _) => {
            tracing::error!(section, job = %job.id, reason = failure.reason.code.as_str(), "{}", failure.reason.text);
        }
        (None, source) => tracing::info!(
            section,
            job = %job.id,
            file = source.as_ref().map(|source| source.path.as_str()),
            bytes = job.size_bytes(),
            script_seconds = job.script.as_ref().map(|script| script.seconds),
            digest_seconds = examined.map(|took| took.as_secs_f64()),
            "backup made"
        ),
    }
}

fn print_output(section: &str, outcome: &Result<Outcome, String>) {
    use std::io::Write;
    let Ok(outcome) = outcome else { return };
    let cut = if outcome.output_cut { " (its last 64 KiB)" } else { "" };
    let mut out = std::io::stdout().lock();
    // A closed standard output must not end a run.
    let _ = writeln!(out, "== {section}: {:?} after {:.1} s{cut}", outcome.end, outcome.seconds);
    let _ = write!(out, "{}", outcome.output);
    let _ = if outcome.output.is_empty() || outcome.output.ends_with('\n') { Ok(()) } else { writeln!(out) };
}

/// The most memory that this process has had, from the kernel.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
