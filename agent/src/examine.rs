//! The file or directory that a log names: there, regular, without a link anywhere below `back_dir`, not growing, and
//! digested in one read. The script's host is ours, but what lies in its folders may be anyone's, so every step down is
//! taken by descriptor and never follows a link.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use longshore_core::{
    Content, ContentKind, ReasonCode, RelativePath,
    digest::{DigestChoice, Digests, FileEntry, Hasher, directory_digest},
    report::Reason,
};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

/// What was found, and what finding it cost.
#[derive(Debug)]
pub struct Examined {
    /// Kind, size, digests.
    pub content: Content,
    /// How long the reading took.
    pub took: Duration,
}

/// Why there is nothing to send.
#[derive(Debug)]
pub enum ExamineError {
    /// The backup cannot be used: this is its report.
    Unusable(Reason),
    /// The agent was told to stop while it read; nothing is known of the backup.
    Stopped,
}

impl From<Reason> for ExamineError {
    fn from(reason: Reason) -> Self {
        Self::Unusable(reason)
    }
}

const READ_BYTES: usize = 256 * 1024;

/// Looks at `back_dir`/`name` and digests it as `choice` says. Blocks; ends early when `stop` becomes true. With
/// `someone_may_write` it waits a second between listing and reading: a quick read alone would miss a slow writer.
///
/// # Errors
/// [`ExamineError::Unusable`] with the reason to report, or [`ExamineError::Stopped`].
pub fn examine(
    back_dir: &Path,
    name: &RelativePath,
    choice: DigestChoice,
    someone_may_write: bool,
    stop: &AtomicBool,
) -> Result<Examined, ExamineError> {
    let began = Instant::now();
    let shown = name.below(back_dir).display().to_string();
    let (parent, last) = descend(back_dir, name)?;
    let before = stat_at(&parent, last, &shown)?;
    let mut walk = Walk { choice, someone_may_write, stop, buffer: vec![0; READ_BYTES], files: Vec::new(), folders: 0 };
    let content = match FileType::from_raw_mode(before.st_mode) {
        FileType::RegularFile => walk.file(&parent, last, &before, &shown)?,
        FileType::Directory => walk.directory(&parent, last, &shown)?,
        kind => return Err(wrong_kind(&shown, kind).into()),
    };
    // By name again: what was read is still what stands there.
    let after = stat_at(&parent, last, &shown)?;
    if Mark::of(&before) != Mark::of(&after) {
        return Err(growing(&shown).into());
    }
    if content.size_bytes == 0 {
        let text = match content.kind {
            ContentKind::File => format!("{shown} is empty"),
            ContentKind::Directory => format!("{shown} holds no file with anything in it"),
        };
        return Err(Reason::new(ReasonCode::FileEmpty, text).into());
    }
    Ok(Examined { content, took: began.elapsed() })
}

/// What changes when someone writes to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    inode: u64,
    size_bytes: i64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
}

impl Mark {
    // The widths of these fields differ from one machine's libc to another's.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino as u64,
            size_bytes: stat.st_size as i64,
            modified_seconds: stat.st_mtime as i64,
            modified_nanoseconds: stat.st_mtime_nsec as i64,
        }
    }
}

/// Opens the folder that holds the last part of `name`, refusing links on the way. `back_dir` itself is the
/// administrator's and may be one.
fn descend<'a>(back_dir: &Path, name: &'a RelativePath) -> Result<(OwnedFd, &'a str), Reason> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder = rustix::fs::open(back_dir, flags, Mode::empty())
        .map_err(|error| failed(&format!("back_dir {}", back_dir.display()), error.into()))?;
    let mut parts = name.as_str().split('/').peekable();
    let mut walked = back_dir.to_owned();
    loop {
        let part = parts.next().unwrap_or_default();
        if parts.peek().is_none() {
            return Ok((folder, part));
        }
        walked.push(part);
        let shown = walked.display().to_string();
        let stat = stat_at(&folder, part, &shown)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {}
            FileType::Symlink => return Err(wrong_kind(&shown, FileType::Symlink)),
            _ => return Err(Reason::new(ReasonCode::FileMissing, format!("{shown} is not a directory"))),
        }
        folder = open_at(&folder, part, OFlags::DIRECTORY, &shown)?;
    }
}

struct Walk<'a> {
    choice: DigestChoice,
    someone_may_write: bool,
    stop: &'a AtomicBool,
    buffer: Vec<u8>,
    /// Of a directory: every regular file's path below it, and its mark when it was listed.
    files: Vec<(String, Mark)>,
    /// How many folders it has, itself included.
    folders: u64,
}

impl Walk<'_> {
    fn settle(&self) {
        if self.someone_may_write {
            // What is waited for is that nothing happens.
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn file(&mut self, parent: impl AsFd, name: &str, listed: &Stat, shown: &str) -> Result<Content, ExamineError> {
        self.settle();
        let digests = self.digest(parent, name, Mark::of(listed), shown)?;
        Ok(Content {
            kind: ContentKind::File,
            size_bytes: digests.size_bytes,
            files: 1,
            folders: None,
            xxh3_128: digests.xxh3_128,
            blake3: digests.blake3,
            extra: serde_json::Map::new(),
        })
    }

    fn directory(&mut self, parent: &OwnedFd, name: &str, shown: &str) -> Result<Content, ExamineError> {
        let root = open_at(parent, name, OFlags::DIRECTORY, shown)?;
        self.list(&root, "", shown)?;
        self.settle();
        let (listed, folders) = (std::mem::take(&mut self.files), std::mem::take(&mut self.folders));
        // A directory's digest is made of its files' xxh3; BLAKE3 is of single files only.
        self.choice = if self.choice == DigestChoice::None { DigestChoice::None } else { DigestChoice::Xxh3 };
        let mut entries = Vec::with_capacity(listed.len());
        let mut size_bytes = 0;
        for (path, mark) in &listed {
            let file_shown = format!("{shown}/{path}");
            let (folder, last) = descend_below(&root, path, &file_shown)?;
            let digests = self.digest(&folder, last, *mark, &file_shown)?;
            size_bytes += digests.size_bytes;
            if let Some(xxh3_128) = digests.xxh3_128 {
                entries.push(FileEntry { path: path.clone(), size_bytes: digests.size_bytes, xxh3_128 });
            }
        }
        self.list(&root, "", shown)?;
        if self.files != listed || self.folders != folders {
            return Err(growing(shown).into());
        }
        Ok(Content {
            kind: ContentKind::Directory,
            size_bytes,
            files: listed.len() as u64,
            folders: Some(folders),
            xxh3_128: (self.choice != DigestChoice::None).then(|| directory_digest(&mut entries)),
            blake3: None,
            extra: serde_json::Map::new(),
        })
    }

    /// Lists every regular file below `folder`, names sorted, so that two listings of one state are equal.
    fn list(&mut self, folder: &OwnedFd, prefix: &str, root_shown: &str) -> Result<(), ExamineError> {
        let shown = format!("{root_shown}/{prefix}");
        self.folders += 1;
        let mut names = Vec::new();
        for entry in Dir::read_from(folder).map_err(|error| failed(&shown, error.into()))? {
            let entry = entry.map_err(|error| failed(&shown, error.into()))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let name = std::str::from_utf8(name).ok().filter(|name| !name.chars().any(char::is_control));
            let name = name.ok_or_else(|| {
                let text = format!("{shown}{:?}: the name is not UTF-8, or has a control character", entry.file_name());
                Reason::new(ReasonCode::FileUnsafe, text)
            })?;
            names.push(name.to_owned());
        }
        names.sort_unstable();
        for name in names {
            if self.stop.load(Ordering::Relaxed) {
                return Err(ExamineError::Stopped);
            }
            let path = format!("{prefix}{name}");
            let shown = format!("{root_shown}/{path}");
            let stat = stat_at(folder, &name, &shown)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => self.files.push((path, Mark::of(&stat))),
                FileType::Directory => {
                    let below = open_at(folder, &name, OFlags::DIRECTORY, &shown)?;
                    self.list(&below, &format!("{path}/"), root_shown)?;
                }
                kind => return Err(wrong_kind(&shown, kind).into()),
            }
        }
        Ok(())
    }

    /// One read of one file. It must be the very file that was listed, and the same after the read as before.
    fn digest(&mut self, folder: impl AsFd, name: &str, listed: Mark, shown: &str) -> Result<Digests, ExamineError> {
        // Not blocking: should a pipe have taken its place, opening it must not wait for a writer.
        let mut file = File::from(open_at(folder, name, OFlags::NONBLOCK, shown)?);
        let marked = |file: &File| rustix::fs::fstat(file).map(|stat| Mark::of(&stat));
        if marked(&file).map_err(|error| failed(shown, error.into()))? != listed {
            return Err(growing(shown).into());
        }
        let mut hasher = Hasher::new(self.choice);
        if self.choice != DigestChoice::None {
            loop {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(ExamineError::Stopped);
                }
                match file.read(&mut self.buffer) {
                    Ok(0) => break,
                    Ok(read) => hasher.update(&self.buffer[..read]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(failed(shown, error).into()),
                }
            }
        }
        let mut digests = hasher.finish();
        let size_bytes = u64::try_from(listed.size_bytes).unwrap_or(0);
        if self.choice == DigestChoice::None {
            digests.size_bytes = size_bytes;
        }
        let after = marked(&file).map_err(|error| failed(shown, error.into()))?;
        if after != listed || digests.size_bytes != size_bytes {
            return Err(growing(shown).into());
        }
        Ok(digests)
    }
}

fn descend_below<'a>(root: &OwnedFd, path: &'a str, shown: &str) -> Result<(OwnedFd, &'a str), Reason> {
    let mut folder = root.try_clone().map_err(|error| failed(shown, error))?;
    let mut rest = path;
    while let Some((part, after)) = rest.split_once('/') {
        folder = open_at(&folder, part, OFlags::DIRECTORY, shown)?;
        rest = after;
    }
    Ok((folder, rest))
}

fn stat_at(folder: impl AsFd, name: &str, shown: &str) -> Result<Stat, Reason> {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| failed(shown, error.into()))
}

fn open_at(folder: impl AsFd, name: &str, more: OFlags, shown: &str) -> Result<OwnedFd, Reason> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(|error| failed(shown, error.into()))
}

fn failed(shown: &str, error: io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::NotFound => Reason::new(ReasonCode::FileMissing, format!("{shown}: there is no such file")),
        _ => Reason::new(ReasonCode::FileUnreadable, format!("{shown}: {error}")),
    }
}

fn wrong_kind(shown: &str, kind: FileType) -> Reason {
    let what = match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::BlockDevice | FileType::CharacterDevice => "a device",
        _ => "neither a regular file nor a directory",
    };
    let text = format!("{shown} is {what}; only regular files and directories are fetched");
    Reason::new(ReasonCode::FileKind, text)
}

fn growing(shown: &str) -> Reason {
    let text = format!("{shown} changed while it was read; let the script wait for its writer, and write the log last");
    Reason::new(ReasonCode::FileGrowing, text)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::symlink};

    use super::*;

    fn look(folder: &Path, name: &str, choice: DigestChoice) -> Result<Content, ReasonCode> {
        let name = RelativePath::new(name).unwrap();
        match examine(folder, &name, choice, false, &AtomicBool::new(false)) {
            Ok(examined) => Ok(examined.content),
            Err(ExamineError::Unusable(reason)) => Err(reason.code),
            Err(ExamineError::Stopped) => panic!("stopped"),
        }
    }

    #[test]
    fn a_file_is_measured_and_digested_in_one_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("day")).unwrap();
        fs::write(folder.path().join("day/full.xb"), b"abc").unwrap();
        let both = look(folder.path(), "day/full.xb", DigestChoice::Both).unwrap();
        assert_eq!((both.kind, both.size_bytes, both.files), (ContentKind::File, 3, 1));
        assert_eq!(both.xxh3_128.unwrap().to_string(), "06b05ab6733a618578af5f94892f3950");
        assert!(both.blake3.is_some());
        let none = look(folder.path(), "day/full.xb", DigestChoice::None).unwrap();
        assert_eq!((none.size_bytes, none.xxh3_128, none.blake3), (3, None, None));
    }

    #[test]
    fn a_directory_is_the_digest_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("base");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(root.join("a/b"), b"12").unwrap();
        fs::write(root.join("a-b"), b"345").unwrap();
        fs::write(root.join("empty"), b"").unwrap();
        let content = look(folder.path(), "base", DigestChoice::Both).unwrap();
        assert_eq!((content.kind, content.size_bytes, content.files), (ContentKind::Directory, 5, 3));
        assert_eq!(content.folders, Some(2));
        let entry = |path: &str, bytes: &[u8]| FileEntry {
            path: path.into(),
            size_bytes: bytes.len() as u64,
            xxh3_128: longshore_core::digest::digest_reader(bytes, DigestChoice::Xxh3).unwrap().xxh3_128.unwrap(),
        };
        let expected = directory_digest(&mut [entry("a/b", b"12"), entry("a-b", b"345"), entry("empty", b"")]);
        assert_eq!(content.xxh3_128, Some(expected));
        assert_eq!(content.blake3, None);
        assert_eq!(look(folder.path(), "base", DigestChoice::None).unwrap().xxh3_128, None);
    }

    #[test]
    fn links_anywhere_and_special_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/x"), b"1").unwrap();
        symlink("real/x", at("link")).unwrap();
        symlink("real", at("folder-link")).unwrap();
        fs::create_dir(at("tree")).unwrap();
        fs::write(at("tree/x"), b"1").unwrap();
        symlink("/etc/passwd", at("tree/passwd")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        for name in ["link", "folder-link/x", "folder-link", "tree", "pipe"] {
            assert_eq!(look(folder.path(), name, DigestChoice::Xxh3), Err(ReasonCode::FileKind), "{name}");
        }
        // The administrator's own back_dir may be one.
        assert!(look(&at("folder-link"), "x", DigestChoice::Xxh3).is_ok());
    }

    #[test]
    fn missing_and_empty_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("empty"), b"").unwrap();
        fs::create_dir_all(folder.path().join("hollow/inner")).unwrap();
        assert_eq!(look(folder.path(), "gone", DigestChoice::Xxh3), Err(ReasonCode::FileMissing));
        assert_eq!(look(folder.path(), "gone/x", DigestChoice::Xxh3), Err(ReasonCode::FileMissing));
        assert_eq!(look(folder.path(), "empty/x", DigestChoice::Xxh3), Err(ReasonCode::FileMissing));
        assert_eq!(look(folder.path(), "empty", DigestChoice::None), Err(ReasonCode::FileEmpty));
        assert_eq!(look(folder.path(), "hollow", DigestChoice::Xxh3), Err(ReasonCode::FileEmpty));
        assert_eq!(look(&folder.path().join("no"), "x", DigestChoice::Xxh3), Err(ReasonCode::FileMissing));
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("growing");
        let mut file = File::create(&path).unwrap();
        file.write_all(&vec![7; 64 * 1024 * 1024]).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    file.write_all(b"more").unwrap();
                    std::thread::yield_now();
                }
            });
            assert_eq!(look(folder.path(), "growing", DigestChoice::Both), Err(ReasonCode::FileGrowing));
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_stop_ends_the_reading() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x"), b"1").unwrap();
        let name = RelativePath::new("x").unwrap();
        let stopped = examine(folder.path(), &name, DigestChoice::Xxh3, false, &AtomicBool::new(true));
        assert!(matches!(stopped, Err(ExamineError::Stopped)));
    }
}
