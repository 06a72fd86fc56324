//! A chain: a full backup and the increments that need it. The link travels in the job; whether a chain is whole is
//! decided from the links of its members.

use serde::{Deserialize, Serialize};

use crate::{JobId, Millis, RelativePath};

/// Where a backup stands in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChainPosition {
    /// The full itself.
    Full,
    /// Needs the full and every increment since.
    Increment,
    /// Needs only the full.
    Differential,
}

impl ChainPosition {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Increment => "increment",
            Self::Differential => "differential",
        }
    }
}

/// Which full a link names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullBackup {
    /// Its file name, relative to `back_dir`.
    pub name: RelativePath,
    /// When the run that made it started.
    pub made_at: Millis,
}

/// A job's place in its chain. A backup without a chain (every one a full by itself) has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainLink {
    /// Full, increment or differential.
    pub position: ChainPosition,
    /// The full this link belongs to; for a full, itself.
    pub full: FullBackup,
    /// The backup made just before in this chain. `None` for a full, and for seed messages, which don't tell.
    #[serde(default)]
    pub previous: Option<JobId>,
    /// 0 for the full, then 1, 2, ... `None` for seed messages: such a chain is unproven, never whole.
    #[serde(default)]
    pub sequence: Option<u32>,
    /// Position the backup starts at (an LSN, a binlog name), compared for equality only.
    #[serde(default)]
    pub from: Option<String>,
    /// Position the backup ends at.
    #[serde(default)]
    pub to: Option<String>,
    /// Fields of later versions, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// Whether a chain can be restored in full order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum ChainState {
    /// Every sequence number, `previous` and given `from`/`to` meets the one before.
    Whole,
    /// No contradiction seen, but the links (of seed messages) do not prove that nothing is missing.
    Unproven,
    /// A gap; what is missing.
    Broken {
        /// For people: which link does not meet which.
        why: String,
    },
}

/// Judges links given in restore order, each with its job's id.
///
/// An increment's link is judged against the one before it; a differential's against the full only, so the caller passes
/// the full and that differential alone.
pub fn judge<'a>(links: impl IntoIterator<Item = (JobId, &'a ChainLink)>) -> ChainState {
    let broken = |why: String| ChainState::Broken { why };
    let mut unproven = false;
    let mut before: Option<(JobId, &ChainLink)> = None;
    for (id, link) in links {
        let Some((previous_id, previous)) = before else {
            if link.position != ChainPosition::Full {
                return broken(format!("the full {} is missing", link.full.name));
            }
            unproven |= link.sequence.is_none();
            before = Some((id, link));
            continue;
        };
        if link.position == ChainPosition::Full {
            return broken(format!("a second full {} inside the chain", link.full.name));
        }
        if link.full != previous.full {
            return broken(format!("{id} belongs to the full {}, not {}", link.full.name, previous.full.name));
        }
        if link.position == ChainPosition::Increment {
            match (link.previous, link.sequence, previous.sequence) {
                (Some(named), _, _) if named != previous_id => {
                    return broken(format!("{id} follows {named}, which is missing before it"));
                }
                (_, Some(sequence), Some(earlier)) if sequence != earlier + 1 => {
                    return broken(format!("{id} is number {sequence}, but number {earlier} comes before it"));
                }
                (Some(_), Some(_), Some(_)) => {}
                _ => unproven = true,
            }
            if let (Some(from), Some(to)) = (&link.from, &previous.to)
                && from != to
            {
                return broken(format!("{id} starts at {from}, but the one before ends at {to}"));
            }
        }
        before = Some((id, link));
    }
    if unproven { ChainState::Unproven } else { ChainState::Whole }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn link(position: ChainPosition, sequence: Option<u32>, previous: Option<JobId>) -> ChainLink {
        ChainLink {
            position,
            full: FullBackup { name: RelativePath::new("full.xb").unwrap(), made_at: Millis(1000) },
            previous,
            sequence,
            from: None,
            to: None,
            extra: serde_json::Map::new(),
        }
    }

    #[test]
    fn a_chain_without_a_gap_is_whole_and_with_one_is_broken() {
        let ids = [JobId::fresh(), JobId::fresh(), JobId::fresh()];
        let full = link(ChainPosition::Full, Some(0), None);
        let one = link(ChainPosition::Increment, Some(1), Some(ids[0]));
        let two = link(ChainPosition::Increment, Some(2), Some(ids[1]));
        assert_eq!(judge([(ids[0], &full), (ids[1], &one), (ids[2], &two)]), ChainState::Whole);
        assert!(matches!(judge([(ids[0], &full), (ids[2], &two)]), ChainState::Broken { .. }));
        assert!(matches!(judge([(ids[1], &one)]), ChainState::Broken { .. }));
        let mut gap = two.clone();
        gap.from = Some("lsn 7".into());
        let mut ended = one.clone();
        ended.to = Some("lsn 6".into());
        assert!(matches!(judge([(ids[0], &full), (ids[1], &ended), (ids[2], &gap)]), ChainState::Broken { .. }));
    }

    #[test]
    fn a_seed_chain_is_never_called_whole() {
        let ids = [JobId::fresh(), JobId::fresh()];
        let full = link(ChainPosition::Full, None, None);
        let one = link(ChainPosition::Increment, None, None);
        assert_eq!(judge([(ids[0], &full), (ids[1], &one)]), ChainState::Unproven);
        assert_eq!(judge([(ids[0], &full)]), ChainState::Unproven);
    }
}
