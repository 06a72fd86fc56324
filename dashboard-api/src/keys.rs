//! The two secrets of the data folder, made at the first start and never changed by us: the API's token, and the key that
//! signs restore tokens. Both files are readable by their owner only; `restore.pub` is for everyone.
//!
//! To change one: remove its file and start again. Pullers must then be given the new `restore.pub`.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::SigningKey;
use longshore_core::{
    digest::{DigestChoice, digest_reader},
    token,
};

/// The API's token, in the data folder.
pub const TOKEN_FILE: &str = "token";
/// The restore key, in the data folder.
pub const RESTORE_KEY_FILE: &str = "restore.key";
/// Its public half, in the data folder; what a puller's `public_key_file` names.
pub const RESTORE_PUBLIC_FILE: &str = "restore.pub";

/// Why the data folder's secrets can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file or folder could not be read or made.
    #[error("{file}: {error}")]
    Io {
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others may read a secret.
    #[error("{0} can be read by others; run: chmod 600 {0}")]
    Readable(PathBuf),
    /// Not what we wrote there.
    #[error("{0} does not hold what it should; remove it to have a new one made")]
    Damaged(PathBuf),
}

/// The secrets.
#[derive(Clone)]
pub struct Keys {
    token: String,
    restore: SigningKey,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(hidden)")
    }
}

impl Keys {
    /// Reads the secrets of `data_dir`, making the folder and what is not there yet. `token_file`, when given, stands in
    /// for the one in the folder. Done twice at once, both get the same secrets.
    ///
    /// # Errors
    /// [`KeysError`] names the file.
    pub fn open(data_dir: &Path, token_file: Option<&Path>) -> Result<Self, KeysError> {
        fs::create_dir_all(data_dir).map_err(|error| KeysError::Io { file: data_dir.to_owned(), error })?;
        let token_file = token_file.map_or_else(|| data_dir.join(TOKEN_FILE), Path::to_owned);
        let token = secret(&token_file, || fresh::<32>().iter().map(|byte| format!("{byte:02x}")).collect())?;
        if token.len() < 16 || !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(KeysError::Damaged(token_file));
        }
        let key_file = data_dir.join(RESTORE_KEY_FILE);
        let restore = STANDARD.decode(secret(&key_file, || STANDARD.encode(fresh::<32>()))?).ok();
        let Some(restore) = restore.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) else {
            return Err(KeysError::Damaged(key_file));
        };
        let keys = Self { token, restore: SigningKey::from_bytes(&restore) };
        keys.write_public(&data_dir.join(RESTORE_PUBLIC_FILE))?;
        Ok(keys)
    }

    /// Writes the public half where it is missing or is another key's.
    fn write_public(&self, file: &Path) -> Result<(), KeysError> {
        let text = format!("{}\n", self.public_text());
        if fs::read_to_string(file).is_ok_and(|there| there == text) {
            return Ok(());
        }
        let io = |error| KeysError::Io { file: file.to_owned(), error };
        let mut new = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new("."))).map_err(io)?;
        new.write_all(text.as_bytes()).map_err(io)?;
        new.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(io)?;
        new.as_file().sync_all().map_err(io)?;
        new.persist(file).map_err(|error| io(error.error))?;
        Ok(())
    }

    /// The API's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What a browser keeps instead of the token: it opens the pages, and can't be turned back into the token.
    pub fn cookie(&self) -> String {
        hash(&format!("longshore page {}", self.token))
    }

    /// Whether `given` is the token. Hashes are compared, so the time taken tells nothing of it.
    pub fn is_token(&self, given: &str) -> bool {
        hash(given) == hash(&self.token)
    }

    /// Whether `given` is the cookie.
    pub fn is_cookie(&self, given: &str) -> bool {
        hash(given) == hash(&self.cookie())
    }

    /// The key that signs restore tokens.
    pub fn restore(&self) -> &SigningKey {
        &self.restore
    }

    /// Its public half, as `restore.pub` has it.
    pub fn public_text(&self) -> String {
        token::public_key_text(&self.restore.verifying_key())
    }
}

fn hash(text: &str) -> String {
    let digests = digest_reader(text.as_bytes(), DigestChoice::Blake3).ok();
    digests.and_then(|digests| digests.blake3).map(|digest| digest.to_string()).unwrap_or_default()
}

fn fresh<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    // The kernel's generator does not fail once it is seeded, which is before any service starts.
    #[allow(clippy::expect_used)]
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

/// The content of `file`, made by `make` when it is not there: written whole under another name and then linked to its own,
/// which fails when another was faster; then that one's content counts.
fn secret(file: &Path, make: impl FnOnce() -> String) -> Result<String, KeysError> {
    let io = |error| KeysError::Io { file: file.to_owned(), error };
    if !file.try_exists().map_err(io)? {
        let mut new = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new("."))).map_err(io)?;
        writeln!(new, "{}", make()).map_err(io)?;
        new.as_file().sync_all().map_err(io)?;
        match new.persist_noclobber(file) {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(error.error)),
        }
    }
    if fs::metadata(file).map_err(io)?.permissions().mode() & 0o077 != 0 {
        return Err(KeysError::Readable(file.to_owned()));
    }
    let text = fs::read_to_string(file).map_err(io)?.trim().to_owned();
    if text.is_empty() { Err(KeysError::Damaged(file.to_owned())) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_read_by_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b");
        let first = Keys::open(&data, None).unwrap();
        let again = Keys::open(&data, None).unwrap();
        assert_eq!((first.token(), first.public_text()), (again.token(), again.public_text()));
        for name in [TOKEN_FILE, RESTORE_KEY_FILE] {
            assert_eq!(fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        let public = fs::read_to_string(data.join(RESTORE_PUBLIC_FILE)).unwrap();
        assert_eq!(token::parse_public_key(&public).unwrap(), first.restore().verifying_key());
        fs::set_permissions(data.join(TOKEN_FILE), fs::Permissions::from_mode(0o644)).unwrap();
        let error = Keys::open(&data, None).unwrap_err();
        assert!(matches!(error, KeysError::Readable(_)) && error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_cookie_opens_pages_and_is_not_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path(), None).unwrap();
        assert!(keys.is_token(keys.token()) && keys.is_cookie(&keys.cookie()));
        assert!(!keys.is_token(&keys.cookie()) && !keys.is_cookie(keys.token()));
        assert!(!keys.is_token("") && !keys.is_cookie(""));
    }

    #[test]
    fn a_damaged_key_is_named_and_never_replaced_silently() {
        let folder = tempfile::tempdir().unwrap();
        Keys::open(folder.path(), None).unwrap();
        fs::write(folder.path().join(RESTORE_KEY_FILE), "short").unwrap();
        assert!(matches!(Keys::open(folder.path(), None), Err(KeysError::Damaged(_))));
    }
}
