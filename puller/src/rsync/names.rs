//! The files that tell rsync which paths to fetch (`--files-from`). A transfer's file is used again by a later one: a file made and
//! removed for each would make all other new files dear (an ext4 without a journal looks at every inode that was freed lately).
//!
//! Their names are this process' own, so that an rsync that outlived a killed puller reads no other transfer's paths.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use longshore_core::{JobId, RelativePath};

/// The files of one store.
#[derive(Debug)]
pub struct NamesFiles {
    folder: PathBuf,
    free: Mutex<Vec<PathBuf>>,
}

/// One file, until this is dropped.
#[derive(Debug)]
pub struct NamesFile<'a> {
    files: &'a NamesFiles,
    path: PathBuf,
}

impl NamesFiles {
    /// Those in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, free: Mutex::default() }
    }

    /// One that nobody else uses, not written yet.
    pub fn take(&self) -> NamesFile<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        NamesFile { files: self, path: free.unwrap_or_else(|| self.folder.join(JobId::fresh().to_string())) }
    }
}

impl NamesFile<'_> {
    /// For `--files-from`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What writes `paths`, each below the module and ended by NUL. Blocking.
    pub fn writing<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a RelativePath>,
    ) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let (path, bytes) = (self.path.clone(), list(paths));
        move || fs::write(path, bytes)
    }
}

impl Drop for NamesFile<'_> {
    fn drop(&mut self) {
        self.files.free.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.path));
    }
}

fn list<'a>(paths: impl IntoIterator<Item = &'a RelativePath>) -> Vec<u8> {
    // "./" keeps a name that begins with # or ; from being a comment.
    paths.into_iter().flat_map(|path| format!("./{path}\0").into_bytes()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_used_again_but_never_by_two_at_once() {
        let files = NamesFiles::new("/names".into());
        let (one, two) = (files.take(), files.take());
        assert_ne!(one.path(), two.path());
        let first = one.path().to_owned();
        drop(one);
        assert_eq!(files.take().path(), first);
        assert_ne!(two.path(), first);
    }

    proptest! {
        #[test]
        fn each_path_is_one_entry(path in "[a-z#;*+ -]{1,20}") {
            let Ok(path) = RelativePath::new(&path) else { return Ok(()) };
            prop_assert_eq!(list([&path, &path]), format!("./{path}\0./{path}\0").into_bytes());
        }
    }
}
