//! A password or key: given as text or, as `name_file`, by the file that holds it; never shown.

use std::{fmt, os::unix::fs::MetadataExt, path::Path};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Origin, Problem};

/// What every rendering of a secret says.
pub(super) const HIDDEN: &str = "(secret)";

/// The name by which [`Secret`] tells the configuration reader that `x_file` may stand for `x`.
pub(super) const MARK: &str = "longshore::Secret";

/// A secret text. Debug, display and serialization say `(secret)`. In a configuration it is `x = "..."` or
/// `x_file = "/path"`; the file must not be readable by everyone, and a last newline of it is dropped. systemd credentials
/// work as paths below `/run/credentials/UNIT`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Reads the secret from `path`.
    ///
    /// # Errors
    /// A sentence naming the file, when it can't be read, is empty, not UTF-8, or readable by everyone.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let mode = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?.mode();
        if mode & 0o007 != 0 {
            return Err(format!("{shown} is open to every user (mode {:03o}); run: chmod 600 {shown}", mode & 0o777));
        }
        let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() { Err(format!("{shown} is empty")) } else { Ok(Self::new(text)) }
    }
}

/// A secret that was given as text.
pub(super) struct Inline {
    /// Dotted.
    pub(super) key: String,
    pub(super) origin: Origin,
}

/// Those of `secrets` in a file that every user can read.
pub(super) fn open_to_all(secrets: &[Inline]) -> Vec<Problem> {
    let mut open = Vec::new();
    for Inline { key, origin } in secrets {
        let Origin::File { path, .. } = origin else { continue };
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0) {
            let what = format!("every user can read this secret; chmod 640 {}, or use {key}_file", path.display());
            open.push(Problem::new(origin.clone(), key, what));
        }
    }
    open
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(HIDDEN)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::new(text))
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Secret, D::Error> {
                deserializer.deserialize_str(self)
            }
        }
        deserializer.deserialize_newtype_struct(MARK, Visitor)
    }
}
