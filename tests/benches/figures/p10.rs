//! P10: what the puller itself needs. Its memory with 64 transfers under way (the most that it ever had), and the processor
//! time of it and its rsyncs for a GB, direct and through the proxy, against that of a bare rsync.

use std::{fs, path::Path, time::Duration};

use longshore_tests::wait_until_blocking;

use crate::{fetching::Fetching, large::Large, line, median, p2::PROXIED};

const BYTES: u64 = 4 << 30;
const ROUNDS: usize = 3;
const SLOTS: u64 = 64;
const GOAL_BYTES: f64 = 64e6;

/// Measures the figures.
pub(crate) fn measure() -> anyhow::Result<()> {
    memory()?;
    let large = Large::start(1, BYTES)?;
    let mut cpu = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        let sides = [large.reference()?, large.fetch("")?, large.fetch(PROXIED)?];
        let [reference, direct, proxied] = sides.map(|side| side.cpu_seconds / (BYTES as f64 / 1e9));
        println!("round {round}: rsync {reference:.3} s/GB, direct {direct:.3} s/GB, proxied {proxied:.3} s/GB");
        if round > 0 {
            for (cpu, seconds) in cpu.iter_mut().zip([reference, direct, proxied]) {
                cpu.push(seconds);
            }
        }
    }
    let [reference, direct, proxied] = cpu.map(median);
    line("P10.direct", "processor time for a GB", direct / reference, direct, reference, "s/GB", "<=1.15");
    line("P10.proxy", "processor time for a GB", proxied / reference, proxied, reference, "s/GB", "<=1.40");
    Ok(())
}

fn memory() -> anyhow::Result<()> {
    // Something has to keep them busy for a while: the node's limit, or rsync's own, which needs no proxy.
    let limits = [("proxied", "bandwidth = \"64MB/s\"", ""), ("direct", "", "bwlimit = \"1MiB\"")];
    for (what, top, rsync) in limits {
        let large = Large::start(SLOTS, 8 << 20)?;
        let site = large.site()?;
        let fetching = site.begin_with(usize::try_from(SLOTS)?, top, &format!("batch_jobs = 1\n{rsync}"))?;
        wait_until_blocking("all slots are busy", Duration::from_secs(60), || children(&fetching) as u64 >= SLOTS);
        let peak = fetching.end()?.peak_bytes as f64;
        let what = format!("64 transfers at once, {what}");
        line("P10.memory", &what, peak / GOAL_BYTES, peak / 1e6, GOAL_BYTES / 1e6, "MB", "<=1");
    }
    Ok(())
}

/// How many processes the puller has started that still run.
fn children(fetching: &Fetching<'_>) -> usize {
    let tasks = format!("/proc/{}/task", fetching.id());
    let of = |task: &Path| fs::read_to_string(task.join("children")).unwrap_or_default().split_whitespace().count();
    fs::read_dir(tasks).into_iter().flatten().flatten().map(|task| of(&task.path())).sum()
}
