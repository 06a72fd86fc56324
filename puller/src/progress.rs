//! How far a transfer is: what its rsync says, for people, and what is on the disk, for what the node may still give out.

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use longshore_core::{Job, Millis};
use tokio::task::JoinHandle;

use crate::{incoming::Size, space::Promised};

/// The disk is asked so often at most; less often where the answer takes long (a folder of very many files).
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Of the time that passes, asking takes at most one part of so many.
const ASK_PART: u32 = 20;

/// How far a transfer is; read by the heartbeat and before each claim.
#[derive(Debug)]
pub struct Progress {
    /// Bytes announced.
    pub size_bytes: u64,
    /// When it began.
    pub since: Millis,
    footprint: Promised,
    bytes: AtomicU64,
    stored: AtomicU64,
    told: Mutex<(Instant, u64)>,
}

impl Progress {
    /// Of a transfer of `job` that begins now.
    pub fn of(job: &Job) -> Self {
        let (bytes, inodes) = job.footprint();
        Self { footprint: Promised { bytes, inodes }, ..Self::new(job.size_bytes()) }
    }

    /// Of a transfer of so many bytes that begins now, for which nothing is promised.
    pub fn new(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            since: Millis::now(),
            footprint: Promised::default(),
            bytes: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            told: Mutex::new((Instant::now(), 0)),
        }
    }

    /// Bytes here so far, as it was told: rsync's words, which a host can forge.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Bytes that the disk holds of it, by the last look.
    pub fn stored_bytes(&self) -> u64 {
        self.stored.load(Relaxed)
    }

    /// What is still to be written, at most. Inodes stay promised to the end: files are counted by no cheap look.
    pub fn promised(&self) -> Promised {
        let Promised { bytes, inodes } = self.footprint;
        Promised { bytes: bytes.saturating_sub(self.stored_bytes()), inodes }
    }

    /// Bytes a second since this was last asked.
    pub fn bytes_per_second(&self) -> u64 {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, seconds) = (self.bytes(), told.0.elapsed().as_secs_f64());
        let speed = bytes.saturating_sub(told.1) as f64 / seconds.max(0.001);
        *told = (Instant::now(), bytes);
        speed as u64
    }

    /// So many bytes are here now, it is said.
    pub fn reached(&self, bytes: u64) {
        self.bytes.fetch_max(bytes, Relaxed);
    }

    /// So many bytes are on the disk, it was found.
    pub fn stored(&self, bytes: u64) {
        self.stored.store(bytes, Relaxed);
    }
}

/// Asks the disk from time to time what it holds of a transfer. A disk that does not answer keeps one thread, not the transfer.
#[derive(Debug)]
pub struct DiskWatch {
    folder: PathBuf,
    next: Instant,
    asked: Option<JoinHandle<(Size, Duration)>>,
    last: Size,
}

impl DiskWatch {
    /// For the transfer whose files lie in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, next: Instant::now() + ASK_EVERY, asked: None, last: Size::default() }
    }

    /// What the last question brought, which `progress` is told too; asks anew when it is time. Never waits.
    pub fn look(&mut self, progress: &Progress) -> Size {
        match self.asked.take() {
            Some(asked) if !asked.is_finished() => self.asked = Some(asked),
            Some(asked) => {
                if let Some(Ok((size, took))) = futures_util::FutureExt::now_or_never(asked) {
                    self.last = size;
                    progress.stored(size.allocated_bytes);
                    progress.reached(size.bytes);
                    self.next = Instant::now() + ASK_EVERY.max(took * ASK_PART);
                }
            }
            None if Instant::now() >= self.next => {
                let (folder, started) = (self.folder.clone(), Instant::now());
                self.asked = Some(tokio::task::spawn_blocking(move || (Size::below(&folder), started.elapsed())));
            }
            None => {}
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longshore_core::ContentKind;

    use super::*;

    #[test]
    fn a_promise_shrinks_by_what_the_disk_holds_and_not_by_what_is_said() {
        let mut job: Job = serde_json::from_str(include_str!("../../core/fixtures/job-v1.json")).unwrap();
        let content = job.content.as_mut().unwrap();
        (content.kind, content.size_bytes, content.files) = (ContentKind::Directory, 1_000_000, 10);
        let (bytes, inodes) = job.footprint();
        let progress = Progress::of(&job);
        assert_eq!(progress.promised(), Promised { bytes, inodes });
        progress.reached(u64::MAX);
        assert_eq!(progress.promised(), Promised { bytes, inodes }, "a host can say anything");
        progress.stored(400_000);
        assert_eq!(progress.promised().bytes, bytes - 400_000);
        progress.stored(u64::MAX);
        assert_eq!(progress.promised(), Promised { bytes: 0, inodes });
    }

    #[tokio::test]
    async fn the_disk_is_asked_for_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), [1; 100_000]).unwrap();
        let progress = Progress::new(1 << 20);
        let mut watch = DiskWatch::new(folder.path().to_owned());
        longshore_tests::wait_until("it is measured", Duration::from_secs(10), async || {
            watch.look(&progress);
            progress.stored_bytes() > 0
        })
        .await;
        assert!((100_000..=104_000).contains(&progress.stored_bytes()), "{}", progress.stored_bytes());
        // A hole takes no room, whatever the length.
        let hole = std::fs::File::create(folder.path().join("b")).unwrap();
        hole.set_len(1 << 30).unwrap();
        assert!(Size::below(folder.path()).allocated_bytes < 1 << 20);
    }
}
