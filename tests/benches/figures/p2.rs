//! P2, P2p: large files. 4 GiB in one file, and in four at once, from a loopback daemon by a puller, against as many bare `rsync
//! --whole-file` with the same `--fsync`. Ours verifies the digest besides. P2p is the same through the puller's proxy, with a
//! limit far above what the machine does. The files are in the page cache for all.
//!
//! The figure is the median of the rounds' ratios: a disk's speed changes from minute to minute, and the sides of one round meet
//! nearly the same. `ours` and `reference` beside it are medians of the speeds.

use crate::{
    large::{Large, Took},
    line_of_rounds,
};

const TOTAL_BYTES: u64 = 4 << 30;
const ROUNDS: usize = 7;

/// Measures the figures.
pub(crate) fn measure() -> anyhow::Result<()> {
    for (files, part, what) in [(1, "one", "one-4-GiB-file"), (4, "four", "four-1-GiB-files-at-once")] {
        let large = Large::start(files, TOTAL_BYTES / files)?;
        let (mut reference, mut direct, mut proxied) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let sides = large.round(round)?;
            eprintln!(
                "round {round}, {files} at once: rsync {:.2} s, direct {:.2} s, proxied {:.2} s",
                sides.reference.seconds, sides.direct.seconds, sides.proxied.seconds
            );
            // The first round warms caches and is not counted.
            if round > 0 {
                let speed = |took: &Took| TOTAL_BYTES as f64 / took.seconds / 1e6;
                reference.push(speed(&sides.reference));
                direct.push(speed(&sides.direct));
                proxied.push(speed(&sides.proxied));
            }
        }
        line_of_rounds(&format!("P2.{part}"), &format!("{what}-direct"), &direct, &reference, "MB/s", ">=0.97");
        line_of_rounds(&format!("P2p.{part}"), &format!("{what}-proxied"), &proxied, &reference, "MB/s", ">=0.8");
    }
    Ok(())
}
