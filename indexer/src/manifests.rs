//! The manifests below a node's store, found by the place that every backup has:
//! `{type}/{server_id}/{instance}/{year}-{month}/{job}/manifest.json`. A folder whose name begins with a dot is the puller's
//! own (transfers under way, superseded files), and links are never followed.

use std::{
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
};

use longshore_core::{ContentKind, JobId, RelativePath, Report};

/// How many folders lie between the store and a backup's own, that one included.
const DEPTH: usize = 5;

/// One backup's folder, looked at.
#[derive(Debug)]
pub struct Manifest {
    /// The folder, below the store.
    pub folder: PathBuf,
    /// What its manifest says, or why it can't be believed.
    pub report: Result<Report, String>,
    /// What is wrong with the data beside it.
    pub data: Result<(), String>,
}

/// Calls `each` with every backup's folder below `store`, in the order of their names.
///
/// # Errors
/// When `store` itself can't be listed; anything below that can't be read is given to `each`.
pub fn walk(store: &Path, each: &mut dyn FnMut(Manifest) -> io::Result<()>) -> io::Result<()> {
    descend(store, store, DEPTH, each)
}

fn descend(
    store: &Path,
    folder: &Path,
    depth: usize,
    each: &mut dyn FnMut(Manifest) -> io::Result<()>,
) -> io::Result<()> {
    if depth == 0 {
        return each(examine(store, folder));
    }
    let listed = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<DirEntry>>>);
    let mut entries = match listed {
        Ok(entries) => entries,
        Err(error) if folder == store => return Err(error),
        Err(error) => {
            let folder = below(store, folder);
            return each(Manifest { folder, report: Err(format!("can't be listed: {error}")), data: Ok(()) });
        }
    };
    entries.sort_by_key(DirEntry::file_name);
    for entry in entries {
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            descend(store, &entry.path(), depth - 1, each)?;
        }
    }
    Ok(())
}

fn below(store: &Path, folder: &Path) -> PathBuf {
    folder.strip_prefix(store).unwrap_or(folder).to_owned()
}

fn examine(store: &Path, folder: &Path) -> Manifest {
    let place = below(store, folder);
    let report = read(folder).and_then(|report| believe(&place, report));
    let data = match &report {
        Ok(report) => compare(folder, report),
        Err(_) => Ok(()),
    };
    Manifest { folder: place, report, data }
}

fn read(folder: &Path) -> Result<Report, String> {
    let bytes = fs::read(folder.join("manifest.json")).map_err(|error| format!("manifest.json: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("manifest.json is damaged: {error}"))
}

/// A manifest is believed where it says itself that it lies.
fn believe(place: &Path, report: Report) -> Result<Report, String> {
    let shown = place.to_string_lossy();
    let named: Option<JobId> = place.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    if named != Some(report.job.id) {
        return Err(format!("its manifest is of job {}, not of this folder's", report.job.id));
    }
    match report.path.as_ref().map(RelativePath::as_str) {
        Some(path) if path == shown => Ok(report),
        Some(path) => Err(format!("its manifest says that it lies in {path}")),
        None => Err("its manifest does not say that it was stored".to_owned()),
    }
}

/// Whether the data has the size that the manifest says. Digests are not computed: that would read the whole store.
fn compare(folder: &Path, report: &Report) -> Result<(), String> {
    let Some((name, content)) = report.job.name().zip(report.job.content.as_ref()) else {
        return Err("its manifest names no data".to_owned());
    };
    let data = folder.join(name);
    let kind = fs::symlink_metadata(&data).map_err(|error| format!("{name}: {error}"))?;
    let size = match content.kind {
        ContentKind::File if kind.is_file() => kind.len(),
        ContentKind::Directory if kind.is_dir() => {
            directory_bytes(&data).map_err(|error| format!("{name}: {error}"))?
        }
        _ => return Err(format!("{name} is no {:?}", content.kind).to_lowercase()),
    };
    if size == content.size_bytes {
        Ok(())
    } else {
        Err(format!("{name} has {size} bytes; its manifest says {}", content.size_bytes))
    }
}

fn directory_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            bytes += directory_bytes(&entry.path())?;
        } else if kind.is_file() {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}
