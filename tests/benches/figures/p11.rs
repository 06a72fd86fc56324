//! P11: against the seed's own puller. The same 500 files of 16 KiB, half of them in each of two queues, from a daemon as the
//! seed's hosts have it; a puller with 16 slots, against the seed's loop with 16 threads (`seed_puller.py`). Each side is timed
//! from its start to its last result. Ours verifies digests and is durable before it reports, the seed compares sizes.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use longshore_core::{Job, QueueName};
use longshore_tests::{Process, Redis, Rsyncd, wait_until_blocking};

use crate::{
    Side,
    fetching::{Site, job},
    line_of_rounds, turns,
};

const FILES: usize = 500;
const FILE_BYTES: usize = 16 * 1024;
const SLOTS: usize = 16;
const QUEUES: [&str; 2] = ["level1", "level2"];
const ROUNDS: usize = 3;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/figures/seed_puller.py");

/// Measures the figure.
pub(crate) fn measure() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("source");
    fs::create_dir(&source)?;
    let names: Vec<String> = (0..FILES).map(|number| format!("f{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        fs::write(source.join(name), vec![u8::try_from(number % 251)?; FILE_BYTES])?;
    }
    let host = Rsyncd::start_with(&[("backup", &source)], "max connections = 0", "");
    let (mut ours, mut references) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (mut reference, mut our) = (0.0, 0.0);
        for side in turns(round) {
            rustix::fs::sync();
            match side {
                Side::Reference => reference = seed(&names, host.port())?,
                Side::Ours => our = puller(&source, &names, host.port())?,
            }
        }
        eprintln!("round {round}: ours {our:.2} s, the seed's loop with {SLOTS} threads {reference:.2} s");
        // The first round warms caches and is not counted.
        if round > 0 {
            ours.push(FILES as f64 / our);
            references.push(FILES as f64 / reference);
        }
    }
    line_of_rounds("P11", "against-the-seeds-loop", &ours, &references, "files/s", ">=10");
    Ok(())
}

/// Seconds that a puller takes.
fn puller(source: &Path, names: &[String], rsync_port: u16) -> anyhow::Result<f64> {
    let mut jobs = Vec::new();
    for (name, queue) in names.iter().zip(QUEUES.iter().cycle()) {
        jobs.push(Job { queue: QueueName::new(queue)?, ..job(source, "backup", name, rsync_port)? });
    }
    let site = Site::with(&jobs)?;
    let started = Instant::now();
    let fetching = site.begin(SLOTS, "")?;
    Ok(fetching.pushed_after(started) + fetching.end()?.seconds)
}

/// Seconds that the seed's loop takes.
fn seed(names: &[String], rsync_port: u16) -> anyhow::Result<f64> {
    let redis = Redis::start();
    let mut connection = redis.connection();
    for (name, queue) in names.iter().zip(QUEUES.iter().cycle()) {
        let message = serde_json::json!({
            "success": true, "back_type": "file", "server_id": 1, "op_id": 1, "game_id": 1, "game_server_ip": "127.0.0.1",
            "instance": 1, "create_time": 1_793_491_200, "filename": name, "size": FILE_BYTES, "rsync_model": "backup",
            "last_all_filename": null, "last_all_time": 0, "log": "", "interval": 3600
        });
        redis::cmd("LPUSH").arg(queue).arg(message.to_string()).exec(&mut connection)?;
    }
    let root = tempfile::tempdir()?;
    let started = Instant::now();
    let mut command = Command::new("python3");
    command.arg(SCRIPT).args([redis.port().to_string(), rsync_port.to_string()]).arg(root.path());
    command.args([SLOTS.to_string(), names.len().to_string()]).args(QUEUES).stdin(Stdio::null());
    let loops = Process::spawn(&mut command).context("python3")?;
    wait_until_blocking("the seed's loop has fetched everything", Duration::from_secs(600), || {
        let done: redis::RedisResult<usize> = redis::cmd("LLEN").arg("message").query(&mut connection);
        done.is_ok_and(|done| done >= names.len())
    });
    let seconds = started.elapsed().as_secs_f64();
    drop(loops);
    let results: Vec<String> = redis::cmd("LRANGE").arg("message").arg(0).arg(-1).query(&mut connection)?;
    for result in results {
        let result: serde_json::Value = serde_json::from_str(&result)?;
        anyhow::ensure!(result["succeed"] == 1, "the seed's loop failed: {}", result["log"]);
    }
    let arrived = fs::read_dir(root.path().join("file/127.0.0/1")).map(Iterator::count).unwrap_or(0);
    anyhow::ensure!(arrived == names.len(), "{arrived} files arrived of {}", names.len());
    Ok(seconds)
}
