//! The protocol of claim, lease and fence, explored: nodes claim, fetch, commit, publish, settle and give back; answers are
//! lost, leases run out under nodes that sleep and wake late, processes are killed and recover. Every order of steps up to a
//! depth, and long random ones, go through the real scripts on a real Redis; each answer must be the one that a simple model of
//! server, processes and disks gives. In each state the model's invariants hold:
//!
//! 1. a job is on the server, or its report is;
//! 2. what a report calls stored lies under its final name on that node's disk, and stays there;
//! 3. a job is settled once, by the holder of its latest lease.
//!
//! A node works on a job in one place at a time: a transfer's folder is locked (`puller/src/incoming.rs`).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use longshore_core::{
    Job, ReasonCode,
    queue::{ClaimRequest, Claimed, End, Held, Lease, Level, Settled},
    report::Reason,
};
use longshore_tests::Random;

use crate::cluster::{Cluster, LEASE, job, levels, node_id, question, stored};

/// A job is named by its place in line, a claim of it by its number, a node by its place.
type Number = u8;

/// What the server knows of a job. `by` is who claimed it last: the record keeps him after he gave it back, until the job is
/// claimed anew or reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Server {
    /// Ready, or delayed until the next claim.
    Waits {
        by: Option<Number>,
    },
    Leased {
        by: Number,
    },
    Settled {
        by: Number,
    },
}

/// How far a process is with a claim of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
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
enum Return {
    Release,
    Retry,
    HostFailed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Holding {
    job: usize,
    claim: Number,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Node {
    is_down: bool,
    holdings: Vec<Holding>,
    /// The answer to its claim was lost: it asks again with the same request.
    unanswered: bool,
    /// By job, the claim under which it was published.
    disk: Vec<Option<Number>>,
}

/// Everything that an order of steps can change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    /// Bounds an exploration: no job is claimed more often.
    most_claims: Number,
    jobs: Vec<(Server, Number)>,
    owners: Vec<Vec<usize>>,
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
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
}

impl World {
    fn new(jobs: usize, nodes: usize, most_claims: Number) -> Self {
        let node = Node { disk: vec![None; jobs], ..Node::default() };
        Self {
            most_claims,
            jobs: vec![(Server::Waits { by: None }, 0); jobs],
            owners: vec![Vec::new(); jobs],
            nodes: vec![node; nodes],
        }
    }

    /// The steps that can be taken now.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if node.is_down {
                steps.push(Step::Start { node: index });
                continue;
            }
            steps.push(Step::Kill { node: index });
            let next = self.next();
            if next.is_none_or(|job| self.jobs[job].1 < self.most_claims) {
                steps.push(Step::Claim { node: index, is_answered: true });
                if next.is_some() && !node.unanswered {
                    steps.push(Step::Claim { node: index, is_answered: false });
                }
            }
            for at in 0..node.holdings.len() {
                self.steps_of(index, at, &mut steps);
            }
        }
        let leased = |job: &usize| matches!(self.jobs[*job].0, Server::Leased { .. });
        steps.extend((0..self.jobs.len()).filter(leased).map(|job| Step::Reap { job }));
        steps
    }

    fn steps_of(&self, node: usize, at: usize, steps: &mut Vec<Step>) {
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

    /// The job that a claim gets.
    fn next(&self) -> Option<usize> {
        self.jobs.iter().position(|(server, _)| matches!(server, Server::Waits { .. }))
    }

    fn owner(&self, job: usize, claim: Number) -> usize {
        self.owners[job][usize::from(claim) - 1]
    }

    /// The lease of a claim is the job's own now.
    fn is_held(&self, job: usize, claim: Number) -> bool {
        self.jobs[job].0 == Server::Leased { by: claim }
    }

    /// Takes what the process has under its final name away, if it is this claim's.
    fn supersede(&mut self, node: usize, job: usize, claim: Number) {
        let place = &mut self.nodes[node].disk[job];
        *place = place.filter(|published| *published != claim);
    }

    /// What holds in every state.
    fn check(&self) {
        for (job, (server, _)) in self.jobs.iter().enumerate() {
            if let Server::Settled { by } = *server {
                let node = &self.nodes[self.owner(job, by)];
                assert_eq!(node.disk[job], Some(by), "job {job} is called stored, and is not there");
            }
        }
    }
}

/// A world, and the real one beside it.
struct Trial {
    cluster: Cluster,
    connection: redis::Connection,
    jobs: Vec<Job>,
    levels: Vec<Level>,
    world: World,
    /// By job and claim.
    leases: HashMap<(usize, Number), Lease>,
    /// The request of each node's last question.
    requests: Vec<uuid::Uuid>,
}

impl Trial {
    fn new(jobs: usize, nodes: usize, most_claims: Number) -> Self {
        let cluster = Cluster::start();
        let connection = cluster.redis.connection();
        // A host of its own for each, so that none waits for another.
        let jobs: Vec<Job> = (0..jobs).map(|number| job("level1", &format!("host-{number}"), 1000)).collect();
        let world = World::new(jobs.len(), nodes, most_claims);
        let (levels, leases, requests) = (levels(&["level1"]), HashMap::new(), vec![uuid::Uuid::nil(); nodes]);
        Self { cluster, connection, jobs, levels, world, leases, requests }
    }

    async fn begin(&mut self) {
        let () = redis::cmd("FLUSHALL").query(&mut self.connection).unwrap();
        self.world = World::new(self.jobs.len(), self.world.nodes.len(), self.world.most_claims);
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
        }
        self.world.check();
    }

    async fn claim(&mut self, node: usize, is_answered: bool) {
        let repeats = self.world.nodes[node].unanswered;
        if !repeats {
            self.requests[node] = uuid::Uuid::now_v7();
        }
        // Weights are another test's: here nobody is behind anyone.
        let () = redis::cmd("DEL").arg("longshore:pace").query(&mut self.connection).unwrap();
        let name = node_id(&format!("node-{node}"));
        let request = ClaimRequest { request_id: self.requests[node], ..question(&name, &self.levels) };
        let given = match self.cluster.queue.claim(&request).await.unwrap() {
            Claimed::Jobs(mut leases) => {
                assert_eq!(leases.len(), 1);
                leases.pop()
            }
            Claimed::Nothing(_) => None,
        };
        // A repeated question gets the lease of the lost answer, unless that has ended.
        let world = &mut self.world;
        let newest = |job: usize| world.owners[job].last() == Some(&node) && world.is_held(job, world.jobs[job].1);
        let taken: Vec<(usize, Number)> =
            world.nodes[node].holdings.iter().map(|holding| (holding.job, holding.claim)).collect();
        let again =
            (0..world.jobs.len()).find(|job| repeats && newest(*job) && !taken.contains(&(*job, world.jobs[*job].1)));
        let expected = again.or_else(|| world.next());
        assert_eq!(given.as_ref().map(|lease| lease.job.id), expected.map(|job| self.jobs[job].id));
        world.nodes[node].unanswered = !is_answered;
        let (Some(lease), Some(job)) = (given, expected) else { return };
        if again.is_none() {
            // The script makes what is delayed ready, whether or not it is given.
            world.jobs[job].1 += 1;
            world.jobs[job].0 = Server::Leased { by: world.jobs[job].1 };
            world.owners[job].push(node);
        }
        let claim = world.jobs[job].1;
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
            Phase::Brought | Phase::GivingBack(_) => {
                self.world.supersede(node, job, claim);
                None
            }
            Phase::Committed => {
                // What was there under an earlier claim of this node is the same backup: it is kept, or put aside for this one.
                self.world.nodes[node].disk[job] = Some(claim);
                Some(Phase::Published)
            }
            Phase::Published => {
                let settled = self.settle(job, claim).await;
                if is_answered && settled == Settled::Lost {
                    self.world.supersede(node, job, claim);
                }
                (!is_answered).then_some(Phase::Published)
            }
        };
        self.advance(node, at, next);
    }

    async fn settle(&mut self, job: usize, claim: Number) -> Settled {
        let lease = &self.leases[&(job, claim)];
        let settled = self.cluster.queue.settle(lease, &stored(lease), End::Final).await.unwrap();
        let expected = match self.world.jobs[job].0 {
            Server::Leased { by } if by == claim => Settled::Done,
            Server::Settled { by } if by == claim => Settled::AlreadyYours,
            _ => Settled::Lost,
        };
        assert_eq!(settled, expected);
        if settled == Settled::Done {
            self.world.jobs[job].0 = Server::Settled { by: claim };
        }
        settled
    }

    async fn give_back(&mut self, node: usize, at: usize, how: Return, is_answered: bool) {
        let Holding { job, claim, .. } = self.world.nodes[node].holdings[at];
        let (queue, lease) = (&self.cluster.queue, &self.leases[&(job, claim)]);
        let reason = Reason::new(ReasonCode::Unreachable, "no route to host");
        let held = match how {
            Return::Release => queue.release(lease).await,
            Return::Retry => queue.retry_later(lease, Duration::ZERO, &reason).await,
            Return::HostFailed => queue.host_failed(lease, Duration::ZERO, Duration::ZERO, &reason).await,
        };
        let server = &mut self.world.jobs[job].0;
        let expected = match *server {
            Server::Leased { by } if by == claim => {
                *server = Server::Waits { by: Some(claim) };
                Held::Yours
            }
            Server::Waits { by } if by == Some(claim) => Held::Yours,
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
        self.world.jobs[job].0 = Server::Waits { by: None };
    }

    async fn start(&mut self, node: usize) {
        for job in 0..self.jobs.len() {
            // Settled again and again, were it settled already: the model does not remember what the folder would.
            if let Some(claim) = self.world.nodes[node].disk[job]
                && self.settle(job, claim).await == Settled::Lost
            {
                self.world.supersede(node, job, claim);
            }
        }
        let name = node_id(&format!("node-{node}"));
        let reason = Reason::new(ReasonCode::TransferFailed, "the puller was ended in the middle of the transfer");
        for held in self.cluster.queue.leases().await.unwrap() {
            if held.node_id == name {
                assert_eq!(self.cluster.queue.put_back(&held, &reason).await.unwrap(), Held::Yours);
                let job = self.jobs.iter().position(|job| job.id == held.job).unwrap();
                let Server::Leased { by } = self.world.jobs[job].0 else { panic!("{job} is leased only in Redis") };
                assert_eq!(self.world.owner(job, by), node);
                self.world.jobs[job].0 = Server::Waits { by: Some(by) };
            }
        }
        self.world.nodes[node].is_down = false;
    }

    /// Redis has each job or its report, and no report twice.
    fn check_server(&mut self) {
        let is_settled = |(server, _): &&(Server, Number)| matches!(server, Server::Settled { .. });
        let settled = self.world.jobs.iter().filter(is_settled).count();
        let mut look = redis::pipe();
        look.cmd("XLEN").arg("longshore:reports").cmd("EXISTS");
        for job in &self.jobs {
            look.arg(format!("longshore:job:{}", job.id));
        }
        let found: (usize, usize) = look.query(&mut self.connection).unwrap();
        assert_eq!(found, (settled, self.jobs.len() - settled), "reports, and jobs");
    }

    /// Every node goes on to the end of what it does; then each job is settled, and lies on one disk.
    async fn finish(&mut self) {
        loop {
            let wanted = |step: &Step| match *step {
                Step::Start { .. } => true,
                Step::Claim { is_answered, .. } | Step::Go { is_answered, .. } => is_answered,
                Step::GiveBack { is_answered, node, at, .. } => {
                    is_answered && matches!(self.world.nodes[node].holdings[at].phase, Phase::GivingBack(_))
                }
                _ => false,
            };
            let useful = |step: &Step| match *step {
                Step::Claim { node, .. } => self.world.nodes[node].unanswered || self.world.next().is_some(),
                _ => true,
            };
            let steps = self.world.steps();
            let Some(step) = steps.into_iter().rfind(|step| wanted(step) && useful(step)) else { break };
            self.take(step).await;
        }
        let mut expected = Vec::new();
        for (job, (server, _)) in self.world.jobs.iter().enumerate() {
            let Server::Settled { by } = *server else { panic!("job {job} ends as {server:?}") };
            let places: Vec<usize> =
                (0..self.world.nodes.len()).filter(|node| self.world.nodes[*node].disk[job].is_some()).collect();
            assert_eq!(places, [self.world.owner(job, by)], "job {job} lies in one place");
            expected.push((self.jobs[job].id, self.leases[&(job, by)].revision));
        }
        let reports = self.cluster.reports().await.into_iter();
        let mut reports: Vec<_> = reports.map(|report| (report.job.id, report.revision)).collect();
        reports.sort_unstable();
        expected.sort_unstable();
        assert_eq!(reports, expected);
    }
}

/// Every order of steps up to a depth. A world that was reached before is not gone on from again.
async fn explore(jobs: usize, nodes: usize, depth: usize) -> usize {
    let mut trial = Trial::new(jobs, nodes, 4);
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
    let steps = explore(1, 2, 6).await + explore(2, 2, 4).await;
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
    let mut trial = Trial::new(3, 3, Number::MAX);
    for _ in 0..walks {
        trial.begin().await;
        let mut path = Vec::new();
        for _ in 0..60 {
            let steps = trial.world.steps();
            let mut step = *random.pick(&steps);
            while matches!(step, Step::Kill { .. }) && random.chance(80) {
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
}
