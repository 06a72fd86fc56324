//! A real `rsync --daemon` of one test's own: the host's end of a transfer.

use std::{
    fmt,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Process, free_port, wait_until_blocking};

const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// A running rsync daemon on 127.0.0.1 with read-only modules; gone when it is dropped.
pub struct Rsyncd {
    port: u16,
    folder: TempDir,
    process: Mutex<Option<Process>>,
}

impl fmt::Debug for Rsyncd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rsyncd({})", self.address())
    }
}

impl Rsyncd {
    /// Starts one that serves `modules`, each a name and its folder.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start(modules: &[(&str, &Path)]) -> Self {
        Self::start_with(modules, "", "")
    }

    /// Starts one with further lines for the global part and for each module, such as `auth users = backup` and
    /// `secrets file = /path`.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start_with(modules: &[(&str, &Path)], extra_global: &str, per_module: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for rsyncd");
        let mut config = format!("use chroot = no\nlog file = {}\n", folder.path().join("rsyncd.log").display());
        // Started by root it would become `nobody`, who can't read other tests' temporary folders.
        if fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0) {
            config.push_str("uid = 0\ngid = 0\n");
        }
        let _ = writeln!(config, "{extra_global}");
        for (name, path) in modules {
            let _ = writeln!(config, "[{name}]\npath = {}\nread only = yes\n{per_module}", path.display());
        }
        fs::write(folder.path().join("rsyncd.conf"), config).expect("rsyncd.conf");
        let rsyncd = Self { port: free_port(), folder, process: Mutex::new(None) };
        rsyncd.start_again();
        rsyncd
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("rsyncd.log")).unwrap_or_default()
    }

    /// Kills it and all its running transfers.
    pub fn kill(&self) {
        if let Some(process) = self.process().take() {
            process.end(Signal::KILL).expect("rsync ends");
        }
    }

    /// Freezes it and all its running transfers: connections stay open, no byte moves.
    pub fn pause(&self) {
        if let Some(process) = self.process().as_ref() {
            process.signal_group(Signal::STOP);
        }
    }

    /// Ends a [`Rsyncd::pause`].
    pub fn resume(&self) {
        if let Some(process) = self.process().as_ref() {
            process.signal_group(Signal::CONT);
        }
    }

    /// Starts it on the same port with the same modules, after `kill`.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start_again(&self) {
        let mut process = self.process();
        assert!(process.is_none(), "rsyncd on port {} runs already", self.port);
        let mut started = Process::spawn(
            Command::new("rsync")
                .args(["--daemon", "--no-detach", "--address=127.0.0.1", &format!("--port={}", self.port)])
                .arg(format!("--config={}", self.folder.path().join("rsyncd.conf").display()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )
        .expect("rsync is installed (package rsync)");
        wait_until_blocking("rsyncd answers", STARTS_WITHIN, || {
            if let Ok(Some(status)) = started.ended() {
                panic!("rsync --daemon ended with {status}:\n{}", self.log());
            }
            answers(self.port)
        });
        *process = Some(started);
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answers(port: u16) -> bool {
    let greeting = || {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        std::io::Result::Ok(line)
    };
    greeting().is_ok_and(|line| line.starts_with("@RSYNCD:"))
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::Rsyncd;

    fn fetch(rsyncd: &Rsyncd, into: &std::path::Path) -> bool {
        let from = format!("rsync://{}/backup/a", rsyncd.address());
        Command::new("rsync").arg(from).arg(into).status().unwrap().success()
    }

    #[test]
    fn a_file_is_served_until_it_is_killed_and_after_it_is_started_again() {
        let (served, fetched) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(served.path().join("a"), "content").unwrap();
        let rsyncd = Rsyncd::start(&[("backup", served.path())]);
        let into = fetched.path().join("a");
        assert!(fetch(&rsyncd, &into));
        assert_eq!(fs::read_to_string(&into).unwrap(), "content");
        rsyncd.kill();
        assert!(!fetch(&rsyncd, &into));
        rsyncd.start_again();
        assert!(fetch(&rsyncd, &into));
    }
}
