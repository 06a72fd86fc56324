//! A record in a file of its own that is overwritten in place: for what every run must sync before it goes on, where a new
//! file and a rename would each wait for the file system's journal. The price is that an interrupted write leaves neither
//! the old record nor the new one; so it is only for records whose predecessor is of no more use, and each carries the
//! digest that tells a whole one.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use longshore_core::digest::{DigestChoice, Hasher, Xxh3};
use serde::{Serialize, de::DeserializeOwned};

use crate::durable::{StateError, sync_folder_of};

/// Files are this large or a multiple, so that nearly every record fits into the room of the one before.
const BLOCK_BYTES: usize = 4096;
/// What a cleared slot begins with, and what fills the room behind a record.
const FILLER: u8 = b'\n';

/// A file that holds one record or none.
#[derive(Debug, Clone)]
pub struct Slot(PathBuf);

impl Slot {
    /// The slot at `path`; the file is made by the first write.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Overwrites the record, durably. Returns what the file system says of the file, its clock included.
    ///
    /// # Errors
    /// [`StateError`] naming the file; then there may be no record at all.
    pub fn write(&self, value: &impl Serialize) -> Result<fs::Metadata, StateError> {
        self.put(value).map_err(|error| StateError::new("cannot write", &self.0, error))
    }

    fn put(&self, value: &impl Serialize) -> io::Result<fs::Metadata> {
        let body = serde_json::to_vec(value)?;
        let mut record = format!("{} {}\n", digest(&body), body.len()).into_bytes();
        record.extend_from_slice(&body);
        let file = File::options().write(true).create(true).truncate(false).open(&self.0)?;
        let room = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        record.resize(record.len().next_multiple_of(BLOCK_BYTES).max(room), FILLER);
        file.write_all_at(&record, 0)?;
        if record.len() == room {
            file.sync_data()?;
        } else {
            file.sync_all()?;
            sync_folder_of(&self.0)?;
        }
        file.metadata()
    }

    /// The record; `None` when there is none, it was cleared, or its write was never completed.
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be read, or the record, though whole, cannot be understood.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, StateError> {
        let mut bytes = Vec::new();
        match File::open(&self.0).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StateError::new("cannot read", &self.0, error)),
            Ok(_) => {}
        }
        let Some(body) = whole(&bytes) else {
            if bytes.first().is_some_and(|first| *first != FILLER) {
                tracing::warn!("{}: a write was cut off; what it was to record did not happen", self.0.display());
            }
            return Ok(None);
        };
        let understood = serde_json::from_slice(body).map_err(io::Error::other);
        understood.map(Some).map_err(|error| StateError::new("cannot understand", &self.0, error))
    }

    /// Clears the record. Not synced: each use of a record may be repeated.
    ///
    /// # Errors
    /// [`StateError`] naming the file.
    pub fn clear(&self) -> Result<(), StateError> {
        match File::options().write(true).open(&self.0).and_then(|file| file.write_all_at(&[FILLER], 0)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::new("cannot write", &self.0, error))
            }
            _ => Ok(()),
        }
    }

    /// Moves the file aside, for a person to look at.
    ///
    /// # Errors
    /// [`StateError`] naming the place.
    pub fn set_aside(&self) -> Result<PathBuf, StateError> {
        let aside = self.0.with_extension("damaged");
        fs::rename(&self.0, &aside).map_err(|error| StateError::new("cannot set aside", &aside, error))?;
        Ok(aside)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

fn digest(body: &[u8]) -> String {
    let mut hasher = Hasher::new(DigestChoice::Xxh3);
    hasher.update(body);
    hasher.finish().xxh3_128.as_ref().map(Xxh3::to_string).unwrap_or_default()
}

/// The body of `DIGEST LENGTH\nBODY`, if it is all there.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (written, length) = std::str::from_utf8(&bytes[..end]).ok()?.split_once(' ')?;
    let body = bytes.get(end + 1..)?.get(..length.parse().ok()?)?;
    (digest(body) == written).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let slot = Slot::new(folder.path().join("slot"));
        assert_eq!(slot.read::<String>().unwrap(), None);
        slot.clear().unwrap();
        slot.write(&"x".repeat(9000)).unwrap();
        slot.write(&"short").unwrap();
        assert_eq!(slot.read::<String>().unwrap().as_deref(), Some("short"));
        assert_eq!(fs::metadata(slot.path()).unwrap().len(), 12288, "the room is kept");
        let good = fs::read(slot.path()).unwrap();
        // Cut anywhere, with the record before it behind the cut.
        slot.write(&"an older record, of another length").unwrap();
        let old = fs::read(slot.path()).unwrap();
        let length = good.iter().rposition(|byte| *byte != FILLER).unwrap() + 1;
        for cut in 1..length {
            fs::write(slot.path(), [&good[..cut], &old[cut..]].concat()).unwrap();
            assert_eq!(slot.read::<String>().unwrap(), None, "cut at {cut}");
        }
        fs::write(slot.path(), &good).unwrap();
        assert!(slot.read::<u64>().is_err());
        slot.clear().unwrap();
        assert_eq!(slot.read::<String>().unwrap(), None);
    }
}
