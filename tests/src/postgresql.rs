//! A real PostgreSQL server of one test's own.

use std::{
    fmt, fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Process, free_port, wait_until_blocking};

const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A running `postgres` with a folder of its own; both are gone when it is dropped. Its superuser is `postgres`.
pub struct Postgres {
    port: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres({})", self.port)
    }
}

impl Postgres {
    /// Starts a server on a fresh data folder.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start() -> Self {
        let mut server = Self::stopped();
        let made = server
            .command("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg(format!("--pgdata={}", server.data_dir().display()))
            .output()
            .expect("PostgreSQL is installed (package postgresql)");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.start_again();
        server
    }

    /// A server whose data folder does not exist yet, to be restored into; then [`Postgres::start_again`].
    ///
    /// # Panics
    /// When its folder can't be made.
    pub fn stopped() -> Self {
        let folder = tempfile::tempdir().expect("a folder for PostgreSQL");
        let server = Self { port: free_port(), folder, process: None };
        if let Some((uid, gid)) = server_user() {
            chown(server.folder.path(), Some(uid), Some(gid)).expect("a folder that postgres owns");
            let open = fs::Permissions::from_mode(0o755);
            fs::set_permissions(server.folder.path(), open).expect("a folder that postgres enters");
        }
        server
    }

    /// Its port, and the name of its socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder of its socket, for `PGHOST`.
    pub fn socket_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it on its data folder and waits until it answers.
    ///
    /// # Panics
    /// When it can't be started; the message holds its log.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "PostgreSQL on port {} runs already", self.port);
        let path = self.folder.path().join("log");
        let log = fs::File::create(&path).expect("a log file");
        let mut started = Process::spawn(
            self.command("postgres")
                .args(["-D", &self.data_dir().display().to_string(), "-p", &self.port.to_string()])
                .args(["-k", &self.folder.path().display().to_string(), "-c", "listen_addresses=127.0.0.1"])
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a log file"))
                .stderr(log),
        )
        .expect("PostgreSQL is installed (package postgresql)");
        wait_until_blocking("PostgreSQL answers", STARTS_WITHIN, || {
            if let Ok(Some(status)) = started.ended() {
                panic!("postgres ended with {status}:\n{}", fs::read_to_string(&path).unwrap_or_default());
            }
            self.client("postgres", "select 1").is_ok()
        });
        self.process = Some(started);
    }

    /// Ends it in order.
    ///
    /// # Panics
    /// When it can't be waited for.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end(Signal::INT).expect("postgres ends");
        }
    }

    /// What the statements print in `database`: lines of columns parted by `|`.
    ///
    /// # Panics
    /// When one fails.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        self.client(database, statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    fn client(&self, database: &str, statements: &str) -> Result<String, String> {
        let output = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database])
            .args(["-h", &self.folder.path().display().to_string(), "-p", &self.port.to_string(), "-c", statements])
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// One of the server's programs, as a user who may run it: PostgreSQL refuses root.
    fn command(&self, program: &str) -> Command {
        let program = programs().join(program);
        let mut command = if server_user().is_some() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path());
        command
    }
}

impl Drop for Postgres {
    /// In order: a killed server leaves its shared memory behind.
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where Debian keeps the server's programs: the newest version's.
fn programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed (package postgresql)")
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| folder.join("initdb").is_file())
        .collect();
    versions.sort();
    versions.pop().expect("PostgreSQL is installed (package postgresql)")
}

/// User and group of `postgres`, when the test is run by root.
fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("the user postgres");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().expect("a number in /etc/passwd"));
    Some((fields.next().expect("a user's number"), fields.next().expect("a group's number")))
}
