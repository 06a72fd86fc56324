//! A real Elasticsearch: Elastic's own test distribution, obtained once by `tests/elasticsearch-install`. It needs about ten
//! seconds to start and 0.8 GB, so tests of one process share one and each uses index names of its own.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Process, free_port, wait_until_blocking};

const STARTS_WITHIN: Duration = Duration::from_secs(120);
/// Elasticsearch refuses to run as root; it then runs as this user (`nobody`).
const UNPRIVILEGED: u32 = 65_534;

/// A running Elasticsearch on 127.0.0.1, in a folder of its own; both are gone when it is dropped.
pub struct Elasticsearch {
    port: u16,
    transport_port: u16,
    home: PathBuf,
    folder: TempDir,
    process: Mutex<Option<Process>>,
}

impl std::fmt::Debug for Elasticsearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Elasticsearch({})", self.url())
    }
}

impl Elasticsearch {
    /// The one of this test process; it ends with the process. Each test takes an index prefix of its own.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Elasticsearch> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// One of the caller's own, for tests that stop it.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// One with further lines of `elasticsearch.yml`.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start_with(settings: &str) -> Self {
        let elasticsearch = Self {
            port: free_port(),
            transport_port: free_port(),
            home: installed(),
            folder: tempfile::tempdir().expect("a folder for Elasticsearch"),
            process: Mutex::new(None),
        };
        elasticsearch.configure(settings);
        elasticsearch.start_again();
        elasticsearch
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The folder of its configuration (`config`), where files that its settings name may be put before `start_again`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it in order (TERM).
    pub fn stop(&self) {
        self.end(Signal::TERM);
    }

    /// Kills it (KILL).
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        self.end(Signal::KILL);
    }

    /// Freezes it: connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends a [`Elasticsearch::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts it on the same port and folder, after `stop` or `kill`, and waits until it answers.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start_again(&self) {
        let mut process = self.process();
        assert!(process.is_none(), "Elasticsearch on port {} runs already", self.port);
        let mut command = Command::new(self.home.join("bin/elasticsearch"));
        command
            .env("ES_PATH_CONF", self.folder.path().join("config"))
            .env("ES_JAVA_HOME", java_home())
            .env("ES_JAVA_OPTS", "-Xms512m -Xmx512m")
            .env("ES_TMPDIR", self.folder.path().join("tmp"))
            .env("HOME", self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.folder.path().join("errors.log")).expect("a log for Elasticsearch"));
        if rustix::process::getuid().is_root() {
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        let mut started = Process::spawn_in(&mut command, self.folder.path()).expect("bin/elasticsearch starts");
        wait_until_blocking("Elasticsearch answers", STARTS_WITHIN, || {
            if let Ok(Some(status)) = started.ended() {
                panic!("Elasticsearch ended with {status}:\n{}", self.log());
            }
            answers(self.port)
        });
        *process = Some(started);
    }

    /// The end of its log.
    fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        let log = read("errors.log") + &read("logs/elasticsearch.log");
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn configure(&self, settings: &str) {
        let folder = self.folder.path();
        let config = folder.join("config");
        for name in ["config", "config/jvm.options.d", "data", "logs", "tmp"] {
            fs::create_dir(folder.join(name)).expect("folders for Elasticsearch");
        }
        for name in ["jvm.options", "log4j2.properties"] {
            fs::copy(self.home.join("config").join(name), config.join(name)).expect("the distribution's own settings");
        }
        let yaml = format!(
            "cluster.name: elasticsearch\ndiscovery.type: single-node\nhttp.host: 127.0.0.1\nhttp.port: {}\n\
             transport.host: 127.0.0.1\ntransport.port: {}\npath.data: {data}\npath.logs: {logs}\n\
             cluster.routing.allocation.disk.threshold_enabled: false\n{security}{settings}",
            self.port,
            self.transport_port,
            data = folder.join("data").display(),
            logs = folder.join("logs").display(),
            security = if settings.contains("xpack.security.enabled") { "" } else { "xpack.security.enabled: false\n" },
        );
        fs::write(config.join("elasticsearch.yml"), yaml).expect("elasticsearch.yml");
        if rustix::process::getuid().is_root() {
            give_away(folder);
        }
    }

    fn end(&self, signal: Signal) {
        if let Some(process) = self.process().take() {
            process.end(signal).expect("Elasticsearch ends");
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = self.process().as_ref() {
            process.signal_group(signal);
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands `path` and everything below it to the user that Elasticsearch runs as.
fn give_away(path: &Path) {
    chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("a folder of the unprivileged user");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder to list") {
            give_away(&entry.expect("an entry").path());
        }
    }
}

/// The distribution's folder; obtained when it is not there yet.
fn installed() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("elasticsearch-install");
    let output = Command::new(&script).stderr(Stdio::inherit()).output().expect("tests/elasticsearch-install runs");
    assert!(output.status.success(), "tests/elasticsearch-install ended with {}", output.status);
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Where the `java` of the search path really lives.
fn java_home() -> PathBuf {
    if let Some(home) = std::env::var_os("JAVA_HOME") {
        return home.into();
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let java = std::env::split_paths(&paths)
        .map(|folder| folder.join("java"))
        .find_map(|java| java.canonicalize().ok())
        .expect("java is installed (package openjdk-17-jre-headless)");
    java.ancestors().nth(2).expect("java lies in HOME/bin").to_owned()
}

/// Whether it serves requests; a demand for a password is an answer too.
fn answers(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_cluster/health HTTP/1.0\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| answer.ends_with(b" 200") || answer.ends_with(b" 401"))
}
