//! A real service as a child process. It ends with its value, and with the test process even when that is killed: a small
//! shell holds the other end of a pipe and kills the service's process group once the pipe closes.

use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// `$0` is the group, `$1` its folder. (dash knows `--` only after `-s`.)
const GUARD: &str = r#"read -r _
kill -s KILL -- "-$0" 2>/dev/null
[ -z "$1" ] || rm -rf -- "$1" 2>/dev/null || { sleep 1; rm -rf -- "$1"; }"#;

/// A child in a process group of its own.
#[derive(Debug)]
pub struct Process {
    child: Child,
    guard: Child,
    /// Never written: that it is open is what the guard waits for the end of.
    _guarded: Option<ChildStdin>,
}

impl Process {
    /// Starts `command` in a new process group, with a guard beside it.
    ///
    /// # Errors
    /// When the program, or `sh`, cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Self::spawn_in(command, Path::new(""))
    }

    /// Starts `command`, whose `folder` (none, when empty) the guard removes too: for a value that no drop ever reaches.
    ///
    /// # Errors
    /// When the program, or `sh`, cannot be started.
    pub fn spawn_in(command: &mut Command, folder: &Path) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, &child.id().to_string()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match guard {
            Ok(mut guard) => {
                let _guarded = guard.stdin.take();
                Ok(Self { child, guard, _guarded })
            }
            Err(error) => {
                signal_group(&child, Signal::KILL);
                Err(error)
            }
        }
    }

    /// The child's process id, which is its group's too.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal` to the child, as supervisors and kill(1) do. Not to its group: what the child is starting just then belongs
    /// to that for a moment, and would stay stopped when it has a group of its own.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = pid(&self.child) {
            let _ = kill_process(child, signal);
        }
    }

    /// Sends `signal` to the whole group.
    pub fn signal_group(&self, signal: Signal) {
        signal_group(&self.child, signal);
    }

    /// The exit status when the child has ended.
    ///
    /// # Errors
    /// When the child cannot be waited for.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends `signal` to the child, waits for its end, and kills what is left of its group.
    ///
    /// # Errors
    /// When the child cannot be waited for.
    pub fn end(mut self, signal: Signal) -> io::Result<ExitStatus> {
        self.signal(signal);
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard goes first, so that it cannot kill a group that got the same number later.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        signal_group(&self.child, Signal::KILL);
        let _ = self.child.wait();
    }
}

fn signal_group(child: &Child, signal: Signal) {
    if let Some(group) = pid(child) {
        let _ = kill_process_group(group, signal);
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait_until_blocking;

    #[test]
    fn the_guard_ends_the_group_and_its_folder_when_the_test_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let mut process = Process::spawn_in(Command::new("sh").args(["-c", "sleep 600 & wait"]), &below).unwrap();
        // What a killed test process does: the other end of the pipe closes.
        drop(process._guarded.take());
        wait_until_blocking("the child is killed", Duration::from_secs(10), || process.ended().unwrap().is_some());
        wait_until_blocking("its folder is gone", Duration::from_secs(10), || !below.exists());
    }
}
