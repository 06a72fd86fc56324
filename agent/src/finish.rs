//! From a script's end to a result: a job to be fetched, or a failure with its own reason. Everything that it needs is in
//! the intent, the recorded end and the files, so that a later agent comes to the same result as the one that was killed.

use std::{path::Path, sync::atomic::AtomicBool, time::Duration};

use longshore_core::{
    ChainLink, Content, Millis, ReasonCode, RelativePath, Source, job::ScriptRun, report::Reason, step,
};
use serde::{Deserialize, Serialize};

use crate::{
    backup_log::{self, BackupLog, LogIdentity, Made},
    chain_state::{self, ChainState, FullLog},
    durable::{self, StateError},
    examine::{self, ExamineError},
    intent::{InstanceFolder, Intent, Outcome, ScriptEnd},
    spool::{Failure, SPOOL_VERSION, Spooled},
};

/// This much of a failed script's output goes into its report.
const SHOWN_OUTPUT_BYTES: usize = 2048;

/// A finished run.
#[derive(Debug)]
pub struct Finished {
    /// What goes to the queue.
    pub spooled: Spooled,
    /// How long the file was read for its digests.
    pub examined: Option<Duration>,
}

/// Why a run could not be finished now.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The agent was told to stop while it read the backup; the intent stays.
    #[error("stopped while the backup was read; the next run finishes it")]
    Stopped,
}

/// The last result of an instance, for `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastResult {
    /// The section it came of; of `submit`, none.
    pub section: Option<String>,
    /// The job or the failed run, whole.
    pub spooled: Spooled,
}

/// Comes to the result of `intent`'s run, and remembers the chain that it leaves. Blocks while it reads the backup.
///
/// `outcome` says instead of the end why it is not known.
///
/// # Errors
/// [`FinishError`] when the agent was told to stop.
pub fn finish(
    folder: &InstanceFolder,
    intent: &Intent,
    outcome: Result<&Outcome, &str>,
    stop: &AtomicBool,
) -> Result<Finished, FinishError> {
    let record = folder.chain().unwrap_or_else(|error| {
        // The chain goes on unproven; the next full mends it.
        tracing::error!("{error}");
        chain_state::ChainRecord::default()
    });
    let judged = judge(intent, outcome, record.before(intent.job), stop)?;
    step::reached("agent.examined");
    if intent.plan.last_all_log.is_some() {
        let kept = folder.write_chain(&record.after(intent.job, judged.chain));
        tell(kept);
        step::reached("agent.chained");
    }
    let mut job = intent.plan.job(intent.job, intent.made_at);
    job.script = outcome.ok().map(|outcome| ScriptRun {
        seconds: (outcome.seconds * 1000.0).round() / 1000.0,
        exit: match outcome.end {
            ScriptEnd::Exited(status) => Some(status),
            _ => None,
        },
        extra: serde_json::Map::new(),
    });
    let (failure, examined) = match judged.result {
        Ok(delivery) => {
            job.source = Some(delivery.source);
            job.content = Some(delivery.content);
            job.chain = delivery.chain;
            (None, Some(delivery.took))
        }
        Err(reason) => (Some(Failure { reason, at: Millis::now() }), None),
    };
    let spooled = Spooled { v: SPOOL_VERSION, job, failure };
    remember(folder, Some(&intent.plan.section), &spooled);
    Ok(Finished { spooled, examined })
}

/// Writes the last result, for `status`.
pub fn remember(folder: &InstanceFolder, section: Option<&str>, spooled: &Spooled) {
    let last = LastResult { section: section.map(str::to_owned), spooled: spooled.clone() };
    tell(durable::write_json_unsynced(&folder.last_result(), &last));
}

/// What is only good to have is told and not given up for.
fn tell(done: Result<(), StateError>) {
    if let Err(error) = done {
        tracing::error!("{error}");
    }
}

struct Delivery {
    source: Source,
    content: Content,
    chain: Option<ChainLink>,
    took: Duration,
}

struct Judged {
    result: Result<Delivery, Reason>,
    /// The chain after this run.
    chain: Option<ChainState>,
}

fn judge(
    intent: &Intent,
    outcome: Result<&Outcome, &str>,
    before: Option<&ChainState>,
    stop: &AtomicBool,
) -> Result<Judged, FinishError> {
    let plan = &intent.plan;
    let failed = |reason, may_have_made_one| {
        Ok(Judged { result: Err(reason), chain: chain_state::after_failure(before, may_have_made_one) })
    };
    let log = fresh_log(&plan.back_log, intent.back_log);
    let script = script_failure(outcome);
    let made = match log {
        Ok(BackupLog::Made(made)) => made,
        Ok(BackupLog::Wrong(text)) => {
            return match script {
                None => failed(Reason::new(ReasonCode::ScriptWrong, text), false),
                // The script's own words tell more than its exit status.
                Some(reason) if reason.code == ReasonCode::ScriptExit => {
                    let status = reason.text.lines().next().unwrap_or_default();
                    let status = status.split(';').next().unwrap_or_default();
                    failed(Reason::new(ReasonCode::ScriptWrong, format!("{text} ({status})")), false)
                }
                Some(reason) => failed(reason, true),
            };
        }
        Err(reason) => return failed(script.unwrap_or(reason), true),
    };
    // The script says that it made something. Whatever else is wrong, the chain must know.
    let chain = match full_log(intent, &made) {
        Ok(full_log) => {
            full_log.map(|full_log| chain_state::link(plan.chain, before, intent.job, intent.made_at, &made, &full_log))
        }
        Err(reason) => return failed(script.unwrap_or(reason), true),
    };
    let (link, after) = chain.unzip();
    if let Some(reason) = script {
        return Ok(Judged { result: Err(reason), chain: after });
    }
    let left_running = outcome.is_ok_and(|outcome| outcome.left_running);
    let result = match deliver(intent, &made.name, left_running, stop) {
        Ok((source, content, took)) => Ok(Delivery { source, content, chain: link, took }),
        Err(ExamineError::Unusable(reason)) => Err(reason),
        Err(ExamineError::Stopped) => return Err(FinishError::Stopped),
    };
    Ok(Judged { result, chain: after })
}

fn deliver(
    intent: &Intent,
    name: &RelativePath,
    left_running: bool,
    stop: &AtomicBool,
) -> Result<(Source, Content, Duration), ExamineError> {
    let plan = &intent.plan;
    let source = plan.place.source(name).map_err(|error| Reason::new(ReasonCode::FileUnsafe, error.to_string()))?;
    let examined = examine::examine(&plan.back_dir, name, plan.digest, left_running, stop)?;
    Ok((source, examined.content, examined.took))
}

/// The log, if this run has written it.
fn fresh_log(path: &Path, before: Option<LogIdentity>) -> Result<BackupLog, Reason> {
    let (log, now) = backup_log::read(path);
    if now.is_some() && now == before {
        let text = format!("{}: the script ended well, but did not write it", path.display());
        return Err(Reason::new(ReasonCode::LogStale, text));
    }
    log
}

/// What `last_all_log` says; a full of this run gets its start as the third line there.
fn full_log(intent: &Intent, made: &Made) -> Result<Option<FullLog>, Reason> {
    let Some(path) = &intent.plan.last_all_log else { return Ok(None) };
    let unusable = |text: String| Reason::new(ReasonCode::FullLogUnusable, format!("last_all_log {text}"));
    let (log, now) = backup_log::read(path);
    let full = match log {
        Ok(BackupLog::Made(full)) => full,
        Ok(BackupLog::Wrong(text)) => return Err(unusable(format!("{} says wrong: {text}", path.display()))),
        Err(reason) => return Err(unusable(reason.text)),
    };
    if full.name == made.name {
        // The time is also kept in the chain's own state: an unwritable log costs nothing but seed clients' knowledge.
        if let Err(error) = backup_log::note_full(path, intent.made_at) {
            tracing::warn!("cannot write the full's time into {}: {error}", path.display());
        }
        step::reached("agent.full_noted");
    }
    let otherwise = now.filter(|_| now == intent.last_all_log).map_or(intent.made_at, |log| log.modified());
    Ok(Some(FullLog { name: full.name, unix_seconds: full.unix_seconds, otherwise }))
}

fn script_failure(outcome: Result<&Outcome, &str>) -> Option<Reason> {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(why) => return Some(Reason::new(ReasonCode::ScriptUnknown, format!("how it ended is not known: {why}"))),
    };
    let (code, text) = match &outcome.end {
        ScriptEnd::Exited(0) => return None,
        ScriptEnd::Exited(status) => (ReasonCode::ScriptExit, format!("exit status {status}")),
        ScriptEnd::Signalled(signal) => (ReasonCode::ScriptSignal, format!("ended by signal {signal}")),
        ScriptEnd::TimedOut => {
            (ReasonCode::ScriptTimeout, format!("ended after {:.0} s, its timeout", outcome.seconds))
        }
        ScriptEnd::Stopped => (ReasonCode::ScriptSignal, "ended because the agent was told to stop".to_owned()),
        ScriptEnd::NotStarted(why) => (ReasonCode::ScriptStart, why.clone()),
    };
    let output = outcome.output.trim_end();
    let output = &output[output.ceil_char_boundary(output.len().saturating_sub(SHOWN_OUTPUT_BYTES))..];
    let text = if output.is_empty() { text } else { format!("{text}; its last output:\n{output}") };
    Some(Reason::new(code, text))
}
