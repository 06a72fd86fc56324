//! P2: one large file. 4 GiB from a loopback daemon by a puller, against bare `rsync --whole-file` with the same `--fsync`. Ours
//! verifies the digest besides. The file is in the page cache for both.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::Context;
use longshore_tests::Rsyncd;

use crate::{
    fetching::{NODELAY, Site},
    line, median,
};

const FILE_BYTES: u64 = 4 << 30;
const ROUNDS: usize = 3;

/// Measures the figure.
pub(crate) fn measure() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("source");
    fs::create_dir(&source)?;
    write_random(&source.join("big"))?;
    let host = Rsyncd::start_with(&[("backup", &source)], NODELAY, "");
    let (mut ours, mut references) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let reference = reference(folder.path(), host.port())?;
        let site = Site::start(&source, &["big".to_owned()], host.port())?;
        let our = site.fetch(1)?;
        drop(site);
        println!("round {round}: ours {our:.2} s, rsync {reference:.2} s");
        if round > 0 {
            ours.push(FILE_BYTES as f64 / our / 1e6);
            references.push(FILE_BYTES as f64 / reference / 1e6);
        }
    }
    let (ours, reference) = (median(ours), median(references));
    line("P2", "one 4 GiB file", ours / reference, ours, reference, "MB/s", ">=0.97");
    Ok(())
}

fn write_random(path: &Path) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    let mut block = vec![0u8; 1 << 20];
    let mut state = 88_172_645_463_325_252u64;
    for _ in 0..FILE_BYTES >> 20 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(())
}

fn reference(folder: &Path, port: u16) -> anyhow::Result<f64> {
    let into = folder.join("reference");
    fs::create_dir(&into)?;
    let started = Instant::now();
    let status = Command::new("rsync")
        .args(["-t", "--whole-file", "--fsync", "--sockopts=TCP_NODELAY"])
        .arg(format!("rsync://127.0.0.1:{port}/backup/big"))
        .arg(&into)
        .env("LC_ALL", "C")
        .status()
        .context("rsync")?;
    let seconds = started.elapsed().as_secs_f64();
    anyhow::ensure!(status.success(), "the reference failed: {status}");
    fs::remove_dir_all(&into)?;
    Ok(seconds)
}
