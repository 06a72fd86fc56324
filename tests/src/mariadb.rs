//! A real MariaDB server of one test's own.

use std::{
    fmt, fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Process, free_port, wait_until_blocking};

const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A running `mariadbd` with a folder of its own; both are gone when it is dropped.
pub struct MariaDb {
    port: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl fmt::Debug for MariaDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MariaDb({})", self.port)
    }
}

impl MariaDb {
    /// Starts a server on a fresh data folder, whose user root needs no password.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start() -> Self {
        let mut server = Self::stopped();
        let made = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--datadir={}", server.data_dir().display()))
            .args(as_root())
            .output()
            .expect("MariaDB is installed (package mariadb-server)");
        assert!(made.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&made.stderr));
        server.start_again();
        server
    }

    /// A server whose data folder does not exist yet, to be restored into; then [`MariaDb::start_again`].
    ///
    /// # Panics
    /// When its folder can't be made.
    pub fn stopped() -> Self {
        Self { port: free_port(), folder: tempfile::tempdir().expect("a folder for MariaDB"), process: None }
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The socket that it listens on.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// A `--defaults-file` for clients and backup tools.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn defaults_file(&self) -> PathBuf {
        let path = self.folder.path().join("client.cnf");
        let text = format!(
            "[client]\nuser=root\nsocket={}\n[mariadb-backup]\ndatadir={}\n",
            self.socket().display(),
            self.data_dir().display()
        );
        fs::write(&path, text).expect("client.cnf");
        path
    }

    /// Starts it on its data folder and waits until it answers.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "MariaDB on port {} runs already", self.port);
        let log = self.folder.path().join("log");
        let mut started = Process::spawn(
            Command::new("mariadbd")
                .arg("--no-defaults")
                .args(as_root())
                .arg(format!("--datadir={}", self.data_dir().display()))
                .arg(format!("--socket={}", self.socket().display()))
                .arg(format!("--pid-file={}", self.folder.path().join("pid").display()))
                .arg(format!("--log-error={}", log.display()))
                .args([&format!("--port={}", self.port), "--bind-address=127.0.0.1"])
                .args(["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M", "--character-set-server=utf8mb4"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )
        .expect("MariaDB is installed (package mariadb-server)");
        wait_until_blocking("MariaDB answers", STARTS_WITHIN, || {
            if let Ok(Some(status)) = started.ended() {
                panic!("mariadbd ended with {status}:\n{}", fs::read_to_string(&log).unwrap_or_default());
            }
            self.client("select 1").is_ok()
        });
        self.process = Some(started);
    }

    /// Ends it in order.
    ///
    /// # Panics
    /// When it can't be waited for.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end(Signal::TERM).expect("mariadbd ends");
        }
    }

    /// What the statements print: lines of columns parted by tabs.
    ///
    /// # Panics
    /// When one fails.
    pub fn sql(&self, statements: &str) -> String {
        self.client(statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    /// `CHECKSUM TABLE` of every table of the databases that are not the server's own.
    ///
    /// # Panics
    /// When the server fails.
    pub fn checksums(&self) -> String {
        let tables = self.sql(
            "select concat('`', table_schema, '`.`', table_name, '`') from information_schema.tables where table_type = \
             'BASE TABLE' and table_schema not in ('mysql', 'sys', 'performance_schema') order by 1",
        );
        let tables: Vec<&str> = tables.lines().collect();
        self.sql(&format!("checksum table {} extended", tables.join(", ")))
    }

    fn client(&self, statements: &str) -> Result<String, String> {
        let output = Command::new("mariadb")
            .arg("--no-defaults")
            .arg(format!("--socket={}", self.socket().display()))
            .args([
                "--user=root",
                "--default-character-set=utf8mb4",
                "--batch",
                "--skip-column-names",
                "--execute",
                statements,
            ])
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// Started by root, the server keeps to root rather than to a user who can't reach the temporary folder.
fn as_root() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("--user=root")
}
