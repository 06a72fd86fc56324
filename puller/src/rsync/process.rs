//! The owner of one rsync. Only here is one started. It runs in a process group of its own, and ends with this value: TERM,
//! a grace in which rsync keeps what it has, KILL.
//!
//! Its standard input is the locked folder of its job: rsync never reads it, but every process of the group holds it, so the
//! lock outlives a puller that is killed, for exactly as long as something still writes there (see [`crate::incoming`]).

use std::{
    io,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::arguments::CommandLine;

/// How long rsync has, after TERM, to keep its partial and end.
pub const GRACE: Duration = Duration::from_secs(10);

/// A running rsync.
#[derive(Debug)]
pub struct Rsync {
    child: Option<Child>,
    group: Pid,
    grace: Duration,
}

impl Rsync {
    /// Starts it; `lock` becomes its standard input.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start(line: &CommandLine, lock: OwnedFd) -> io::Result<(Self, ChildStdout, ChildStderr)> {
        let mut child = Command::new(&line.program)
            .args(&line.arguments)
            .env_clear()
            .envs(&line.environment)
            .stdin(Stdio::from(lock))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let group = group.ok_or_else(|| io::Error::other("rsync ended before it had an id"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let missing = || io::Error::other("rsync has no pipe");
        let rsync = Self { child: Some(child), group, grace: GRACE };
        Ok((rsync, stdout.ok_or_else(missing)?, stderr.ok_or_else(missing)?))
    }

    /// The group's id, which is rsync's own.
    pub fn id(&self) -> u32 {
        self.group.as_raw_pid().cast_unsigned()
    }

    /// Waits for its end. May be dropped and called again.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        let Some(child) = &mut self.child else { return Err(io::Error::other("rsync has ended already")) };
        let status = child.wait().await?;
        self.child = None;
        if !status.success() {
            // A leader that crashed may leave its receiver behind.
            let _ = kill_process_group(self.group, Signal::KILL);
        }
        Ok(status)
    }

    /// Ends it now: TERM to the group, [`GRACE`], KILL.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub async fn end(&mut self) -> io::Result<()> {
        if let Some(child) = self.child.take() {
            end(child, self.group, self.grace).await?;
        }
        Ok(())
    }
}

async fn end(mut child: Child, group: Pid, grace: Duration) -> io::Result<()> {
    let _ = kill_process_group(group, Signal::TERM);
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
        child.wait().await?;
    }
    // What did not end with its leader.
    let _ = kill_process_group(group, Signal::KILL);
    Ok(())
}

impl Drop for Rsync {
    fn drop(&mut self) {
        let Some(child) = self.child.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(end(child, self.group, self.grace));
            }
            Err(_) => {
                let _ = kill_process_group(self.group, Signal::KILL);
            }
        }
    }
}

/// Bytes that the processes of `id` and its children have read so far, from the line and from files: what the watchdog looks
/// at. rsync's own time limit does not notice a sender that is frozen. `None` when the system does not tell.
pub fn bytes_read(id: u32) -> Option<u64> {
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
    let sum = std::iter::once(id).chain(children).filter_map(read_by).sum();
    Some(sum)
}

fn read_by(id: u32) -> Option<u64> {
    let io = std::fs::read_to_string(format!("/proc/{id}/io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("rchar: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use longshore_tests::wait_until;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn shell(script: &str) -> CommandLine {
        let path = std::env::var_os("PATH").unwrap();
        CommandLine {
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: BTreeMap::from([("PATH", path)]),
        }
    }

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    /// Starts a shell with a child of its own, and gives that grandchild's id.
    async fn with_grandchild(script: &str) -> (Rsync, Pid) {
        let (rsync, mut stdout, _) = Rsync::start(&shell(script), null()).unwrap();
        let mut digits = String::new();
        loop {
            match stdout.read_u8().await.unwrap() {
                b'\n' => break,
                digit => digits.push(char::from(digit)),
            }
        }
        (rsync, Pid::from_raw(digits.parse().unwrap()).unwrap())
    }

    fn is_gone(id: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.as_raw_pid()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    }

    #[tokio::test]
    async fn dropping_it_ends_its_children_too() {
        let (rsync, grandchild) = with_grandchild("sleep 600 & echo $!; wait").await;
        drop(rsync);
        wait_until("the grandchild is gone", Duration::from_secs(5), async || is_gone(grandchild)).await;
    }

    #[tokio::test]
    async fn one_that_ignores_term_is_killed_after_the_grace() {
        let (mut rsync, grandchild) =
            with_grandchild("trap '' TERM; sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done'").await;
        rsync.grace = Duration::from_millis(100);
        rsync.end().await.unwrap();
        wait_until("the grandchild is gone", Duration::from_secs(5), async || is_gone(grandchild)).await;
    }
}
