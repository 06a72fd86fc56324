//! Whether what arrived is what was announced: kind, number of files, bytes, digest. [`Verified::Received`] reads only what rsync
//! has not digested already; [`Verified::Reread`] reads every file from the disk itself, after the cache has given it up.
//! Blocking; runs on a blocking thread.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::Path,
};

use longshore_core::{
    Content, ContentKind, ReasonCode,
    digest::{DigestChoice, Digests, FileEntry, Xxh3, digest_reader, directory_digest},
    report::Verified,
};
use rustix::fs::{Advice, fadvise};

use crate::{failure::Failure, store::sync};

/// What is in a backup's folder, and fits what was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The digest of the file or of the folder.
    pub xxh3_128: Xxh3,
    /// The files of a folder, by their paths below it; `None` for a single file.
    pub files: Option<Vec<FileEntry>>,
}

/// Compares `backup/name` with `announced`. `digests` are what rsync printed, by `name` or `name/path`.
///
/// # Errors
/// [`Failure`]: corrupt when it differs, the node's when it can't be read.
pub fn verify(
    backup: &Path,
    name: &str,
    announced: &Content,
    digests: &HashMap<Vec<u8>, Xxh3>,
    how: Verified,
) -> Result<Found, Failure> {
    let path = backup.join(name);
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => found,
        // Without the folder that it was fetched into, the disk is away.
        Err(error) if error.kind() == io::ErrorKind::NotFound && backup.is_dir() => {
            let text = format!(
                "nothing arrived: the host's {name} is larger than the {} bytes announced, or neither a file nor a folder",
                announced.size_bytes
            );
            return Err(Failure::new(ReasonCode::SizeDiffers, text));
        }
        Err(error) => return Err(unreadable(&path, &error)),
    };
    let arrived = Arrived { path: &path, name, digests, how };
    match announced.kind {
        ContentKind::File if found.is_file() => arrived.verify_file(found.len(), announced),
        ContentKind::Directory if found.is_dir() => arrived.verify_folder(announced),
        ContentKind::File => Err(kind(name, "is not a regular file on the host, and a file was announced")),
        ContentKind::Directory => Err(kind(name, "is not a folder on the host, and a folder was announced")),
    }
}

/// A file or folder at `path`, and what is known of it.
struct Arrived<'a> {
    path: &'a Path,
    name: &'a str,
    digests: &'a HashMap<Vec<u8>, Xxh3>,
    how: Verified,
}

impl Arrived<'_> {
    fn verify_file(&self, size_bytes: u64, announced: &Content) -> Result<Found, Failure> {
        same_size(size_bytes, announced)?;
        let blake3 = announced.blake3.filter(|_| announced.xxh3_128.is_none());
        let xxh3_128 = match blake3 {
            None => self.digest_of(self.path, self.name)?,
            Some(wanted) => {
                let read = self.read(self.path, DigestChoice::Both)?;
                if let Some(found) = read.blake3.filter(|found| *found != wanted) {
                    return Err(differs(&wanted, &found));
                }
                read.xxh3_128.ok_or_else(no_digest)?
            }
        };
        same_digest(xxh3_128, announced)?;
        Ok(Found { xxh3_128, files: None })
    }

    fn verify_folder(&self, announced: &Content) -> Result<Found, Failure> {
        let mut files = Vec::new();
        walk(self.path, &mut |below, size_bytes| {
            let xxh3_128 = self.digest_of(&self.path.join(below), &format!("{}/{below}", self.name))?;
            files.push(FileEntry { path: below.to_owned(), size_bytes, xxh3_128 });
            Ok(())
        })?;
        let count = files.len() as u64;
        if count != announced.files {
            let text = format!(
                "{} files were announced and {count} came; links and special files are not fetched",
                announced.files
            );
            return Err(Failure::new(ReasonCode::SizeDiffers, text));
        }
        same_size(files.iter().map(|file| file.size_bytes).sum(), announced)?;
        let xxh3_128 = directory_digest(&mut files);
        same_digest(xxh3_128, announced)?;
        Ok(Found { xxh3_128, files: Some(files) })
    }

    /// The digest of one file, which rsync calls `name`.
    fn digest_of(&self, path: &Path, name: &str) -> Result<Xxh3, Failure> {
        let received = self.digests.get(name.as_bytes()).copied();
        if let (Some(received), Verified::Received) = (received, self.how) {
            return Ok(received);
        }
        let found = self.read(path, DigestChoice::Xxh3)?.xxh3_128.ok_or_else(no_digest)?;
        match received {
            Some(received) if received != found => {
                let text = format!("{name} was received with digest {received}, and the disk gives back {found}");
                Err(Failure::new(ReasonCode::DigestDiffers, text))
            }
            _ => Ok(found),
        }
    }

    fn read(&self, path: &Path, choice: DigestChoice) -> Result<Digests, Failure> {
        let read = || {
            let file = File::open(path)?;
            if self.how == Verified::Reread {
                // Only pages that are on the disk already can be dropped.
                file.sync_all()?;
                fadvise(&file, 0, None, Advice::DontNeed)?;
            }
            digest_reader(file, choice)
        };
        read().map_err(|error| unreadable(path, &error))
    }
}

/// Calls `each` with every regular file below `root`, and syncs every folder. One folder is open at a time, however deep they
/// lie.
fn walk(root: &Path, each: &mut impl FnMut(&str, u64) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        let folder = root.join(&below);
        let failed = |error: io::Error| unreadable(&folder, &error);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().map_err(|name| kind(&name.to_string_lossy(), "is not UTF-8"))?;
            if name.chars().any(char::is_control) {
                return Err(kind(&format!("{name:?}"), "has a control character in its name"));
            }
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            let found = entry.metadata().map_err(failed)?;
            if found.is_dir() {
                folders.push(path);
            } else if found.is_file() {
                each(&path, found.len())?;
            } else {
                return Err(kind(&path, "is neither a file nor a folder"));
            }
        }
        sync(&folder).map_err(failed)?;
    }
    Ok(())
}

fn no_digest() -> Failure {
    Failure::new(ReasonCode::StoreFailed, "no digest was made")
}

fn same_size(found: u64, announced: &Content) -> Result<(), Failure> {
    if found == announced.size_bytes {
        return Ok(());
    }
    let text = format!("{} bytes were announced and {found} came", announced.size_bytes);
    Err(Failure::new(ReasonCode::SizeDiffers, text))
}

fn same_digest(found: Xxh3, announced: &Content) -> Result<(), Failure> {
    match announced.xxh3_128 {
        Some(wanted) if wanted != found => Err(differs(&wanted, &found)),
        _ => Ok(()),
    }
}

fn differs(announced: &dyn std::fmt::Display, found: &dyn std::fmt::Display) -> Failure {
    let text = format!("the digest {announced} was announced, and what came has {found}");
    Failure::new(ReasonCode::DigestDiffers, text)
}

fn kind(name: &str, what: &str) -> Failure {
    Failure::new(ReasonCode::FileKind, format!("{name} {what}"))
}

/// A path that is too long is the job's own fault; all else is the node's.
fn unreadable(path: &Path, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::InvalidFilename {
        let start: String = path.to_string_lossy().chars().take(200).collect();
        return kind(&format!("{start}…"), "lies too deep to be stored");
    }
    Failure::store(&format!("reading back {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    fn announced(kind: ContentKind, size_bytes: u64, files: u64) -> Content {
        Content { kind, size_bytes, files, folders: None, xxh3_128: None, blake3: None, extra: serde_json::Map::new() }
    }

    fn code(result: Result<Found, Failure>) -> String {
        result.map_or_else(|failure| failure.reason.code.as_str().to_owned(), |_| "fits".to_owned())
    }

    #[test]
    fn a_file_must_fit_in_kind_size_and_digest() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "abc").unwrap();
        let look = |content: &Content, digests: &HashMap<Vec<u8>, Xxh3>| {
            verify(folder.path(), "a", content, digests, Verified::Received)
        };
        let mut content = announced(ContentKind::File, 3, 1);
        let none = HashMap::new();
        let found = look(&content, &none).unwrap();
        content.xxh3_128 = Some(found.xxh3_128);
        assert_eq!(code(look(&content, &none)), "fits");
        let wrong = HashMap::from([(b"a".to_vec(), "00000000000000000000000000000000".parse().unwrap())]);
        assert_eq!(code(look(&content, &wrong)), "digest_differs");
        content.size_bytes = 4;
        assert_eq!(code(look(&content, &none)), "size_differs");
        assert_eq!(code(look(&announced(ContentKind::Directory, 3, 1), &none)), "file_kind");
        assert_eq!(code(verify(folder.path(), "b", &content, &none, Verified::Received)), "size_differs");
    }

    #[test]
    fn a_blake3_alone_is_compared_by_reading() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "abc").unwrap();
        let mut content = announced(ContentKind::File, 3, 1);
        content.blake3 = digest_reader(&b"abc"[..], DigestChoice::Blake3).unwrap().blake3;
        assert_eq!(code(verify(folder.path(), "a", &content, &HashMap::new(), Verified::Received)), "fits");
        content.blake3 = digest_reader(&b"abd"[..], DigestChoice::Blake3).unwrap().blake3;
        assert_eq!(code(verify(folder.path(), "a", &content, &HashMap::new(), Verified::Received)), "digest_differs");
    }

    #[test]
    fn a_folder_must_have_every_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("d/in")).unwrap();
        fs::write(folder.path().join("d/库"), "12").unwrap();
        fs::write(folder.path().join("d/in/b"), "345").unwrap();
        let look = |content: &Content| verify(folder.path(), "d", content, &HashMap::new(), Verified::Received);
        let found = look(&announced(ContentKind::Directory, 5, 2)).unwrap();
        let paths: Vec<String> = found.files.unwrap().into_iter().map(|file| file.path).collect();
        assert_eq!(paths, ["in/b", "库"]);
        assert_eq!(code(look(&announced(ContentKind::Directory, 5, 3))), "size_differs");
        assert_eq!(code(look(&announced(ContentKind::Directory, 6, 2))), "size_differs");
        symlink("/etc/passwd", folder.path().join("d/link")).unwrap();
        assert_eq!(code(look(&announced(ContentKind::Directory, 5, 2))), "file_kind");
    }

    #[test]
    fn rereading_believes_the_disk_and_not_what_was_received() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        for name in ["a", "d/a"] {
            fs::write(folder.path().join(name), "abc").unwrap();
        }
        let received = digest_reader(&b"abd"[..], DigestChoice::Xxh3).unwrap().xxh3_128.unwrap();
        let digests = HashMap::from([(b"a".to_vec(), received), (b"d/a".to_vec(), received)]);
        for (name, content) in
            [("a", announced(ContentKind::File, 3, 1)), ("d", announced(ContentKind::Directory, 3, 1))]
        {
            let look = |how| code(verify(folder.path(), name, &content, &digests, how));
            assert_eq!((look(Verified::Received), look(Verified::Reread)), ("fits".into(), "digest_differs".into()));
        }
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_the_jobs_fault() {
        let folder = tempfile::tempdir().unwrap();
        for (name, level) in [("fits", "x"), ("file_kind", "a folder with a name")] {
            fs::create_dir(folder.path().join(name)).unwrap();
            let mut below = File::open(folder.path().join(name)).unwrap();
            // By steps, as rsync does: no path reaches what lies below.
            for _ in 0..300 {
                rustix::fs::mkdirat(&below, level, Mode::RWXU).unwrap();
                below = rustix::fs::openat(&below, level, OFlags::DIRECTORY, Mode::empty()).unwrap().into();
            }
            let content = announced(ContentKind::Directory, 0, 0);
            let found = verify(folder.path(), name, &content, &HashMap::new(), Verified::Received);
            assert_eq!(code(found), name);
        }
    }
}
