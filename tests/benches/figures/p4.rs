//! P4: share of bytes against weight. Six nodes that always have a free slot are given 10,000 jobs of 1 KiB to 1 GiB by the real
//! scripts, one after the other in a fixed order; what counts is the node whose share is furthest from its weight's.

use std::time::Duration;

use anyhow::ensure;
use longshore_core::{
    Job, JobId, NodeId, QueueName, ServerId,
    config::RedisConfig,
    queue::{BatchLimit, ClaimRequest, Claimed, HostLimits, Idle, Level, Queue, Room},
    redis_link::RedisLink,
};
use longshore_tests::Redis;

use crate::line;

const WEIGHTS: [u32; 6] = [1, 1, 2, 3, 5, 8];
const GIVEN: usize = 10_000;
/// Beyond those given: with none left, what is rare runs out first.
const MORE: usize = 2_000;
const HOSTS: u64 = 500;
/// The smallest size is two to this, and each of the twenty powers up to 1 GiB is as frequent.
const SMALLEST: u64 = 10;

pub(crate) fn measure() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measured())
}

async fn measured() -> anyhow::Result<()> {
    let redis = Redis::start();
    let queue = Queue::new(RedisLink::new(&RedisConfig { address: redis.address(), ..RedisConfig::default() }));
    let levels = [Level::new(QueueName::new("level1")?)];
    fill(&queue, &levels).await?;
    let nodes = (0..WEIGHTS.len()).map(|node| NodeId::new(format!("node{node}"))).collect::<Result<Vec<_>, _>>()?;
    let (mut bytes, mut given, mut asked) = ([0_u64; WEIGHTS.len()], 0, 0);
    while given < GIVEN {
        let node = asked % WEIGHTS.len();
        asked += 1;
        match queue.claim(&request(&nodes[node], &levels, WEIGHTS[node])).await? {
            Claimed::Jobs(leases) => {
                given += leases.len();
                bytes[node] += leases.iter().map(|lease| lease.job.size_bytes()).sum::<u64>();
            }
            Claimed::Nothing(idle) => ensure!(idle == Idle::Yields, "nothing left to claim: {idle:?}"),
        }
    }
    let (total, weights) = (bytes.iter().sum::<u64>() as f64, f64::from(WEIGHTS.iter().sum::<u32>()));
    let mut worst = 0.0;
    for (bytes, weight) in bytes.into_iter().zip(WEIGHTS) {
        let (share, fair) = (bytes as f64 / total * 100.0, f64::from(weight) / weights * 100.0);
        eprintln!("weight {weight}: {share:.2} % of the bytes, {fair:.2} % of the weights");
        worst = f64::max(worst, (share - fair).abs());
    }
    eprintln!("{given} jobs, {:.1} GB, {asked} claims", total / 1e9);
    line("P4", "share-of-bytes-from-share-of-weight", worst / 2.0, worst, 2.0, "pp", "<=1");
    Ok(())
}

async fn fill(queue: &Queue, levels: &[Level]) -> anyhow::Result<()> {
    let mut job: Job = serde_json::from_str(include_str!("../../../core/fixtures/job-v1.json"))?;
    let numbers: Vec<u64> = (0..(GIVEN + MORE) as u64).collect();
    for part in numbers.chunks(1_000) {
        let mut pipe = redis::pipe();
        for n in part {
            // A multiplicative walk: no two neighbours are alike, and every run makes the same.
            let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let power = SMALLEST + mixed % 20;
            job.id = JobId::fresh();
            job.server_id = ServerId::new(format!("host{}", n % HOSTS))?;
            if let Some(content) = &mut job.content {
                content.size_bytes = (1 << power) + (mixed >> 8) % (1 << power);
            }
            pipe.cmd("LPUSH").arg(levels[0].name.as_str()).arg(serde_json::to_vec(&job)?).ignore();
        }
        queue.link().pipe::<()>(&pipe).await?;
        queue.admit(levels, part.len()).await?;
    }
    Ok(())
}

fn request<'a>(node_id: &'a NodeId, levels: &'a [Level], weight: u32) -> ClaimRequest<'a> {
    ClaimRequest {
        node_id,
        request_id: uuid::Uuid::now_v7(),
        levels,
        room: Room { bytes: 1 << 50, inodes: 1 << 40, ceiling_bytes: 1 << 50 },
        weight,
        free_slots: 2,
        lease: Duration::from_secs(3600),
        host: HostLimits { transfers: u32::MAX, starts_per_second: 0.0 },
        batch: BatchLimit { jobs: 1, bytes: 0 },
    }
}
