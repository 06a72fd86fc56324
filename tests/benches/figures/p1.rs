//! P1: many small files. 2,000 files of 16 KiB from a loopback daemon by a puller with 16 slots, against `xargs -P16` of one rsync
//! each. TCP_NODELAY on both ends and `--fsync` on both sides; ours verifies, writes and syncs a manifest, publishes by
//! rename and reports each besides. Each side is timed from its start to its last file being durable (ours: reported).

use std::{fs, path::Path, process::Command, time::Instant};

use anyhow::Context;
use longshore_tests::Rsyncd;

use crate::{
    fetching::{NODELAY, Site},
    line, median,
};

const FILES: usize = 2000;
const FILE_BYTES: usize = 16 * 1024;
const SLOTS: usize = 16;
const ROUNDS: usize = 3;

/// Measures the figure.
pub(crate) fn measure() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("source");
    fs::create_dir(&source)?;
    for number in 0..FILES {
        let byte = u8::try_from(number % 251)?;
        fs::write(source.join(format!("f{number}")), vec![byte; FILE_BYTES])?;
    }
    let host = Rsyncd::start_with(&[("backup", &source)], NODELAY, "");
    let names: Vec<String> = (0..FILES).map(|number| format!("f{number}")).collect();
    let (mut ours, mut references) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let reference = reference(folder.path(), host.port())?;
        let site = Site::start(&source, &names, host.port())?;
        let our = site.fetch(SLOTS)?;
        println!("round {round}: ours {our:.2} s, xargs -P{SLOTS} rsync {reference:.2} s");
        // The first round warms caches and is not counted.
        if round > 0 {
            ours.push(FILES as f64 / our);
            references.push(FILES as f64 / reference);
        }
    }
    let (ours, reference) = (median(ours), median(references));
    line("P1", "small files", ours / reference, ours, reference, "files/s", ">=0.95");
    Ok(())
}

fn reference(folder: &Path, port: u16) -> anyhow::Result<f64> {
    let into = folder.join("reference");
    fs::create_dir(&into)?;
    let script = format!(
        "seq 0 {} | xargs -P{SLOTS} -I{{}} rsync -t --fsync --sockopts=TCP_NODELAY rsync://127.0.0.1:{port}/backup/f{{}} {}/",
        FILES - 1,
        into.display()
    );
    let started = Instant::now();
    let status = Command::new("sh").args(["-c", &script]).env("LC_ALL", "C").status().context("xargs")?;
    let seconds = started.elapsed().as_secs_f64();
    anyhow::ensure!(status.success() && fs::read_dir(&into)?.count() == FILES, "the reference failed: {status}");
    fs::remove_dir_all(&into)?;
    Ok(seconds)
}
