//! P1 and P1b: many small files. 2,000 files of 16 KiB from a loopback daemon by a puller with 16 slots, against `xargs -P16` of one
//! rsync each. TCP_NODELAY on both ends and `--fsync` on both sides; ours verifies, writes and syncs a manifest, publishes by
//! rename and reports each besides. The reference is timed from its start to its last file being durable, ours from the jobs' push to
//! the last report.
//!
//! P1: from one module, each file by its own rsync. P1b: from the modules of 20 hosts, with batches as they are by default.

use std::{fs, path::Path, process::Command, time::Instant};

use anyhow::Context;
use longshore_core::Job;
use longshore_tests::Rsyncd;

use crate::{
    Side,
    fetching::{NODELAY, Site, job},
    line_of_rounds, turns,
};

const FILES: usize = 2000;
const FILE_BYTES: usize = 16 * 1024;
const SLOTS: usize = 16;
const ROUNDS: usize = 5;
const HOSTS: usize = 20;

/// Measures P1.
pub(crate) fn measure() -> anyhow::Result<()> {
    let (ours, reference) = compare(1, "batch_jobs = 1")?;
    line_of_rounds("P1", "small-files", &ours, &reference, "files/s", ">=0.95");
    Ok(())
}

/// Measures P1b.
pub(crate) fn measure_batches() -> anyhow::Result<()> {
    let (ours, reference) = compare(HOSTS, "")?;
    line_of_rounds("P1b", "small-files-in-batches", &ours, &reference, "files/s", ">=5");
    Ok(())
}

/// Files a second in each round, ours and the reference's, from the modules of so many hosts.
fn compare(hosts: usize, rsync: &str) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let folder = tempfile::tempdir()?;
    let modules: Vec<_> =
        (0..hosts).map(|host| (format!("host{host}"), folder.path().join(format!("host{host}")))).collect();
    for (_, source) in &modules {
        fs::create_dir(source)?;
    }
    for number in 0..FILES {
        let (_, source) = &modules[number % hosts];
        fs::write(source.join(format!("f{number}")), vec![u8::try_from(number % 251)?; FILE_BYTES])?;
    }
    let served: Vec<_> = modules.iter().map(|(module, source)| (module.as_str(), source.as_path())).collect();
    let daemon = Rsyncd::start_with(&served, NODELAY, "");
    let (mut ours, mut references) = (Vec::new(), Vec::new());
    // Removed when all is measured: for some seconds after thousands of files were removed, ext4 without a journal makes new ones
    // slowly, whoever's they are.
    let mut kept = Vec::new();
    for round in 0..=ROUNDS {
        let jobs = (0..FILES).map(|number| {
            let (module, source) = &modules[number % hosts];
            job(source, module, &format!("f{number}"), daemon.port())
        });
        let site = Site::with(&jobs.collect::<anyhow::Result<Vec<Job>>>()?)?;
        let (mut reference, mut our) = (0.0, 0.0);
        for side in turns(round) {
            rustix::fs::sync();
            match side {
                Side::Reference => {
                    let into = folder.path().join(format!("reference{round}"));
                    reference = fetch_by_xargs(&into, hosts, daemon.port())?;
                }
                Side::Ours => our = site.begin_with(SLOTS, "", rsync)?.end()?.seconds,
            }
        }
        eprintln!("round {round}: ours {our:.2} s, xargs -P{SLOTS} rsync {reference:.2} s");
        // The first round warms caches and is not counted.
        if round > 0 {
            ours.push(FILES as f64 / our);
            references.push(FILES as f64 / reference);
        }
        kept.push(site);
    }
    Ok((ours, references))
}

fn fetch_by_xargs(into: &Path, hosts: usize, port: u16) -> anyhow::Result<f64> {
    fs::create_dir(into)?;
    let script = format!(
        "for n in $(seq 0 {}); do echo host$((n % {hosts}))/f$n; done | xargs -P{SLOTS} -I{{}} rsync -t --fsync \
         --sockopts=TCP_NODELAY rsync://127.0.0.1:{port}/{{}} {}/",
        FILES - 1,
        into.display()
    );
    let started = Instant::now();
    let status = Command::new("sh").args(["-c", &script]).env("LC_ALL", "C").status().context("xargs")?;
    let seconds = started.elapsed().as_secs_f64();
    anyhow::ensure!(status.success() && fs::read_dir(into)?.count() == FILES, "the reference failed: {status}");
    Ok(seconds)
}
