//! A daemon of the product as a test runs it: started, killed, frozen and started again, with one log over all of its lives.

use std::{
    fmt, fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::Signal;

use crate::{Process, binary, wait_until_blocking};

const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// One daemon, such as `longshore-puller`, with its configuration; its log lies beside that.
pub struct Program {
    name: String,
    config: PathBuf,
    port: u16,
    process: Mutex<Option<Process>>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} -c {})", self.name, self.config.display())
    }
}

impl Program {
    /// The program `name` with its configuration, which says that `/healthz` is served on `port`. Not started yet.
    pub fn new(name: &str, config: PathBuf, port: u16) -> Self {
        Self { name: name.to_owned(), config, port, process: Mutex::new(None) }
    }

    /// Starts it and waits until its `/healthz` answers 200.
    ///
    /// # Panics
    /// When it runs already, or can't be started; the message holds its log.
    pub fn start(&self) {
        self.start_with(&[]);
        self.wait_until_it_answers();
    }

    /// Waits until its `/healthz` answers 200.
    ///
    /// # Panics
    /// When it ends instead, or does not within 30 s; the message holds its log.
    pub fn wait_until_it_answers(&self) {
        wait_until_blocking(&format!("{} answers", self.name), STARTS_WITHIN, || {
            let ended = self.process().as_mut().and_then(|process| process.ended().ok().flatten());
            if let Some(status) = ended {
                panic!("{} ended with {status}:\n{}", self.name, self.log());
            }
            http_status(self.port, "/healthz") == Some(200)
        });
    }

    /// Starts it with variables of the environment, such as `LONGSHORE_STOP_AT`, and waits for nothing.
    ///
    /// # Panics
    /// When it runs already, or can't be started.
    pub fn start_with(&self, variables: &[(&str, &str)]) {
        let mut process = self.process();
        assert!(process.is_none(), "{self:?} runs already");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).expect("a log file");
        let started = Process::spawn(
            Command::new(binary(&self.name))
                .args(["run", "--log-format", "plain", "-c"])
                .arg(&self.config)
                .envs(variables.iter().copied())
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a log file"))
                .stderr(log),
        );
        *process = Some(started.unwrap_or_else(|error| panic!("{self:?}: {error}")));
    }

    /// Kills it (KILL), with its children.
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    /// Ends it in order (TERM); its exit status. `None` when it did not run.
    pub fn stop(&self) -> Option<ExitStatus> {
        self.end(Signal::TERM)
    }

    /// Waits for an end that it comes to by itself.
    ///
    /// # Panics
    /// When it does not run, or does not end within `deadline`.
    pub fn wait_for_end(&self, deadline: Duration) -> ExitStatus {
        let mut process = self.process();
        let running = process.as_mut().expect("it was started");
        let mut status = None;
        wait_until_blocking(&format!("{} ends", self.name), deadline, || {
            status = running.ended().ok().flatten();
            status.is_some()
        });
        *process = None;
        status.expect("it ended")
    }

    /// Freezes it: it holds its connections and does nothing.
    pub fn pause(&self) {
        if let Some(process) = self.process().as_ref() {
            process.signal(Signal::STOP);
        }
    }

    /// Ends a [`Program::pause`].
    pub fn resume(&self) {
        if let Some(process) = self.process().as_ref() {
            process.signal(Signal::CONT);
        }
    }

    /// What it logged, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Where it serves `/healthz` and `/metrics`.
    pub fn status_port(&self) -> u16 {
        self.port
    }

    fn log_file(&self) -> PathBuf {
        self.config.with_extension("log")
    }

    fn end(&self, signal: Signal) -> Option<ExitStatus> {
        let process = self.process().take()?;
        Some(process.end(signal).expect("it ends"))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn http_status(port: u16, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head).ok()?.split(' ').nth(1)?.parse().ok()
}
