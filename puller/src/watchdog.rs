//! The watchdog over a transfer: bytes must keep coming, and neither more bytes nor more files than were announced. rsync's own time
//! limit does not notice a sender that is frozen, and its own limits are for each file.

use std::time::{Duration, Instant};

use longshore_core::{Content, ReasonCode};

use crate::failure::{Class, Failure};

/// A transfer may be a little more than announced before it is ended; it is judged exactly afterwards.
const MARGIN_BYTES: u64 = 1 << 20;

/// Why a transfer is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// Nothing more came.
    Stalled,
    /// Not a byte came of the host at all.
    Silent,
    /// So many bytes are here.
    TooMuch(u64),
    /// More files than announced.
    TooManyFiles,
    /// More folders than announced.
    TooManyFolders,
}

impl Alarm {
    /// What that means for a transfer of `announced`, `stall` being the limit of silence.
    pub fn failure(self, announced: &Content, stall: Duration) -> Failure {
        let seconds = stall.as_secs_f64();
        let differs = |text| Failure::new(ReasonCode::SizeDiffers, text);
        let Content { size_bytes, files, .. } = announced;
        match self {
            Self::Stalled => Failure::new(ReasonCode::TransferStalled, format!("no byte arrived for {seconds} s")),
            Self::Silent => {
                let text = format!("the host said nothing for {seconds} s");
                Failure { class: Class::Host, ..Failure::new(ReasonCode::Unreachable, text) }
            }
            Self::TooMuch(bytes) => differs(format!("{size_bytes} bytes were announced, and more than {bytes} came")),
            Self::TooManyFiles => differs(format!("{files} files were announced, and more came")),
            Self::TooManyFolders => {
                let most = announced.most_folders();
                differs(format!("{files} files were announced, and more than {most} folders came"))
            }
        }
    }
}

/// The watch over one run of rsync.
#[derive(Debug)]
pub struct Watchdog {
    stall: Duration,
    most_bytes: u64,
    /// Files and folders.
    most_entries: u64,
    seen: (u64, u64, u64),
    changed: Instant,
}

impl Watchdog {
    /// Of a transfer of `announced` that may be silent for `stall`.
    pub fn new(announced: &Content, stall: Duration) -> Self {
        Self {
            stall,
            most_bytes: announced.size_bytes.saturating_add(MARGIN_BYTES),
            // The folder that they lie in is one more.
            most_entries: announced.files.saturating_add(announced.most_folders()).saturating_add(1),
            seen: (0, 0, 0),
            changed: Instant::now(),
        }
    }

    /// Bytes `received` over the line, `read` from it and from files, `arrived` in files; `entries` of them are here.
    pub fn look(&mut self, received: u64, read: u64, arrived: u64, entries: u64) -> Option<Alarm> {
        if arrived > self.most_bytes {
            return Some(Alarm::TooMuch(arrived));
        }
        if entries > self.most_entries {
            return Some(Alarm::TooManyFiles);
        }
        let now = (received, read, arrived);
        if now != self.seen {
            self.seen = now;
            self.changed = Instant::now();
        }
        let stalled = if received == 0 { Alarm::Silent } else { Alarm::Stalled };
        (self.changed.elapsed() >= self.stall).then_some(stalled)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longshore_core::ContentKind;

    use super::*;

    const STALL: Duration = Duration::from_secs(60);

    fn announced() -> Content {
        let extra = serde_json::Map::new();
        let kind = ContentKind::Directory;
        Content { kind, size_bytes: 100, files: 5, folders: Some(2), xxh3_128: None, blake3: None, extra }
    }

    #[test]
    fn reading_what_is_here_before_a_resume_is_no_silence() {
        let mut watchdog = Watchdog::new(&announced(), STALL);
        let mut later = |received, read| {
            watchdog.changed = Instant::now().checked_sub(STALL).unwrap();
            watchdog.look(received, read, 0, 1)
        };
        assert!(later(5, 1).is_none() && later(5, 2).is_none());
        assert_eq!(later(5, 2), Some(Alarm::Stalled));
        assert!(later(6, 2).is_none());
    }

    #[test]
    fn more_than_announced_is_noticed_by_its_bytes_and_by_its_number() {
        let look = |arrived, entries| Watchdog::new(&announced(), STALL).look(1, 1, arrived, entries);
        assert_eq!(look(100 + MARGIN_BYTES, 8), None);
        assert_eq!(look(101 + MARGIN_BYTES, 8), Some(Alarm::TooMuch(101 + MARGIN_BYTES)));
        assert_eq!(look(100, 9), Some(Alarm::TooManyFiles));
        let silent =
            Watchdog { changed: Instant::now().checked_sub(STALL).unwrap(), ..Watchdog::new(&announced(), STALL) }
                .look(0, 0, 0, 1);
        assert_eq!(silent.unwrap().failure(&announced(), STALL).class, Class::Host);
    }
}
