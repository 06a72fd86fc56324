//! Large files on a loopback daemon, fetched by a puller and by bare rsyncs, with what each took.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Child, Command},
    time::Instant,
};

use anyhow::Context;
use longshore_tests::Rsyncd;
use tempfile::TempDir;

use crate::fetching::{Fetched, NODELAY, Site, cpu_seconds};

/// The host's side.
pub(crate) struct Large {
    folder: TempDir,
    host: Rsyncd,
    names: Vec<String>,
}

/// What a side took.
pub(crate) struct Took {
    pub(crate) seconds: f64,
    /// Of the puller and its rsyncs, or of the bare rsyncs.
    pub(crate) cpu_seconds: f64,
}

impl Large {
    /// A daemon with `files` files of `bytes` each.
    pub(crate) fn start(files: u64, bytes: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let source = folder.path().join("source");
        fs::create_dir(&source)?;
        let names: Vec<String> = (0..files).map(|number| format!("big{number}")).collect();
        for (name, number) in names.iter().zip(1..) {
            write_random(&source.join(name), bytes, number)?;
        }
        let host = Rsyncd::start_with(&[("backup", &source)], NODELAY, "");
        Ok(Self { folder, host, names })
    }

    /// Jobs for all of them, on a fresh site.
    pub(crate) fn site(&self) -> anyhow::Result<Site> {
        Site::start(&self.folder.path().join("source"), &self.names, self.host.port())
    }

    /// By a puller with a slot for each, and `top` in its file.
    pub(crate) fn fetch(&self, top: &str) -> anyhow::Result<Took> {
        let site = self.site()?;
        let Fetched { seconds, cpu_seconds, .. } = site.begin(self.names.len(), top)?.end()?;
        Ok(Took { seconds, cpu_seconds })
    }

    /// By as many bare rsyncs at once.
    pub(crate) fn reference(&self) -> anyhow::Result<Took> {
        let into = self.folder.path().join("reference");
        fs::create_dir(&into)?;
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
        let children = self.names.iter().map(spawn).collect::<anyhow::Result<Vec<Child>>>()?;
        for mut child in children {
            let status = child.wait()?;
            anyhow::ensure!(status.success(), "the reference failed: {status}");
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
