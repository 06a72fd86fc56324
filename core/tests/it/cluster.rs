//! A queue on a real Redis of the test's own, and the people around it: hosts with jobs, nodes that claim.

use std::time::Duration;

use longshore_core::{
    Job, JobId, Millis, NodeBeat, NodeId, Outcome, QueueName, Report, ServerId,
    config::RedisConfig,
    queue::{BatchLimit, ClaimRequest, Claimed, End, HostLimits, Idle, Lease, Level, Queue, Room, Settled},
    redis_link::RedisLink,
    report::{REPORT_VERSION, Reason},
};
use longshore_tests::Redis;

/// Long enough that no lease of a test ends by itself.
pub(crate) const LEASE: Duration = Duration::from_secs(60);
/// Larger than any job.
pub(crate) const ROOM: u64 = u64::MAX;

pub(crate) struct Cluster {
    pub(crate) redis: Redis,
    pub(crate) queue: Queue,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let redis = Redis::start();
        let queue = queue_at(&redis);
        Self { redis, queue }
    }

    /// On a Redis that syncs before it answers. With the usual `everysec` it answers first, and while the disk is busy with the
    /// sync before, it does not even write to its file, for up to two seconds (`aof_buffer_length`): a kill then takes what it
    /// has answered. Hosts heal that by offering again what they find unreported.
    pub(crate) fn start_durable() -> Self {
        let redis = Redis::start_with(&["--appendfsync", "always"]);
        let queue = queue_at(&redis);
        Self { redis, queue }
    }

    /// Offers and admits these jobs.
    pub(crate) async fn admit(&self, jobs: &[Job]) {
        for job in jobs {
            self.queue.offer(job).await.unwrap();
            assert_eq!(self.queue.admit(&[Level::new(job.queue.clone())], 1).await.unwrap().jobs, 1);
        }
    }

    /// Pushes and admits these jobs of one level, whatever its rule.
    pub(crate) async fn admit_to(&self, level: &Level, jobs: &[Job]) {
        let mut pipe = redis::pipe();
        for job in jobs {
            pipe.cmd("LPUSH").arg(level.name.as_str()).arg(serde_json::to_vec(job).unwrap()).ignore();
        }
        let () = pipe.query(&mut self.redis.connection()).unwrap();
        let admitted = self.queue.admit(std::slice::from_ref(level), jobs.len()).await.unwrap();
        assert_eq!(admitted.jobs, jobs.len() as u64);
    }

    /// A command to Redis, to look or to play a clock.
    pub(crate) fn redis<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut self.redis.connection()).unwrap()
    }

    pub(crate) async fn claim(&self, node: &str, queues: &[&str], room_bytes: u64) -> Claimed {
        self.claim_limited(node, queues, room_bytes, 1000).await
    }

    pub(crate) async fn claim_limited(&self, node: &str, queues: &[&str], room_bytes: u64, host_limit: u32) -> Claimed {
        self.claim_as(uuid::Uuid::now_v7(), node, queues, room_bytes, host_limit).await
    }

    pub(crate) async fn claim_as(
        &self,
        request_id: uuid::Uuid,
        node: &str,
        queues: &[&str],
        room_bytes: u64,
        host_limit: u32,
    ) -> Claimed {
        let (node_id, levels) = (node_id(node), levels(queues));
        let request = ClaimRequest {
            request_id,
            room: room(room_bytes),
            host: HostLimits { transfers: host_limit, starts_per_second: 0.0 },
            ..question(&node_id, &levels)
        };
        self.queue.claim(&request).await.unwrap()
    }

    /// A claim that must give a job.
    pub(crate) async fn lease(&self, node: &str, queues: &[&str]) -> Lease {
        leased(self.claim(node, queues, ROOM).await)
    }

    pub(crate) async fn store(&self, lease: &Lease) -> Settled {
        self.queue.settle(lease, &stored(lease), End::Final).await.unwrap()
    }

    /// Everything in the report stream, read by a group of its own.
    pub(crate) async fn reports(&self) -> Vec<Report> {
        use longshore_core::{queue::StreamBody, shutdown::Shutdown};
        let group = format!("test-{}", uuid::Uuid::now_v7());
        let mut reader = self.queue.reports(&group, "test");
        let entries = reader.read(100_000, Duration::ZERO, &Shutdown::new()).await.unwrap();
        let report = |body| match body {
            StreamBody::Report(report) => Some(*report),
            _ => None,
        };
        entries.into_iter().filter_map(|entry| report(entry.body)).collect()
    }

    /// All keys below the prefix whose name contains `part`.
    pub(crate) fn keys(&self, part: &str) -> Vec<String> {
        redis::cmd("KEYS").arg(format!("longshore:*{part}*")).query(&mut self.redis.connection()).unwrap()
    }
}

pub(crate) fn queue_at(redis: &Redis) -> Queue {
    Queue::new(RedisLink::new(&RedisConfig { address: redis.address(), ..RedisConfig::default() }))
}

pub(crate) fn leased(claimed: Claimed) -> Lease {
    match claimed {
        Claimed::Jobs(mut leases) => {
            assert_eq!(leases.len(), 1, "no batch was asked for");
            leases.remove(0)
        }
        Claimed::Nothing(idle) => panic!("nothing was claimed: {idle:?}"),
    }
}

pub(crate) fn idle(claimed: Claimed) -> Idle {
    match claimed {
        Claimed::Jobs(leases) => panic!("{} was claimed", leases[0].job.id),
        Claimed::Nothing(idle) => idle,
    }
}

pub(crate) fn node_id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub(crate) fn server_id(name: &str) -> ServerId {
    ServerId::new(name).unwrap()
}

pub(crate) fn names(queues: &[&str]) -> Vec<QueueName> {
    queues.iter().map(|name| QueueName::new(name).unwrap()).collect()
}

pub(crate) fn levels(queues: &[&str]) -> Vec<Level> {
    names(queues).into_iter().map(Level::new).collect()
}

pub(crate) fn room(bytes: u64) -> Room {
    Room { bytes, inodes: u64::MAX, ceiling_bytes: u64::MAX }
}

/// What a node of weight 1 asks with one free slot and all the room there can be: for one job, whatever its host does already.
pub(crate) fn question<'a>(node_id: &'a NodeId, levels: &'a [Level]) -> ClaimRequest<'a> {
    ClaimRequest {
        node_id,
        request_id: uuid::Uuid::now_v7(),
        levels,
        room: room(ROOM),
        weight: 1,
        free_slots: 1,
        lease: LEASE,
        host: HostLimits { transfers: 1000, starts_per_second: 0.0 },
        batch: BatchLimit { jobs: 1, bytes: 0 },
    }
}

/// A job of `host`, as its agent would make it.
pub(crate) fn job(queue: &str, host: &str, size_bytes: u64) -> Job {
    let mut job: Job = serde_json::from_str(include_str!("../../fixtures/job-v1.json")).unwrap();
    job.id = JobId::fresh();
    job.queue = QueueName::new(queue).unwrap();
    job.server_id = server_id(host);
    job.content.as_mut().unwrap().size_bytes = size_bytes;
    job
}

pub(crate) fn stored(lease: &Lease) -> Report {
    let mut report: Report = serde_json::from_str(include_str!("../../fixtures/report-v1.json")).unwrap();
    report.job = lease.job.clone();
    report.revision = lease.revision;
    report.node_id = Some(lease.node_id.clone());
    report.attempts = lease.attempts;
    report
}

pub(crate) fn failed(lease: &Lease, reason: Reason) -> Report {
    Report {
        v: REPORT_VERSION,
        node_id: Some(lease.node_id.clone()),
        attempts: lease.attempts,
        ..Report::without_transfer(lease.job.clone(), lease.revision, Outcome::Failed, reason, Millis::now())
    }
}

/// A node's beat that counts these leases among its transfers.
pub(crate) fn beat(node: &str, running: &[&Lease]) -> NodeBeat {
    let mut beat: NodeBeat = serde_json::from_str(include_str!("../../fixtures/node-beat-v1.json")).unwrap();
    beat.node_id = node_id(node);
    let example = beat.running.remove(0);
    for lease in running {
        beat.running.push(longshore_core::beat::RunningTransfer { job: lease.job.id, ..example.clone() });
    }
    beat
}
