//! P2, P2p: large files. 4 GiB in one file, and in four at once, from a loopback daemon by a puller, against as many bare `rsync
//! --whole-file` with the same `--fsync`. Ours verifies the digest besides. P2p is the same through the puller's proxy, with a
//! limit far above what the machine does. The files are in the page cache for all.

use crate::{large::Large, line, median};

const TOTAL_BYTES: u64 = 4 << 30;
const ROUNDS: usize = 3;
/// Puts a transfer behind the proxy, and holds nothing back.
pub(crate) const PROXIED: &str = "bandwidth = \"100GB/s\"";

/// Measures the figures.
pub(crate) fn measure() -> anyhow::Result<()> {
    for (files, what) in [(1, "one 4 GiB file"), (4, "four 1 GiB files at once")] {
        let large = Large::start(files, TOTAL_BYTES / files)?;
        let mut speeds = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..=ROUNDS {
            let sides = [large.reference()?, large.fetch("")?, large.fetch(PROXIED)?];
            let [reference, direct, proxied] = sides.map(|side| side.seconds);
            println!(
                "round {round}, {files} at once: rsync {reference:.2} s, direct {direct:.2} s, proxied {proxied:.2} s"
            );
            // The first round warms caches and is not counted.
            if round > 0 {
                for (speeds, seconds) in speeds.iter_mut().zip([reference, direct, proxied]) {
                    speeds.push(TOTAL_BYTES as f64 / seconds / 1e6);
                }
            }
        }
        let [reference, direct, proxied] = speeds.map(median);
        line("P2", what, direct / reference, direct, reference, "MB/s", ">=0.97");
        line("P2p", what, proxied / reference, proxied, reference, "MB/s", ">=0.8");
    }
    Ok(())
}
