//! P10: what the puller itself needs. Its memory with 64 transfers under way (the most that it ever had), and the processor
//! time of it and its rsyncs for a GB, direct and through the proxy, against that of a bare rsync.
//!
//! The time is the median of the rounds' ratios. The files are so small that, with some GB of memory, the kernel need not begin to
//! write one to the disk before its end: how much of a larger one it writes in threads of its own, whose time is nobody's, and
//! how much in rsync's `--fsync`, is chance.

use std::{fs, path::Path, time::Duration};

use longshore_tests::wait_until_blocking;

use crate::{
    fetching::Fetching,
    large::{Large, Took},
    line, line_of_rounds,
};

const FILES: u64 = 4;
const FILE_BYTES: u64 = 512 << 20;
const ROUNDS: usize = 7;
const SLOTS: u64 = 64;
const GOAL_BYTES: f64 = 64e6;

/// Measures the figures.
pub(crate) fn measure() -> anyhow::Result<()> {
    memory()?;
    let large = Large::start_with(FILES, FILE_BYTES, 1)?;
    let (mut reference, mut direct, mut proxied) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let sides = large.round(round)?;
        let for_a_gb = |took: &Took| took.cpu_seconds / ((FILES * FILE_BYTES) as f64 / 1e9);
        let costs = [&sides.reference, &sides.direct, &sides.proxied].map(for_a_gb);
        eprintln!(
            "round {round}: rsync {:.3} s/GB, direct {:.3} s/GB, proxied {:.3} s/GB, in {:.1}, {:.1}, {:.1} s",
            costs[0], costs[1], costs[2], sides.reference.seconds, sides.direct.seconds, sides.proxied.seconds
        );
        // The first round warms caches and is not counted.
        if round > 0 {
            reference.push(costs[0]);
            direct.push(costs[1]);
            proxied.push(costs[2]);
        }
    }
    line_of_rounds("P10.direct", "processor-time-for-a-GB", &direct, &reference, "s/GB", "<=1.15");
    line_of_rounds("P10.proxy", "processor-time-for-a-GB", &proxied, &reference, "s/GB", "<=1.40");
    Ok(())
}

fn memory() -> anyhow::Result<()> {
    // Something has to keep them busy for a while: the node's limit, or rsync's own, which needs no proxy.
    let limits = [("proxied", "bandwidth = \"64MB/s\"", ""), ("direct", "", "bwlimit = \"1MiB\"")];
    let mut worst = 0.0;
    for (way, top, rsync) in limits {
        let large = Large::start(SLOTS, 8 << 20)?;
        let site = large.site()?;
        let fetching = site.begin_with(usize::try_from(SLOTS)?, top, &format!("batch_jobs = 1\n{rsync}"))?;
        wait_until_blocking("all slots are busy", Duration::from_secs(60), || children(&fetching) as u64 >= SLOTS);
        let peak = fetching.end()?.peak_bytes as f64;
        eprintln!("{SLOTS} transfers at once, {way}: {:.1} MB", peak / 1e6);
        worst = f64::max(worst, peak);
    }
    let ratio = worst / GOAL_BYTES;
    line("P10.memory", "64-transfers-at-once", ratio, worst / 1e6, GOAL_BYTES / 1e6, "MB", "<=1");
    Ok(())
}

/// How many processes the puller has started that still run.
fn children(fetching: &Fetching<'_>) -> usize {
    let tasks = format!("/proc/{}/task", fetching.id());
    let of = |task: &Path| fs::read_to_string(task.join("children")).unwrap_or_default().split_whitespace().count();
    fs::read_dir(tasks).into_iter().flatten().flatten().map(|task| of(&task.path())).sum()
}
