//! Transfers' folders that are over, for later transfers to take. One made and removed for each would make all new files dear: an
//! ext4 without a journal looks at every inode that was freed lately (measured: a third of what a puller did for a small file).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use longshore_core::JobId;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use crate::store;

/// More than the usual batches need at once, each a folder for each of its jobs. One takes two inodes and two blocks.
const MOST: usize = 1024;

/// The folders of one store. Blocking.
#[derive(Debug)]
pub struct SpareFolders {
    folder: PathBuf,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    folders: Vec<PathBuf>,
    /// None, where the file system can't rename without replacing.
    most: usize,
}

impl SpareFolders {
    /// Those in `folder`, where none is yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, free: Mutex::new(Free { folders: Vec::new(), most: MOST }) }
    }

    /// Makes `folder`, of a spare one if there is one.
    ///
    /// # Errors
    /// `AlreadyExists` when something has that name; else the file system's.
    pub fn make(&self, folder: &Path) -> io::Result<()> {
        let spare = self.free().folders.pop();
        let Some(spare) = spare else { return store::make_folder(folder) };
        // Never in place of one that is there, be it empty: somebody may hold its lock.
        match renameat_with(CWD, &spare, CWD, folder, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => {
                self.free().folders.push(spare);
                Err(io::ErrorKind::AlreadyExists.into())
            }
            Err(error) => {
                if matches!(error, rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) {
                    self.free().most = 0;
                }
                let _ = store::remove_all(&spare);
                store::make_folder(folder)
            }
        }
    }

    /// Takes `folder`, in which nothing is of use any more but what the next transfer writes anew, and frees its `lock`; where it
    /// can't be taken, it is removed.
    ///
    /// # Errors
    /// The file system's; it is still where it was then.
    pub fn keep(&self, folder: &Path, lock: &File) -> io::Result<()> {
        let is_wanted = {
            let free = self.free();
            free.folders.len() < free.most
        };
        let spare = self.folder.join(JobId::fresh().to_string());
        if !is_wanted || fs::rename(folder, &spare).is_err() {
            return store::remove_all(folder);
        }
        // For all who have this handle, such as a child that is being started just now. Else the next transfer would find it locked.
        flock(lock, FlockOperation::Unlock)?;
        self.free().folders.push(spare);
        Ok(())
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn keep(spare: &SpareFolders, folder: &Path) {
        spare.keep(folder, &File::open(folder).unwrap()).unwrap();
    }

    #[test]
    fn a_folder_is_used_again_and_never_put_in_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let spare = SpareFolders::new(folder.path().to_owned());
        spare.make(&one).unwrap();
        let inode = fs::metadata(&one).unwrap().ino();
        keep(&spare, &one);
        assert!(!one.exists());
        spare.make(&two).unwrap();
        assert_eq!(fs::metadata(&two).unwrap().ino(), inode);
        spare.make(&one).unwrap();
        keep(&spare, &one);
        assert_eq!(spare.make(&two).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::metadata(&two).unwrap().ino(), inode);
        spare.make(&one).unwrap();
    }

    #[test]
    fn no_more_are_kept_than_can_be_of_use() {
        let folder = tempfile::tempdir().unwrap();
        let spare = SpareFolders::new(folder.path().join("spare"));
        fs::create_dir(folder.path().join("spare")).unwrap();
        for number in 0..MOST + 3 {
            let made = folder.path().join(number.to_string());
            fs::create_dir(&made).unwrap();
            keep(&spare, &made);
            assert!(!made.exists());
        }
        assert_eq!(fs::read_dir(folder.path().join("spare")).unwrap().count(), MOST);
    }

    #[test]
    fn without_a_place_for_it_a_folder_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let spare = SpareFolders::new(folder.path().join("missing"));
        let made = folder.path().join("made");
        spare.make(&made).unwrap();
        fs::write(made.join("names"), "").unwrap();
        keep(&spare, &made);
        assert!(!made.exists());
        spare.make(&made).unwrap();
    }
}
