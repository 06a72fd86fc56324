//! A file system of a test's own, small enough to be filled: a tmpfs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

const BALLAST: &str = ".ballast";

/// A mounted tmpfs; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Makes the folder `path` and mounts `mib` MiB there.
    ///
    /// # Panics
    /// When it can't, which is so for everyone but root.
    pub fn mount(path: &Path, mib: u64) -> Self {
        fs::create_dir_all(path).expect("a folder to mount on");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(path);
        let mounted = command.status().expect("mount");
        assert!(mounted.success(), "a test that mounts a tmpfs needs to be root for it");
        Self { path: path.to_owned() }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that are free.
    ///
    /// # Panics
    /// When the file system doesn't say.
    pub fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.path).expect("the file system's size");
        found.f_bavail * found.f_frsize
    }

    /// Takes room away by a file of its own, until `free_bytes` are left (or nothing, where others were quicker).
    ///
    /// # Panics
    /// When the file can't be written for another reason than a full disk.
    pub fn fill(&self, free_bytes: u64) {
        let ballast = fs::File::create(self.path.join(BALLAST)).expect("the ballast's file");
        let wanted = self.free_bytes().saturating_sub(free_bytes);
        if wanted > 0
            && let Err(error) = rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, wanted)
        {
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::StorageFull, "{error}");
        }
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn empty(&self) {
        let _ = fs::remove_file(self.path.join(BALLAST));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
