//! One section of a run: lock the instance, finish what an earlier run left, sync an intent, run the script, come to its
//! result, and keep it. The order of the steps is that of [`crate::intent`].

use std::{sync::Arc, time::Duration};

use longshore_core::{
    InstanceKey, JobId, Millis, ReasonCode,
    beat::{SectionBeat, SectionOutcome},
    report::Reason,
    step,
};
use tokio::time::{Instant, sleep};

use crate::{
    durable::StateError,
    finish::{self, FinishError, Finished},
    intent::{INTENT_VERSION, InstanceFolder, InstanceLock, Intent, LOG_SETTLES_WITHIN, Outcome, look_at_logs},
    plan::Plan,
    run::Agent,
    script::{self, Found},
    spool::{Failure, SPOOL_VERSION, Spooled},
};

/// A file system's clock ticks at least this often, unless it keeps whole seconds.
const CLOCK_TICK: Duration = Duration::from_millis(5);

/// One section's end.
pub(crate) struct SectionEnd {
    pub(crate) beat: SectionBeat,
    /// A failure was found, or something of ours did not work.
    pub(crate) wrong: bool,
}

impl Agent {
    pub(crate) async fn run_section(&self, plan: &Plan, verbose: bool) -> SectionEnd {
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
            Earlier::Nowhere => {
                tracing::error!(section, %instance, "skipped: the result of its earlier run cannot be kept, and is not given up");
                return SectionEnd { wrong: true, ..skipped(plan) };
            }
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
        let outcome = if end == Some(Kept::Made) { SectionOutcome::Ok } else { SectionOutcome::Failed };
        wrong |= end != Some(Kept::Made);
        drop::<InstanceLock>(lock);
        SectionEnd { beat: section_beat(section, instance, outcome, Some(intent.job)), wrong }
    }

    /// From a script's end to the spool, and the intent's end. `None` when it did not come to a result.
    async fn conclude(
        &self,
        folder: &InstanceFolder,
        intent: &Intent,
        outcome: Result<Outcome, String>,
    ) -> Option<Kept> {
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
        let kept = self.keep(&spooled).await;
        if matches!(kept, Kept::Made | Kept::Failure) {
            if let Err(error) = folder.remove_intent() {
                tracing::error!("{error}");
            }
            step::reached("agent.intent_removed");
            self.wake.notify_one();
        }
        Some(kept)
    }

    /// Spools a result. When the disk does not take it, it goes to the queue at once; its intent then stays, so that the next
    /// run does what could not be done now.
    async fn keep(&self, spooled: &Spooled) -> Kept {
        match self.pusher.spool().put(spooled) {
            Ok(()) => {
                step::reached("agent.spooled");
                if spooled.failure.is_none() { Kept::Made } else { Kept::Failure }
            }
            Err(error) => {
                let job = spooled.job.id;
                match self.pusher.push_unspooled(spooled).await {
                    Ok(()) => {
                        tracing::error!(%job, "{error}; pushed without being kept. Make room on that disk");
                        Kept::Pushed
                    }
                    Err(away) => {
                        tracing::error!(%job, "{error}; and it could not be pushed either: {away}");
                        Kept::Nowhere
                    }
                }
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
        // Without touching an intent: where the lock could not be taken, it is another run's.
        self.keep(&spooled).await;
        self.wake.notify_one();
        let beat = section_beat(&plan.section, plan.key(), SectionOutcome::Failed, Some(spooled.job.id));
        SectionEnd { beat, wrong: true }
    }

    /// Finishes what an earlier run of this instance, whose agent was killed, had begun. The lock must be held.
    pub(crate) async fn finish_earlier(&self, folder: &InstanceFolder) -> Earlier {
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
            Some(Kept::Nowhere) => Earlier::Nowhere,
            Some(kept) => Earlier::Finished { wrong: kept != Kept::Made },
            None if self.shutdown.is_requested() => Earlier::Stopped,
            None => Earlier::Finished { wrong: true },
        }
    }
}

/// How the earlier run of an instance stands.
pub(crate) enum Earlier {
    /// There is nothing left of it.
    Finished { wrong: bool },
    /// Its script has lost its wrapper, and is not over.
    Runs,
    /// The agent was told to stop before it was finished.
    Stopped,
    /// Its result is in its intent only, which a new run would overwrite.
    Nowhere,
}

/// Where a run's result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// In the spool: a job.
    Made,
    /// In the spool: a failure.
    Failure,
    /// In the queue; the disk did not take it.
    Pushed,
    /// Neither the disk nor the queue took it.
    Nowhere,
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

pub(crate) fn skipped(plan: &Plan) -> SectionEnd {
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
