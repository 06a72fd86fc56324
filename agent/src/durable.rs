//! Files that survive a KILL and a power cut: written beside their place, synced, renamed, and the folder synced. A reader
//! therefore sees the old content or the new one, never a part.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// A file of the agent's state that could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {source}", path.display())]
pub struct StateError {
    /// What was tried, such as `cannot write`.
    pub action: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl StateError {
    /// Names what was tried on which path.
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }
}

/// Writes `value` as JSON to `path`, durably.
///
/// # Errors
/// [`StateError`] naming the path; the old content, if any, is then still there.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StateError> {
    let bytes =
        serde_json::to_vec(value).map_err(|error| StateError::new("cannot encode", path, io::Error::other(error)))?;
    write(path, &bytes)
}

/// Writes `value` as JSON to `path`, whole or not at all, but without waiting for the disk: for what is only good to have.
///
/// # Errors
/// As [`write_json`].
pub fn write_json_unsynced(path: &Path, value: &impl Serialize) -> Result<(), StateError> {
    let bytes =
        serde_json::to_vec(value).map_err(|error| StateError::new("cannot encode", path, io::Error::other(error)))?;
    replace(path, &bytes, |_| Ok(()))
}

/// Writes `bytes` to `path`, durably.
///
/// # Errors
/// As [`write_json`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    replace(path, bytes, File::sync_all)?;
    sync_folder_of(path).map_err(|error| StateError::new("cannot sync the folder of", path, error))
}

fn replace(path: &Path, bytes: &[u8], sync: impl FnOnce(&File) -> io::Result<()>) -> Result<(), StateError> {
    let temporary = temporary(path);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        sync(&file)
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    renamed.map_err(|error| {
        // A half-written temporary file would only take more of a full disk.
        let _ = fs::remove_file(&temporary);
        StateError::new("cannot write", path, error)
    })
}

/// Reads JSON; `None` when there is no such file.
///
/// # Errors
/// [`StateError`] when it cannot be read, or is not what was written.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::new("cannot read", path, error)),
    };
    let value = serde_json::from_slice(&bytes)
        .map_err(|error| StateError::new("cannot understand", path, io::Error::other(error)))?;
    Ok(Some(value))
}

/// Removes a file that may be gone already; tells whether it was there.
///
/// # Errors
/// [`StateError`] for every other reason.
pub fn remove(path: &Path) -> Result<bool, StateError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StateError::new("cannot remove", path, error)),
    }
}

/// Makes a folder and those above it, for this user alone.
///
/// # Errors
/// [`StateError`] naming the folder.
pub fn make_folder(path: &Path) -> Result<(), StateError> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| StateError::new("cannot make the folder", path, error))
}

/// Syncs the folder that holds `path`, so that a rename or a removal in it is durable.
///
/// # Errors
/// The file system's.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Beside the file, and this process' own: two agents may write the same file.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}
