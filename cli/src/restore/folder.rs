//! The folder that a restore fetches into. `01/NAME` is applied first, then `02/NAME`, and so on; a file is under its name
//! only when it is whole and checked. What is still arriving is below `.partial`. A file of ours says whose folder it is: a
//! folder with anything else in it is refused, ours is continued, and two at once are not let in.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use longshore_core::{InstanceKey, Millis, exit::Exit};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::{failure::Failure, show::text};

const STATE_FILE: &str = ".longshore-restore.json";
const LOCK_FILE: &str = ".longshore-restore.lock";
const PARTIAL: &str = ".partial";

#[derive(Debug, Serialize, Deserialize)]
struct State {
    v: u32,
    instance: String,
    at: Millis,
    jobs: Vec<String>,
}

/// The folder, held by this process.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    state: Option<State>,
    _lock: Option<File>,
}

impl Folder {
    /// Looks at the folder and makes nothing yet.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let path = std::path::absolute(path).map_err(|error| told(path, &error))?;
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path, state: None, _lock: None });
            }
            Err(error) => return Err(told(&path, &error)),
        };
        let ours = path.join(STATE_FILE);
        let state = match fs::read(&ours) {
            Ok(bytes) => Some(serde_json::from_slice::<State>(&bytes).map_err(|error| {
                Failure::wrong(format!("{} can't be read ({error}); choose another --to", ours.display()))
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(told(&ours, &error)),
        };
        let is_lock = |name: &std::ffi::OsStr| name == LOCK_FILE || name == "lost+found";
        if state.is_none() && entries.flatten().any(|entry| !is_lock(&entry.file_name())) {
            return Err(Failure::usage(format!("{} is not empty, and not of an earlier restore", path.display()))
                .note("choose a new or empty folder with --to"));
        }
        Ok(Self { path, state, _lock: None })
    }

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The time of an earlier try for this instance.
    pub(crate) fn at_of(&self, key: &InstanceKey) -> Option<Millis> {
        self.state.as_ref().filter(|state| state.instance == key.to_string()).map(|state| state.at)
    }

    /// Takes the folder for this plan, and checks that what is still to come has room.
    pub(crate) fn begin(&mut self, plan: &Plan) -> Result<(), Failure> {
        let jobs: Vec<String> = plan.steps.iter().map(|step| step.job.to_string()).collect();
        if let Some(state) = &self.state
            && (state.instance != plan.key() || state.jobs != jobs)
        {
            let (instance, at) = (&state.instance, text::moment(state.at));
            return Err(Failure::usage(format!(
                "{} holds another restore: {instance} as of {at}",
                self.path.display()
            ))
            .note("choose another folder with --to, or remove that one"));
        }
        fs::create_dir_all(&self.path).map_err(|error| told(&self.path, &error))?;
        let lock = self.path.join(LOCK_FILE);
        let file = File::create(&lock).map_err(|error| told(&lock, &error))?;
        if file.try_lock().is_err() {
            return Err(Failure::new(
                Exit::ServiceRefused,
                format!("another restore is at work in {}", self.path.display()),
            ));
        }
        self._lock = Some(file);
        if self.state.is_none() {
            let state = State { v: 1, instance: plan.key(), at: plan.at, jobs };
            let file = self.path.join(STATE_FILE);
            let text = serde_json::to_string_pretty(&state).unwrap_or_default();
            let beside = self.path.join(format!("{STATE_FILE}.new"));
            fs::write(&beside, text).and_then(|()| fs::rename(&beside, &file)).map_err(|error| told(&file, &error))?;
            self.state = Some(state);
        }
        self.room_for(plan)
    }

    fn room_for(&self, plan: &Plan) -> Result<(), Failure> {
        let disk = rustix::fs::statvfs(&self.path).map_err(|error| told(&self.path, &error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = plan.space_needed_bytes.saturating_sub(bytes_below(&self.path));
        if needed > free {
            return Err(Failure::wrong(format!(
                "{} has {} free, and {} are still to be fetched; choose another --to, or make room",
                self.path.display(),
                text::size(free),
                text::size(needed)
            )));
        }
        Ok(())
    }

    /// Where a backup's file belongs; `below` begins with the backup's own name.
    pub(crate) fn place(&self, step: u32, below: &str) -> PathBuf {
        self.path.join(format!("{step:02}")).join(below)
    }

    /// Where it is while it arrives.
    pub(crate) fn partial(&self, step: u32, below: &str) -> PathBuf {
        self.path.join(PARTIAL).join(format!("{step:02}")).join(below)
    }

    /// Removes what only partial files needed.
    pub(crate) fn tidy(&self) {
        // Nothing depends on it: what is left is empty folders.
        let _ = fs::remove_dir_all(self.path.join(PARTIAL));
    }
}

/// Bytes of all files below, those still arriving included.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| {
            let kind = entry.file_type().ok()?;
            Some(if kind.is_dir() { bytes_below(&entry.path()) } else { entry.metadata().ok()?.len() })
        })
        .sum()
}

fn told(path: &Path, error: &io::Error) -> Failure {
    Failure::refused(format!("{}: {error}", path.display()))
}
