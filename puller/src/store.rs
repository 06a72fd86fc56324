//! The store: one folder on one file system, known by its marker file. Every backup below it is one folder,
//! `{type}/{server_id}/{instance}/{year}-{month}/{job}/`, that holds the data under its own name and the manifest, and that
//! appears by one rename: what has its final name is whole and verified.
//!
//! Nothing is written without the marker, so that a file system that is not mounted is never written under.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use ed25519_dalek::SigningKey;
use longshore_core::{Job, JobId, Millis, NodeId, RelativePath, Report, digest::FileEntry};
use rustix::fs::{Advice, CWD, FlockOperation, RenameFlags, fadvise, flock, renameat_with};
use serde::{Deserialize, Serialize};

use crate::{node_key, spare::SpareFolders};

/// Names the store; beside the backups.
pub const MARKER: &str = ".longshore-store";
/// Transfers under way, one folder a job.
pub const INCOMING: &str = ".incoming";
/// Before the id of a batch, whose folder lies among those of jobs.
pub const BATCH_PREFIX: &str = "batch-";
/// Folders for transfers to take (see [`crate::spare`]); of no use to the next process.
pub const SPARE: &str = ".spare";
/// Backups that another node settled.
pub const SUPERSEDED: &str = ".superseded";
/// What arrived with another size or digest than announced, for a person to look at.
pub const CORRUPT: &str = ".corrupt";
/// The report, beside the data.
pub const MANIFEST: &str = "manifest.json";
/// Where a manifest that is written anew is until it is whole (see [`write_whole`]).
pub const NEW_MANIFEST: &str = "manifest.new";
/// The list of a folder's files, beside the data.
pub const FILES: &str = ".files.json";

/// What the marker file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Always 1.
    pub v: u32,
    /// This store and no other.
    pub store_id: uuid::Uuid,
    /// The node it belongs to.
    pub node_id: NodeId,
    /// When it was made.
    pub created_at: Millis,
}

/// Why a folder is not used as a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No marker, and things in it.
    #[error(
        "{0} is not a store: it has no {MARKER}, and is not empty. If its disk is not mounted, mount it; if it is to become \
         a store, run `longshore-puller init`"
    )]
    NotAStore(PathBuf),
    /// No marker, and none is to be made.
    #[error("{0} is not a store: it has no {MARKER}. Mount its disk, or run `longshore-puller init`")]
    NoMarker(PathBuf),
    /// No marker, though the node has had a store.
    #[error(
        "{path} is not a store: it has no {MARKER}, and node {node_id} has run before, so its disk is not mounted; mount it. \
         To begin with an empty store, run `longshore-puller init`"
    )]
    Away {
        /// The store.
        path: PathBuf,
        /// Whose it is.
        node_id: NodeId,
    },
    /// `/etc/fstab` has a file system for it, which is not mounted.
    #[error("{path} lies on {mount}, which /etc/fstab lists and which is not mounted; mount it")]
    NotMounted {
        /// The store.
        path: PathBuf,
        /// The mount point.
        mount: PathBuf,
    },
    /// Another node's.
    #[error("{path} is the store of node {theirs}, and this is node {ours}")]
    AnotherNode {
        /// The store.
        path: PathBuf,
        /// In the marker.
        theirs: NodeId,
        /// Of the configuration.
        ours: NodeId,
    },
    /// A puller runs on it.
    #[error("another puller works on {0}")]
    InUse(PathBuf),
    /// The marker can't be read.
    #[error("{0}: the marker is damaged: {1}")]
    Damaged(PathBuf, serde_json::Error),
    /// The file system failed.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    marker: Marker,
    spare: SpareFolders,
    /// Held while this process works on the store.
    work: Option<Work>,
}

#[derive(Debug)]
struct Work {
    _lock: File,
    key: SigningKey,
}

impl Store {
    /// Makes `path` a store of `node_id`; one that is already is left as it is.
    ///
    /// # Errors
    /// [`StoreError`]; with `force`, a folder with other things in it is accepted.
    pub fn init(path: &Path, node_id: &NodeId, force: bool) -> Result<Marker, StoreError> {
        let io = |error| StoreError::Io(path.to_owned(), error);
        refuse_unmounted(path)?;
        fs::DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(io)?;
        if let Some(marker) = read_marker(path)? {
            return same_node(path, marker, node_id);
        }
        if !force && !is_empty(path).map_err(io)? {
            return Err(StoreError::NotAStore(path.to_owned()));
        }
        let marker =
            Marker { v: 1, store_id: uuid::Uuid::now_v7(), node_id: node_id.clone(), created_at: Millis::now() };
        let text = serde_json::to_vec(&marker).map_err(|error| StoreError::Damaged(path.to_owned(), error))?;
        write_whole(&path.join(MARKER), &text).map_err(io)?;
        sync(path).map_err(io)?;
        Ok(marker)
    }

    /// Opens the store at `path` to work on it: nobody else does meanwhile. With `create`, an empty folder becomes one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path, node_id: &NodeId, create: bool) -> Result<Self, StoreError> {
        let mut store = match Self::look(path, node_id) {
            Err(StoreError::NoMarker(_)) if create => {
                Self::init(path, node_id, false)?;
                Self::look(path, node_id)?
            }
            other => other?,
        };
        let io = |error| StoreError::Io(store.root.clone(), error);
        let lock = File::open(store.root.join(MARKER)).map_err(io)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| StoreError::InUse(store.root.clone()))?;
        remove_all(&store.root.join(SPARE)).map_err(io)?;
        for name in [INCOMING, SPARE, SUPERSEDED, CORRUPT] {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(store.root.join(name)).map_err(io)?;
        }
        sync(&store.root).map_err(io)?;
        let key = node_key::open(&store.root).map_err(io)?;
        store.work = Some(Work { _lock: lock, key });
        Ok(store)
    }

    /// The store at `path`, only to be looked at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn look(path: &Path, node_id: &NodeId) -> Result<Self, StoreError> {
        // rsync follows no links of others on its way, and paths are compared: resolved once, here.
        let root = fs::canonicalize(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::NoMarker(path.to_owned()),
            _ => StoreError::Io(path.to_owned(), error),
        })?;
        let marker = read_marker(&root)?.ok_or_else(|| StoreError::NoMarker(path.to_owned()))?;
        let marker = same_node(path, marker, node_id)?;
        let spare = SpareFolders::new(root.join(SPARE));
        Ok(Self { root, marker, spare, work: None })
    }

    /// Its folder, absolute and without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folders for its transfers.
    pub fn spare(&self) -> &SpareFolders {
        &self.spare
    }

    /// The node's own key; `None` when the store is only looked at.
    pub fn key(&self) -> Option<&SigningKey> {
        self.work.as_ref().map(|work| &work.key)
    }

    /// What its marker said when it was opened.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// Whether the same store is still there.
    ///
    /// # Errors
    /// [`StoreError`]: unmounted, or another.
    pub fn still_there(&self) -> Result<(), StoreError> {
        match read_marker(&self.root)? {
            Some(marker) if marker.store_id == self.marker.store_id => Ok(()),
            _ => Err(StoreError::NoMarker(self.root.clone())),
        }
    }

    /// Writes and syncs a few bytes, and leaves nothing.
    ///
    /// # Errors
    /// Why the disk takes nothing now: full, read-only, failing.
    pub fn try_writing(&self) -> io::Result<()> {
        let path = self.root.join(INCOMING).join(format!(".try-{}", JobId::fresh()));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path)?;
        // Without its name at once, so that a kill leaves nothing either.
        fs::remove_file(&path)?;
        file.write_all(&[0; 4096])?;
        file.sync_all()
    }

    /// The folder of a job's transfer.
    pub fn incoming(&self, job: JobId) -> PathBuf {
        self.root.join(INCOMING).join(job.to_string())
    }

    /// The folder of a batch's session.
    pub fn incoming_batch(&self, batch: JobId) -> PathBuf {
        self.root.join(INCOMING).join(format!("{BATCH_PREFIX}{batch}"))
    }

    /// Where `job` belongs, below the root. The month is that of the job's id, which nobody can change later.
    pub fn place(job: &Job) -> Result<RelativePath, longshore_core::path::PathError> {
        let (kind, server, instance) = (&job.backup_type, &job.server_id, &job.instance);
        RelativePath::new(&format!("{kind}/{server}/{instance}/{}/{}", month(job.id), job.id))
    }

    /// Where the backup of `job` is, when it is here: looked for in every instance's folder of its month.
    ///
    /// # Errors
    /// When a folder can't be listed.
    pub fn find(&self, job: JobId) -> io::Result<Option<RelativePath>> {
        let tail = format!("{}/{job}", month(job));
        for kind in folders(&self.root)? {
            for server in folders(&self.root.join(&kind))? {
                for instance in folders(&self.root.join(&kind).join(&server))? {
                    let path = format!("{kind}/{server}/{instance}/{tail}");
                    if self.root.join(&path).join(MANIFEST).exists() {
                        return RelativePath::new(&path).map(Some).map_err(io::Error::other);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Gives `folder` its final name `place`: the folder and its content must be synced already. The name is durable when the
    /// folder above it is synced.
    ///
    /// # Errors
    /// `AlreadyExists` when something has that name; else the file system's.
    pub fn publish(&self, folder: &Path, place: &RelativePath) -> io::Result<()> {
        let to = place.below(&self.root);
        match rename_new(folder, &to) {
            // Without what is to be named, the disk is away: nothing is made where it was.
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder.is_dir() => {
                if let Some(parent) = to.parent() {
                    self.make_folders(parent)?;
                }
                rename_new(folder, &to)
            }
            other => other,
        }
    }

    /// Makes `folder` and its parents below the root, each synced into its parent.
    fn make_folders(&self, folder: &Path) -> io::Result<()> {
        let Some(parent) = folder.parent() else { return Ok(()) };
        if folder == self.root || folder.is_dir() {
            return Ok(());
        }
        self.make_folders(parent)?;
        as_good_if_there(make_folder(folder))?;
        sync(parent)
    }

    /// Moves `from` to `corner` (one of this module's folders) as `name`, in place of what was there. Its time of change becomes
    /// now: how long it is kept counts from here ([`crate::aside`]).
    ///
    /// # Errors
    /// The file system's.
    pub fn set_aside(&self, from: &Path, corner: &str, name: &str) -> io::Result<PathBuf> {
        let to = self.root.join(corner).join(name);
        remove_all(&to)?;
        fs::rename(from, &to)?;
        File::open(&to)?.set_modified(SystemTime::now())?;
        if let Some(parent) = from.parent() {
            sync(parent)?;
        }
        sync(&self.root.join(corner))?;
        Ok(to)
    }

    /// The manifest of the backup in `folder`.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn manifest(folder: &Path) -> io::Result<Report> {
        Ok(serde_json::from_slice(&fs::read(folder.join(MANIFEST))?)?)
    }

    /// The list of files of the backup in `folder`; `None` when it is one file.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn file_list(folder: &Path) -> io::Result<Option<Vec<FileEntry>>> {
        match fs::read(folder.join(FILES)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Writes `bytes` to a new file beside `path`, syncs it, and gives it that name.
///
/// # Errors
/// The file system's.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// Writes `bytes` to `path` itself, where nobody reads yet; on its way to the disk, but not synced.
///
/// # Errors
/// The file system's.
pub fn write_unread(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)?;
    file.write_all(bytes)?;
    // Its blocks are chosen now: the journal's next commit, for whatever file, has it too (on ext4 two commits a backup, not three).
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

/// Makes a folder of the store.
///
/// # Errors
/// The file system's.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o750).create(folder)
}

/// That a folder is there already is as good as having made it.
///
/// # Errors
/// What else kept it from being made.
pub fn as_good_if_there(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes a file's content, or the names in a folder, durable.
///
/// # Errors
/// The file system's.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a file, or a folder with everything in it; what is not there is removed already.
///
/// # Errors
/// The file system's.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not known to this file system. A published folder is never empty, so a plain rename doesn't replace it either.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Err(io::ErrorKind::AlreadyExists.into()),
            other => other,
        },
        other => Ok(other?),
    }
}

fn month(job: JobId) -> String {
    job.time().timestamp().strftime("%Y-%m").to_string()
}

/// Names of the folders in `folder` that hold backups.
fn folders(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
            && entry.file_type()?.is_dir()
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if entry?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_marker(root: &Path) -> Result<Option<Marker>, StoreError> {
    match fs::read(root.join(MARKER)) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(marker) => Ok(Some(marker)),
            Err(error) => Err(StoreError::Damaged(root.to_owned(), error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::Io(root.to_owned(), error)),
    }
}

fn same_node(path: &Path, marker: Marker, ours: &NodeId) -> Result<Marker, StoreError> {
    if &marker.node_id == ours {
        Ok(marker)
    } else {
        Err(StoreError::AnotherNode { path: path.to_owned(), theirs: marker.node_id, ours: ours.clone() })
    }
}

/// An empty folder may be a mount point whose disk is away: `fstab` knows.
fn refuse_unmounted(path: &Path) -> Result<(), StoreError> {
    let fstab = fs::read_to_string("/etc/fstab").unwrap_or_default();
    let mounted = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    match missing_mount(path, &fstab, &mounted) {
        Some(mount) => Err(StoreError::NotMounted { path: path.to_owned(), mount }),
        None => Ok(()),
    }
}

fn missing_mount(path: &Path, fstab: &str, mounted: &str) -> Option<PathBuf> {
    let points = |table: &str| -> Vec<PathBuf> {
        let lines = table.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.split_ascii_whitespace().nth(1))
            .map(|point| point.replace("\\040", " ").into())
            .collect()
    };
    let mounted = points(mounted);
    points(fstab).into_iter().find(|point| point.is_absolute() && path.starts_with(point) && !mounted.contains(point))
}

#[cfg(test)]
mod tests;
