//! A report: what became of a job. Exactly one final one for each job; retries leave none.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Job, Millis, NodeId, RelativePath};

/// The version this build writes, and the only one it reads.
pub const REPORT_VERSION: u32 = 1;

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`REPORT_VERSION`].
    pub v: u32,
    /// The job as it was admitted.
    pub job: Job,
    /// Microseconds of Redis time when the lease was claimed (or the failure reported), strictly growing for one job: the
    /// fence of the lease, and the version of the catalog entry.
    pub revision: u64,
    /// Stored, failed, refused, cancelled.
    pub outcome: Outcome,
    /// Why not stored. `None` when stored.
    pub reason: Option<Reason>,
    /// The node that stored or gave up; `None` when the job never reached one.
    pub node_id: Option<NodeId>,
    /// The backup's directory below the node's store, when stored.
    pub path: Option<RelativePath>,
    /// When it was published on the node, by the node's clock; when it ended, for the other outcomes.
    pub stored_at: Millis,
    /// Transfers begun for it, this one included; 0 when none was.
    pub attempts: u32,
    /// The last transfer; `None` when none was.
    pub transfer: Option<Transfer>,
    /// How the stored bytes were checked, when stored.
    pub verified: Option<Verified>,
    /// Further copies on other nodes.
    #[serde(default)]
    pub copies: Vec<Copy>,
    /// Fields of later versions, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Report {
    /// A report of `job` with no transfer behind it: a script's failure, a refusal, a cancellation.
    pub fn without_transfer(job: Job, revision: u64, outcome: Outcome, reason: Reason, at: Millis) -> Self {
        Self {
            v: REPORT_VERSION,
            job,
            revision,
            outcome,
            reason: Some(reason),
            node_id: None,
            path: None,
            stored_at: at,
            attempts: 0,
            transfer: None,
            verified: None,
            copies: Vec::new(),
            extra: serde_json::Map::new(),
        }
    }
}

/// The end of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Whole, verified and published on a node.
    Stored,
    /// The script, its log, or the transfer failed.
    Failed,
    /// Not fetched, because the job itself is not acceptable.
    Refused,
    /// Taken out by an operator.
    Cancelled,
}

impl Outcome {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }

    /// From its JSON text.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Stored, Self::Failed, Self::Refused, Self::Cancelled]
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
    }
}

/// Why a job was not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// For people: what happened, with names; at most [`MAX_REASON_BYTES`].
    pub text: String,
}

/// Log text is cut here, in the agent and again at the catalog.
pub const MAX_REASON_BYTES: usize = 8 * 1024;

impl Reason {
    /// Cuts `text` to [`MAX_REASON_BYTES`] at a character's border.
    pub fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > MAX_REASON_BYTES {
            let end = text.floor_char_boundary(MAX_REASON_BYTES - '…'.len_utf8());
            text.truncate(end);
            text.push('…');
        }
        Self { code, text }
    }
}

impl ReasonCode {
    /// Whether what came was not what was announced.
    pub fn is_difference(&self) -> bool {
        matches!(self, Self::SizeDiffers | Self::DigestDiffers)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.text)
    }
}

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Why, for programs.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum ReasonCode {
            $($(#[$doc])* $variant,)*
            /// A code of a later version, kept.
            Other(String),
        }

        impl ReasonCode {
            /// Every code this version knows.
            pub const KNOWN: &[Self] = &[$(Self::$variant,)*];

            /// As in JSON.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<String> for ReasonCode {
            fn from(text: String) -> Self {
                match text.as_str() {
                    $($text => Self::$variant,)*
                    _ => Self::Other(text),
                }
            }
        }
    };
}

reason_codes! {
    // On the host: the script and its log.
    /// The script said `wrong`.
    ScriptWrong = "script_wrong",
    /// The script's exit status was not 0.
    ScriptExit = "script_exit",
    /// The script was ended after its `timeout`.
    ScriptTimeout = "script_timeout",
    /// A signal ended the script.
    ScriptSignal = "script_signal",
    /// The script could not be started.
    ScriptStart = "script_start",
    /// The agent was killed, and how the script ended is not known.
    ScriptUnknown = "script_unknown",
    /// There is no `back_log`.
    LogMissing = "log_missing",
    /// `back_log` is empty.
    LogEmpty = "log_empty",
    /// `back_log` was not rewritten by this run.
    LogStale = "log_stale",
    /// `back_log` could not be read.
    LogUnreadable = "log_unreadable",
    /// The first line is neither `ok` nor `wrong`.
    LogWord = "log_word",
    /// `ok` without a file name.
    LogNoName = "log_no_name",
    /// `last_all_log` is missing or not usable, so the chain is not known.
    FullLogUnusable = "full_log_unusable",
    /// The name in the log is absolute, climbs, or has control characters.
    FileUnsafe = "file_unsafe",
    /// The file that the log names does not exist.
    FileMissing = "file_missing",
    /// The file that the log names is empty.
    FileEmpty = "file_empty",
    /// The file that the log names is neither a regular file nor a directory, or contains a link.
    FileKind = "file_kind",
    /// The file that the log names is still growing.
    FileGrowing = "file_growing",
    /// The file that the log names could not be read.
    FileUnreadable = "file_unreadable",

    // On the way: the job itself.
    /// Not JSON, or a field of the wrong type.
    Malformed = "malformed",
    /// Longer than a job may be.
    TooLarge = "too_large",
    /// A version this build does not know.
    UnknownVersion = "unknown_version",
    /// A path or address that could leave its place.
    UnsafePath = "unsafe_path",
    /// The signature does not fit.
    BadSignature = "bad_signature",

    // On the node: the transfer.
    /// The host does not answer, or not its rsync port.
    Unreachable = "unreachable",
    /// The host refused the login or the module.
    AccessDenied = "access_denied",
    /// The file is not there any more.
    SourceMissing = "source_missing",
    /// rsync ended with an error.
    TransferFailed = "transfer_failed",
    /// No byte arrived for too long.
    TransferStalled = "transfer_stalled",
    /// The size is not the one announced.
    SizeDiffers = "size_differs",
    /// The digest is not the one announced.
    DigestDiffers = "digest_differs",
    /// The node's disk failed, or was full.
    StoreFailed = "store_failed",
    /// The node has no configuration for this transport or module.
    NotConfigured = "not_configured",

    // Elsewhere.
    /// A failure message of a seed client; its log is the text.
    SeedFailure = "seed_failure",
    /// An operator took the job out.
    Cancelled = "cancelled",
}

impl Serialize for ReasonCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ReasonCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// What a transfer moved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Bytes received in this transfer.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Bytes that an earlier, broken transfer had left and that were used again.
    pub resumed_bytes: u64,
}

/// How the stored bytes were checked; the stricter is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verified {
    /// The digest of the bytes as they were received.
    Received,
    /// Synced, dropped from the cache, and read again.
    Reread,
}

/// A further copy of a stored backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// The node that holds it.
    pub node_id: NodeId,
    /// Its directory below that node's store.
    pub path: RelativePath,
    /// When it was published there.
    pub stored_at: Millis,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_example_round_trips() {
        let text = include_str!("../fixtures/report-v1.json");
        let report: Report = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(report.outcome, Outcome::Stored);
    }

    #[test]
    fn codes_of_later_versions_are_kept() {
        let code: ReasonCode = serde_json::from_str("\"melted\"").unwrap();
        assert_eq!(serde_json::to_string(&code).unwrap(), "\"melted\"");
        for code in ReasonCode::KNOWN {
            assert_eq!(&ReasonCode::from(code.as_str().to_owned()), code);
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = Reason::new(ReasonCode::ScriptWrong, "失败".repeat(8000));
        assert!(reason.text.len() <= MAX_REASON_BYTES && reason.text.ends_with('…'));
    }
}
