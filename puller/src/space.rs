//! Whether a job fits: free space of the store's own file system, less the reserve, less what running transfers have been
//! promised and not yet written. A node never goes below its reserve: one place adds and compares, and a disk that doesn't
//! answer is a disk without room.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use longshore_core::{config::ByteSize, queue::Room};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::sync::Semaphore;

/// A network file system that hangs must not hang the puller.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Each backup needs a folder, a file and a manifest, and its data may be a folder of many.
const FEWEST_FREE_INODES: u64 = 1000;

/// Space to be kept free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// So many bytes.
    Bytes(ByteSize),
    /// So many hundredths of the file system.
    Percent(u8),
}

impl Reserve {
    /// In bytes, on a file system of `size_bytes`.
    pub fn bytes(self, size_bytes: u64) -> u64 {
        match self {
            Self::Bytes(size) => size.bytes(),
            Self::Percent(percent) => (size_bytes / 100).saturating_mul(u64::from(percent)),
        }
    }
}

impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(size) => fmt::Display::fmt(size, f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Reserve {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().strip_suffix('%') {
            Some(percent) => match percent.trim().parse::<u8>() {
                Ok(percent) if percent < 100 => Ok(Self::Percent(percent)),
                _ => Err(format!("{text:?} is not a share of a disk; write 0% to 99%")),
            },
            None => text.parse().map(Self::Bytes).map_err(|error: longshore_core::config::UnitError| error.to_string()),
        }
    }
}

impl Serialize for Reserve {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reserve {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => Ok(Self::Bytes(ByteSize(bytes))),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

/// A file system as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disk {
    /// Its size.
    pub size_bytes: u64,
    /// Free for us (not what is kept for root).
    pub free_bytes: u64,
    /// Files that can still be made.
    pub free_inodes: u64,
}

/// What was given out to running transfers and is not on the disk yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Promised {
    /// Bytes.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl Promised {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }
}

/// Why nothing can be claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Below the reserve.
    #[error("{} free on {path}, {} promised, and {} are to be kept free", ByteSize(*free_bytes), ByteSize(*promised_bytes), ByteSize(*reserve_bytes))]
    Reserve {
        /// The store.
        path: PathBuf,
        /// Free for us.
        free_bytes: u64,
        /// To running transfers.
        promised_bytes: u64,
        /// To be kept.
        reserve_bytes: u64,
    },
    /// No files can be made.
    #[error("{path} can hold only {free_inodes} more files, and {promised_inodes} are promised")]
    Inodes {
        /// The store.
        path: PathBuf,
        /// Left.
        free_inodes: u64,
        /// To running transfers.
        promised_inodes: u64,
    },
    /// Not answered, or an error.
    #[error("{path} does not answer: {why}")]
    Silent {
        /// The store.
        path: PathBuf,
        /// What happened.
        why: String,
    },
}

/// The store's file system and its reserve.
#[derive(Debug, Clone)]
pub struct Space {
    path: PathBuf,
    reserve: Reserve,
    /// One question at a time.
    turn: Arc<Semaphore>,
}

impl Space {
    /// Of the file system that holds `path`.
    pub fn new(path: &Path, reserve: Reserve) -> Self {
        Self { path: path.to_owned(), reserve, turn: Arc::new(Semaphore::new(1)) }
    }

    /// The reserve in bytes on `disk`.
    pub fn reserve_bytes(&self, disk: &Disk) -> u64 {
        self.reserve.bytes(disk.size_bytes)
    }

    /// Asks the file system, and waits 5 s for its answer.
    ///
    /// # Errors
    /// [`NoRoom::Silent`].
    pub async fn measure(&self) -> Result<Disk, NoRoom> {
        let silent = |why: &str| NoRoom::Silent { path: self.path.clone(), why: why.to_owned() };
        let asked = async {
            // A question that hangs keeps its thread, and its turn: another one would only keep a second.
            let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|error| error.to_string())?;
            let path = self.path.clone();
            let answer = tokio::task::spawn_blocking(move || {
                let answer = rustix::fs::statvfs(&path);
                drop(turn);
                answer
            });
            let answer = answer.await.map_err(|error| error.to_string())?;
            answer.map_err(|error| error.to_string())
        };
        let found = match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Err(_) => return Err(silent("no answer in 5 s")),
            Ok(Err(why)) => return Err(silent(&why)),
            Ok(Ok(found)) => found,
        };
        Ok(Disk {
            size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            // File systems that make inodes as needed say 0 of 0.
            free_inodes: if found.f_files == 0 { u64::MAX } else { found.f_favail },
        })
    }

    /// What a new job may have, when `promised` is yet to be written by running ones.
    ///
    /// # Errors
    /// [`NoRoom`] when that is nothing.
    pub fn room(&self, disk: &Disk, promised: Promised) -> Result<Room, NoRoom> {
        let reserve_bytes = self.reserve_bytes(disk);
        let kept = promised.inodes.saturating_add(FEWEST_FREE_INODES);
        let Some(inodes) = disk.free_inodes.checked_sub(kept) else {
            let (path, free_inodes) = (self.path.clone(), disk.free_inodes);
            return Err(NoRoom::Inodes { path, free_inodes, promised_inodes: promised.inodes });
        };
        match disk.free_bytes.checked_sub(reserve_bytes.saturating_add(promised.bytes)) {
            Some(bytes) if bytes > 0 => {
                Ok(Room { bytes, inodes, ceiling_bytes: disk.size_bytes.saturating_sub(reserve_bytes) })
            }
            _ => Err(NoRoom::Reserve {
                path: self.path.clone(),
                free_bytes: disk.free_bytes,
                promised_bytes: promised.bytes,
                reserve_bytes,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reserve_is_read_as_people_write_it() {
        let read = |text: &str| text.parse::<Reserve>();
        assert_eq!(read("5%"), Ok(Reserve::Percent(5)));
        assert_eq!(read("1000GiB"), Ok(Reserve::Bytes(ByteSize::gib(1000))));
        assert_eq!(read("4096"), Ok(Reserve::Bytes(ByteSize(4096))));
        assert!(read("100%").is_err() && read("lots").is_err() && read("-1").is_err());
        for text in ["5%", "1000GiB", "4KiB"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
    }

    #[tokio::test]
    async fn the_file_system_of_the_path_itself_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Space::new(folder.path(), Reserve::Percent(1)).measure().await.unwrap();
        assert!(disk.free_bytes > 0 && disk.free_bytes <= disk.size_bytes);
        let gone = Space::new(&folder.path().join("gone"), Reserve::Percent(1)).measure().await;
        assert!(matches!(gone, Err(NoRoom::Silent { .. })));
    }

    proptest! {
        #[test]
        fn what_is_given_out_never_reaches_the_reserve(
            free in 0u64..1 << 50, reserve in 0u64..1 << 50, promised in 0u64..1 << 50,
        ) {
            let space = Space::new(Path::new("/s"), Reserve::Bytes(ByteSize(reserve)));
            let disk = Disk { size_bytes: 1 << 51, free_bytes: free, free_inodes: u64::MAX };
            match space.room(&disk, Promised { bytes: promised, inodes: 0 }) {
                Ok(room) => prop_assert!(free - promised - room.bytes >= reserve),
                Err(_) => prop_assert!(free <= reserve + promised),
            }
        }

        #[test]
        fn whatever_is_claimed_and_however_far_it_is_the_disk_holds_it_all(
            jobs in proptest::collection::vec((0u64..1 << 30, 0u64..5000, 0u64..=100), 0..40),
            (free_bytes, free_inodes) in (0u64..1 << 33, 0u64..60_000),
        ) {
            const RESERVE: u64 = 1 << 28;
            let space = Space::new(Path::new("/s"), Reserve::Bytes(ByteSize(RESERVE)));
            let mut disk = Disk { size_bytes: 1 << 34, free_bytes, free_inodes };
            let mut promised = Promised::default();
            for (bytes, inodes, percent) in jobs {
                let Ok(room) = space.room(&disk, promised) else { continue };
                if bytes > room.bytes || inodes > room.inodes {
                    continue;
                }
                // So much of it is written when the next is asked for.
                let (written, made) = (bytes * percent / 100, inodes * percent / 100);
                promised = promised.and(Promised { bytes: bytes - written, inodes: inodes - made });
                (disk.free_bytes, disk.free_inodes) = (disk.free_bytes - written, disk.free_inodes - made);
            }
            // All that is promised is written in the end.
            let (left, left_inodes) = (disk.free_bytes.checked_sub(promised.bytes), disk.free_inodes.checked_sub(promised.inodes));
            prop_assert!(left.is_some_and(|left| left >= RESERVE.min(free_bytes)));
            prop_assert!(left_inodes.is_some_and(|left| left >= FEWEST_FREE_INODES.min(free_inodes)));
        }
    }
}
