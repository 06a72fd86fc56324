//! What rsync's exit code means. The code decides what is done next; its text is only shown to people.

use longshore_core::ReasonCode;

/// Whose fault it is, which is what decides how to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What was asked of the host, or the line: tried again later.
    Line,
    /// The host itself, whatever is asked of it: it is down, or refuses.
    Host,
    /// The node's own disk, memory or configuration: tried again later, here or elsewhere, and this node rests.
    Node,
    /// What was asked of the host, or the node's disk: which of them, only rsync's text says, and that is not judged by. The disk is
    /// asked itself.
    LineOrNode,
    /// We ended it: nothing is held against the job.
    Ended,
}

/// Meaning of an exit code other than 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// For programs.
    pub code: ReasonCode,
    /// For people, beside rsync's own words.
    pub text: &'static str,
    /// Whose fault.
    pub fault: Fault,
}

/// The meaning of `exit`; `arrived` says whether anything of the backup is here now.
pub fn meaning(exit: i32, arrived: bool) -> Meaning {
    use Fault::{Ended, Host, Line, LineOrNode, Node};
    use ReasonCode::{AccessDenied, SourceMissing, StoreFailed, TransferFailed, TransferStalled, Unreachable};
    let (code, text, fault) = match exit {
        1 => (TransferFailed, "rsync refused an option, or the daemon does", Line),
        2 => (TransferFailed, "the host's rsync speaks another protocol", Line),
        3 => (StoreFailed, "rsync could not use the folder to store into", Node),
        4 => (TransferFailed, "the host's rsync does not know what was asked of it", Line),
        5 => (AccessDenied, "the host's rsync daemon refused: module, login, address, or too many connections", Host),
        6 => (TransferFailed, "the daemon could not write its log", Line),
        10 => (Unreachable, "the host does not answer on its rsync port", Host),
        11 => (StoreFailed, "rsync could not write or read a file; is the disk full?", Node),
        12 => (TransferFailed, "the stream from the host broke", Line),
        13 | 14 | 21 => (TransferFailed, "rsync's own processes failed to work together", Line),
        19 | 20 => (TransferFailed, "rsync was ended by a signal", Ended),
        22 => (StoreFailed, "rsync had no memory left", Node),
        23 if !arrived => (SourceMissing, "the host has no such file, or may not read it", LineOrNode),
        23 => (TransferFailed, "some files could not be read on the host or written here", LineOrNode),
        24 => (SourceMissing, "files vanished on the host during the transfer", Line),
        30 => (TransferStalled, "no data for too long", Line),
        35 => (Unreachable, "the host's rsync daemon did not accept the connection in time", Host),
        124..=127 => (TransferFailed, "the remote shell could not run rsync", Line),
        255 => (Unreachable, "ssh could not connect or log in", Host),
        _ => (TransferFailed, "rsync failed", Line),
    };
    Meaning { code, text, fault }
}

/// What `exit` means of a transfer over ssh of which nothing `arrived`: when ssh can't log in, rsync ends with ssh's own 255 only if
/// ssh has ended before rsync looks, and otherwise with 12, that of a broken stream.
pub fn over_ssh(exit: i32, arrived: bool) -> i32 {
    if exit == 12 && !arrived { 255 } else { exit }
}

/// Whether `exit` says that some files could not be had, and all others were.
pub fn is_partial(exit: i32) -> bool {
    matches!(exit, 23 | 24)
}

/// Whether `exit` may come of a daemon too old for a forced checksum: those close the connection or refuse the option, before
/// a byte of the file is sent.
pub fn may_be_old_daemon(exit: i32) -> bool {
    matches!(exit, 1 | 2 | 4 | 10 | 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_source_is_told_from_a_partial_one() {
        assert_eq!(meaning(23, false).code, ReasonCode::SourceMissing);
        assert_eq!(meaning(23, true).code, ReasonCode::TransferFailed);
    }

    #[test]
    fn the_disk_is_the_nodes_and_the_line_is_the_hosts() {
        assert_eq!(meaning(11, true).fault, Fault::Node);
        assert_eq!(meaning(12, true).fault, Fault::Line);
        assert_eq!([true, false].map(|arrived| meaning(23, arrived).fault), [Fault::LineOrNode; 2]);
        for exit in [5, 10, 35, 255] {
            assert_eq!(meaning(exit, false).fault, Fault::Host, "{exit}");
        }
        assert_eq!(meaning(20, true).fault, Fault::Ended);
        assert_eq!(meaning(99, true).code, ReasonCode::TransferFailed);
    }
}
