//! Why a transfer did not end in a backup, and what that means for the job: the one classifier.

use std::io;

use longshore_core::{ReasonCode, report::Reason};

use crate::rsync::exit_code::Fault;

/// What is to be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The host or the line: again later, by whoever has room.
    Again,
    /// The host is down or refuses, whatever the job: given back with nothing counted, and the host rests.
    Host,
    /// This node's disk, though perhaps because of what the job brings: again later, and this node takes no job for a while.
    /// When the disk takes nothing from anyone, it is as [`Class::NodeUnfit`].
    NodeRests,
    /// The host, or this node's disk: as [`Class::Again`], unless the disk is full or takes nothing; then it is [`Class::NodeUnfit`].
    AgainOrUnfit,
    /// This node's own, whatever the job: given back with nothing counted, and this node takes no job for a while.
    NodeUnfit,
    /// Not what was announced: fetched once more from its source, by whichever node, then kept for a person.
    Corrupt,
    /// No repetition can help.
    GiveUp,
    /// We ended it ourselves: given back, nothing counted.
    Ended,
}

impl Class {
    /// Whether it has to do with this node's disk, or may have: the disk itself says.
    pub fn may_be_disk(self) -> bool {
        matches!(self, Self::NodeRests | Self::NodeUnfit | Self::AgainOrUnfit)
    }
}

/// A transfer that brought no backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For the report.
    pub reason: Reason,
    /// What to do.
    pub class: Class,
}

impl Failure {
    /// With the class that `code` has everywhere.
    pub fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        use ReasonCode::{Cancelled, FileKind, FileUnsafe, Malformed, StoreFailed, UnsafePath};
        let class = match code {
            _ if code.is_difference() => Class::Corrupt,
            StoreFailed => Class::NodeRests,
            FileKind | FileUnsafe | UnsafePath | Malformed => Class::GiveUp,
            Cancelled => Class::Ended,
            _ => Class::Again,
        };
        Self { reason: Reason::new(code, text), class }
    }

    /// The node's disk failed while doing `what`. A full one is never the job's fault: room for all that it may take was promised; nor
    /// is one that does not answer, or work of this node's own that still has the job's folder.
    pub fn store(what: &str, error: &io::Error) -> Self {
        let failure = Self::new(ReasonCode::StoreFailed, format!("{what}: {error}"));
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::TimedOut => {
                Self { class: Class::NodeUnfit, ..failure }
            }
            _ => failure,
        }
    }

    /// The same where this node's disk was found to take nothing: then what may have been the host's was not.
    pub fn of_failing_disk(self) -> Self {
        if self.class != Class::AgainOrUnfit {
            return self;
        }
        let reason = Reason::new(ReasonCode::StoreFailed, format!("the disk takes nothing: {}", self.reason.text));
        Self { reason, class: Class::NodeUnfit }
    }

    /// We ended the transfer: a drain, or a lease that was lost.
    pub fn ended() -> Self {
        Self::new(ReasonCode::Cancelled, "the transfer was ended by its own node")
    }

    /// rsync ended with `exit`; `said` is what it wrote.
    pub fn rsync(exit: i32, arrived: bool, said: &str) -> Self {
        let meaning = crate::rsync::exit_code::meaning(exit, arrived);
        let text = format!("{} (rsync exit {exit}): {said}", meaning.text);
        let text = text.trim_end_matches([' ', ':']).to_owned();
        let class = match meaning.fault {
            // Somebody else's signal: to us a broken transfer like any other.
            Fault::Line | Fault::Ended => Class::Again,
            Fault::Host => Class::Host,
            Fault::Node => Class::NodeRests,
            Fault::LineOrNode => Class::AgainOrUnfit,
        };
        Self { reason: Reason::new(meaning.code, text), class }
    }
}
