//! Someone who reads the report stream beside the indexer, and remembers when Redis took which report and when it was killed.
//!
//! A Redis that is killed may forget what it answered last: it writes its file before it answers, but for two seconds at most
//! while the disk is busy with the sync before; and when its machine dies, what it wrote last is gone too. Then another node
//! fetches and stores the job again, and the first one's backup stays. By these times that is told from two nodes that both
//! publish.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, SystemTime},
};

use longshore_core::{JobId, Report};

/// Microseconds, by the clock of this machine, which is that of Redis too.
type Micros = u64;
/// What a killed Redis may have answered and forgotten, and what goes by until it is noted here.
const FORGETS: Duration = Duration::from_secs(3);
/// An answer of XREAD: the entries of each stream, with their fields.
type Read = Vec<(String, Vec<(String, HashMap<String, String>)>)>;

#[derive(Default)]
pub(super) struct Witness {
    /// By job and fence.
    taken: Mutex<HashMap<(JobId, u64), Micros>>,
    /// When, and for how long before what it had written is gone.
    kills: Mutex<Vec<(Micros, Duration)>>,
}

impl Witness {
    /// Reads the stream of the Redis at `url` until the test `is_over`.
    pub(super) fn watch(&self, url: &str, is_over: &dyn Fn() -> bool) {
        let mut last = "0".to_owned();
        while !is_over() {
            // It is away just now.
            let _ = self.read(url, &mut last, is_over);
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn read(&self, url: &str, last: &mut String, is_over: &dyn Fn() -> bool) -> redis::RedisResult<()> {
        let mut redis = redis::Client::open(url)?.get_connection()?;
        while !is_over() {
            let mut command = redis::cmd("XREAD");
            command.arg("BLOCK").arg(200).arg("STREAMS").arg("longshore:reports").arg(last.as_str());
            let found: Option<Read> = command.query(&mut redis)?;
            let now = micros(SystemTime::now());
            for (id, fields) in found.into_iter().flatten().flat_map(|(_, entries)| entries) {
                *last = id;
                // Beats of hosts come here too.
                let Some(report) = fields.get("body").and_then(|body| serde_json::from_str::<Report>(body).ok()) else {
                    continue;
                };
                let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
                taken.entry((report.job.id, report.revision)).or_insert(now);
            }
        }
        Ok(())
    }

    /// Redis was killed just now, and what it wrote in the last `forgotten` is gone.
    pub(super) fn note_kill(&self, forgotten: Duration) {
        self.kills.lock().unwrap_or_else(PoisonError::into_inner).push((micros(SystemTime::now()), forgotten));
    }

    /// Whether a killed Redis may have forgotten that it took the report of the backup in `folder`: it did so shortly before, and
    /// the lease that the catalog goes by, with the fence `stored_by`, was given afterwards. What it was killed too early to
    /// tell of is judged by when it was published.
    pub(super) fn may_be_forgotten(&self, folder: &Path, stored_by: u64) -> bool {
        let manifest = fs::read(folder.join("manifest.json")).unwrap();
        let report: Report = serde_json::from_slice(&manifest).unwrap();
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let at = taken.get(&(report.job.id, report.revision)).copied().unwrap_or_else(|| changed_at(folder));
        let kills = self.kills.lock().unwrap_or_else(PoisonError::into_inner);
        kills.iter().any(|(kill, forgotten)| {
            u128::from(kill.abs_diff(at)) < (*forgotten + FORGETS).as_micros() && *kill < stored_by
        })
    }
}

/// When a folder got its name, or a file in it was made: by the kernel's clock, which no test shifts.
fn changed_at(folder: &Path) -> Micros {
    let found = fs::metadata(folder).unwrap();
    found.ctime().unsigned_abs() * 1_000_000 + found.ctime_nsec().unsigned_abs() / 1000
}

fn micros(time: SystemTime) -> Micros {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}
