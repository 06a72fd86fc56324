//! A job: one backup result on its way. Version 1 of the format; unknown fields are kept, unknown versions are set aside.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    BackupType, BusinessId, ChainLink, InstanceKey, InstanceName, JobId, Millis, QueueName, RelativePath, ServerId,
    digest::{Blake3, Xxh3},
};

/// The version this build writes, and the only one it reads.
pub const JOB_VERSION: u32 = 1;
/// The longest job accepted, in bytes of JSON. A full example has about 1,200.
pub const MAX_JOB_BYTES: usize = 64 * 1024;
/// What a file's end takes on a disk at most.
const BLOCK_BYTES: u64 = 4096;
/// Folders that a directory whose agent does not tell may have for each file, and beside.
const FOLDERS_UNTOLD: (u64, u64) = (4, 1000);
/// Its folder and the month's above, the data, the manifest.
const INODES_OF_A_BACKUP: u64 = 4;

/// One backup result on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Always [`JOB_VERSION`].
    pub v: u32,
    /// Its id.
    pub id: JobId,
    /// The host.
    pub server_id: ServerId,
    /// The type.
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    /// Which one.
    pub instance: InstanceName,
    /// The product line.
    pub business_id: BusinessId,
    /// When the run that made it started, by the host's clock.
    pub made_at: Millis,
    /// How often this instance is backed up.
    pub interval_seconds: u64,
    /// The level it was made for. It waits in the one whose inbox it was found in, nearly always the same.
    pub queue: QueueName,
    /// Where to fetch it. `None` in the report of a run that made nothing.
    pub source: Option<Source>,
    /// What to expect there. `None` in the report of a run that made nothing.
    pub content: Option<Content>,
    /// Its place in a chain.
    pub chain: Option<ChainLink>,
    /// The script's run; `None` from seed clients and `submit`.
    pub script: Option<ScriptRun>,
    /// The agent that made the job; `None` from seed clients.
    pub agent: Option<AgentStamp>,
    /// Ed25519 signature over [`crate::canonical::signed_bytes`], base64.
    pub signature: Option<String>,
    /// Fields of later versions, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Job {
    /// The instance it is a backup of.
    pub fn key(&self) -> InstanceKey {
        InstanceKey {
            server_id: self.server_id.clone(),
            backup_type: self.backup_type.clone(),
            instance: self.instance.clone(),
        }
    }

    /// Bytes announced; 0 where there is no content.
    pub fn size_bytes(&self) -> u64 {
        self.content.as_ref().map_or(0, |content| content.size_bytes)
    }

    /// What storing it takes of a disk at most: bytes, and inodes. A directory's files take up to a block more than their bytes
    /// each, and its folders a block; every backup has its folder, its manifest, and the data's own file or directory.
    pub fn footprint(&self) -> (u64, u64) {
        match &self.content {
            Some(content) if content.kind == ContentKind::Directory => {
                let entries = content.files.saturating_add(content.most_folders());
                let bytes = content.size_bytes.saturating_add(entries.saturating_mul(BLOCK_BYTES));
                (bytes, entries.saturating_add(INODES_OF_A_BACKUP))
            }
            _ => (self.size_bytes(), INODES_OF_A_BACKUP),
        }
    }

    /// The name of the backup file or directory: the last part of the source's path.
    pub fn name(&self) -> Option<&str> {
        self.source.as_ref().map(|source| source.path.name())
    }
}

/// How a file is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// `host::module/path` of an rsync daemon.
    RsyncDaemon,
    /// rsync over ssh; user and key are the node's configuration, the path is relative to `module` below the login's root.
    Ssh,
    /// A path of the node itself (a mounted file system); `module` names a root that the node's configuration allows.
    Local,
}

/// Where a backup is fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// How.
    pub transport: Transport,
    /// The host's name or address.
    pub address: HostAddress,
    /// TCP port; `None` for the transport's own (873, 22).
    pub port: Option<u16>,
    /// The rsync module.
    pub module: ModuleName,
    /// The file or directory below the module.
    pub path: RelativePath,
    /// Fields of later versions, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// A file, or a directory of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentKind {
    /// One regular file.
    File,
    /// A directory with everything below it.
    Directory,
}

/// What a backup consists of, as the agent measured it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// File or directory.
    pub kind: ContentKind,
    /// Bytes in all files.
    pub size_bytes: u64,
    /// How many regular files.
    pub files: u64,
    /// How many folders a directory has, itself included; `None` where an agent does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folders: Option<u64>,
    /// Digest of the file, or of the directory (see [`crate::digest::directory_digest`]).
    pub xxh3_128: Option<Xxh3>,
    /// BLAKE3 of a file; directories have none.
    pub blake3: Option<Blake3>,
    /// Fields of later versions, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Content {
    /// How many folders may come at most: those announced, or what is far above any real tree.
    pub fn most_folders(&self) -> u64 {
        let (each, beside) = FOLDERS_UNTOLD;
        self.folders.unwrap_or(self.files.saturating_mul(each).saturating_add(beside))
    }

    /// Whether a digest was announced, by which what is here proves to be it.
    pub fn is_provable(&self) -> bool {
        self.xxh3_128.is_some() || self.blake3.is_some()
    }
}

/// How the backup script ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScriptRun {
    /// How long.
    pub seconds: f64,
    /// Exit status; `None` when a signal or the timeout ended it.
    pub exit: Option<i32>,
    /// Fields of later versions, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// Which agent made the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStamp {
    /// Its version.
    pub version: String,
    /// The host's own name.
    pub host: String,
    /// Fields of later versions, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// Why a text is not a host's address or a module's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} {rule}")]
pub struct SourceError {
    what: &'static str,
    text: String,
    rule: &'static str,
}

macro_rules! source_text {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks and keeps it.
            ///
            /// # Errors
            /// [`SourceError`] names the rule that it breaks.
            pub fn new(text: impl AsRef<str>) -> Result<Self, SourceError> {
                let text = text.as_ref().trim();
                $check(text)?;
                Ok(Self(text.to_owned()))
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = SourceError;
            fn from_str(text: &str) -> Result<Self, SourceError> {
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
                Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

source_text!(
    /// A host name, an IPv4 or an IPv6 address (without brackets). Not resolved or otherwise believed: the seed's own
    /// sample is `127.0.0.0.1`.
    HostAddress, check_address
);
source_text!(
    /// The name of an rsync module.
    ModuleName, check_module
);

fn check_address(text: &str) -> Result<(), SourceError> {
    if text.contains(':') && text.parse::<std::net::Ipv6Addr>().is_err() {
        return Err(SourceError {
            what: "address",
            text: text.chars().take(80).collect(),
            rule: "is not an IPv6 address",
        });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".:_-".contains(c);
    source_rule("address", text, 253, allowed, "may have letters, digits and .:_- only")
}

fn check_module(text: &str) -> Result<(), SourceError> {
    let allowed = |c: char| c.is_alphanumeric() || "._-+@ ".contains(c);
    source_rule("module", text, 128, allowed, "may have letters, digits, blanks and ._-+@ only")
}

fn source_rule(
    what: &'static str,
    text: &str,
    longest_bytes: usize,
    allowed: fn(char) -> bool,
    rule: &'static str,
) -> Result<(), SourceError> {
    let error = |rule| Err(SourceError { what, text: text.chars().take(80).collect(), rule });
    if text.is_empty() {
        return error("is empty");
    }
    if text.len() > longest_bytes {
        return error("is too long");
    }
    if text.starts_with(['-', '.']) {
        return error("begins with - or .");
    }
    if !text.chars().all(allowed) {
        return error(rule);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const EXAMPLE: &str = include_str!("../fixtures/job-v1.json");

    #[test]
    fn the_example_round_trips() {
        let job: Job = serde_json::from_str(EXAMPLE).unwrap();
        let written = serde_json::to_value(&job).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(EXAMPLE).unwrap());
        assert_eq!(job.key().to_string(), "111111/mysql/3306");
        assert_eq!(job.name(), Some("inc-20261120T0300.xb"));
    }

    #[test]
    fn unknown_fields_are_kept_at_every_level() {
        let mut value: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
        value["later"] = 1.into();
        value["source"]["later"] = 2.into();
        value["content"]["later"] = 3.into();
        value["chain"]["later"] = 4.into();
        let job: Job = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&job).unwrap(), value);
    }

    #[test]
    fn a_footprint_counts_a_block_and_an_inode_for_each_file_and_folder_of_a_directory() {
        let mut job: Job = serde_json::from_str(EXAMPLE).unwrap();
        let size_bytes = job.size_bytes();
        assert_eq!(job.footprint(), (size_bytes, 4));
        let content = job.content.as_mut().unwrap();
        (content.kind, content.files, content.folders) = (ContentKind::Directory, 10, Some(3));
        assert_eq!(job.footprint(), (size_bytes + 13 * 4096, 17));
        job.content.as_mut().unwrap().folders = None;
        assert_eq!(job.footprint(), (size_bytes + 1050 * 4096, 1054), "an agent that does not tell");
        job.content.as_mut().unwrap().files = u64::MAX;
        assert_eq!(job.footprint(), (u64::MAX, u64::MAX));
        job.content = None;
        assert_eq!(job.footprint(), (0, 4));
    }

    #[test]
    fn an_address_is_never_an_option_and_has_no_separator() {
        for text in ["-oProxyCommand=x", "", "a b", "a/b", "a::m", "a:b", "ho\nst", "user@host", ".hidden", "h\0"] {
            assert!(HostAddress::new(text).is_err(), "{text:?}");
        }
        assert_eq!(HostAddress::new("127.0.0.0.1").unwrap().as_str(), "127.0.0.0.1");
        assert_eq!(HostAddress::new("fe80::1").unwrap().as_str(), "fe80::1");
        assert!(ModuleName::new("-x").is_err());
        assert!(ModuleName::new("a/b").is_err());
        assert_eq!(ModuleName::new("backup").unwrap().as_str(), "backup");
    }
}
