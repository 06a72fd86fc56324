//! P3: what a claim costs. The queue's own claims by 50 nodes over 3 levels and 500 hosts, sizes from 1 KiB to 1 GiB, against
//! raw `EVALSHA` of RPOP and ZADD by as many tasks over the same kind of connection to the same Redis.
//!
//! P3.miss is the worse of two backlogs in which nothing fits: one with nothing overdue, and one with everything overdue, where a
//! claim looks for a node that could keep its room for each overdue job that it meets for the first time.
//!
//! `LONGSHORE_P3_JOBS` is how many wait (1,000,000 unless told); they take about 1.5 KB each, 1.5 GB for 1,000,000, and some
//! minutes to push.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use longshore_core::{
    Job, JobId, NodeId, QueueName, ServerId,
    config::RedisConfig,
    queue::{BatchLimit, ClaimRequest, Claimed, HostLimits, Idle, Level, Queue, Room},
    redis_link::RedisLink,
};
use longshore_tests::Redis;

use crate::{Side, line, line_of_rounds, median, turns};

const LEVELS: [&str; 3] = ["level1", "level2", "level3"];
const NODES: usize = 50;
const HOSTS: u64 = 500;
const FEW: u64 = 1_000;
/// Claims of one round; rounds of ours and of the reference take turns.
const CLAIMS: usize = 5_000;
const ROUNDS: usize = 5;
const MISSES: usize = 200;
/// What a puller waits at least after it had to yield.
const PAUSE: Duration = Duration::from_millis(20);
/// Smaller than every job, and in the class of the smallest: the costliest way to find nothing.
const TOO_SMALL: u64 = 1024;

pub(crate) fn measure() -> anyhow::Result<()> {
    let jobs = match std::env::var("LONGSHORE_P3_JOBS") {
        Ok(text) => text.parse().context("LONGSHORE_P3_JOBS")?,
        Err(_) => 1_000_000,
    };
    tokio::runtime::Runtime::new()?.block_on(measured(jobs))
}

async fn measured(many: u64) -> anyhow::Result<()> {
    let (redis_few, redis_many) = (Redis::start(), Redis::start());
    let (few, queue) = (queue_at(&redis_few), queue_at(&redis_many));
    let levels = LEVELS.map(|name| Level::new(QueueName::new(name).expect("a queue's name")));
    fill(&queue, &levels, many).await?;
    introduce(&queue, &levels).await?;

    top_up(&few, &levels).await?;
    introduce(&few, &levels).await?;
    let (mut ours, mut raw, mut at_many, mut at_few) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for side in turns(round) {
            match side {
                Side::Ours => {
                    let before = cpu_micros(&queue).await?;
                    ours.push(claims_per_second(&queue, &levels, CLAIMS).await?);
                    at_many.push((cpu_micros(&queue).await? - before) / CLAIMS as f64);
                }
                Side::Reference => raw.push(raw_per_second(&queue, CLAIMS).await?),
            }
        }
        // As many claims by the same nodes, so that weights make them yield as often: never more than so few wait.
        let mut micros = 0.0;
        for _ in 0..CLAIMS / FEW as usize * 2 {
            top_up(&few, &levels).await?;
            let before = cpu_micros(&few).await?;
            claims_per_second(&few, &levels, FEW as usize / 2).await?;
            micros += cpu_micros(&few).await? - before;
        }
        at_few.push(micros / CLAIMS as f64);
    }
    line_of_rounds("P3.rate", "claims-per-second", &ours, &raw, "1/s", ">=0.2");
    let (at_many, at_few) = (median(at_many), median(at_few));
    line("P3.flat", "CPU-of-Redis-for-a-claim", at_many / at_few, at_many, at_few, "us", "<=1.2");
    let not_overdue = misses(&queue, &levels).await?;
    for level in &levels {
        queue.relevel(&Level { max_wait: Some(Duration::from_millis(1)), ..level.clone() }).await?;
    }
    let overdue = misses(&queue, &levels).await?;
    eprintln!("nothing fits: {not_overdue:.3} ms with nothing overdue, {overdue:.3} ms with everything overdue");
    let miss = not_overdue.max(overdue);
    line("P3.miss", "CPU-of-Redis-to-find-that-nothing-fits", miss, miss, 1.0, "ms", "<=1");
    let used: String = queue.link().query(redis::cmd("INFO").arg("memory")).await?;
    eprintln!("{many} jobs: {}", used.lines().find(|line| line.starts_with("used_memory_human")).unwrap_or_default());
    Ok(())
}

fn queue_at(redis: &Redis) -> Queue {
    Queue::new(RedisLink::new(&RedisConfig { address: redis.address(), ..RedisConfig::default() }))
}

/// Pushes and admits so many jobs, spread over levels, hosts and sizes.
async fn fill(queue: &Queue, levels: &[Level], jobs: u64) -> anyhow::Result<()> {
    let mut job: Job = serde_json::from_str(include_str!("../../../core/fixtures/job-v1.json"))?;
    let started = Instant::now();
    let mut made = 0;
    while made < jobs {
        let mut pipe = redis::pipe();
        for n in made..jobs.min(made + 1_000) {
            // A multiplicative walk: no two neighbours are alike, and every run makes the same.
            let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            job.id = JobId::fresh();
            job.server_id = ServerId::new(format!("host{}", mixed % HOSTS))?;
            let octave = (mixed / HOSTS) % 20;
            if let Some(content) = &mut job.content {
                content.size_bytes = TOO_SMALL + 1 + ((1 << (10 + octave)) - TOO_SMALL) + mixed % (1 << (10 + octave));
            }
            let level = &levels[(n % levels.len() as u64) as usize];
            pipe.cmd("LPUSH").arg(level.name.as_str()).arg(serde_json::to_vec(&job)?).ignore();
        }
        queue.link().pipe::<()>(&pipe).await?;
        queue.admit(levels, 1_000).await?;
        made += 1_000;
    }
    if jobs > FEW {
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("pushed and admitted {jobs} jobs in {seconds:.1} s ({:.0}/s)", jobs as f64 / seconds);
    }
    Ok(())
}

/// Node `number` and its weight: one to four parts.
fn node_of(number: usize) -> anyhow::Result<(NodeId, u32)> {
    Ok((NodeId::new(format!("node{number}"))?, 1 + number as u32 % 4))
}

/// Each node asks once: the first question of one that was away is a rarer case.
async fn introduce(queue: &Queue, levels: &[Level]) -> anyhow::Result<()> {
    for number in 0..NODES {
        let (node_id, weight) = node_of(number)?;
        queue.claim(&request(&node_id, weight, levels, u64::MAX)).await?;
    }
    Ok(())
}

/// All nodes ask, and none waits for the others, until so many jobs are given.
async fn claims_per_second(queue: &Queue, levels: &[Level], claims: usize) -> anyhow::Result<f64> {
    let (given, yields) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let started = Instant::now();
    let mut nodes = Vec::new();
    for node in 0..NODES {
        let (queue, levels, given, yields) = (queue.clone(), levels.to_vec(), Arc::clone(&given), Arc::clone(&yields));
        nodes.push(tokio::spawn(async move {
            let (node_id, weight) = node_of(node)?;
            let one_more = |given: usize| (given < claims).then_some(given + 1);
            while given.fetch_update(Relaxed, Relaxed, one_more).is_ok() {
                match queue.claim(&request(&node_id, weight, &levels, u64::MAX)).await? {
                    Claimed::Jobs(_) => {}
                    Claimed::Nothing(Idle::Yields) => {
                        given.fetch_sub(1, Relaxed);
                        yields.fetch_add(1, Relaxed);
                        tokio::time::sleep(PAUSE).await;
                    }
                    Claimed::Nothing(idle) => anyhow::bail!("nothing left to claim: {idle:?}"),
                }
            }
            Ok(())
        }));
    }
    for node in nodes {
        node.await??;
    }
    let rate = claims as f64 / started.elapsed().as_secs_f64();
    eprintln!("{claims} claims, {rate:.0}/s, and {} yields", yields.load(Relaxed));
    Ok(rate)
}

async fn raw_per_second(queue: &Queue, calls: usize) -> anyhow::Result<f64> {
    let mut pipe = redis::pipe();
    for n in 0..calls {
        pipe.cmd("LPUSH").arg("raw").arg(n).ignore();
    }
    queue.link().pipe::<()>(&pipe).await?;
    let script = "local id = redis.call('RPOP', KEYS[1]); redis.call('ZADD', KEYS[2], ARGV[1], id); return id";
    let started = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..NODES {
        let link = queue.link().clone();
        tasks.push(tokio::spawn(async move {
            let script = redis::Script::new(script);
            for n in 0..calls / NODES {
                let _id: String = link.run(script.key("raw").key("raw_leases").arg(n)).await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let rate = (calls / NODES * NODES) as f64 / started.elapsed().as_secs_f64();
    queue.link().query::<()>(redis::cmd("DEL").arg(&["raw", "raw_leases"])).await?;
    Ok(rate)
}

/// The mean of many claims in milliseconds. All nodes are there, full, and have disks that could hold every job; the one that
/// asks has a disk that could not, since room that is kept on it would answer the next claim at once.
async fn misses(queue: &Queue, levels: &[Level]) -> anyhow::Result<f64> {
    // The second time each meets the others as full.
    for _ in 0..2 {
        for number in 0..NODES {
            let (node_id, weight) = node_of(number)?;
            // A little less than the one below: it is not to yield to them.
            let claimed = queue.claim(&request(&node_id, weight, levels, TOO_SMALL - 1)).await?;
            ensure!(matches!(claimed, Claimed::Nothing(_)), "something fitted");
        }
    }
    let node_id = NodeId::new("small")?;
    let asked = request(&node_id, 1, levels, TOO_SMALL);
    let room = Room { ceiling_bytes: TOO_SMALL, ..asked.room };
    let before = cpu_micros(queue).await?;
    for _ in 0..MISSES {
        let claimed = queue.claim(&ClaimRequest { request_id: uuid::Uuid::now_v7(), room, ..asked }).await?;
        ensure!(claimed == Claimed::Nothing(Idle::NoRoom), "{claimed:?} where nothing fits");
    }
    Ok((cpu_micros(queue).await? - before) / MISSES as f64 / 1000.0)
}

/// So many wait again as are few.
async fn top_up(queue: &Queue, levels: &[Level]) -> anyhow::Result<()> {
    let names: Vec<QueueName> = levels.iter().map(|level| level.name.clone()).collect();
    let ready: u64 = queue.depths(&names).await?.iter().map(|depth| depth.ready).sum();
    fill(queue, levels, FEW.saturating_sub(ready)).await
}

fn request<'a>(node_id: &'a NodeId, weight: u32, levels: &'a [Level], room_bytes: u64) -> ClaimRequest<'a> {
    ClaimRequest {
        node_id,
        request_id: uuid::Uuid::now_v7(),
        levels,
        room: Room { bytes: room_bytes, inodes: u64::MAX, ceiling_bytes: u64::MAX },
        weight,
        free_slots: 2,
        lease: Duration::from_secs(3600),
        host: HostLimits { transfers: u32::MAX, starts_per_second: 0.0 },
        batch: BatchLimit { jobs: 1, bytes: 0 },
    }
}

/// Time of the server's main thread so far. Time by the clock would count what other processes take from it.
async fn cpu_micros(queue: &Queue) -> anyhow::Result<f64> {
    let cpu: String = queue.link().query(redis::cmd("INFO").arg("cpu")).await?;
    let field = |name: &str| {
        let value = cpu.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|text| text.parse::<f64>().ok()).with_context(|| format!("no {name}"))
    };
    Ok((field("used_cpu_user_main_thread")? + field("used_cpu_sys_main_thread")?) * 1e6)
}
