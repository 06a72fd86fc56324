//! The wrapper between agent and script: a process of its own, so that the script's end is seen and recorded even when the
//! agent is killed. It keeps the script's `timeout`, ends its whole process group, reads its output (a script that writes to
//! a dead reader would die of it), and holds the instance's lock until it is done: the lock is its standard input.

use std::{
    io::{self, PipeReader, Write},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use longshore_core::step;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
    signal::unix::{Signal as SignalStream, SignalKind, signal},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::intent::{InstanceFolder, Intent, Outcome, ScriptEnd, ScriptProcess};

/// Where the agent puts the intent as JSON: it works when the disk is full, and no argument shows the script's words.
pub const ORDER_VARIABLE: &str = "LONGSHORE_WRAPPER_ORDER";
/// How long a process group may take from TERM to its end before KILL.
pub const KILL_AFTER: Duration = Duration::from_secs(10);
/// This much of the script's output is kept.
pub const OUTPUT_BYTES: usize = 64 * 1024;
/// After a script's end its output is waited for this long; a process that it left running may hold it open for ever.
const OUTPUT_SETTLES_WITHIN: Duration = Duration::from_millis(50);
/// While a group ends, it is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs the script of the order, records its end in `folder`, and writes it to standard output as JSON.
///
/// # Errors
/// When there is no order, or no runtime; the end that cannot be recorded is not an error here, since the agent gets it.
pub fn wrap(folder: PathBuf) -> anyhow::Result<()> {
    let order = std::env::var(ORDER_VARIABLE)?;
    let intent: Intent = serde_json::from_str(&order)?;
    let folder = InstanceFolder::at(folder);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(run_script(&intent, &folder));
    step::reached("wrapper.script_ended");
    let recorded = folder.write_outcome(&outcome);
    step::reached("wrapper.recorded");
    // The agent may be gone: then the recorded end is what its successor finds.
    let told = io::stdout().write_all(&serde_json::to_vec(&outcome)?);
    if told.is_err() {
        recorded?;
    }
    Ok(())
}

async fn run_script(intent: &Intent, folder: &InstanceFolder) -> Outcome {
    let began = Instant::now();
    let tail = Arc::new(Mutex::new(Tail::default()));
    let mut left_running = false;
    // Before the script starts: TERM must never end the wrapper and leave its script behind.
    let terminated = signal(SignalKind::terminate()).ok();
    let end = match start(intent, &tail) {
        Ok((child, reading)) => {
            let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
            // Without it an agent whose wrapper was killed does not find the script; the run itself does not need it.
            if let Some(process) = group.and_then(|pid| ScriptProcess::of(intent.job, pid.as_raw_nonzero().get())) {
                let _ = folder.write_process(&process);
            }
            step::reached("wrapper.script_started");
            let end = await_end(child, group, terminated, intent.plan.timeout).await;
            let _ = timeout(OUTPUT_SETTLES_WITHIN, reading).await;
            left_running = group.is_some_and(|group| test_kill_process_group(group).is_ok());
            end
        }
        Err(error) => ScriptEnd::NotStarted(format!("/bin/sh cannot be started: {error}")),
    };
    let (output, output_cut) = tail.lock().map(|tail| tail.text()).unwrap_or_default();
    Outcome { job: intent.job, end, seconds: began.elapsed().as_secs_f64(), output, output_cut, left_running }
}

/// Starts the script in a process group of its own; the task reads its output until all writers have closed it.
fn start(intent: &Intent, tail: &Arc<Mutex<Tail>>) -> io::Result<(Child, tokio::task::JoinHandle<()>)> {
    let plan = &intent.plan;
    let (reader, writer): (PipeReader, _) = io::pipe()?;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(&plan.script).process_group(0);
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    for (name, _) in std::env::vars_os() {
        // Configuration, perhaps with secrets, is not the script's business.
        if name.to_string_lossy().starts_with("LONGSHORE__") {
            command.env_remove(name);
        }
    }
    command
        .env_remove(ORDER_VARIABLE)
        .env_remove("LONGSHORE_STOP_AT")
        .env_remove("LONGSHORE_LAST_ALL_LOG")
        .env("LONGSHORE_SERVER_ID", plan.server_id.as_str())
        .env("LONGSHORE_TYPE", plan.backup_type.as_str())
        .env("LONGSHORE_INSTANCE", plan.instance.as_str())
        .env("LONGSHORE_BACK_DIR", &plan.back_dir)
        .env("LONGSHORE_BACK_LOG", &plan.back_log);
    if let Some(last_all_log) = &plan.last_all_log {
        command.env("LONGSHORE_LAST_ALL_LOG", last_all_log);
    }
    let child = command.spawn()?;
    let mut reader = pipe::Receiver::from_owned_fd(reader.into())?;
    let tail = Arc::clone(tail);
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 8 * 1024];
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            if let Ok(mut tail) = tail.lock() {
                tail.push(&buffer[..read]);
            }
        }
    });
    Ok((child, reading))
}

/// Waits for the script, its timeout, or TERM from the agent.
async fn await_end(
    mut child: Child,
    group: Option<Pid>,
    mut terminated: Option<SignalStream>,
    limit: Duration,
) -> ScriptEnd {
    let deadline = Instant::now() + limit;
    let told_to_stop = async {
        match &mut terminated {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        }
    };
    let forced = tokio::select! {
        status = child.wait() => return ended(status),
        () = sleep_until(deadline) => ScriptEnd::TimedOut,
        _ = told_to_stop => ScriptEnd::Stopped,
    };
    if let Some(group) = group {
        end_group(group, async { drop(child.wait().await) }).await;
    }
    forced
}

fn ended(status: io::Result<std::process::ExitStatus>) -> ScriptEnd {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => ScriptEnd::Exited(code),
            (None, signal) => ScriptEnd::Signalled(signal.unwrap_or(0)),
        },
        Err(error) => ScriptEnd::NotStarted(format!("its end cannot be seen: {error}")),
    }
}

/// TERM to the whole group; KILL after [`KILL_AFTER`] to what is left of it. `reaped` takes the leader's exit status, where
/// the leader is a child: an unreaped one keeps its group alive.
pub async fn end_group(group: Pid, reaped: impl Future<Output = ()>) {
    let _ = kill_process_group(group, Signal::TERM);
    let gone = async {
        reaped.await;
        while test_kill_process_group(group).is_ok() {
            sleep(LOOK_EVERY).await;
        }
    };
    tokio::pin!(gone);
    if timeout(KILL_AFTER, &mut gone).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
        // A process that hangs in the kernel cannot be waited for; it can do no more than hang.
        let _ = timeout(KILL_AFTER, gone).await;
    }
}

/// The last bytes of a stream.
#[derive(Default)]
struct Tail {
    bytes: std::collections::VecDeque<u8>,
    cut: bool,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(OUTPUT_BYTES)..];
        let over = (self.bytes.len() + bytes.len()).saturating_sub(OUTPUT_BYTES);
        self.cut |= over > 0;
        self.bytes.drain(..over);
        self.bytes.extend(bytes);
    }

    fn text(&self) -> (String, bool) {
        let (one, two) = self.bytes.as_slices();
        (String::from_utf8_lossy(&[one, two].concat()).into_owned(), self.cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_end() {
        let mut tail = Tail::default();
        tail.push(b"begin");
        assert_eq!(tail.text(), ("begin".to_owned(), false));
        tail.push(&vec![b'x'; OUTPUT_BYTES - 3]);
        tail.push(b"end");
        let (text, cut) = tail.text();
        assert!(cut && text.len() == OUTPUT_BYTES && text.starts_with('x') && text.ends_with("xend"));
    }
}
