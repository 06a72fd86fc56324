//! The intent: what a run is about to do, synced before its script starts. Together with the script's recorded end it is all
//! that a later agent needs to finish the run, wherever this one was killed.
//!
//! The order is: intent, script, recorded end, chain, spool, intent removed. Each step may be repeated; the spooled file is
//! the commit point, since a job has one id from its intent on.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use longshore_core::{InstanceKey, JobId, Millis};
use serde::{Deserialize, Serialize};

use crate::{
    backup_log::LogIdentity,
    chain_state::ChainRecord,
    durable::{self, StateError},
    plan::Plan,
    slot::Slot,
};

/// What a run is about to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// Always [`INTENT_VERSION`].
    pub v: u32,
    /// The id that the run's job or failure will have.
    pub job: JobId,
    /// When the run started.
    pub made_at: Millis,
    /// The instance and its settings.
    pub plan: Plan,
    /// `back_log` before the script; `None` when there was none.
    pub back_log: Option<LogIdentity>,
    /// `last_all_log` before the script.
    pub last_all_log: Option<LogIdentity>,
}

/// The version of intents and outcomes.
pub const INTENT_VERSION: u32 = 1;

/// How a script ended, as its wrapper saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of the intent.
    pub job: JobId,
    /// How.
    pub end: ScriptEnd,
    /// How long it ran.
    pub seconds: f64,
    /// The last 64 KiB of what it wrote to stdout and stderr, as text.
    pub output: String,
    /// Whether it wrote more than that.
    pub output_cut: bool,
    /// Whether processes that it had started were still running in its process group.
    pub left_running: bool,
}

impl Outcome {
    /// Of a script that never ran.
    pub fn without_output(job: JobId, end: ScriptEnd) -> Self {
        Self { job, end, seconds: 0.0, output: String::new(), output_cut: false, left_running: false }
    }
}

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScriptEnd {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal, not of the agent's.
    Signalled(i32),
    /// By its `timeout`.
    TimedOut,
    /// Because the agent was told to stop.
    Stopped,
    /// It never ran; why.
    NotStarted(String),
}

/// A script's process, noted by its wrapper while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptProcess {
    /// Of the intent.
    pub job: JobId,
    /// Process and process group.
    pub pid: i32,
    /// When the process started, in clock ticks since boot: tells it from a later process of the same number.
    pub start_ticks: u64,
}

impl ScriptProcess {
    /// Of a process that runs now.
    pub fn of(job: JobId, pid: i32) -> Option<Self> {
        Some(Self { job, pid, start_ticks: start_ticks(pid)? })
    }

    /// Whether it still runs (a zombie does not).
    pub fn runs(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }
}

/// Field 22 of `/proc/PID/stat`; `None` for no process, and for one that has ended and waits for its parent.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses, and may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?;
    (state != "Z" && state != "X").then(|| start.parse().ok())?
}

/// An instance's folder below the state folder.
#[derive(Debug, Clone)]
pub struct InstanceFolder(PathBuf);

/// An instance's lock, held by the agent that runs it and, through an inherited descriptor, by the wrapper: it is free only
/// when both have ended.
#[derive(Debug)]
pub struct InstanceLock(pub(crate) File);

impl InstanceFolder {
    /// Of `key`. Ids are fit for path components.
    pub fn new(state_dir: &Path, key: &InstanceKey) -> Self {
        let mut path = state_dir.join("instances");
        path.extend([key.server_id.as_str(), key.backup_type.as_str(), key.instance.as_str()]);
        Self(path)
    }

    /// Every instance that this state folder knows.
    ///
    /// # Errors
    /// [`StateError`] when a folder cannot be listed.
    pub fn all(state_dir: &Path) -> Result<Vec<Self>, StateError> {
        let mut folders = vec![state_dir.join("instances")];
        for _ in 0..3 {
            let mut below = Vec::new();
            for folder in folders {
                match fs::read_dir(&folder) {
                    Ok(entries) => {
                        below.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(StateError::new("cannot list", &folder, error)),
                }
            }
            folders = below;
        }
        folders.sort();
        Ok(folders.into_iter().map(Self).collect())
    }

    /// A folder given by path: the wrapper's.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The last result, for `status`.
    pub fn last_result(&self) -> PathBuf {
        self.0.join("last.json")
    }

    /// Takes the lock; `None` when another run of this instance is not over.
    ///
    /// # Errors
    /// [`StateError`] when the folder or the lock file cannot be made.
    pub fn lock(&self) -> Result<Option<InstanceLock>, StateError> {
        durable::make_folder(&self.0)?;
        let path = self.0.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| StateError::new("cannot open the lock", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(InstanceLock(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(StateError::new("cannot lock", &path, error)),
        }
    }

    /// Whether a run of this instance is under way. Asked of the kernel's list of locks: to try the lock would keep a run that
    /// starts at this moment from taking it.
    pub fn is_locked(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let Ok(lock) = fs::metadata(self.0.join("lock")) else { return false };
        // `1: FLOCK  ADVISORY  WRITE 4711 fe:00:131074 0 EOF`
        let inode = format!(":{}", lock.ino());
        let held =
            |line: &str| line.contains(" FLOCK ") && line.split_ascii_whitespace().any(|word| word.ends_with(&inode));
        fs::read_to_string("/proc/locks").is_ok_and(|locks| locks.lines().any(held))
    }

    /// Whether a run of this instance was begun and not finished.
    pub fn has_intent(&self) -> bool {
        !matches!(self.intent(), Ok(None))
    }

    /// The intent of a run that is not finished.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be read or understood.
    pub fn intent(&self) -> Result<Option<Intent>, StateError> {
        self.intent_slot().read()
    }

    /// Writes the intent, and returns the metadata that the file system gave it: its clock, now. An intent before it is
    /// finished, and its outcome of no more use.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn write_intent(&self, intent: &Intent) -> Result<fs::Metadata, StateError> {
        self.intent_slot().write(intent)
    }

    /// Ends the intent: its run is finished. What was recorded of its script names the job, and means nothing without it.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn remove_intent(&self) -> Result<(), StateError> {
        self.intent_slot().clear()
    }

    /// Moves an intent aside that cannot be understood.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn set_intent_aside(&self) -> Result<PathBuf, StateError> {
        self.intent_slot().set_aside()
    }

    /// The recorded end of `job`'s script.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn outcome(&self, job: JobId) -> Result<Option<Outcome>, StateError> {
        let outcome: Option<Outcome> = self.outcome_slot().read()?;
        Ok(outcome.filter(|outcome| outcome.job == job))
    }

    /// Records the end of a script.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn write_outcome(&self, outcome: &Outcome) -> Result<(), StateError> {
        self.outcome_slot().write(outcome).map(drop)
    }

    /// The process of `job`'s script, when it was noted.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn process(&self, job: JobId) -> Result<Option<ScriptProcess>, StateError> {
        let process: Option<ScriptProcess> = durable::read_json(&self.process_path())?;
        Ok(process.filter(|process| process.job == job))
    }

    /// Notes the script's process. Not synced: after a power cut there is no process to find.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn write_process(&self, process: &ScriptProcess) -> Result<(), StateError> {
        let path = self.process_path();
        let written = serde_json::to_vec(process).map_err(io::Error::other).and_then(|bytes| fs::write(&path, bytes));
        written.map_err(|error| StateError::new("cannot write", &path, error))
    }

    /// What is remembered of the chain.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn chain(&self) -> Result<ChainRecord, StateError> {
        Ok(durable::read_json(&self.chain_path())?.unwrap_or_default())
    }

    /// Remembers the chain.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn write_chain(&self, chain: &ChainRecord) -> Result<(), StateError> {
        durable::write_json(&self.chain_path(), chain)
    }

    fn intent_slot(&self) -> Slot {
        Slot::new(self.0.join("intent"))
    }

    fn outcome_slot(&self) -> Slot {
        Slot::new(self.0.join("outcome"))
    }

    fn process_path(&self) -> PathBuf {
        self.0.join("process.json")
    }

    fn chain_path(&self) -> PathBuf {
        self.0.join("chain.json")
    }
}

/// Looks at both logs as they are before the script.
///
/// # Errors
/// [`StateError`] naming the log.
pub fn look_at_logs(plan: &Plan) -> Result<(Option<LogIdentity>, Option<LogIdentity>), StateError> {
    let look = |path: &Path| LogIdentity::of(path).map_err(|error| StateError::new("cannot look at", path, error));
    let full = plan.last_all_log.as_deref().map(look).transpose()?.flatten();
    Ok((look(&plan.back_log)?, full))
}

/// A file written from now on has a later modification time than a log that is this much older.
pub const LOG_SETTLES_WITHIN: Duration = Duration::from_millis(1100);
