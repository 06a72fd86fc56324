//! The node's own key: other nodes know by it who asks them for a backup to be copied. Made with the store and kept in it,
//! readable by its owner only; the public half is in the heartbeat.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::SigningKey;

use crate::store::{remove_all, sync};

/// Beside the store's marker.
const KEY: &str = ".longshore-key";
const NEW_KEY: &str = ".longshore-key.new";

/// The key of the store at `root`, made when there is none. Only for who holds the store's lock.
///
/// # Errors
/// The file system's, and `InvalidData` when the file holds no key: it is never replaced silently.
pub fn open(root: &Path) -> io::Result<SigningKey> {
    let path = root.join(KEY);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make(root),
        read => read?,
    };
    let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.map(|bytes| SigningKey::from_bytes(&bytes)).ok_or_else(|| {
        let text = format!("{} holds no key; remove it, and the next start makes another", path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

fn make(root: &Path) -> io::Result<SigningKey> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let new = root.join(NEW_KEY);
    remove_all(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(STANDARD.encode(bytes).as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, root.join(KEY))?;
    sync(root)?;
    Ok(SigningKey::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let key = open(folder.path()).unwrap();
        assert_eq!(open(folder.path()).unwrap(), key);
        let file = folder.path().join(KEY);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "short").unwrap();
        assert!(open(folder.path()).unwrap_err().to_string().contains(KEY));
    }
}
