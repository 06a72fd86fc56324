//! A relative path that a host gave us. A value that exists cannot climb, is not an option, and has no control character.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest path accepted, in bytes.
pub const MAX_PATH_BYTES: usize = 1024;
/// The longest component accepted, in bytes (Linux `NAME_MAX`).
pub const MAX_COMPONENT_BYTES: usize = 255;

/// Why a text is not a safe relative path. The text is shown escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing.
    #[error("the path is empty")]
    Empty,
    /// Longer than [`MAX_PATH_BYTES`] or a component longer than [`MAX_COMPONENT_BYTES`].
    #[error(
        "the path has {0} bytes, or a part of it is too long; at most {MAX_PATH_BYTES}, a part {MAX_COMPONENT_BYTES}"
    )]
    TooLong(usize),
    /// Begins with `/`.
    #[error("the path {0:?} is absolute")]
    Absolute(String),
    /// Begins with `-`.
    #[error("the path {0:?} begins with -")]
    Option(String),
    /// Has a `..` component.
    #[error("the path {0:?} climbs out with ..")]
    Climbs(String),
    /// Has an empty or `.` component.
    #[error("the path {0:?} has an empty or . part")]
    Dot(String),
    /// Has a control character (newline, NUL, ...).
    #[error("the path {0:?} contains a control character")]
    Control(String),
}

/// A safe relative path in `/` form, without `.`, `..` or empty components.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelativePath(String);

impl RelativePath {
    /// Checks `text`; one trailing `/` (a directory's name) is dropped.
    ///
    /// # Errors
    /// [`PathError`] says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, PathError> {
        let shown = || text.chars().take(200).collect::<String>();
        if text.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(PathError::Control(shown()));
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute(shown()));
        }
        if text.starts_with('-') {
            return Err(PathError::Option(shown()));
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        for component in text.split('/') {
            match component {
                ".." => return Err(PathError::Climbs(shown())),
                "" | "." => return Err(PathError::Dot(shown())),
                long if long.len() > MAX_COMPONENT_BYTES => return Err(PathError::TooLong(long.len())),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The path below `base`.
    pub fn below(&self, base: &Path) -> PathBuf {
        base.join(&self.0)
    }

    /// This path with `other` below it.
    ///
    /// # Errors
    /// [`PathError::TooLong`] when both together are too long.
    pub fn join(&self, other: &RelativePath) -> Result<Self, PathError> {
        Self::new(&format!("{}/{}", self.0, other.0))
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl FromStr for RelativePath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::new(text)
    }
}

impl Serialize for RelativePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelativePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_rule_has_its_own_error() {
        assert_eq!(RelativePath::new(""), Err(PathError::Empty));
        assert!(matches!(RelativePath::new("/etc/passwd"), Err(PathError::Absolute(_))));
        assert!(matches!(RelativePath::new("a/../../b"), Err(PathError::Climbs(_))));
        assert!(matches!(RelativePath::new("--rsh=x"), Err(PathError::Option(_))));
        assert!(matches!(RelativePath::new("a\nb"), Err(PathError::Control(_))));
        assert!(matches!(RelativePath::new("a\0"), Err(PathError::Control(_))));
        assert!(matches!(RelativePath::new("a//b"), Err(PathError::Dot(_))));
        assert!(matches!(RelativePath::new("./a"), Err(PathError::Dot(_))));
        assert!(matches!(RelativePath::new(&"x".repeat(300)), Err(PathError::TooLong(_))));
        assert_eq!(RelativePath::new("full/2026 11/库.xb").unwrap().name(), "库.xb");
        assert_eq!(RelativePath::new("dir/").unwrap().as_str(), "dir");
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_below_its_base(text in "\\PC{0,60}") {
            if let Ok(path) = RelativePath::new(&text) {
                let below = path.below(Path::new("/base"));
                prop_assert!(below.starts_with("/base"));
                prop_assert!(below.components().all(|c| !matches!(c, std::path::Component::ParentDir)));
            }
        }
    }
}
