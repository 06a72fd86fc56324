//! A real `redis-server` of one test's own, as the product asks for it: append-only file on, nothing evicted.

use std::{
    fmt, fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Process, free_port, wait_until_blocking};

const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// A running `redis-server` on 127.0.0.1, in a folder of its own; both are gone when it is dropped.
pub struct Redis {
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
    process: Mutex<Option<Process>>,
}

/// How far the append-only file of a [`Redis`] had come.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    file: PathBuf,
    bytes: u64,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({})", self.address())
    }
}

impl Redis {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further arguments, such as `["--requirepass", "x"]`; they win over the kit's own.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start_with(arguments: &[&str]) -> Self {
        let redis = Self {
            port: free_port(),
            folder: tempfile::tempdir().expect("a folder for Redis"),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            process: Mutex::new(None),
        };
        redis.start_again();
        redis
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `redis://127.0.0.1:PORT/`.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    /// A blocking connection for a test's own look inside, when no password was set.
    ///
    /// # Panics
    /// When it can't be opened.
    pub fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).and_then(|client| client.get_connection()).expect("a connection to Redis")
    }

    /// Ends it in order (TERM): everything is on disk.
    pub fn stop(&self) {
        self.end(Signal::TERM);
    }

    /// Kills it (KILL).
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    /// What it has written up to now.
    ///
    /// # Panics
    /// When its append-only file is not as Redis 7 makes it.
    pub fn written(&self) -> Written {
        let folder = self.folder.path().join("appendonlydir");
        // The last line names the file that is written to: `file NAME seq NUMBER type i`.
        let manifest = fs::read_to_string(folder.join("appendonly.aof.manifest")).expect("the manifest");
        let file = folder.join(manifest.lines().last().and_then(|line| line.split(' ').nth(1)).expect("a file's name"));
        let bytes = fs::metadata(&file).expect("the append-only file").len();
        Written { file, bytes }
    }

    /// Takes away what it wrote since `written`, after a [`Redis::kill`]: as when its machine died, and that had not reached the
    /// disk. Nothing, where it began to rewrite its file meanwhile.
    ///
    /// # Panics
    /// When it runs, or the file can't be cut.
    pub fn forget_since(&self, written: &Written) {
        assert!(self.process().is_none(), "Redis on port {} runs", self.port);
        if self.written().file == written.file {
            let file = fs::OpenOptions::new().write(true).open(&written.file);
            file.and_then(|file| file.set_len(written.bytes)).expect("the append-only file is cut");
        }
    }

    /// Freezes it: connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends a [`Redis::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts it on the same port and folder, after `stop` or `kill`, and waits until it has loaded its file.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start_again(&self) {
        let mut process = self.process();
        assert!(process.is_none(), "Redis on port {} runs already", self.port);
        let mut started = Process::spawn(
            Command::new("redis-server")
                .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
                .args(["--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"])
                .args(["--logfile", "redis.log"])
                .args(&self.arguments)
                .current_dir(self.folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )
        .expect("redis-server is installed (package redis-server)");
        wait_until_blocking("redis-server answers", STARTS_WITHIN, || {
            if let Ok(Some(status)) = started.ended() {
                let log = fs::read_to_string(self.folder.path().join("redis.log")).unwrap_or_default();
                panic!("redis-server ended with {status}:\n{log}");
            }
            answers(self.port)
        });
        *process = Some(started);
    }

    fn end(&self, signal: Signal) {
        if let Some(process) = self.process().take() {
            process.end(signal).expect("redis-server ends");
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = self.process().as_ref() {
            process.signal(signal);
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a Redis that has loaded its data listens there; a demand for a password is an answer too.
fn answers(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        std::io::Result::Ok(line)
    };
    ask().is_ok_and(|line| line.starts_with("+PONG") || line.starts_with("-NOAUTH"))
}

#[cfg(test)]
mod tests {
    use super::Redis;

    #[test]
    fn what_was_written_is_there_after_a_kill() {
        let redis = Redis::start();
        let () = redis::cmd("SET").arg("a").arg("b").query(&mut redis.connection()).unwrap();
        redis.kill();
        assert!(!super::answers(redis.port()));
        redis.start_again();
        let value: String = redis::cmd("GET").arg("a").query(&mut redis.connection()).unwrap();
        assert_eq!(value, "b");
    }

    #[test]
    fn what_was_written_last_may_be_gone_after_a_kill() {
        let redis = Redis::start();
        let set = |name| redis::cmd("SET").arg(name).arg("x").query::<()>(&mut redis.connection()).unwrap();
        set("a");
        let written = redis.written();
        set("b");
        redis.kill();
        redis.forget_since(&written);
        redis.start_again();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis.connection()).unwrap();
        assert_eq!(keys, ["a"]);
    }
}
