//! Names of things, as types whose constructors validate. A value that exists is fit for a path component, a Redis key
//! and a log field; display and parse round-trip.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest id accepted, in bytes: an id is used as one path component, and those end at 255 bytes.
pub const MAX_ID_BYTES: usize = 128;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing, or nothing but blanks.
    #[error("{what} is empty")]
    Empty {
        /// Which id.
        what: &'static str,
    },
    /// More than [`MAX_ID_BYTES`].
    #[error("{what} has {bytes} bytes; at most {MAX_ID_BYTES} are allowed")]
    TooLong {
        /// Which id.
        what: &'static str,
        /// The length found.
        bytes: usize,
    },
    /// A character outside letters, digits and `._-:@+`, or a first character `.`, `-`.
    #[error(
        "{what} {text:?} has {character:?} at byte {at}; letters, digits and ._-:@+ are allowed, the first not . or -"
    )]
    Character {
        /// Which id.
        what: &'static str,
        /// The text refused.
        text: String,
        /// The first character that is not allowed.
        character: char,
        /// Its byte position.
        at: usize,
    },
}

fn check(what: &'static str, text: &str) -> Result<(), IdError> {
    if text.trim().is_empty() {
        return Err(IdError::Empty { what });
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong { what, bytes: text.len() });
    }
    let bad = text.char_indices().find(|&(at, character)| {
        let allowed = character.is_alphanumeric() || "._-:@+".contains(character);
        !allowed || (at == 0 && (character == '.' || character == '-'))
    });
    match bad {
        Some((at, character)) => Err(IdError::Character { what, text: text.to_owned(), character, at }),
        None => Ok(()),
    }
}

/// Accepts a JSON string or integer: the seed's messages carry ids as integers.
fn text_or_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or an integer")
        }
        fn visit_str<E: de::Error>(self, v: &str) -> Result<String, E> {
            Ok(v.to_owned())
        }
        fn visit_u64<E: de::Error>(self, v: u64) -> Result<String, E> {
            Ok(v.to_string())
        }
        fn visit_i64<E: de::Error>(self, v: i64) -> Result<String, E> {
            Ok(v.to_string())
        }
    }
    deserializer.deserialize_any(Visitor)
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks `text` (surrounding blanks are dropped) and keeps it.
            ///
            /// # Errors
            /// [`IdError`] when it is empty, too long, or has a character that is not allowed.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref().trim();
                check($what, text)?;
                Ok(Self(text.to_owned()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(text_or_integer(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

text_id!(
    /// A host: a machine that makes backups.
    ServerId, "server_id"
);
text_id!(
    /// What kind of thing is backed up: mysql, redis, folder.
    BackupType, "type"
);
text_id!(
    /// Which one of that type on the host; a port number for databases.
    InstanceName, "instance"
);
text_id!(
    /// The product line an instance belongs to.
    BusinessId, "business_id"
);
text_id!(
    /// One storage machine.
    NodeId, "node_id"
);
text_id!(
    /// A level: the name of a Redis inbox list. The list's key is this name itself, so that the seed's clients can push.
    QueueName, "queue"
);

/// A job's id: a UUIDv7 from an agent, or for a seed message a UUIDv8 made of its content (see [`crate::legacy`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(uuid::Uuid);

impl JobId {
    /// A fresh UUIDv7 of now.
    pub fn fresh() -> Self {
        Self(uuid::Uuid::now_v7())
    }

    /// A UUID of version 8 (custom) whose first 48 bits are `made_at` in milliseconds as in version 7, and whose rest comes
    /// from `hash`: equal content gives an equal id, and ids still sort by time.
    pub fn from_content(made_at: crate::Millis, hash: u128) -> Self {
        let mut bytes = hash.to_be_bytes();
        let millis = made_at.0.clamp(0, (1 << 48) - 1).to_be_bytes();
        bytes[..6].copy_from_slice(&millis[2..]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The id's 16 bytes; they sort as its text does.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The time in the id's first 48 bits.
    pub fn time(&self) -> crate::Millis {
        let mut millis = [0u8; 8];
        millis[2..].copy_from_slice(&self.0.as_bytes()[..6]);
        crate::Millis(i64::from_be_bytes(millis))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.hyphenated().to_string())
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        uuid::Uuid::try_parse(text).map(Self)
    }
}

/// One thing backed up: (`server_id`, `type`, `instance`). Shown as `server_id/type/instance`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceKey {
    /// The host.
    pub server_id: ServerId,
    /// The type.
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    /// Which one.
    pub instance: InstanceName,
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}/{}", self.server_id, self.backup_type, self.instance))
    }
}

/// Why a text is not an [`InstanceKey`].
#[derive(Debug, thiserror::Error)]
pub enum InstanceKeyError {
    /// Not three parts.
    #[error("{0:?} is not an instance; write SERVER_ID/TYPE/INSTANCE, such as 111111/mysql/3306")]
    Shape(String),
    /// A part is not an id.
    #[error(transparent)]
    Part(#[from] IdError),
}

impl FromStr for InstanceKey {
    type Err = InstanceKeyError;
    fn from_str(text: &str) -> Result<Self, InstanceKeyError> {
        let mut parts = text.split('/');
        let (Some(server_id), Some(backup_type), Some(instance), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InstanceKeyError::Shape(text.to_owned()));
        };
        Ok(Self { server_id: server_id.parse()?, backup_type: backup_type.parse()?, instance: instance.parse()? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_seed_integer_is_an_id() {
        let id: ServerId = serde_json::from_str("111111").unwrap();
        assert_eq!(id.as_str(), "111111");
        assert!(serde_json::from_str::<ServerId>("1.5").is_err());
        assert!(serde_json::from_str::<ServerId>("null").is_err());
    }

    #[test]
    fn what_could_climb_or_become_an_option_is_refused() {
        for text in ["", " ", ".", "..", "-rf", "a/b", "a b", "a\nb", "a\0b", &"x".repeat(129)] {
            assert!(InstanceName::new(text).is_err(), "{text:?} was accepted");
        }
        assert_eq!(InstanceName::new(" 3306 ").unwrap().as_str(), "3306");
        assert_eq!(BackupType::new("数据库").unwrap().as_str(), "数据库");
    }

    #[test]
    fn a_content_id_keeps_its_time() {
        let made_at = crate::Millis(1_779_000_000_123);
        let id = JobId::from_content(made_at, 0x1234_5678_9abc_def0_1234_5678_9abc_def0);
        assert_eq!(id.time(), made_at);
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
    }

    proptest! {
        #[test]
        fn display_and_parse_round_trip(text in "[a-zA-Z0-9_][a-zA-Z0-9._:@+-]{0,40}") {
            let id = NodeId::new(&text).unwrap();
            prop_assert_eq!(id.to_string().parse::<NodeId>().unwrap(), id);
        }
    }
}
