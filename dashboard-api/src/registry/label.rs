//! A name for people: any text of one line. Ids are what programs compare; a label is only shown.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest label, in bytes; the seed's columns held 255 characters.
const MAX_LABEL_BYTES: usize = 1024;

/// One line of text, surrounding blanks dropped, possibly empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Label(String);

/// Why a text is not a label.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// Longer than 1024 bytes.
    #[error("a name of {0} bytes is too long; at most {MAX_LABEL_BYTES}")]
    TooLong(usize),
    /// A newline or another control character.
    #[error("the name {0:?} contains a control character")]
    Control(String),
}

impl Label {
    /// Checks and keeps `text`.
    ///
    /// # Errors
    /// [`LabelError`] names the rule that it breaks.
    pub fn new(text: impl AsRef<str>) -> Result<Self, LabelError> {
        let text = text.as_ref().trim();
        if text.len() > MAX_LABEL_BYTES {
            return Err(LabelError::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(LabelError::Control(text.chars().take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl std::str::FromStr for Label {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<Self, LabelError> {
        Self::new(text)
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
