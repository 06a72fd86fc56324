//! The simple model that the explorer compares with (queue_explorer.rs): what the server knows of each job, how far each process
//! is, what lies on each disk, and which steps can be taken. In each state its invariants hold:
//!
//! 1. what a report calls stored lies under its final name on that node's disk, and stays there;
//! 2. a second copy lies on another node than the first;
//! 3. what a node has stored, fetches, or is to fetch by the server's word, its disk can hold, all of it at once.

/// A job is named by its place in line, a claim of it by its number, a node by its place.
pub(crate) type Number = u8;

/// What each job needs of a disk, by its place in line.
pub(crate) const NEED_BYTES: [u64; 3] = [1000, 2000, 1000];
/// A node's disk, less its reserve: for the second job alone, or for the two others.
const DISK_BYTES: u64 = 2500;

/// What the server knows of a job. `by` is who claimed it last: the record keeps him after he gave it back, until the job is
/// claimed anew or reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Server {
    /// Ready, or delayed until the next claim.
    Waits {
        by: Option<Number>,
        is_delayed: bool,
    },
    /// By an operator.
    Held {
        by: Option<Number>,
    },
    Leased {
        by: Number,
    },
    Settled {
        by: Number,
    },
    Cancelled,
}

/// A job as the server has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Known {
    pub(crate) server: Server,
    pub(crate) claims: Number,
    /// 0, or 1 after an operator moved it.
    pub(crate) level: u8,
    /// The claim under which it was stored, once a second copy is wanted; and how many were before it.
    pub(crate) first: Option<(Number, u8)>,
}

impl Known {
    pub(crate) fn is_in_queue(&self) -> bool {
        matches!(self.server, Server::Waits { .. } | Server::Held { .. } | Server::Leased { .. })
    }

    pub(crate) fn reports(&self) -> usize {
        let ended = match self.server {
            // A cancelled copy has none.
            Server::Settled { by } => self.first.is_none_or(|(first, _)| first != by),
            Server::Cancelled => true,
            _ => false,
        };
        usize::from(self.first.is_some()) + usize::from(ended)
    }
}

/// How far a process is with a claim of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Claimed,
    /// Fetched and verified, or found under its final name.
    Brought,
    Committed,
    Published,
    /// Has asked, and had no answer yet.
    GivingBack(Return),
}

/// Ways to give a job back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Return {
    Release,
    Retry,
    HostFailed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Holding {
    pub(crate) job: usize,
    pub(crate) claim: Number,
    pub(crate) phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Node {
    pub(crate) is_down: bool,
    pub(crate) holdings: Vec<Holding>,
    /// The answer to its claim was lost: it asks again with the same request.
    pub(crate) unanswered: bool,
    /// By job, the claim under which it was published.
    pub(crate) disk: Vec<Option<Number>>,
}

/// What belongs to a world beside nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Rules {
    pub(crate) operators: bool,
    pub(crate) copies: bool,
}

/// What an operator may do with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Hold,
    LetGo,
    Move,
    Requeue,
    Cancel,
}

/// Everything that an order of steps can change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// Bounds an exploration: no job is claimed more often.
    pub(crate) most_claims: Number,
    pub(crate) rules: Rules,
    pub(crate) jobs: Vec<Known>,
    pub(crate) owners: Vec<Vec<usize>>,
    pub(crate) nodes: Vec<Node>,
    /// Of each node's disk, what may be used.
    pub(crate) disk_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Claim {
        node: usize,
        is_answered: bool,
    },
    /// To the next phase; the server is asked where the phase needs it.
    Go {
        node: usize,
        at: usize,
        is_answered: bool,
    },
    GiveBack {
        node: usize,
        at: usize,
        how: Return,
        is_answered: bool,
    },
    Renew {
        node: usize,
        at: usize,
    },
    /// The lease runs out, its node being silent, and is reaped.
    Reap {
        job: usize,
    },
    Kill {
        node: usize,
    },
    /// Settles what the killed process had published, and puts its leases back.
    Start {
        node: usize,
    },
    Operate {
        job: usize,
        verb: Verb,
    },
}

impl World {
    pub(crate) fn new(jobs: usize, nodes: usize, most_claims: Number, rules: Rules) -> Self {
        let node = Node { disk: vec![None; jobs], ..Node::default() };
        let known = Known { server: Server::Waits { by: None, is_delayed: false }, claims: 0, level: 0, first: None };
        Self {
            most_claims,
            rules,
            jobs: vec![known; jobs],
            owners: vec![Vec::new(); jobs],
            nodes: vec![node; nodes],
            disk_bytes: DISK_BYTES,
        }
    }

    /// The steps that can be taken now.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if node.is_down {
                steps.push(Step::Start { node: index });
                continue;
            }
            steps.push(Step::Kill { node: index });
            let next = self.next(index);
            if next.is_none_or(|job| self.jobs[job].claims < self.most_claims) {
                steps.push(Step::Claim { node: index, is_answered: true });
                if next.is_some() && !node.unanswered {
                    steps.push(Step::Claim { node: index, is_answered: false });
                }
            }
            for at in 0..node.holdings.len() {
                self.steps_of(index, at, &mut steps);
            }
        }
        for (job, known) in self.jobs.iter().enumerate() {
            if matches!(known.server, Server::Leased { .. }) {
                steps.push(Step::Reap { job });
            }
            if self.rules.operators {
                steps.extend(verbs(known).iter().map(|verb| Step::Operate { job, verb: *verb }));
            }
        }
        steps
    }

    pub(crate) fn steps_of(&self, node: usize, at: usize, steps: &mut Vec<Step>) {
        let holding = self.nodes[node].holdings[at];
        let is_locked = self.nodes[node].holdings.iter().enumerate().any(|(other, one)| {
            other != at
                && one.job == holding.job
                && matches!(one.phase, Phase::Brought | Phase::Committed | Phase::Published)
        });
        match holding.phase {
            Phase::Claimed if is_locked => {}
            Phase::Claimed | Phase::Committed => steps.push(Step::Go { node, at, is_answered: true }),
            Phase::Brought | Phase::Published => {
                steps.push(Step::Go { node, at, is_answered: true });
                if holding.phase == Phase::Published {
                    steps.push(Step::Go { node, at, is_answered: false });
                }
            }
            Phase::GivingBack(how) => steps.push(Step::GiveBack { node, at, how, is_answered: true }),
        }
        if holding.phase == Phase::Claimed {
            for how in [Return::Release, Return::Retry, Return::HostFailed] {
                steps.push(Step::GiveBack { node, at, how, is_answered: true });
                steps.push(Step::GiveBack { node, at, how, is_answered: false });
            }
            steps.push(Step::Renew { node, at });
        }
    }

    /// The room that a node says it has when it asks: free less promised. Until it is published, what a transfer needs is on the
    /// disk, or promised.
    pub(crate) fn room_bytes(&self, node: usize) -> u64 {
        let node = &self.nodes[node];
        let stored = NEED_BYTES.iter().zip(&node.disk).filter(|(_, published)| published.is_some());
        let running = node.holdings.iter().filter(|holding| holding.phase != Phase::Published);
        let taken: u64 = stored.map(|(need, _)| need).sum();
        let promised: u64 = running.map(|holding| NEED_BYTES[holding.job]).sum();
        self.disk_bytes.saturating_sub(taken + promised)
    }

    /// The job that a claim of this node gets, of those that fit: what is fresh first, then second copies from the other nodes, by
    /// node.
    pub(crate) fn next(&self, node: usize) -> Option<usize> {
        let place = |job: usize| match self.jobs[job].first {
            None => Some((self.jobs[job].level, 0, job)),
            Some((first, before)) => {
                let from = self.owner(job, first);
                (from != node).then_some((2, from, usize::from(before)))
            }
        };
        let room_bytes = self.room_bytes(node);
        let waits = |job: &usize| matches!(self.jobs[*job].server, Server::Waits { .. });
        let fits = |job: &usize| NEED_BYTES[*job] <= room_bytes;
        let places = (0..self.jobs.len()).filter(waits).filter(fits).filter_map(|job| Some((place(job)?, job)));
        places.min().map(|(_, job)| job)
    }

    pub(crate) fn owner(&self, job: usize, claim: Number) -> usize {
        self.owners[job][usize::from(claim) - 1]
    }

    /// The lease of a claim is the job's own now.
    pub(crate) fn is_held(&self, job: usize, claim: Number) -> bool {
        self.jobs[job].server == Server::Leased { by: claim }
    }

    /// Takes what the process has under its final name away, if it is this claim's.
    pub(crate) fn supersede(&mut self, node: usize, job: usize, claim: Number) {
        let place = &mut self.nodes[node].disk[job];
        *place = place.filter(|published| *published != claim);
    }

    /// The claims under which it is stored, by what reports say.
    pub(crate) fn stored_by(&self, job: usize) -> Vec<Number> {
        let known = &self.jobs[job];
        let mut claims: Vec<Number> = known.first.iter().map(|(first, _)| *first).collect();
        if let Server::Settled { by } = known.server
            && !claims.contains(&by)
        {
            claims.push(by);
        }
        claims
    }

    /// What holds in every state.
    pub(crate) fn check(&self) {
        for job in 0..self.jobs.len() {
            let stored_by = self.stored_by(job);
            for &claim in &stored_by {
                let node = &self.nodes[self.owner(job, claim)];
                assert_eq!(node.disk[job], Some(claim), "job {job} is called stored, and is not there");
            }
            if let [first, second] = stored_by[..] {
                assert_ne!(self.owner(job, first), self.owner(job, second), "job {job} was copied to another node");
            }
        }
        for node in 0..self.nodes.len() {
            let needed: u64 =
                (0..self.jobs.len()).filter(|job| self.takes_room(node, *job)).map(|job| NEED_BYTES[job]).sum();
            assert!(
                needed <= self.disk_bytes,
                "node {node} is to hold {needed} bytes on a disk of {}",
                self.disk_bytes
            );
        }
    }

    /// It is stored there, or fetched, or leased to the node, which may not know of it.
    fn takes_room(&self, node: usize, job: usize) -> bool {
        let Node { holdings, disk, .. } = &self.nodes[node];
        let is_leased = matches!(self.jobs[job].server, Server::Leased { by } if self.owner(job, by) == node);
        is_leased || disk[job].is_some() || holdings.iter().any(|holding| holding.job == job)
    }
}

/// What an operator does with a job where it is.
pub(crate) fn verbs(known: &Known) -> &'static [Verb] {
    match known.server {
        Server::Waits { .. } if known.first.is_some() => &[Verb::Hold, Verb::Requeue, Verb::Cancel],
        Server::Waits { .. } => &[Verb::Hold, Verb::Move, Verb::Requeue, Verb::Cancel],
        Server::Held { .. } if known.first.is_some() => &[Verb::LetGo, Verb::Cancel],
        Server::Held { .. } => &[Verb::LetGo, Verb::Move, Verb::Cancel],
        Server::Leased { .. } => &[Verb::Requeue, Verb::Cancel],
        Server::Settled { .. } | Server::Cancelled => &[],
    }
}
