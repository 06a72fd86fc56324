//! The agent's side of a script: its wrapper is started, waited for, and told when to stop. The wrapper outlives the agent;
//! see [`crate::wrapper`].

use std::{os::unix::process::CommandExt, process::Stdio, time::Duration};

use longshore_core::{Millis, shutdown::Shutdown, step};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{io::AsyncReadExt, process::Command};

use crate::{
    durable::StateError,
    intent::{InstanceFolder, InstanceLock, Intent, Outcome, ScriptEnd},
    wrapper::{KILL_AFTER, ORDER_VARIABLE, end_group},
};

/// The hidden command that the agent calls itself with.
pub const WRAPPER_COMMAND: &str = "script-wrapper";

/// Runs the intent's script to its end. `Err` says why the end is not known.
///
/// # Errors
/// What is known instead of the script's end.
pub async fn run(
    folder: &InstanceFolder,
    intent: &Intent,
    lock: &InstanceLock,
    shutdown: &Shutdown,
) -> Result<Outcome, String> {
    let mut wrapper = match start(folder, intent, lock) {
        Ok(wrapper) => wrapper,
        Err(error) => {
            let end = ScriptEnd::NotStarted(format!("its wrapper could not be started: {error}"));
            return Ok(Outcome::without_output(intent.job, end));
        }
    };
    step::reached("agent.script_started");
    let pid = wrapper.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut told = Vec::new();
    let mut reader = wrapper.stdout.take();
    let reading = async {
        match &mut reader {
            Some(reader) => reader.read_to_end(&mut told).await.map(drop),
            None => Ok(()),
        }
    };
    tokio::pin!(reading);
    let read = tokio::select! {
        read = &mut reading => read,
        () = shutdown.requested() => {
            // The wrapper ends its script, and tells how.
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM);
            }
            reading.await
        }
    };
    let ended = wrapper.wait().await.map_err(|error| error.to_string())?;
    step::reached("agent.script_ended");
    if read.is_ok()
        && let Ok(outcome) = serde_json::from_slice(&told)
    {
        return Ok(outcome);
    }
    match found(folder, intent).await {
        Ok(Found::Ended(outcome)) => Ok(outcome),
        // This agent lives and its wrapper does not: nobody else will end the script.
        Ok(Found::Runs(group)) => {
            end_group(group, std::future::ready(())).await;
            Err(format!("the script's wrapper ended early ({ended}), and the script was ended after it"))
        }
        Ok(Found::Unknown) => Err(format!("the script's wrapper ended early ({ended})")),
        Err(error) => Err(error.to_string()),
    }
}

/// What an earlier run's script is doing.
#[derive(Debug)]
pub enum Found {
    /// Its end is recorded.
    Ended(Outcome),
    /// It still runs, without a wrapper; its process group.
    Runs(Pid),
    /// It is gone, and its end was not recorded.
    Unknown,
}

/// Looks for the script of an intent whose lock is free: neither its agent nor its wrapper is alive.
///
/// # Errors
/// [`StateError`] when a record cannot be read.
pub async fn found(folder: &InstanceFolder, intent: &Intent) -> Result<Found, StateError> {
    if let Some(outcome) = folder.outcome(intent.job)? {
        return Ok(Found::Ended(outcome));
    }
    let process = folder.process(intent.job)?.filter(crate::intent::ScriptProcess::runs);
    Ok(process.and_then(|process| Pid::from_raw(process.pid)).map_or(Found::Unknown, Found::Runs))
}

/// Ends a script that has lost its wrapper, once its `timeout` is over.
///
/// Returns whether it still runs.
pub async fn leave_or_end(intent: &Intent, group: Pid) -> bool {
    let may_take = intent.plan.timeout + KILL_AFTER + Duration::from_secs(1);
    if Millis::now().since(intent.made_at) < may_take {
        return true;
    }
    end_group(group, std::future::ready(())).await;
    false
}

fn start(folder: &InstanceFolder, intent: &Intent, lock: &InstanceLock) -> anyhow::Result<tokio::process::Child> {
    // The running program itself, even when the file it was started from has been replaced since.
    let mut command = std::process::Command::new("/proc/self/exe");
    command
        .arg0("longshore-agent")
        .arg(WRAPPER_COMMAND)
        .arg(folder.path())
        .env(ORDER_VARIABLE, serde_json::to_string(intent)?)
        // Its own group: an interrupt at the terminal is the agent's to answer, in order.
        .process_group(0)
        // The lock as standard input: the one descriptor that a child gets without a moment between.
        .stdin(Stdio::from(lock.0.try_clone()?))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Ok(Command::from(command).spawn()?)
}
