//! The protocol of claim, lease and fence, explored: nodes claim, fetch, commit, publish, settle and give back; answers are
//! lost, leases run out under nodes that sleep and wake late, processes are killed and recover; operators hold, move, requeue and
//! cancel; a second copy is wanted of what is stored. Every order of steps up to a
//! depth, and long random ones, go through the real scripts on a real Redis; each answer must be the one that a simple model of
//! server, processes and disks gives. In each state the model's invariants hold:
//!
//! 1. a job is on the server, or its report is;
//! 2. what a report calls stored lies under its final name on that node's disk, and stays there;
//! 3. a job is settled once, by the holder of its latest lease;
//! 4. what a node has stored, fetches, or is to fetch by the server's word, its disk can hold: nodes are small, and say with each
//!    question what room is left after what they have promised.
//!
//! A node works on a job in one place at a time: a transfer's folder is locked (`puller/src/incoming.rs`).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use longshore_core::{
    Job, Outcome, ReasonCode,
    queue::{Changed, ClaimRequest, Claimed, End, Held, JobState, Lease, Level, Patience, Queue, Returned, Settled},
    report::Reason,
};
use longshore_tests::Random;

use crate::{
    cluster::{Cluster, LEASE, job, levels, node_id, question, room, stored},
    queue_explorer_world::{Holding, Known, NEED_BYTES, Node, Number, Phase, Return, Rules, Server, Step, Verb, World},
};

const NO_REST: Patience =
    Patience { first_rest: Duration::ZERO, longest_rest: Duration::ZERO, give_up: Duration::from_secs(3600) };

/// A world, and the real one beside it.
struct Trial {
    cluster: Cluster,
    connection: redis::Connection,
    jobs: Vec<Job>,
    levels: Vec<Level>,
    world: World,
    /// By job and claim.
    leases: HashMap<(usize, Number), Lease>,
    /// How many jobs ended with a second copy, and how many cancelled, over all walks.
    copied: usize,
    cancelled: usize,
    /// The request of each node's last question.
    requests: Vec<uuid::Uuid>,
}

impl Trial {
    fn new(jobs: usize, nodes: usize, most_claims: Number, rules: Rules) -> Self {
        let cluster = Cluster::start();
        let connection = cluster.redis.connection();
        // A host of its own for each, so that none waits for another.
        let job = |number| job("level1", &format!("host-{number}"), NEED_BYTES[number]);
        let jobs: Vec<Job> = (0..jobs).map(job).collect();
        let world = World::new(jobs.len(), nodes, most_claims, rules);
        let (levels, leases, requests) =
            (levels(&["level1", "level2"]), HashMap::new(), vec![uuid::Uuid::nil(); nodes]);
        Self { cluster, connection, jobs, levels, world, leases, copied: 0, cancelled: 0, requests }
    }

    async fn begin(&mut self) {
        let () = redis::cmd("FLUSHALL").query(&mut self.connection).unwrap();
        self.world = World::new(self.jobs.len(), self.world.nodes.len(), self.world.most_claims, self.world.rules);
        self.leases.clear();
        for job in &self.jobs {
            self.cluster.queue.offer(job).await.unwrap();
        }
        assert_eq!(self.cluster.queue.admit(&self.levels, 100).await.unwrap().jobs, self.jobs.len() as u64);
    }

    /// Takes a step in both worlds; the answers must be the same.
    async fn take(&mut self, step: Step) {
        match step {
            Step::Claim { node, is_answered } => self.claim(node, is_answered).await,
            Step::Go { node, at, is_answered } => self.go(node, at, is_answered).await,
            Step::GiveBack { node, at, how, is_answered } => self.give_back(node, at, how, is_answered).await,
            Step::Renew { node, at } => {
                let holding = self.world.nodes[node].holdings[at];
                self.ask_whether_held(holding).await;
            }
            Step::Reap { job } => self.reap(job).await,
            Step::Kill { node } => {
                let killed = &mut self.world.nodes[node];
                *killed = Node { is_down: true, disk: killed.disk.clone(), ..Node::default() };
            }
            Step::Start { node } => self.start(node).await,
            Step::Operate { job, verb } => self.operate(job, verb).await,
        }
        self.world.check();
    }

    async fn claim(&mut self, node: usize, is_answered: bool) {
        let repeats = self.world.nodes[node].unanswered;
        if !repeats {
            self.requests[node] = uuid::Uuid::now_v7();
        }
        // Weights are another test's: here nobody is behind anyone. So are hosts that fail: of one node several copies may be wanted.
        let mut others = redis::pipe();
        others.cmd("DEL").arg("longshore:pace");
        for node in 0..self.world.nodes.len() {
            others.cmd("HDEL").arg(format!("longshore:host:@node-{node}")).arg("failures");
        }
        let () = others.query(&mut self.connection).unwrap();
        let name = node_id(&format!("node-{node}"));
        let mut levels = self.levels.clone();
        levels.extend(self.cluster.queue.copy_levels(&name).await.unwrap());
        let room = room(self.world.room_bytes(node));
        let request = ClaimRequest { request_id: self.requests[node], room, ..question(&name, &levels) };
        let given = match self.cluster.queue.claim(&request).await.unwrap() {
            Claimed::Jobs(mut leases) => {
                assert_eq!(leases.len(), 1);
                leases.pop()
            }
            Claimed::Nothing(_) => None,
        };
        // A repeated question gets the lease of the lost answer, unless that has ended.
        let world = &mut self.world;
        let newest = |job: usize| world.owners[job].last() == Some(&node) && world.is_held(job, world.jobs[job].claims);
        let taken: Vec<(usize, Number)> =
            world.nodes[node].holdings.iter().map(|holding| (holding.job, holding.claim)).collect();
        let again = (0..world.jobs.len())
            .find(|job| repeats && newest(*job) && !taken.contains(&(*job, world.jobs[*job].claims)));
        let expected = again.or_else(|| world.next(node));
        assert_eq!(given.as_ref().map(|lease| lease.job.id), expected.map(|job| self.jobs[job].id));
        world.nodes[node].unanswered = !is_answered;
        if again.is_none() {
            // The script makes what is delayed ready, whether or not it is given.
            for known in &mut world.jobs {
                if let Server::Waits { is_delayed, .. } = &mut known.server {
                    *is_delayed = false;
                }
            }
        }
        let (Some(lease), Some(job)) = (given, expected) else { return };
        let known = &mut world.jobs[job];
        if again.is_none() {
            known.claims += 1;
            known.server = Server::Leased { by: known.claims };
            world.owners[job].push(node);
        }
        assert_eq!(lease.copy_of.is_some(), known.first.is_some());
        let claim = known.claims;
        let before = (1..claim).rev().find_map(|earlier| self.leases.get(&(job, earlier)));
        assert!(before.is_none_or(|before| before.revision < lease.revision), "the fence grows");
        self.leases.insert((job, claim), lease);
        if is_answered {
            world.nodes[node].holdings.push(Holding { job, claim, phase: Phase::Claimed });
        }
    }

    async fn ask_whether_held(&self, holding: Holding) -> bool {
        let lease = &self.leases[&(holding.job, holding.claim)];
        let held = self.cluster.queue.commit(lease, LEASE).await.unwrap();
        assert_eq!(held == Held::Yours, self.world.is_held(holding.job, holding.claim));
        held == Held::Yours
    }

    async fn go(&mut self, node: usize, at: usize, is_answered: bool) {
        let holding = self.world.nodes[node].holdings[at];
        let (job, claim) = (holding.job, holding.claim);
        let next = match holding.phase {
            Phase::Claimed => Some(Phase::Brought),
            Phase::Brought if self.ask_whether_held(holding).await => Some(Phase::Committed),
            Phase::Brought | Phase::GivingBack(_) => None,
            Phase::Committed => {
                // What was there under an earlier claim of this node is the same backup: it is kept, or put aside for this one.
                self.world.nodes[node].disk[job] = Some(claim);
                Some(Phase::Published)
            }
            Phase::Published => {
                let settled = self.settle(job, claim).await;
                if is_answered && settled == Settled::Over {
                    self.world.supersede(node, job, claim);
                }
                (!is_answered).then_some(Phase::Published)
            }
        };
        self.advance(node, at, next);
    }

    async fn settle(&mut self, job: usize, claim: Number) -> Settled {
        let lease = &self.leases[&(job, claim)];
        let wants_copy = self.world.rules.copies && lease.copy_of.is_none();
        let end = if wants_copy { End::Copy } else { End::Final };
        let settled = self.cluster.queue.settle(lease, &stored(lease), end).await.unwrap();
        let before = u8::try_from(self.world.jobs.iter().filter(|known| known.first.is_some()).count()).unwrap();
        let known = &mut self.world.jobs[job];
        let expected = match known.server {
            Server::Leased { by } if by == claim => Settled::Done,
            Server::Settled { by } if by == claim => Settled::AlreadyYours,
            _ if known.first.is_some_and(|(first, _)| first == claim) => Settled::AlreadyYours,
            _ if known.is_in_queue() && (known.first.is_none() || lease.copy_of.is_some()) => Settled::Lost,
            _ => Settled::Over,
        };
        assert_eq!(settled, expected);
        if settled == Settled::Done && wants_copy {
            known.first = Some((claim, before));
            known.server = Server::Waits { by: Some(claim), is_delayed: false };
        } else if settled == Settled::Done {
            known.server = Server::Settled { by: claim };
        }
        settled
    }

    /// An operator's request, each twice: the answer to the first was lost.
    async fn operate(&mut self, job: usize, verb: Verb) {
        let (queue, id, request) = (&self.cluster.queue, &self.jobs[job].id, uuid::Uuid::now_v7());
        let known = &mut self.world.jobs[job];
        let level = match verb {
            Verb::Move => 1 - known.level,
            _ => known.level,
        };
        for _ in 0..2 {
            let changed = match verb {
                Verb::Hold => queue.hold(id, "alice", "").await,
                Verb::LetGo => queue.let_go(id).await,
                Verb::Move => queue.move_to(id, &self.levels[usize::from(level)]).await,
                Verb::Requeue => queue.requeue(id, JobState::ALL, request).await,
                Verb::Cancel => queue.cancel(id, &Queue::cancel_reason("alice", ""), JobState::ALL).await,
            };
            assert_eq!(changed.unwrap(), Changed::Done);
        }
        known.level = level;
        known.server = match (verb, known.server) {
            (Verb::Hold, Server::Waits { by, .. }) => Server::Held { by },
            (Verb::LetGo, Server::Held { by }) | (Verb::Move, Server::Waits { by, .. }) => {
                Server::Waits { by, is_delayed: false }
            }
            (Verb::Requeue, Server::Leased { .. } | Server::Waits { is_delayed: true, .. }) => {
                Server::Waits { by: None, is_delayed: false }
            }
            // The backup stays where it was stored first.
            (Verb::Cancel, _) => known.first.map_or(Server::Cancelled, |(by, _)| Server::Settled { by }),
            (_, as_it_was) => as_it_was,
        };
    }

    async fn give_back(&mut self, node: usize, at: usize, how: Return, is_answered: bool) {
        let Holding { job, claim, .. } = self.world.nodes[node].holdings[at];
        let (queue, lease) = (&self.cluster.queue, &self.leases[&(job, claim)]);
        let reason = Reason::new(ReasonCode::Unreachable, "no route to host");
        let held = match how {
            Return::Release => queue.release(lease).await,
            Return::Retry => queue.retry_later(lease, Duration::ZERO, &reason).await.map(as_held),
            Return::HostFailed => queue.host_failed(lease, NO_REST, &reason).await.map(as_held),
        };
        let server = &mut self.world.jobs[job].server;
        let expected = match *server {
            Server::Leased { by } if by == claim => {
                *server = Server::Waits { by: Some(claim), is_delayed: how == Return::Retry };
                Held::Yours
            }
            Server::Waits { by, .. } | Server::Held { by } if by == Some(claim) => Held::Yours,
            _ => Held::Lost,
        };
        assert_eq!(held.unwrap(), expected);
        self.advance(node, at, (!is_answered).then_some(Phase::GivingBack(how)));
    }

    /// To the next phase, or the end of what the node does with this claim.
    fn advance(&mut self, node: usize, at: usize, next: Option<Phase>) {
        let holdings = &mut self.world.nodes[node].holdings;
        match next {
            Some(phase) => holdings[at].phase = phase,
            None => drop(holdings.remove(at)),
        }
    }

    async fn reap(&mut self, job: usize) {
        let id = self.jobs[job].id;
        let mut command = redis::cmd("ZADD");
        let () =
            command.arg("longshore:leases").arg("XX").arg(1).arg(id.to_string()).query(&mut self.connection).unwrap();
        assert_eq!(self.cluster.queue.reap_silent(100, Duration::ZERO).await.unwrap(), [id]);
        self.world.jobs[job].server = Server::Waits { by: None, is_delayed: false };
    }

    /// Settles what is published there.
    async fn sweep(&mut self, node: usize) {
        for job in 0..self.jobs.len() {
            // Settled again and again, were it settled already: the model does not remember what the folder would.
            if let Some(claim) = self.world.nodes[node].disk[job]
                && self.settle(job, claim).await == Settled::Over
            {
                self.world.supersede(node, job, claim);
            }
        }
    }

    async fn start(&mut self, node: usize) {
        self.sweep(node).await;
        let name = node_id(&format!("node-{node}"));
        let reason = Reason::new(ReasonCode::TransferFailed, "the puller was ended in the middle of the transfer");
        for held in self.cluster.queue.leases().await.unwrap() {
            if held.node_id == name {
                assert_eq!(self.cluster.queue.put_back(&held, &reason).await.unwrap(), Returned::GivenBack);
                let job = self.jobs.iter().position(|job| job.id == held.job).unwrap();
                let Server::Leased { by } = self.world.jobs[job].server else {
                    panic!("{job} is leased only in Redis")
                };
                assert_eq!(self.world.owner(job, by), node);
                self.world.jobs[job].server = Server::Waits { by: Some(by), is_delayed: true };
            }
        }
        self.world.nodes[node].is_down = false;
    }

    /// Redis has each job or its report, and no report twice.
    fn check_server(&mut self) {
        let reports: usize = self.world.jobs.iter().map(Known::reports).sum();
        let queued = self.world.jobs.iter().filter(|known| known.is_in_queue()).count();
        let mut look = redis::pipe();
        look.cmd("XLEN").arg("longshore:reports").cmd("EXISTS");
        for job in &self.jobs {
            look.arg(format!("longshore:job:{}", job.id));
        }
        let found: (usize, usize) = look.query(&mut self.connection).unwrap();
        assert_eq!(found, (reports, queued), "reports, and jobs");
    }

    /// Every node goes on to the end of what it does, on a disk that is larger now; then each job is settled, and lies on one disk.
    async fn finish(&mut self) {
        self.world.disk_bytes = u64::MAX;
        loop {
            let wanted = |step: &Step| match *step {
                Step::Start { .. } | Step::Operate { verb: Verb::LetGo, .. } => true,
                Step::Claim { is_answered, .. } | Step::Go { is_answered, .. } => is_answered,
                Step::GiveBack { is_answered, node, at, .. } => {
                    is_answered && matches!(self.world.nodes[node].holdings[at].phase, Phase::GivingBack(_))
                }
                _ => false,
            };
            let useful = |step: &Step| match *step {
                Step::Claim { node, .. } => self.world.nodes[node].unanswered || self.world.next(node).is_some(),
                _ => true,
            };
            let steps = self.world.steps();
            let Some(step) = steps.into_iter().rfind(|step| wanted(step) && useful(step)) else { break };
            self.take(step).await;
        }
        for node in 0..self.world.nodes.len() {
            self.sweep(node).await;
        }
        let mut expected = Vec::new();
        for (job, known) in self.world.jobs.iter().enumerate() {
            assert!(!known.is_in_queue(), "job {job} ends as {known:?}");
            let places: Vec<usize> =
                (0..self.world.nodes.len()).filter(|node| self.world.nodes[*node].disk[job].is_some()).collect();
            let stored_by = self.world.stored_by(job);
            let mut wanted: Vec<usize> = stored_by.iter().map(|claim| self.world.owner(job, *claim)).collect();
            wanted.sort_unstable();
            assert_eq!(places, wanted, "job {job} lies where reports say, and nowhere else");
            self.copied += usize::from(stored_by.len() == 2);
            self.cancelled += usize::from(known.server == Server::Cancelled);
            expected.extend(stored_by.iter().map(|claim| (self.jobs[job].id, self.leases[&(job, *claim)].revision)));
        }
        let reports = self.cluster.reports().await.into_iter().filter(|report| report.outcome == Outcome::Stored);
        let mut reports: Vec<_> = reports.map(|report| (report.job.id, report.revision)).collect();
        reports.sort_unstable();
        expected.sort_unstable();
        assert_eq!(reports, expected);
    }
}

/// Every order of steps up to a depth. A world that was reached before is not gone on from again.
async fn explore(jobs: usize, nodes: usize, depth: usize, rules: Rules) -> usize {
    let mut trial = Trial::new(jobs, nodes, 4, rules);
    let mut seen = HashSet::from([trial.world.clone()]);
    let mut front = VecDeque::from([(trial.world.clone(), Vec::new())]);
    let mut taken = 0;
    while let Some((world, path)) = front.pop_front() {
        for step in world.steps() {
            trial.begin().await;
            for &earlier in &path {
                trial.take(earlier).await;
            }
            let told = Told(&path, step);
            trial.take(step).await;
            trial.check_server();
            drop(told);
            taken += 1;
            if path.len() + 1 < depth && seen.insert(trial.world.clone()) {
                let mut longer: Vec<Step> = path.clone();
                longer.push(step);
                front.push_back((trial.world.clone(), longer));
            }
        }
    }
    taken
}

/// Tells how a panic was come to.
struct Told<'a>(&'a [Step], Step);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("after {:?}\nthe step {:?}", self.0, self.1);
        }
    }
}

#[tokio::test]
async fn every_order_of_steps_agrees_with_the_protocol() {
    let (nodes, operators) = (Rules::default(), Rules { operators: true, copies: false });
    let steps = explore(1, 2, 6, nodes).await + explore(2, 2, 4, nodes).await + explore(1, 2, 5, operators).await;
    println!("{steps} steps from different states");
    assert!(steps > 2000, "{steps}");
}

#[tokio::test]
async fn long_random_orders_of_steps_agree_with_the_protocol() {
    let from_environment = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let seed = from_environment("LONGSHORE_MODEL_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    let walks = from_environment("LONGSHORE_MODEL_WALKS").unwrap_or(400);
    println!("LONGSHORE_MODEL_SEED={seed}");
    let mut random = Random::new(seed);
    let mut trial = Trial::new(3, 3, Number::MAX, Rules::default());
    for walk in 0..walks {
        trial.world.rules = Rules { operators: walk % 2 == 1, copies: walk % 4 > 1 };
        trial.begin().await;
        let mut path = Vec::new();
        for _ in 0..60 {
            let steps = trial.world.steps();
            let mut step = *random.pick(&steps);
            let is_rare = |step| matches!(step, Step::Kill { .. } | Step::Operate { verb: Verb::Cancel, .. });
            while is_rare(step) && random.chance(80) {
                step = *random.pick(&steps);
            }
            let told = Told(&path, step);
            trial.take(step).await;
            drop(told);
            path.push(step);
        }
        let told = Told(&path, Step::Reap { job: 0 });
        trial.finish().await;
        drop(told);
    }
    let (copied, cancelled) = (trial.copied as u64, trial.cancelled as u64);
    println!("{copied} jobs copied, {cancelled} cancelled");
    assert!(copied >= walks / 2 && cancelled >= walks / 20, "so few say nothing of copies and operators");
}

/// Nothing here is to be given up.
fn as_held(returned: Returned) -> Held {
    if returned == Returned::GivenBack { Held::Yours } else { Held::Lost }
}
