//! What waits on the host's disk: one file a job or failure, named by its id. `spool/` holds what was not pushed yet,
//! `sent/` what was pushed and is not yet known to have a report. A file goes spool, sent, gone; each step is one rename
//! or removal, and every step may be repeated.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use longshore_core::{Job, JobId, Millis, report::Reason};
use serde::{Deserialize, Serialize};

use crate::durable::{self, StateError};

const TEMPORARY_FILES_ARE_KEPT: Duration = Duration::from_secs(24 * 3600);
/// The version of spooled files.
pub const SPOOL_VERSION: u32 = 1;

/// One result on its way to the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spooled {
    /// Always [`SPOOL_VERSION`].
    pub v: u32,
    /// The job; of a failure, without source and content.
    pub job: Job,
    /// Why nothing was made. `None` for a backup that is to be fetched.
    pub failure: Option<Failure>,
}

/// A failure of a script, its log, or its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// When it was seen, by the host's clock.
    pub at: Millis,
}

/// The two halves of the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Not pushed yet.
    Waiting,
    /// Pushed; its report is not known to exist.
    Sent,
}

/// The spool of a state folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Folders>);

#[derive(Debug)]
struct Folders {
    waiting: PathBuf,
    sent: PathBuf,
    damaged: PathBuf,
}

impl Spool {
    /// The spool below `state_dir`; its folders are made when they are missing.
    ///
    /// # Errors
    /// [`StateError`] naming the folder that cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, StateError> {
        let spool = Self::at(state_dir);
        durable::make_folder(&spool.0.waiting)?;
        durable::make_folder(&spool.0.sent)?;
        spool.sweep();
        Ok(spool)
    }

    /// Removes what agents that were killed while they wrote have left. Files of today may be of one that writes now.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.0.waiting) else { return };
        for entry in entries.flatten() {
            let is_temporary = entry.path().extension().is_some_and(|extension| extension == "tmp");
            let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
            if is_temporary && age.is_ok_and(|age| age.is_ok_and(|age| age > TEMPORARY_FILES_ARE_KEPT)) {
                // What is left now is swept by the next run.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The spool below `state_dir` as it is, for looking at.
    pub fn at(state_dir: &Path) -> Self {
        let at = |name| state_dir.join(name);
        Self(Arc::new(Folders { waiting: at("spool"), sent: at("sent"), damaged: at("damaged") }))
    }

    /// Keeps a result, durably. From here on it is never lost.
    ///
    /// # Errors
    /// [`StateError`] naming the file; a full disk, above all.
    pub fn put(&self, spooled: &Spooled) -> Result<(), StateError> {
        durable::write_json(&self.path(Half::Waiting, spooled.job.id), spooled)
    }

    /// Whether it is in either half.
    pub fn holds(&self, id: JobId) -> bool {
        self.path(Half::Waiting, id).exists() || self.path(Half::Sent, id).exists()
    }

    /// The ids in one half, oldest run first.
    ///
    /// # Errors
    /// [`StateError`] when the folder cannot be listed.
    pub fn ids(&self, half: Half) -> Result<Vec<JobId>, StateError> {
        let folder = self.folder(half);
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StateError::new("cannot list", folder, error)),
        };
        let mut ids: Vec<JobId> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok())
            .collect();
        // An id begins with its time.
        ids.sort_unstable();
        Ok(ids)
    }

    /// Reads one; `None` when another agent has moved or removed it meanwhile. One that cannot be understood is set aside.
    ///
    /// # Errors
    /// [`StateError`] naming the file, and where it is now.
    pub fn read(&self, half: Half, id: JobId) -> Result<Option<Spooled>, StateError> {
        let path = self.path(half, id);
        let read = durable::read_json::<Spooled>(&path);
        let damage = match read {
            Ok(Some(spooled)) if spooled.v != SPOOL_VERSION => format!("version {}", spooled.v),
            Ok(Some(spooled)) if spooled.job.id != id => format!("holds the job {}", spooled.job.id),
            Ok(spooled) => return Ok(spooled),
            Err(error) if error.action == "cannot understand" => error.source.to_string(),
            Err(error) => return Err(error),
        };
        let aside = self.0.damaged.join(format!("{id}.json"));
        durable::make_folder(&self.0.damaged)?;
        fs::rename(&path, &aside).map_err(|error| StateError::new("cannot set aside", &path, error))?;
        let source = io::Error::new(io::ErrorKind::InvalidData, format!("{damage}; kept as {}", aside.display()));
        Err(StateError::new("cannot understand", &path, source))
    }

    /// Moves one from waiting to sent. Not synced: after a power cut it is pushed again, which changes nothing.
    ///
    /// # Errors
    /// [`StateError`] naming the file.
    pub fn mark_sent(&self, id: JobId) -> Result<(), StateError> {
        let path = self.path(Half::Waiting, id);
        match fs::rename(&path, self.path(Half::Sent, id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::new("cannot move to sent", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Removes results whose reports exist, durably: only after this may the mailbox forget them.
    ///
    /// # Errors
    /// [`StateError`] naming the file.
    pub fn forget(&self, ids: &[JobId]) -> Result<(), StateError> {
        for half in [Half::Waiting, Half::Sent] {
            let mut removed = None;
            for id in ids {
                let path = self.path(half, *id);
                if durable::remove(&path)? {
                    removed = Some(path);
                }
            }
            if let Some(path) = removed {
                durable::sync_folder_of(&path)
                    .map_err(|error| StateError::new("cannot sync", self.folder(half), error))?;
            }
        }
        Ok(())
    }

    /// How many are in damaged files.
    pub fn damaged(&self) -> u64 {
        fs::read_dir(&self.0.damaged).map_or(0, |entries| entries.flatten().count() as u64)
    }

    fn folder(&self, half: Half) -> &Path {
        match half {
            Half::Waiting => &self.0.waiting,
            Half::Sent => &self.0.sent,
        }
    }

    fn path(&self, half: Half, id: JobId) -> PathBuf {
        self.folder(half).join(format!("{id}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spooled() -> Spooled {
        let mut job: Job = serde_json::from_str(include_str!("../../core/fixtures/job-v1.json")).unwrap();
        job.id = JobId::fresh();
        Spooled { v: SPOOL_VERSION, job, failure: None }
    }

    #[test]
    fn results_go_from_waiting_to_sent_to_nowhere_in_the_order_of_their_runs() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        let all: Vec<Spooled> = (0..5).map(|_| spooled()).collect();
        for one in all.iter().rev() {
            spool.put(one).unwrap();
        }
        let ids: Vec<JobId> = all.iter().map(|one| one.job.id).collect();
        assert_eq!(spool.ids(Half::Waiting).unwrap(), ids);
        assert_eq!(spool.read(Half::Waiting, ids[0]).unwrap().as_ref(), Some(&all[0]));
        spool.mark_sent(ids[0]).unwrap();
        spool.mark_sent(ids[0]).unwrap();
        assert!(spool.holds(ids[0]));
        assert_eq!(spool.ids(Half::Sent).unwrap(), &ids[..1]);
        spool.forget(&ids[..2]).unwrap();
        assert!(!spool.holds(ids[0]) && !spool.holds(ids[1]));
        assert_eq!(spool.read(Half::Sent, ids[0]).unwrap(), None);
    }

    #[test]
    fn what_a_killed_agent_was_writing_is_swept_after_a_day() {
        let folder = tempfile::tempdir().unwrap();
        Spool::open(folder.path()).unwrap();
        let at = |name: &str| folder.path().join("spool").join(name);
        for name in ["old.json.7.tmp", "new.json.7.tmp", "old.json"] {
            fs::write(at(name), b"{").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - 2 * TEMPORARY_FILES_ARE_KEPT;
        for name in ["old.json.7.tmp", "old.json"] {
            fs::File::options().write(true).open(at(name)).unwrap().set_modified(long_ago).unwrap();
        }
        Spool::open(folder.path()).unwrap();
        assert!(!at("old.json.7.tmp").exists() && at("new.json.7.tmp").exists() && at("old.json").exists());
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        let id = JobId::fresh();
        fs::write(folder.path().join(format!("spool/{id}.json")), b"{\"v\":1,").unwrap();
        let error = spool.read(Half::Waiting, id).unwrap_err().to_string();
        assert!(error.contains("damaged") && error.contains(&id.to_string()), "{error}");
        assert_eq!(spool.ids(Half::Waiting).unwrap(), []);
        assert_eq!(spool.damaged(), 1);
    }
}
