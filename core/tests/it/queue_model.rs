//! The real scripts on a real Redis against a simple model: thousands of random steps by three nodes, their hosts and a reaper.
//! After each step the answer, and every few steps all counts, are what the model says. The seed is printed; set
//! `LONGSHORE_MODEL_SEED` to run one again, `LONGSHORE_MODEL_STEPS` for more than the usual number.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use longshore_core::{
    Job, JobId, ReasonCode,
    queue::{
        BatchLimit, Changed, ClaimRequest, Claimed, End, Held, HostLimits, Idle, JobState, Lease, Offered, Returned,
        Settled,
    },
    report::Reason,
};

use crate::cluster::{Cluster, LEASE, failed, job, levels, names, node_id, question, room, stored};

const QUEUES: [&str; 3] = ["level1", "level2", "level3"];
const NODES: [&str; 3] = ["1", "2", "3"];
const HOSTS: [&str; 5] = ["a", "b", "c", "d", "e"];
const HOST_LIMIT: u32 = 2;
/// So few that every bounded search of the scripts sees all of them, and the order is exact.
const MOST_OPEN: usize = 40;

/// xorshift64*: the same steps for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % end
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Inbox,
    Ready,
    /// Due at once, made ready by the next claim.
    Due,
    /// Due never.
    Delayed,
    Leased,
    Dead,
    Ended,
}

#[derive(Debug)]
struct Known {
    job: Job,
    state: State,
    /// Its place among all admitted.
    order: usize,
    attempts: u32,
    lease: Option<Lease>,
    /// Which claim brought it last; those of one claim are one transfer of their host.
    claim: usize,
    /// Revisions under which it was settled.
    settled: Vec<u64>,
    /// Whether the last of them was a failure.
    failed: bool,
}

#[derive(Default)]
struct Model {
    jobs: BTreeMap<JobId, Known>,
    inboxes: BTreeMap<String, VecDeque<JobId>>,
    admitted: usize,
    claims: usize,
    /// Every lease there ever was of jobs that are not forgotten: a stale holder may try anything.
    leases: Vec<Lease>,
}

impl Model {
    fn count(&self, queue: &str, states: &[State]) -> usize {
        self.jobs.values().filter(|known| known.job.queue.as_str() == queue && states.contains(&known.state)).count()
    }

    fn open(&self) -> usize {
        self.jobs.values().filter(|known| !matches!(known.state, State::Dead | State::Ended)).count()
    }

    fn is_busy(&self, host: &str) -> bool {
        self.transfers(host) >= HOST_LIMIT as usize
    }

    /// Claims of the host's jobs of which a lease is left.
    fn transfers(&self, host: &str) -> usize {
        let leased = |known: &&Known| known.state == State::Leased && known.job.server_id.as_str() == host;
        self.jobs.values().filter(leased).map(|known| known.claim).collect::<BTreeSet<_>>().len()
    }

    /// The jobs that a claim must give: the oldest that fits, and, when no older one was passed over for it, more of its lane.
    fn next(&self, queues: &[&str], room: u64, batch: BatchLimit) -> Vec<JobId> {
        queues.iter().map(|&queue| self.next_of(queue, room, batch)).find(|ids| !ids.is_empty()).unwrap_or_default()
    }

    fn next_of(&self, queue: &str, room: u64, batch: BatchLimit) -> Vec<JobId> {
        let may_be_asked = |known: &&Known| {
            known.state == State::Ready
                && known.job.queue.as_str() == queue
                && !self.is_busy(known.job.server_id.as_str())
        };
        let mut ready: Vec<&Known> = self.jobs.values().filter(may_be_asked).collect();
        ready.sort_by_key(|known| known.order);
        let Some(first) = ready.iter().position(|known| known.job.size_bytes() <= room) else { return Vec::new() };
        let (host, mut ids, mut bytes) =
            (&ready[first].job.server_id, vec![ready[first].job.id], ready[first].job.size_bytes());
        let lane = ready[first + 1..].iter().filter(|known| known.job.server_id == *host && first == 0);
        // A lane is read so far.
        for known in lane.take(batch.jobs as usize) {
            let total = bytes + known.job.size_bytes();
            if ids.len() < batch.jobs as usize && total <= room.min(batch.bytes) {
                ids.push(known.job.id);
                bytes = total;
            }
        }
        ids
    }

    /// The job, when this lease is its latest and still runs.
    fn held(&mut self, lease: &Lease) -> Option<&mut Known> {
        let known = self.jobs.get_mut(&lease.job.id)?;
        let current = known.state == State::Leased
            && known.lease.as_ref().is_some_and(|current| current.revision == lease.revision);
        current.then_some(known)
    }

    /// Whether this lease was the latest, and its holder ended it by giving the job back.
    fn gave_back(&self, lease: &Lease) -> bool {
        let known = &self.jobs[&lease.job.id];
        matches!(known.state, State::Ready | State::Due | State::Delayed)
            && known.lease.as_ref().is_some_and(|last| last.revision == lease.revision)
    }
}

struct Run {
    cluster: Cluster,
    model: Model,
    random: Random,
}

impl Run {
    async fn offer(&mut self) {
        let again = self.random.chance(20) && !self.model.jobs.is_empty();
        let job = if again {
            let all: Vec<JobId> = self.model.jobs.keys().copied().collect();
            self.model.jobs[&self.random.pick(&all)].job.clone()
        } else if self.model.open() < MOST_OPEN {
            job(self.random.pick(&QUEUES), self.random.pick(&HOSTS), 1 << self.random.below(12) | 1)
        } else {
            return;
        };
        let inbox = self.model.inboxes.entry(job.queue.to_string()).or_default();
        if again && self.random.chance(50) {
            // Someone pushes it once more without asking.
            let (queue, body) = (job.queue.as_str(), serde_json::to_vec(&job).unwrap());
            let () = redis::cmd("LPUSH").arg(queue).arg(body).query(&mut self.cluster.redis.connection()).unwrap();
            inbox.push_back(job.id);
            return;
        }
        let offered = self.cluster.queue.offer(&job).await.unwrap();
        let expected = match self.model.jobs.get(&job.id).map(|known| (known.state, known.settled.last())) {
            None => Offered::Pushed,
            Some((State::Dead | State::Ended, _)) | Some((_, Some(_))) => {
                let Offered::Ended(entry) = offered else { panic!("{} ended, offered {offered:?}", job.id) };
                assert_eq!(Some(&entry.revision), self.model.jobs[&job.id].settled.last());
                return;
            }
            Some(_) => Offered::Known,
        };
        assert_eq!(offered, expected, "{:?}", self.model.jobs.get(&job.id));
        if offered == Offered::Pushed {
            inbox.push_back(job.id);
            let fresh = Known {
                job,
                state: State::Inbox,
                order: 0,
                attempts: 0,
                lease: None,
                claim: 0,
                settled: Vec::new(),
                failed: false,
            };
            self.model.jobs.insert(fresh.job.id, fresh);
        }
    }

    async fn admit(&mut self) {
        let queue = self.random.pick(&QUEUES);
        let most = self.random.below(5);
        let admitted = self.cluster.queue.admit(&levels(&[queue]), most).await.unwrap();
        let (mut jobs, mut known) = (0, 0);
        for _ in 0..most {
            let Some(id) = self.model.inboxes.entry(queue.to_owned()).or_default().pop_front() else { break };
            let entry = self.model.jobs.get_mut(&id).unwrap();
            if entry.state == State::Inbox {
                (entry.state, entry.order) = (State::Ready, self.model.admitted);
                self.model.admitted += 1;
                jobs += 1;
            } else {
                known += 1;
            }
        }
        assert_eq!((admitted.jobs, admitted.known), (jobs, known));
    }

    async fn claim(&mut self) {
        let (node, first) = (node_id(self.random.pick(&NODES)), self.random.below(3));
        let queues = [QUEUES[first], QUEUES[(first + 1) % 3]];
        let room_bytes = if self.random.chance(40) { 1 << 40 } else { self.random.below(5000) as u64 };
        let levels = levels(&queues);
        let batch = BatchLimit { jobs: self.random.pick(&[1, 1, 2, 5]), bytes: 6000 };
        let request = ClaimRequest {
            batch,
            room: room(room_bytes),
            host: HostLimits { transfers: HOST_LIMIT, starts_per_second: 0.0 },
            ..question(&node, &levels)
        };
        // Weights are another test's: here nobody is behind anyone.
        let () = redis::cmd("DEL").arg("longshore:pace").query(&mut self.cluster.redis.connection()).unwrap();
        let claimed = self.cluster.queue.claim(&request).await.unwrap();
        for known in self.model.jobs.values_mut().filter(|known| known.state == State::Due) {
            known.state = State::Ready;
        }
        let expected = self.model.next(&queues, room_bytes, batch);
        let leases = match claimed {
            Claimed::Nothing(idle) => {
                assert_eq!(expected, [], "said {idle:?} with room {room_bytes} in {queues:?}");
                let waits = queues.iter().any(|queue| self.model.count(queue, &[State::Ready]) > 0);
                assert_eq!(idle == Idle::Empty, !waits);
                return;
            }
            Claimed::Jobs(leases) => leases,
        };
        let ids = |leases: &[Lease]| leases.iter().map(|lease| (lease.job.id, lease.revision)).collect::<Vec<_>>();
        let given: Vec<JobId> = leases.iter().map(|lease| lease.job.id).collect();
        assert_eq!(given, expected, "with room {room_bytes} in {queues:?}, {batch:?}");
        if self.random.chance(20) {
            let Claimed::Jobs(repeated) = self.cluster.queue.claim(&request).await.unwrap() else { panic!("lost") };
            assert_eq!(ids(&repeated), ids(&leases));
        }
        self.model.claims += 1;
        for lease in leases {
            self.leased(lease);
        }
    }

    fn leased(&mut self, lease: Lease) {
        let known = self.model.jobs.get_mut(&lease.job.id).unwrap();
        assert!(known.lease.as_ref().is_none_or(|last| last.revision < lease.revision));
        known.attempts += 1;
        assert_eq!((lease.attempts, &lease.job), (known.attempts, &known.job));
        (known.state, known.lease, known.claim) = (State::Leased, Some(lease.clone()), self.model.claims);
        self.model.leases.push(lease);
    }

    /// A holder, current or stale, does something; perhaps twice, since the answer was lost.
    async fn act(&mut self) {
        if self.model.leases.is_empty() {
            return;
        }
        // Mostly one of the latest, so that work gets done; sometimes one from long ago.
        let recent = self.model.leases.len().saturating_sub(8);
        let from = if self.random.chance(80) { recent } else { 0 };
        let lease = self.random.pick(&self.model.leases[from..]);
        let action = self.random.below(10);
        let times = if self.random.chance(20) { 2 } else { 1 };
        for _ in 0..times {
            match action {
                0 | 1 => self.renew(&lease, action == 1).await,
                2 => self.release(&lease).await,
                3 | 4 => self.retry(&lease, action == 3).await,
                5 => self.settle(&lease, End::Bury).await,
                _ => self.settle(&lease, End::Final).await,
            }
        }
    }

    async fn renew(&mut self, lease: &Lease, commit: bool) {
        let queue = &self.cluster.queue;
        let held = if commit { queue.commit(lease, LEASE).await } else { queue.renew(lease, LEASE).await };
        let expected = if self.model.held(lease).is_some() { Held::Yours } else { Held::Lost };
        assert_eq!(held.unwrap(), expected);
    }

    async fn release(&mut self, lease: &Lease) {
        let held = self.cluster.queue.release(lease).await.unwrap();
        let gave_back = self.model.gave_back(lease);
        if let Some(known) = self.model.held(lease) {
            known.state = State::Ready;
            known.attempts -= 1;
            assert_eq!(held, Held::Yours);
        } else {
            assert_eq!(held == Held::Yours, gave_back);
        }
    }

    async fn retry(&mut self, lease: &Lease, at_once: bool) {
        // A claim makes at most 8 due ones ready.
        let due = self.model.jobs.values().filter(|known| known.state == State::Due).count();
        let (delay, state) =
            if at_once && due < 8 { (Duration::ZERO, State::Due) } else { (LEASE * 1000, State::Delayed) };
        let reason = Reason::new(ReasonCode::TransferStalled, "no byte for 60 s");
        let returned = self.cluster.queue.retry_later(lease, delay, &reason).await.unwrap();
        let gave_back = self.model.gave_back(lease);
        if let Some(known) = self.model.held(lease) {
            known.state = state;
            assert_eq!(returned, Returned::GivenBack);
        } else {
            assert_eq!(returned == Returned::GivenBack, gave_back);
        }
    }

    async fn settle(&mut self, lease: &Lease, end: End) {
        let report = match end {
            End::Final | End::Copy => stored(lease),
            End::Bury => failed(lease, Reason::new(ReasonCode::Unreachable, "no route to host")),
        };
        let settled = self.cluster.queue.settle(lease, &report, end).await.unwrap();
        let last = self.model.jobs[&lease.job.id].settled.last().copied();
        if let Some(known) = self.model.held(lease) {
            known.state = if end == End::Bury { State::Dead } else { State::Ended };
            known.settled.push(lease.revision);
            known.failed = end == End::Bury;
            assert_eq!(settled, Settled::Done);
        } else if last == Some(lease.revision) && self.model.jobs[&lease.job.id].failed == (end == End::Bury) {
            assert_eq!(settled, Settled::AlreadyYours);
        } else {
            let is_over = self.model.jobs[&lease.job.id].state == State::Ended;
            assert_eq!(settled, if is_over { Settled::Over } else { Settled::Lost });
        }
    }

    /// Some leases run out, and their nodes are silent.
    async fn reap(&mut self) {
        let mut connection = self.cluster.redis.connection();
        let mut expired = Vec::new();
        for known in self.model.jobs.values_mut().filter(|known| known.state == State::Leased) {
            if self.random.chance(10) {
                let id = known.job.id;
                let () = redis::cmd("ZADD")
                    .arg("longshore:leases")
                    .arg(1)
                    .arg(id.to_string())
                    .query(&mut connection)
                    .unwrap();
                expired.push(id);
            }
        }
        let mut reaped = self.cluster.queue.reap_silent(1000, Duration::ZERO).await.unwrap();
        reaped.sort_unstable();
        assert_eq!(reaped, expired);
        for id in reaped {
            let known = self.model.jobs.get_mut(&id).unwrap();
            known.state = State::Ready;
            // The old holder is nobody now, whatever it repeats; only the revision is remembered, to grow from.
            known.lease.as_mut().unwrap().revision += 1;
        }
    }

    async fn requeue(&mut self) {
        let dead: Vec<JobId> =
            self.model.jobs.values().filter(|known| known.state == State::Dead).map(|known| known.job.id).collect();
        if dead.is_empty() {
            return;
        }
        let id = self.random.pick(&dead);
        assert_eq!(
            self.cluster.queue.requeue(&id, &[JobState::Dead], uuid::Uuid::now_v7()).await.unwrap(),
            Changed::Done
        );
        let known = self.model.jobs.get_mut(&id).unwrap();
        (known.state, known.attempts) = (State::Ready, 0);
        known.lease.as_mut().unwrap().revision += 1;
    }

    async fn check_counts(&self) {
        let depths = self.cluster.queue.depths(&names(&QUEUES)).await.unwrap();
        for (queue, depth) in QUEUES.into_iter().zip(depths) {
            let count = |states: &[State]| self.model.count(queue, states) as u64;
            let inbox = self.model.inboxes.get(queue).map_or(0, VecDeque::len) as u64;
            let waiting = [State::Ready, State::Due, State::Delayed];
            let bytes: u64 = (self.model.jobs.values())
                .filter(|known| known.job.queue.as_str() == queue && waiting.contains(&known.state))
                .map(|known| known.job.size_bytes())
                .sum();
            let expected =
                [inbox, count(&[State::Ready]), count(&[State::Due, State::Delayed]), count(&[State::Leased]), bytes];
            assert_eq!([depth.inbox, depth.ready, depth.delayed, depth.leased, depth.bytes], expected, "{queue}");
            assert_eq!(depth.oldest_admitted_at.is_some(), depth.ready > 0);
        }
        let leased = |known: &&Known| known.state == State::Leased;
        let mut held: Vec<JobId> = self.cluster.queue.leases().await.unwrap().iter().map(|held| held.job).collect();
        held.sort_unstable();
        assert_eq!(held, self.model.jobs.values().filter(leased).map(|known| known.job.id).collect::<Vec<_>>());
        for host in HOSTS {
            let mut command = redis::cmd("HGET");
            command.arg(format!("longshore:host:{host}")).arg("active");
            let active: Option<usize> = command.query(&mut self.cluster.redis.connection()).unwrap();
            assert_eq!(active.unwrap_or(0), self.model.transfers(host), "active of host {host}");
        }
    }

    /// Every job comes to its end, and nothing is left but their reports.
    async fn drain(&mut self) {
        let mut connection = self.cluster.redis.connection();
        let delayed: Vec<String> =
            redis::cmd("ZRANGE").arg("longshore:timers").arg(0).arg(-1).query(&mut connection).unwrap();
        for id in delayed {
            let () = redis::cmd("ZADD").arg("longshore:timers").arg(1).arg(id).query(&mut connection).unwrap();
        }
        self.cluster.queue.admit(&levels(&QUEUES), 1000).await.unwrap();
        for known in self.model.jobs.values_mut().filter(|known| known.state == State::Leased) {
            let lease = known.lease.take().unwrap();
            assert_eq!(self.cluster.store(&lease).await, Settled::Done);
            known.settled.push(lease.revision);
        }
        let mut nothing = 0;
        while nothing < 20 {
            match self.cluster.claim("1", &QUEUES, u64::MAX).await {
                Claimed::Nothing(_) => nothing += 1,
                Claimed::Jobs(leases) => {
                    let lease = &leases[0];
                    assert_eq!(self.cluster.store(lease).await, Settled::Done);
                    self.model.jobs.get_mut(&lease.job.id).unwrap().settled.push(lease.revision);
                }
            }
        }
        let mut reported = BTreeMap::<JobId, Vec<u64>>::new();
        for report in self.cluster.reports().await {
            reported.entry(report.job.id).or_default().push(report.revision);
        }
        let expected: BTreeMap<JobId, Vec<u64>> =
            self.model.jobs.iter().map(|(id, known)| (*id, known.settled.clone())).collect();
        assert_eq!(reported, expected);
        assert!(reported.values().all(|revisions| revisions.is_sorted() && !revisions.is_empty()));
        for part in ["lane:", "heads:", "classes:", "due:", "aside:", "host:", "leases", "timers"] {
            assert_eq!(self.cluster.keys(part), Vec::<String>::new());
        }
        let dead = self.model.jobs.values().filter(|known| known.state == State::Dead).count();
        assert_eq!(self.cluster.keys("job:").len(), dead);
        for depth in self.cluster.queue.depths(&names(&QUEUES)).await.unwrap() {
            let counts = [depth.inbox, depth.ready, depth.delayed, depth.leased, depth.bytes];
            assert_eq!(counts, [0; 5]);
        }
    }
}

#[tokio::test]
async fn thousands_of_random_steps_agree_with_the_model() {
    let from_environment = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let seed = from_environment("LONGSHORE_MODEL_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    let steps = from_environment("LONGSHORE_MODEL_STEPS").unwrap_or(60_000);
    println!("LONGSHORE_MODEL_SEED={seed}");
    let mut run = Run { cluster: Cluster::start(), model: Model::default(), random: Random(seed | 1) };
    for step in 0..steps {
        match run.random.below(100) {
            0..20 => run.offer().await,
            20..35 => run.admit().await,
            35..60 => run.claim().await,
            60..94 => run.act().await,
            94..97 => run.reap().await,
            _ => run.requeue().await,
        }
        if step % 20 == 0 {
            run.check_counts().await;
        }
    }
    run.check_counts().await;
    run.drain().await;
}
