//! Transfers' folders that are over, for later transfers to take. One made and removed for each would make all new files dear: an
//! ext4 without a journal looks at every inode that was freed lately (measured: a third of what a puller did for a small file).

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use longshore_core::JobId;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::store;

/// As many as may be taken at once, by two batches.
const MOST: usize = 128;

/// The folders of one store. Blocking.
#[derive(Debug)]
pub struct SpareFolders {
    folder: PathBuf,
    free: Mutex<Vec<PathBuf>>,
}

impl SpareFolders {
    /// Those in `folder`, where none is yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, free: Mutex::default() }
    }

    /// Makes `folder`, of a spare one if there is one.
    ///
    /// # Errors
    /// `AlreadyExists` when something has that name; else the file system's.
    pub fn make(&self, folder: &Path) -> io::Result<()> {
        let spare = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(spare) = spare else { return store::make_folder(folder) };
        // Never in place of one that is there, be it empty: somebody may hold its lock.
        match renameat_with(CWD, &spare, CWD, folder, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => {
                self.free.lock().unwrap_or_else(PoisonError::into_inner).push(spare);
                Err(io::ErrorKind::AlreadyExists.into())
            }
            Err(_) => {
                let _ = store::remove_all(&spare);
                store::make_folder(folder)
            }
        }
    }

    /// Takes `folder`, in which nothing is of use any more but what the next transfer writes anew.
    ///
    /// # Errors
    /// The file system's; it is still where it was then.
    pub fn keep(&self, folder: &Path) -> io::Result<()> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() >= MOST {
            drop(free);
            return store::remove_all(folder);
        }
        let spare = self.folder.join(JobId::fresh().to_string());
        fs::rename(folder, &spare)?;
        free.push(spare);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_folder_is_used_again_and_never_put_in_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let spare = SpareFolders::new(folder.path().to_owned());
        spare.make(&one).unwrap();
        let inode = fs::metadata(&one).unwrap().ino();
        spare.keep(&one).unwrap();
        assert!(!one.exists());
        spare.make(&two).unwrap();
        assert_eq!(fs::metadata(&two).unwrap().ino(), inode);
        spare.make(&one).unwrap();
        spare.keep(&one).unwrap();
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
            spare.keep(&made).unwrap();
            assert!(!made.exists());
        }
        assert_eq!(fs::read_dir(folder.path().join("spare")).unwrap().count(), MOST);
    }
}
