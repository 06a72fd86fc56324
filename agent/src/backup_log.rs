//! `back_log` and `last_all_log`: what a user's script says of its result. The first line is `ok` or `wrong`; the rest is a
//! name and `key: value` lines, or an error. The bytes are anyone's: a byte-order mark, CRLF, blanks around, a missing last
//! newline and text in any encoding are accepted, and nothing is guessed beyond that.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    process::{Command, Stdio},
};

use longshore_core::{Millis, ReasonCode, RelativePath, report::Reason};
use serde::{Deserialize, Serialize};

#[allow(clippy::cast_possible_wrap)] // a flag's bit, far below the sign
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;
/// No more of a log is read: an error's text is cut at 8 KiB anyway.
const MAX_LOG_BYTES: u64 = 256 * 1024;
/// Positions are compared for equality only, so a longer one is compared by its beginning.
const MAX_POSITION_BYTES: usize = 1024;
/// Of non-UTF-8 error text, this much is decoded.
const MAX_DECODED_BYTES: usize = 16 * 1024;

/// A log that follows the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupLog {
    /// `ok`: a backup was made.
    Made(Made),
    /// `wrong`: the script's own words, never empty.
    Wrong(String),
}

/// What follows `ok`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The file or directory, relative to `back_dir`.
    pub name: RelativePath,
    /// The position that the backup starts at.
    pub from: Option<String>,
    /// The position that it ends at.
    pub to: Option<String>,
    /// The third line, when it is a number: in `last_all_log`, the Unix time of the full.
    pub unix_seconds: Option<i64>,
}

/// Tells one state of a log file from another. A write always changes `modified`, a replacement changes `inode` as well.
/// The time of change (ctime) is left out on purpose: a `chmod` is not a new result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogIdentity {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
}

impl LogIdentity {
    /// Of the file as it is now; `None` when there is none.
    ///
    /// # Errors
    /// The file system's.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::from(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// When it was last written, in whole seconds.
    pub fn modified(&self) -> Millis {
        Millis::from_seconds(self.modified_seconds)
    }

    /// Whether any write from now on must get a modification time later than this file's, given the time that the file
    /// system has just put on a `probe`. File systems that keep whole seconds only are told by their zero nanoseconds.
    pub fn is_older_than(&self, probe: &fs::Metadata) -> bool {
        if self.modified_nanoseconds == 0 {
            return self.modified_seconds < probe.mtime();
        }
        (self.modified_seconds, self.modified_nanoseconds) < (probe.mtime(), probe.mtime_nsec())
    }
}

impl From<&fs::Metadata> for LogIdentity {
    fn from(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified_seconds: metadata.mtime(),
            modified_nanoseconds: metadata.mtime_nsec(),
        }
    }
}

/// Reads a log as it is now: what it says, or the [`Reason`] to report (missing, unreadable, empty, neither word, no name, an
/// unsafe name), and which file that was, when there was one.
pub fn read(path: &Path) -> (Result<BackupLog, Reason>, Option<LogIdentity>) {
    let shown = path.display();
    // Not blocking: a named pipe must not hold the agent until someone writes to it.
    let opened = File::options().read(true).custom_flags(NONBLOCK).open(path);
    let opened = opened.and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return (Err(Reason::new(ReasonCode::LogMissing, format!("{shown}: there is no such file"))), None);
        }
        Err(error) => return (Err(unreadable(path, &error)), None),
    };
    let identity = Some(LogIdentity::from(&metadata));
    if !metadata.is_file() {
        return (Err(Reason::new(ReasonCode::LogUnreadable, format!("{shown}: not a regular file"))), identity);
    }
    let mut bytes = Vec::new();
    let log = match file.take(MAX_LOG_BYTES).read_to_end(&mut bytes) {
        Ok(_) => parse(&bytes).map_err(|reason| Reason::new(reason.code, format!("{shown}: {}", reason.text))),
        Err(error) => Err(unreadable(path, &error)),
    };
    (log, identity)
}

fn unreadable(path: &Path, error: &io::Error) -> Reason {
    Reason::new(ReasonCode::LogUnreadable, format!("{}: {error}", path.display()))
}

/// Understands a log's bytes.
///
/// # Errors
/// The [`Reason`] that [`read`] gives, without the path.
pub fn parse(bytes: &[u8]) -> Result<BackupLog, Reason> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let bytes = bytes.trim_ascii();
    let (word, rest) = split_line(bytes);
    match word {
        b"" => Err(Reason::new(ReasonCode::LogEmpty, "the log is empty")),
        b"wrong" => {
            let text = decode(rest.trim_ascii());
            let text = if text.is_empty() { "the script gave no reason".to_owned() } else { text };
            Ok(BackupLog::Wrong(text))
        }
        b"ok" => parse_made(rest).map(BackupLog::Made),
        other => {
            let shown = String::from_utf8_lossy(&other[..other.len().min(80)]).into_owned();
            let text = format!("the first line is {shown:?}; it must be ok or wrong");
            Err(Reason::new(ReasonCode::LogWord, text))
        }
    }
}

fn parse_made(rest: &[u8]) -> Result<Made, Reason> {
    let (name, rest) = split_line(rest);
    if name.is_empty() {
        let text = "ok, but the second line names no file; write its name, relative to back_dir";
        return Err(Reason::new(ReasonCode::LogNoName, text));
    }
    let name = std::str::from_utf8(name).map_err(|_| {
        let shown = String::from_utf8_lossy(name);
        Reason::new(ReasonCode::FileUnsafe, format!("the name {shown:?} is not UTF-8"))
    })?;
    let name = RelativePath::new(name.strip_prefix("./").unwrap_or(name))
        .map_err(|error| Reason::new(ReasonCode::FileUnsafe, error.to_string()))?;
    let mut made = Made { name, from: None, to: None, unix_seconds: None };
    let mut rest = rest;
    let mut is_third = true;
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        rest = after;
        let line = String::from_utf8_lossy(line);
        if is_third && !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit()) {
            made.unix_seconds = line.parse().ok();
        } else if let Some((key, value)) = line.split_once(':') {
            let value = value.trim();
            let value = Some(&value[..value.floor_char_boundary(MAX_POSITION_BYTES)]).filter(|value| !value.is_empty());
            match key.trim() {
                "from" => made.from = value.map(str::to_owned),
                "to" => made.to = value.map(str::to_owned),
                _ => {}
            }
        }
        is_third = false;
    }
    Ok(made)
}

/// The first line without its end and the blanks around it, and what follows.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|&byte| byte == b'\n') {
        Some(end) => (bytes[..end].trim_ascii(), &bytes[end + 1..]),
        None => (bytes.trim_ascii(), b""),
    }
}

/// Error text as UTF-8. Other text is tried as GB18030 by the system's own `iconv`; without it, or when it does not fit,
/// what cannot be read is replaced.
fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => from_gb18030(bytes).unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned()),
    }
}

fn from_gb18030(bytes: &[u8]) -> Option<String> {
    let part = &bytes[..bytes.len().min(MAX_DECODED_BYTES)];
    let mut child = Command::new("iconv")
        .args(["-f", "GB18030", "-t", "UTF-8"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // 16 KiB fit into the pipe, so that writing all of it before reading cannot block.
    let written = child.stdin.take()?.write_all(part);
    let output = child.wait_with_output().ok()?;
    // The last character may have been cut in two: iconv then fails, after it has written all the others.
    let cut = part.len() < bytes.len();
    let text = String::from_utf8(output.stdout).ok()?;
    (written.is_ok() && (output.status.success() || (cut && !text.is_empty()))).then_some(text)
}

/// Puts the run's start into `last_all_log` as its third line, as the seed's client did; a number that is there is
/// replaced. Done twice, it changes nothing the second time.
///
/// # Errors
/// The file system's. The log stays the script's own file: it is written in place, never replaced.
pub fn note_full(path: &Path, made_at: Millis) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let bytes = fs::read(path)?;
    let seconds = made_at.seconds().to_string();
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    let ours = format!("{seconds}\n");
    let third = 2 + lines.iter().take_while(|line| line.trim_ascii().is_empty()).count();
    match lines.get(third).map(|line| line.trim_ascii()) {
        Some(line) if line == seconds.as_bytes() => return Ok(()),
        Some(line) if !line.is_empty() && line.iter().all(u8::is_ascii_digit) => lines[third] = ours.as_bytes(),
        _ => lines.insert(third.min(lines.len()), ours.as_bytes()),
    }
    let mut changed = Vec::with_capacity(bytes.len() + ours.len() + 1);
    for line in lines {
        if !changed.is_empty() && !changed.ends_with(b"\n") {
            changed.push(b'\n');
        }
        changed.extend_from_slice(line);
    }
    let file = File::options().write(true).open(path)?;
    // One write, so that a KILL leaves the old bytes or the new ones.
    file.write_all_at(&changed, 0)?;
    file.set_len(changed.len() as u64)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(bytes: &[u8]) -> Made {
        match parse(bytes) {
            Ok(BackupLog::Made(made)) => made,
            other => panic!("{other:?}"),
        }
    }

    fn code(bytes: &[u8]) -> ReasonCode {
        parse(bytes).unwrap_err().code
    }

    #[test]
    fn what_editors_and_systems_do_to_a_log_is_accepted() {
        for bytes in [
            &b"ok\nfull.xb\n"[..],
            b"ok\nfull.xb",
            b"ok\r\nfull.xb\r\n",
            b"\xef\xbb\xbfok\nfull.xb\n",
            b"  ok \t\n\t full.xb  \n\n\n",
            b"\nok\nfull.xb\n",
            b"ok\n./full.xb\n",
            b"ok\nfull.xb/\n",
        ] {
            assert_eq!(made(bytes).name.as_str(), "full.xb", "{bytes:?}");
        }
    }

    #[test]
    fn positions_and_the_time_follow_the_name() {
        let log = made(b"ok\ninc.xb\nfrom: 26611234\nto : 26711893 \nsomething: else\n");
        assert_eq!((log.from.as_deref(), log.to.as_deref()), (Some("26611234"), Some("26711893")));
        assert_eq!(log.unix_seconds, None);
        assert_eq!(made(b"ok\nfull.xb\n1795132800\nto: binlog.000012:884\n").unix_seconds, Some(1_795_132_800));
        assert_eq!(made(b"ok\nfull.xb\n1795132800\nto: binlog.000012:884\n").to.as_deref(), Some("binlog.000012:884"));
        assert_eq!(made(b"ok\nfull.xb\n99999999999999999999\n").unix_seconds, None);
    }

    #[test]
    fn each_fault_has_its_own_reason() {
        assert_eq!(code(b""), ReasonCode::LogEmpty);
        assert_eq!(code(b"\xef\xbb\xbf \r\n\n"), ReasonCode::LogEmpty);
        assert_eq!(code(b"OK\nx\n"), ReasonCode::LogWord);
        assert_eq!(code(b"ok then\nx\n"), ReasonCode::LogWord);
        assert_eq!(code(b"\0\xff\xfe"), ReasonCode::LogWord);
        assert_eq!(code(b"ok"), ReasonCode::LogNoName);
        assert_eq!(code(b"ok\n\nlate.xb\n"), ReasonCode::LogNoName);
        for name in ["/etc/passwd", "../x", "a/../../x", "-rf", "a\0b", "a\tb", "a//b", "\u{7f}", "a\rb"] {
            assert_eq!(code(format!("ok\n{name}\n").as_bytes()), ReasonCode::FileUnsafe, "{name:?}");
        }
        assert_eq!(code(b"ok\n\xca\xa7\xb0\xdc.xb\n"), ReasonCode::FileUnsafe);
        assert_eq!(code(&[b"ok\n", "x".repeat(2000).as_bytes()].concat()), ReasonCode::FileUnsafe);
    }

    #[test]
    fn an_error_keeps_all_its_lines_and_its_language() {
        let wrong = |bytes: &[u8]| match parse(bytes) {
            Ok(BackupLog::Wrong(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(wrong(b"wrong\nfirst\nsecond\n"), "first\nsecond");
        assert_eq!(wrong("wrong\r\n连接失败\r\n".as_bytes()), "连接失败");
        assert_eq!(wrong(b"wrong\n"), "the script gave no reason");
        // 备份失败 in GBK.
        assert_eq!(wrong(b"wrong\nxtrabackup: \xb1\xb8\xb7\xdd\xca\xa7\xb0\xdc\n"), "xtrabackup: 备份失败");
        // Not GBK either.
        assert!(wrong(b"wrong\nbad \xff\xff bytes\n").starts_with("bad "));
    }

    #[test]
    fn the_start_of_a_full_becomes_the_third_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.log");
        for (before, after) in [
            (&b"ok\nfull.xb\n"[..], &b"ok\nfull.xb\n1795132800\n"[..]),
            (b"ok\nfull.xb", b"ok\nfull.xb\n1795132800\n"),
            (b"ok\r\nfull.xb\r\n", b"ok\r\nfull.xb\r\n1795132800\n"),
            (b"ok\nfull.xb\n1700000000\n", b"ok\nfull.xb\n1795132800\n"),
            (b"ok\nfull.xb\n99999999999\n", b"ok\nfull.xb\n1795132800\n"),
            (b"\nok\nfull.xb\n", b"\nok\nfull.xb\n1795132800\n"),
            (b"ok\nfull.xb\nto: 7\n", b"ok\nfull.xb\n1795132800\nto: 7\n"),
        ] {
            fs::write(&path, before).unwrap();
            for _ in 0..2 {
                note_full(&path, Millis::from_seconds(1_795_132_800)).unwrap();
                assert_eq!(fs::read(&path).unwrap(), after, "{before:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_name_an_unsafe_place(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let after_ok = [&b"ok\n"[..], &bytes].concat();
            let _ = parse(&bytes);
            if let Ok(BackupLog::Made(made)) = parse(&after_ok) {
                proptest::prop_assert!(!made.name.as_str().starts_with('/'));
                proptest::prop_assert!(made.name.as_str().split('/').all(|part| part != ".."));
            }
        }
    }
}
