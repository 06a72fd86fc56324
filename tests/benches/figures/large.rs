//! Large files on a loopback daemon, fetched by a puller and by bare rsyncs, with what each took. Before each side everything is
//! on the disk, so that none writes what another one left behind; and the source is read for its digests once, before them all.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Child, Command},
    time::Instant,
};

use anyhow::Context;
use longshore_core::Job;
use longshore_tests::Rsyncd;
use tempfile::TempDir;

use crate::fetching::{Fetched, NODELAY, Site, cpu_seconds, job};

/// Puts a transfer behind the proxy, and holds nothing back.
const PROXIED: &str = "bandwidth = \"100GB/s\"";

/// The host's side.
pub(crate) struct Large {
    folder: TempDir,
    host: Rsyncd,
    names: Vec<String>,
    jobs: Vec<Job>,
    at_once: usize,
}

/// Each side of a round.
pub(crate) struct Sides {
    pub(crate) reference: Took,
    pub(crate) direct: Took,
    pub(crate) proxied: Took,
}

/// What a side took.
pub(crate) struct Took {
    pub(crate) seconds: f64,
    /// Of the puller and its rsyncs, or of the bare rsyncs.
    pub(crate) cpu_seconds: f64,
}

impl Large {
    /// A daemon with `files` files of `bytes` each, to be fetched all at once.
    pub(crate) fn start(files: u64, bytes: u64) -> anyhow::Result<Self> {
        Self::start_with(files, bytes, usize::try_from(files)?)
    }

    /// A daemon with `files` files of `bytes` each, of which so many are to be fetched at once.
    pub(crate) fn start_with(files: u64, bytes: u64, at_once: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let source = folder.path().join("source");
        fs::create_dir(&source)?;
        let names: Vec<String> = (0..files).map(|number| format!("big{number}")).collect();
        for (name, number) in names.iter().zip(1..) {
            write_random(&source.join(name), bytes, number)?;
        }
        let host = Rsyncd::start_with(&[("backup", &source)], NODELAY, "");
        let jobs = names.iter().map(|name| job(&source, "backup", name, host.port()));
        let jobs = jobs.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { folder, host, names, jobs, at_once })
    }

    /// One round: bare rsync, a puller, a puller through its proxy. Rounds with an odd number go the other way round, so that a
    /// trend of the disk hits all alike.
    pub(crate) fn round(&self, number: usize) -> anyhow::Result<Sides> {
        if number.is_multiple_of(2) {
            let (reference, direct) = (self.reference()?, self.fetch("")?);
            Ok(Sides { reference, direct, proxied: self.fetch(PROXIED)? })
        } else {
            let (proxied, direct) = (self.fetch(PROXIED)?, self.fetch("")?);
            Ok(Sides { reference: self.reference()?, direct, proxied })
        }
    }

    /// Jobs for all of them, on a fresh site.
    pub(crate) fn site(&self) -> anyhow::Result<Site> {
        Site::with(&self.jobs)
    }

    /// By a puller, with `top` in its file.
    fn fetch(&self, top: &str) -> anyhow::Result<Took> {
        let site = self.site()?;
        rustix::fs::sync();
        let Fetched { seconds, cpu_seconds, .. } = site.begin(self.at_once, top)?.end()?;
        Ok(Took { seconds, cpu_seconds })
    }

    /// By bare rsyncs, as many at once.
    fn reference(&self) -> anyhow::Result<Took> {
        let into = self.folder.path().join("reference");
        fs::create_dir(&into)?;
        rustix::fs::sync();
        let (started, cpu_before) = (Instant::now(), cpu_seconds(std::process::id())?);
        let spawn = |name: &String| -> anyhow::Result<Child> {
            let child = Command::new("rsync")
                .args(["-t", "--whole-file", "--fsync", "--sockopts=TCP_NODELAY"])
                .arg(format!("rsync://127.0.0.1:{}/backup/{name}", self.host.port()))
                .arg(&into)
                .env("LC_ALL", "C")
                .spawn();
            child.context("rsync")
        };
        for names in self.names.chunks(self.at_once) {
            let children = names.iter().map(spawn).collect::<anyhow::Result<Vec<Child>>>()?;
            for mut child in children {
                let status = child.wait()?;
                anyhow::ensure!(status.success(), "the reference failed: {status}");
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        // Of this process, which only waits, and of its children.
        let cpu_seconds = cpu_seconds(std::process::id())? - cpu_before;
        fs::remove_dir_all(&into)?;
        Ok(Took { seconds, cpu_seconds })
    }
}

fn write_random(path: &Path, bytes: u64, seed: u64) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    let mut block = vec![0u8; 1 << 20];
    let mut state = 88_172_645_463_325_252u64.wrapping_mul(seed);
    for _ in 0..bytes >> 20 {
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
