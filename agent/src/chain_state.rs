//! What a host remembers of an instance's chain, so that the next backup can say which one it follows.
//!
//! The invariant: a link never claims more than is known. A run that failed after the script said `ok` leaves a gap, and
//! the next link names the lost job, so the chain is seen to be broken. A run whose script ended otherwise may have made
//! an increment or not: the next link then goes without a sequence, and the chain is unproven until the next full, unless
//! the positions (`to` of the one before, `from` of this) meet.

use longshore_core::{ChainLink, ChainPosition, FullBackup, JobId, Millis, RelativePath};
use serde::{Deserialize, Serialize};

use crate::backup_log::Made;

/// How the backups after a full depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChainKind {
    /// Each needs the full and all since.
    #[default]
    Incremental,
    /// Each needs the full alone.
    Differential,
}

/// The state after the last backup of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainState {
    /// The full that the chain begins with.
    full: FullBackup,
    /// The backup made last.
    last: Option<JobId>,
    /// Its number; `None` when it cannot be told.
    sequence: Option<u32>,
    /// The position that it ends at.
    to: Option<String>,
    /// A later run may have made one that is not known.
    unsure: bool,
}

/// The state on disk. It names the run that it includes, so that a run that is finished twice counts once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainRecord {
    includes: Option<JobId>,
    before: Option<ChainState>,
    now: Option<ChainState>,
}

impl ChainRecord {
    /// The state that `job` starts from.
    pub fn before(&self, job: JobId) -> Option<&ChainState> {
        if self.includes == Some(job) { self.before.as_ref() } else { self.now.as_ref() }
    }

    /// The record after `job`, which leaves `now`.
    pub fn after(&self, job: JobId, now: Option<ChainState>) -> Self {
        Self { includes: Some(job), before: self.before(job).cloned(), now }
    }
}

/// What `last_all_log` says, and what the file system says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullLog {
    /// The full's name.
    pub name: RelativePath,
    /// Its third line.
    pub unix_seconds: Option<i64>,
    /// When it was made if nothing else tells: the run's start where this run has written the log, else the log's own time.
    pub otherwise: Millis,
}

/// The link of a backup, and the state that it leaves when it is delivered.
///
/// When both logs name the same file this backup is the full.
pub fn link(
    kind: ChainKind,
    before: Option<&ChainState>,
    job: JobId,
    made_at: Millis,
    made: &Made,
    full_log: &FullLog,
) -> (ChainLink, ChainState) {
    let link = |position, full: FullBackup, previous, sequence| ChainLink {
        position,
        full,
        previous,
        sequence,
        from: made.from.clone(),
        to: made.to.clone(),
        extra: serde_json::Map::new(),
    };
    let link = if full_log.name == made.name {
        link(ChainPosition::Full, FullBackup { name: made.name.clone(), made_at }, None, Some(0))
    } else {
        let position = match kind {
            ChainKind::Incremental => ChainPosition::Increment,
            ChainKind::Differential => ChainPosition::Differential,
        };
        let same_full = |state: &&ChainState| {
            let time = state.full.made_at.seconds();
            state.full.name == full_log.name && full_log.unix_seconds.is_none_or(|seconds| seconds == time)
        };
        match before.filter(same_full) {
            Some(state) => {
                let meets = made.from.is_some() && made.from == state.to;
                // Without our third line the log was written by someone else since: perhaps another full of that name.
                let follows = meets || (!state.unsure && full_log.unix_seconds.is_some());
                let sequence = state.sequence.filter(|_| follows).map(|last| last + 1);
                link(position, state.full.clone(), state.last, sequence)
            }
            // A chain begun before this agent: the seed's client, or a lost state folder.
            None => {
                let made_at = full_log.unix_seconds.map_or(full_log.otherwise, Millis::from_seconds);
                link(position, FullBackup { name: full_log.name.clone(), made_at }, None, None)
            }
        }
    };
    let state = ChainState {
        full: link.full.clone(),
        last: Some(job),
        sequence: link.sequence,
        to: link.to.clone(),
        unsure: false,
    };
    (link, state)
}

/// The state that a run leaves whose script said `wrong`, or ended so that it cannot be told whether it made something.
pub fn after_failure(before: Option<&ChainState>, may_have_made_one: bool) -> Option<ChainState> {
    before.map(|state| ChainState { unsure: state.unsure || may_have_made_one, ..state.clone() })
}

#[cfg(test)]
mod tests {
    use longshore_core::chain;

    use super::*;

    fn made(name: &str, from: Option<&str>, to: Option<&str>) -> Made {
        Made {
            name: RelativePath::new(name).unwrap(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            unix_seconds: None,
        }
    }

    fn full_log(unix_seconds: Option<i64>) -> FullLog {
        FullLog { name: RelativePath::new("full").unwrap(), unix_seconds, otherwise: Millis(5) }
    }

    struct Host {
        record: ChainRecord,
        kind: ChainKind,
        seconds: i64,
        links: Vec<(JobId, ChainLink)>,
    }

    impl Host {
        fn new(kind: ChainKind) -> Self {
            Self { record: ChainRecord::default(), kind, seconds: 1000, links: Vec::new() }
        }

        fn run(&mut self, made: &Made, delivered: bool) {
            self.seconds += 60;
            let job = JobId::fresh();
            let third = (made.name.as_str() != "full").then_some(1060);
            for _ in 0..2 {
                // Twice: a run that was killed is finished again.
                let made_at = Millis(self.seconds * 1000 + 7);
                let (link, state) =
                    super::link(self.kind, self.record.before(job), job, made_at, made, &full_log(third));
                self.record = self.record.after(job, Some(state));
                if delivered && self.links.last().is_none_or(|(last, _)| *last != job) {
                    self.links.push((job, link));
                }
            }
        }

        fn fail(&mut self, may_have_made_one: bool) {
            let job = JobId::fresh();
            let now = after_failure(self.record.before(job), may_have_made_one);
            self.record = self.record.after(job, now);
        }

        fn judged(&self) -> chain::ChainState {
            chain::judge(self.links.iter().map(|(id, link)| (*id, link)))
        }
    }

    #[test]
    fn a_full_and_its_increments_are_whole() {
        let mut host = Host::new(ChainKind::Incremental);
        host.run(&made("full", None, Some("7")), true);
        host.run(&made("one", Some("7"), Some("8")), true);
        host.fail(false);
        host.run(&made("two", Some("8"), None), true);
        assert_eq!(host.links[2].1.sequence, Some(2));
        assert_eq!(host.links[2].1.full.made_at, Millis(1_060_007));
        assert_eq!(host.judged(), chain::ChainState::Whole);
        host.run(&made("full", None, None), true);
        assert_eq!(host.links[3].1.sequence, Some(0));
        assert_eq!(host.links[3].1.previous, None);
    }

    #[test]
    fn a_backup_that_was_made_and_lost_breaks_the_chain() {
        let mut host = Host::new(ChainKind::Incremental);
        host.run(&made("full", None, None), true);
        host.run(&made("one", None, None), false);
        host.run(&made("two", None, None), true);
        assert!(matches!(host.judged(), chain::ChainState::Broken { .. }));
        let mut host = Host::new(ChainKind::Incremental);
        host.run(&made("full", None, None), false);
        host.run(&made("one", None, None), true);
        assert!(matches!(host.judged(), chain::ChainState::Broken { .. }));
    }

    #[test]
    fn a_run_that_may_have_made_one_leaves_the_chain_unproven_unless_the_positions_meet() {
        let mut host = Host::new(ChainKind::Incremental);
        host.run(&made("full", None, Some("7")), true);
        host.fail(true);
        host.run(&made("one", None, None), true);
        host.run(&made("two", None, None), true);
        assert_eq!(host.judged(), chain::ChainState::Unproven);
        let mut host = Host::new(ChainKind::Incremental);
        host.run(&made("full", None, Some("7")), true);
        host.fail(true);
        host.run(&made("one", Some("7"), None), true);
        assert_eq!(host.judged(), chain::ChainState::Whole);
    }

    #[test]
    fn a_chain_of_a_seed_client_goes_on_unproven_with_the_time_of_its_third_line() {
        let job = JobId::fresh();
        let (link, state) =
            link(ChainKind::Incremental, None, job, Millis(9), &made("one", None, None), &full_log(Some(1060)));
        assert_eq!((link.full.made_at, link.previous, link.sequence), (Millis(1_060_000), None, None));
        let (link, _) = super::link(
            ChainKind::Incremental,
            Some(&state),
            JobId::fresh(),
            Millis(9),
            &made("two", None, None),
            &full_log(Some(1060)),
        );
        assert_eq!((link.previous, link.sequence), (Some(job), None));
        let (link, _) =
            super::link(ChainKind::Incremental, None, job, Millis(9), &made("one", None, None), &full_log(None));
        assert_eq!(link.full.made_at, Millis(5));
    }

    #[test]
    fn a_differential_names_only_its_full() {
        let mut host = Host::new(ChainKind::Differential);
        host.run(&made("full", None, None), true);
        host.run(&made("one", None, None), false);
        host.run(&made("two", None, None), true);
        assert_eq!(host.judged(), chain::ChainState::Whole);
        assert_eq!(host.links[1].1.position, ChainPosition::Differential);
    }
}
