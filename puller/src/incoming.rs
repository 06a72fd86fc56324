//! The folder of one transfer, `.incoming/{job}/`: `names` for rsync, and `backup/`, which becomes the backup by one rename. What is
//! left of it then is the next transfer's folder ([`crate::spare`]).
//!
//! Who works in it holds its lock (an flock on the folder itself). rsync inherits the lock as its standard input, so that when
//! a puller was killed its rsync, which goes on writing, still holds it: the next owner finds those processes by that very
//! handle, ends them, and only then goes on with what they left.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use longshore_core::JobId;
use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, getpgid, getpgrp, kill_process_group},
};

use crate::{
    rsync::process::GRACE,
    store::{self, FILES, MANIFEST, NEW_MANIFEST, Store},
};

/// In a transfer's folder, what becomes the backup.
pub(crate) const BACKUP: &str = "backup";

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A locked transfer folder. Its content stays when this is dropped.
#[derive(Debug)]
pub struct Incoming {
    job: JobId,
    folder: PathBuf,
    lock: File,
}

impl Incoming {
    /// Opens (or makes) the folder of `job` and waits until nothing else works in it; rsyncs of a puller that was killed are
    /// ended.
    ///
    /// # Errors
    /// The file system's, and `TimedOut` when such a process doesn't end.
    pub async fn open(store: &Arc<Store>, job: JobId) -> io::Result<Self> {
        Self::open_at(store, job, store.incoming(job)).await
    }

    /// Makes the folder of `job`; `None` when there is one. Blocking.
    ///
    /// # Errors
    /// The file system's.
    pub fn open_new(store: &Store, job: JobId) -> io::Result<Option<Self>> {
        let folder = store.incoming(job);
        match store.spare().make(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            made => made.and_then(|()| try_lock(job, folder)),
        }
    }

    /// The folder of `job`, when there is one and nothing works in it; nobody is ended.
    ///
    /// # Errors
    /// The file system's.
    pub async fn try_open(store: &Store, job: JobId) -> io::Result<Option<Self>> {
        Self::try_open_at(job, store.incoming(job)).await
    }

    /// As [`Incoming::try_open`], the folder of a batch.
    ///
    /// # Errors
    /// The file system's.
    pub async fn try_open_batch(store: &Store, batch: JobId) -> io::Result<Option<Self>> {
        Self::try_open_at(batch, store.incoming_batch(batch)).await
    }

    async fn try_open_at(job: JobId, folder: PathBuf) -> io::Result<Option<Self>> {
        on_disk(move || try_lock(job, folder)).await
    }

    /// As [`Incoming::open`], the folder of a batch (see [`crate::batch`]).
    ///
    /// # Errors
    /// As [`Incoming::open`].
    pub async fn open_batch(store: &Arc<Store>, batch: JobId) -> io::Result<Self> {
        Self::open_at(store, batch, store.incoming_batch(batch)).await
    }

    async fn open_at(store: &Arc<Store>, job: JobId, folder: PathBuf) -> io::Result<Self> {
        let (started, mut told) = (Instant::now(), None);
        loop {
            let (store, made) = (Arc::clone(store), folder.clone());
            let opened = on_disk(move || {
                if !fs::exists(&made)? {
                    store::as_good_if_there(store.spare().make(&made))?;
                }
                try_lock(job, made)
            });
            if let Some(incoming) = opened.await? {
                return Ok(incoming);
            }
            if started.elapsed() > 2 * GRACE {
                let text = format!("{} is locked by a process that does not end", folder.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            let signal = if started.elapsed() < GRACE { Signal::TERM } else { Signal::KILL };
            if told.replace(signal) != Some(signal) {
                let held = folder.clone();
                on_disk(move || end_holders(&held, signal)).await?;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The job, or the batch.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// What becomes the backup.
    pub fn backup(&self) -> PathBuf {
        self.folder.join(BACKUP)
    }

    /// Another handle on the lock, for a child.
    ///
    /// # Errors
    /// When this process has too many open files.
    pub fn lock(&self) -> io::Result<OwnedFd> {
        Ok(self.lock.try_clone()?.into())
    }

    /// The file for `--files-from`.
    pub fn names(&self) -> PathBuf {
        self.folder.join("names")
    }

    /// Prepares a fetch, by rsync with what it is to find in `names`, and tells what an earlier one left. The folder's age is that
    /// of its last fetch.
    ///
    /// # Errors
    /// The file system's.
    pub async fn prepare(&self, names: Option<Vec<u8>>) -> io::Result<Size> {
        let (folder, backup, file) = (self.lock.try_clone()?, self.backup(), self.names());
        on_disk(move || {
            names.map_or(Ok(()), |names| fs::write(file, names))?;
            store::as_good_if_there(store::make_folder(&backup))?;
            // Ours, of a transfer that was ended before its backup had its name.
            [MANIFEST, NEW_MANIFEST, FILES].iter().try_for_each(|name| store::remove_all(&backup.join(name)))?;
            folder.set_modified(SystemTime::now())?;
            Ok(Size::below(&backup))
        })
        .await
    }

    /// Makes the folder that becomes the backup.
    ///
    /// # Errors
    /// The file system's.
    pub fn make_backup(&self) -> io::Result<()> {
        store::as_good_if_there(store::make_folder(&self.backup()))
    }

    /// What of the backup is here.
    pub async fn here(&self) -> Size {
        let backup = self.backup();
        on_disk(move || Ok(Size::below(&backup))).await.unwrap_or_default()
    }

    /// Leaves the folder, of which nothing is needed any more, to later transfers. Blocking.
    ///
    /// # Errors
    /// The file system's.
    pub fn retire(self, store: &Store) -> io::Result<()> {
        store::remove_all(&self.backup())?;
        store.spare().keep(&self.folder, &self.lock)
    }

    /// Removes the folder and everything in it.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove(self) -> io::Result<()> {
        store::remove_all(&self.folder)
    }
}

/// Runs file work where it may block: a disk that hangs must hold no thread that others need.
///
/// # Errors
/// Its own.
pub(crate) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten()
}

/// A folder that is there and that nothing works in.
fn try_lock(job: JobId, folder: PathBuf) -> io::Result<Option<Incoming>> {
    let lock = match File::open(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    Ok(is_same(&lock, &folder)?.then_some(Incoming { job, folder, lock }))
}

fn is_same(open: &File, path: &Path) -> io::Result<bool> {
    let open = open.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What files and folders take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Lengths of the regular files.
    pub bytes: u64,
    /// Bytes that the disk holds of them: with whole blocks, and with what a file system takes ahead.
    pub allocated_bytes: u64,
    /// Regular files and folders.
    pub entries: u64,
}

impl Size {
    /// Of all at and below `path`; what can't be read counts nothing. One folder is open at a time.
    pub fn below(path: &Path) -> Self {
        let mut size = Self::default();
        let mut waiting = vec![path.to_owned()];
        while let Some(path) = waiting.pop() {
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_file() => {
                    size.entries += 1;
                    size.bytes += found.len();
                    size.allocated_bytes += found.blocks() * 512;
                }
                Ok(found) if found.is_dir() => {
                    size.entries += 1;
                    waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
                }
                _ => {}
            }
        }
        size
    }
}

/// Ends whoever has inherited the lock of `folder` from a puller that is gone.
fn end_holders(folder: &Path, signal: Signal) -> io::Result<()> {
    for group in groups_holding(folder)? {
        tracing::warn!(folder = %folder.display(), group = group.as_raw_pid(), "ending a transfer that its puller left behind");
        let _ = kill_process_group(group, signal);
    }
    Ok(())
}

/// Process groups, ours excepted, with a process whose standard input is `folder`.
fn groups_holding(folder: &Path) -> io::Result<Vec<Pid>> {
    let wanted = match fs::metadata(folder) {
        // The sweep has it just removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    let ours = getpgrp();
    let mut groups = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        let Ok(found) = fs::metadata(entry.path().join("fd/0")) else { continue };
        if (found.dev(), found.ino()) != (wanted.dev(), wanted.ino()) {
            continue;
        }
        if let Ok(group) = getpgid(Some(pid))
            && group != ours
            && !groups.contains(&group)
        {
            groups.push(group);
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::BTreeMap, mem};

    use longshore_core::NodeId;

    use super::*;
    use crate::rsync::{arguments::CommandLine, process::Rsync};

    #[tokio::test]
    async fn what_a_killed_puller_left_running_is_ended_before_its_folder_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), &NodeId::new("1").unwrap(), true).unwrap());
        let job = JobId::fresh();
        let first = Incoming::open(&store, job).await.unwrap();
        let line = CommandLine { program: "sleep".into(), arguments: vec!["600".into()], environment: BTreeMap::new() };
        let (rsync, ..) = Rsync::start(&line, first.lock().unwrap()).unwrap();
        let id = rsync.id();
        // As after a KILL: nobody ends the child, and our own handle is gone.
        mem::forget(rsync);
        drop(first);
        assert!(fs::exists(format!("/proc/{id}/fd/0")).unwrap());
        Incoming::open(&store, job).await.unwrap();
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }

    #[test]
    fn a_folder_left_to_the_next_transfer_is_not_locked_though_a_child_has_its_handle() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &NodeId::new("1").unwrap(), true).unwrap();
        let first = Incoming::open_new(&store, JobId::fresh()).unwrap().unwrap();
        let (inode, _child) = (first.lock.metadata().unwrap().ino(), first.lock().unwrap());
        first.make_backup().unwrap();
        fs::write(first.backup().join("part"), "of the first").unwrap();
        first.retire(&store).unwrap();
        let second = Incoming::open_new(&store, JobId::fresh()).unwrap().unwrap();
        assert_eq!(second.lock.metadata().unwrap().ino(), inode);
        assert!(!second.backup().exists());
    }
}
