//! What will go wrong, and when: a pure function of the seed and the number of jobs. Every kind of fault comes at least once.

use std::{fmt, time::Duration};

use longshore_tests::Random;

/// Storage nodes.
pub(super) const NODES: usize = 3;
/// Hosts, each with an agent, a spool and an rsync daemon.
pub(super) const HOSTS: usize = 2;
/// The node and the host whose clocks are shifted.
pub(super) const SHIFTED: (usize, usize) = (2, 1);

/// A line that faults can cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// A node to Redis.
    Node(usize),
    /// An agent to Redis.
    Agent(usize),
    /// The indexer to Redis.
    Indexer,
    /// All nodes to a host's rsync daemon.
    Daemon(usize),
}

/// What goes wrong. What lasts is put right after the fault's time; what ends a process starts it again then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    KillNode(usize),
    FreezeNode(usize),
    KillAgent(usize),
    FreezeAgent(usize),
    KillIndexer,
    FreezeIndexer,
    /// In order: everything that it answered is in its file.
    RestartRedis,
    KillRedis,
    /// With its machine: what it answered in this time is gone.
    CrashRedis(Duration),
    FreezeRedis,
    KillDaemon(usize),
    FreezeDaemon(usize),
    /// Every connection is reset; new ones are as before.
    Cut(Line),
    Close(Line),
    Hold(Line),
    Delay(Line),
    /// Nothing is left on a node's disk: somebody else writes there.
    FillDisk(usize),
    /// A node's weight is this, by the registry's word.
    Weigh(usize, u32),
    /// Both shifted clocks are wrong by so many seconds.
    ShiftClocks(i64),
}

/// A fault at its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    /// When so many jobs were made, plus so many stored.
    pub(super) progress: u64,
    pub(super) fault: Fault,
    pub(super) lasts: Duration,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:>6}: {:?} for {:.1} s", self.progress, self.fault, self.lasts.as_secs_f64())
    }
}

/// Longer than a lease and the silence after which a node is taken for dead.
const PAST_THE_LEASE: Duration = Duration::from_secs(40);
/// One further fault for so many jobs, beside one of each kind.
const JOBS_A_FAULT: u64 = 50;

/// The plan, in the order of its times.
pub(super) fn plan(seed: u64, jobs: u64) -> Vec<Planned> {
    let mut random = Random::new(seed);
    // Progress goes from 0 to twice the jobs; the last faults come while there is still much to disturb.
    let (first, last) = (jobs / 20, jobs * 17 / 10);
    let at = |random: &mut Random| first + random.below(last - first);
    let mut planned: Vec<Planned> = (0..KINDS + jobs / JOBS_A_FAULT)
        .map(|number| {
            let progress = at(&mut random);
            let kind = if number < KINDS { number } else { random.below(KINDS) };
            let (fault, shortest, longest) = of_kind(kind, &mut random);
            Planned { progress, fault, lasts: Duration::from_millis(shortest + random.below(longest - shortest)) }
        })
        .collect();
    let node = index(&mut random, NODES);
    let progress = jobs / 10 + random.below(jobs / 2);
    planned.push(Planned { progress, fault: Fault::FreezeNode(node), lasts: PAST_THE_LEASE });
    planned.sort_by_key(|planned| planned.progress);
    planned
}

/// How many kinds [`of_kind`] knows.
const KINDS: u64 = 19;

/// A fault of a kind, and the milliseconds that it lasts: at least, and less than.
fn of_kind(kind: u64, random: &mut Random) -> (Fault, u64, u64) {
    let (node, host) = (index(random, NODES), index(random, HOSTS));
    let line = match random.below(8) {
        number @ 0..3 => Line::Node(usize::try_from(number).unwrap_or(0)),
        3 => Line::Agent(host),
        4 => Line::Indexer,
        _ => Line::Daemon(host),
    };
    match kind {
        0 => (Fault::KillNode(node), 100, 2000),
        1 => (Fault::FreezeNode(node), 500, 9000),
        2 => (Fault::KillAgent(host), 0, 1),
        3 => (Fault::FreezeAgent(host), 500, 4000),
        4 => (Fault::KillIndexer, 100, 3000),
        5 => (Fault::FreezeIndexer, 500, 5000),
        6 => (Fault::RestartRedis, 0, 2000),
        7 => (Fault::KillRedis, 0, 2000),
        8 => (Fault::FreezeRedis, 200, 7000),
        9 => (Fault::KillDaemon(host), 100, 2000),
        10 => (Fault::FreezeDaemon(host), 500, 8000),
        11 => (Fault::Cut(line), 0, 1),
        12 => (Fault::Close(line), 200, 4000),
        13 => (Fault::Hold(line), 500, 8000),
        14 => (Fault::Delay(line), 2000, 8000),
        // The first node's disk is full of backups by then.
        15 => (Fault::FillDisk(1 + index(random, NODES - 1)), 1000, 6000),
        16 => (Fault::Weigh(node, *random.pick(&[0, 1, 30, 400])), 1000, 8000),
        17 => (Fault::CrashRedis(Duration::from_millis(100 + random.below(1400))), 0, 2000),
        _ => {
            let seconds = 60 + i64::try_from(random.below(2 * 86_400)).unwrap_or(0);
            (Fault::ShiftClocks(if random.chance(50) { seconds } else { -seconds }), 2000, 9000)
        }
    }
}

fn index(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.below(end as u64)).unwrap_or(0)
}

#[test]
fn a_seed_has_one_plan_with_every_kind_of_fault() {
    let names = |seed| plan(seed, 1000).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(5), names(5));
    assert_ne!(names(5), names(6));
    let kinds: std::collections::HashSet<_> =
        plan(5, 1000).iter().map(|planned| std::mem::discriminant(&planned.fault)).collect();
    assert_eq!(kinds.len() as u64, KINDS);
}
