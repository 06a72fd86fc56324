//! Whether what arrived is what was announced: kind, number of files, bytes, digest. Reads only what rsync has not digested
//! already. Blocking; runs on a blocking thread.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::Path,
};

use longshore_core::{
    Content, ContentKind, ReasonCode,
    digest::{DigestChoice, Digests, FileEntry, Xxh3, digest_reader, directory_digest},
};

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
) -> Result<Found, Failure> {
    let path = backup.join(name);
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!(
                "nothing arrived: the host's {name} is larger than the {} bytes announced, or neither a file nor a folder",
                announced.size_bytes
            );
            return Err(Failure::new(ReasonCode::SizeDiffers, text));
        }
        Err(error) => return Err(unreadable(&path, &error)),
    };
    match announced.kind {
        ContentKind::File if found.is_file() => verify_file(&path, name, found.len(), announced, digests),
        ContentKind::Directory if found.is_dir() => verify_folder(&path, name, announced, digests),
        ContentKind::File => Err(kind(name, "is not a regular file on the host, and a file was announced")),
        ContentKind::Directory => Err(kind(name, "is not a folder on the host, and a folder was announced")),
    }
}

fn verify_file(
    path: &Path,
    name: &str,
    size_bytes: u64,
    announced: &Content,
    digests: &HashMap<Vec<u8>, Xxh3>,
) -> Result<Found, Failure> {
    same_size(size_bytes, announced)?;
    let blake3_only = announced.xxh3_128.is_none() && announced.blake3.is_some();
    let xxh3_128 = match digests.get(name.as_bytes()) {
        Some(digest) if !blake3_only => *digest,
        _ => {
            let choice = if blake3_only { DigestChoice::Both } else { DigestChoice::Xxh3 };
            let read = read_digests(path, choice)?;
            if let (Some(announced), Some(found)) = (announced.blake3.filter(|_| blake3_only), read.blake3)
                && announced != found
            {
                return Err(differs(&announced, &found));
            }
            read.xxh3_128.ok_or_else(|| Failure::new(ReasonCode::StoreFailed, "no digest was made"))?
        }
    };
    same_digest(xxh3_128, announced)?;
    Ok(Found { xxh3_128, files: None })
}

fn verify_folder(
    path: &Path,
    name: &str,
    announced: &Content,
    digests: &HashMap<Vec<u8>, Xxh3>,
) -> Result<Found, Failure> {
    let mut files = Vec::new();
    walk(path, "", &mut |below, size_bytes| {
        let printed = digests.get(format!("{name}/{below}").as_bytes());
        let xxh3_128 = match printed {
            Some(digest) => *digest,
            None => read_digests(&path.join(below), DigestChoice::Xxh3)?
                .xxh3_128
                .ok_or_else(|| Failure::new(ReasonCode::StoreFailed, "no digest was made"))?,
        };
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

/// Calls `each` with every regular file below `folder`, and syncs every folder.
fn walk(folder: &Path, below: &str, each: &mut impl FnMut(&str, u64) -> Result<(), Failure>) -> Result<(), Failure> {
    let failed = |error: io::Error| unreadable(folder, &error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().into_string().map_err(|name| kind(&name.to_string_lossy(), "is not UTF-8"))?;
        if name.chars().any(char::is_control) {
            return Err(kind(&format!("{name:?}"), "has a control character in its name"));
        }
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let found = entry.metadata().map_err(failed)?;
        if found.is_dir() {
            walk(&entry.path(), &path, each)?;
        } else if found.is_file() {
            each(&path, found.len())?;
        } else {
            return Err(kind(&path, "is neither a file nor a folder"));
        }
    }
    sync(folder).map_err(failed)
}

fn read_digests(path: &Path, choice: DigestChoice) -> Result<Digests, Failure> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    digest_reader(file, choice).map_err(|error| unreadable(path, &error))
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

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::store(&format!("reading back {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    fn announced(kind: ContentKind, size_bytes: u64, files: u64) -> Content {
        Content { kind, size_bytes, files, xxh3_128: None, blake3: None, extra: serde_json::Map::new() }
    }

    fn code(result: Result<Found, Failure>) -> String {
        result.map_or_else(|failure| failure.reason.code.as_str().to_owned(), |_| "fits".to_owned())
    }

    #[test]
    fn a_file_must_fit_in_kind_size_and_digest() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "abc").unwrap();
        let look = |content: &Content, digests: &HashMap<Vec<u8>, Xxh3>| verify(folder.path(), "a", content, digests);
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
        assert_eq!(code(verify(folder.path(), "b", &content, &none)), "size_differs");
    }

    #[test]
    fn a_blake3_alone_is_compared_by_reading() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "abc").unwrap();
        let mut content = announced(ContentKind::File, 3, 1);
        content.blake3 = digest_reader(&b"abc"[..], DigestChoice::Blake3).unwrap().blake3;
        assert_eq!(code(verify(folder.path(), "a", &content, &HashMap::new())), "fits");
        content.blake3 = digest_reader(&b"abd"[..], DigestChoice::Blake3).unwrap().blake3;
        assert_eq!(code(verify(folder.path(), "a", &content, &HashMap::new())), "digest_differs");
    }

    #[test]
    fn a_folder_must_have_every_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("d/in")).unwrap();
        fs::write(folder.path().join("d/库"), "12").unwrap();
        fs::write(folder.path().join("d/in/b"), "345").unwrap();
        let look = |content: &Content| verify(folder.path(), "d", content, &HashMap::new());
        let found = look(&announced(ContentKind::Directory, 5, 2)).unwrap();
        let paths: Vec<String> = found.files.unwrap().into_iter().map(|file| file.path).collect();
        assert_eq!(paths, ["in/b", "库"]);
        assert_eq!(code(look(&announced(ContentKind::Directory, 5, 3))), "size_differs");
        assert_eq!(code(look(&announced(ContentKind::Directory, 6, 2))), "size_differs");
        symlink("/etc/passwd", folder.path().join("d/link")).unwrap();
        assert_eq!(code(look(&announced(ContentKind::Directory, 5, 2))), "file_kind");
    }
}
