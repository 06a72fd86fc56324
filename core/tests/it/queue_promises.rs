//! The order within a level, and the promise that no job waits longer than its limit, whatever stands above it.

use std::time::Duration;

use longshore_core::{
    Job, JobId, Millis,
    queue::{ClaimRequest, HostLimits, Idle, Level, Order, Room},
};

use crate::cluster::{Cluster, ROOM, idle, job, leased, levels, node_id, question, server_id};

fn level(name: &str) -> Level {
    Level::new(name.parse().unwrap())
}

/// The time has come for these jobs to be lifted.
fn make_overdue(cluster: &Cluster, jobs: &[Job]) {
    for (age, job) in jobs.iter().enumerate() {
        let (due, at) = (format!("longshore:due:{}", job.queue), (age + 1).to_string());
        assert_eq!(cluster.redis::<u64>(&["ZADD", &due, "XX", "CH", &at, &job.id.to_string()]), 1);
    }
}

fn flood(queue: &str, jobs: usize) -> Vec<Job> {
    (0..jobs).map(|n| job(queue, &format!("{queue}-host{}", n % 7), 1000)).collect()
}

#[tokio::test]
async fn a_job_is_lifted_when_seven_eighths_of_its_limit_are_gone() {
    let cluster = Cluster::start();
    let limited = Level { max_wait: Some(Duration::from_secs(7200)), ..level("level1") };
    let mut jobs = [job("level1", "a", 1), job("level2", "a", 1), job("level2", "a", 1)];
    jobs[1].interval_seconds = 3600;
    jobs[2].interval_seconds = 0;
    cluster.admit_to(&limited, &jobs[..1]).await;
    cluster.admit_to(&level("level2"), &jobs[1..]).await;
    // A level's limit, or the instance's own interval, or a day when it says none.
    for (job, limit_seconds) in jobs.iter().zip([7200, 3600, 86_400]) {
        let due: u64 = cluster.redis(&["ZSCORE", &format!("longshore:due:{}", job.queue), &job.id.to_string()]);
        let admitted: u64 = cluster.redis(&["HGET", &format!("longshore:job:{}", job.id), "admitted"]);
        assert_eq!(due - admitted, limit_seconds * 1_000_000 / 8 * 7);
    }
}

#[tokio::test]
async fn under_an_endless_flood_of_the_first_level_the_last_starts_in_time() {
    let cluster = Cluster::start();
    let names = ["level1", "level2", "level3"];
    let late = flood("level3", 3);
    cluster.admit_to(&level("level3"), &late).await;
    for _ in 0..20 {
        cluster.admit_to(&level("level1"), &flood("level1", 2)).await;
        assert_eq!(cluster.lease("1", &names).await.queue.as_str(), "level1");
    }
    make_overdue(&cluster, &late[..2]);
    // Each level has its turn: one claim in three.
    let mut given = Vec::new();
    for _ in 0..6 {
        cluster.admit_to(&level("level1"), &flood("level1", 2)).await;
        let lease = cluster.lease("1", &names).await;
        given.extend((lease.queue.as_str() == "level3").then_some(lease.job.id));
    }
    assert_eq!(given, [late[0].id, late[1].id]);
    // The third is not overdue: the flood goes before it again.
    for _ in 0..6 {
        assert_eq!(cluster.lease("1", &names).await.queue.as_str(), "level1");
    }
}

#[tokio::test]
async fn levels_of_copies_have_one_turn_together() {
    let cluster = Cluster::start();
    let mut names = vec!["level1", "level3"];
    let copies: Vec<String> = (0..20).map(|node| format!("longshore:copies@{node}")).collect();
    names.extend(copies.iter().map(String::as_str));
    let late = flood("level3", 4);
    cluster.admit_to(&level("level3"), &late).await;
    cluster.admit_to(&level("level1"), &flood("level1", 40)).await;
    make_overdue(&cluster, &late);
    let mut below = 0;
    for _ in 0..12 {
        below += u32::from(cluster.lease("1", &names).await.queue.as_str() == "level3");
    }
    assert_eq!(below, 4);
}

#[tokio::test]
async fn within_its_limit_by_the_clock_too() {
    let cluster = Cluster::start();
    let limit = Duration::from_secs(6);
    let below = Level { max_wait: Some(limit), ..level("level3") };
    let late = job("level3", "a", 1);
    cluster.admit_to(&below, std::slice::from_ref(&late)).await;
    let lease = loop {
        cluster.admit_to(&level("level1"), &flood("level1", 20)).await;
        let lease = cluster.lease("1", &["level1", "level3"]).await;
        if lease.job.id == late.id {
            break lease;
        }
    };
    let waited = lease.revision / 1000 - u64::try_from(lease.admitted_at.0).unwrap();
    assert!((5250..6000).contains(&waited), "started after {waited} ms");
}

#[tokio::test]
async fn a_flood_of_overdue_jobs_below_leaves_the_first_level_its_share() {
    let cluster = Cluster::start();
    let below = flood("level3", 30);
    cluster.admit_to(&level("level3"), &below).await;
    cluster.admit_to(&level("level1"), &flood("level1", 30)).await;
    make_overdue(&cluster, &below);
    let mut first = 0;
    for _ in 0..30 {
        first += u32::from(cluster.lease("1", &["level1", "level2", "level3"]).await.queue.as_str() == "level1");
    }
    assert_eq!(first, 20);
}

#[tokio::test]
async fn an_overdue_job_passes_older_ones_of_its_level_that_have_more_time() {
    let cluster = Cluster::start();
    let mut jobs = flood("level1", 10);
    for job in &mut jobs {
        job.interval_seconds = 86_400;
    }
    cluster.admit_to(&level("level1"), &jobs).await;
    make_overdue(&cluster, &jobs[9..]);
    assert_eq!(cluster.lease("1", &["level1"]).await.job.id, jobs[9].id);
    assert_eq!(cluster.lease("1", &["level1"]).await.job.id, jobs[0].id);
}

#[tokio::test]
async fn overdue_jobs_of_a_busy_host_do_not_hide_others() {
    let cluster = Cluster::start();
    let mut jobs: Vec<Job> = (0..11).map(|_| job("level2", "busy", 1)).collect();
    jobs.push(job("level2", "free", 1));
    cluster.admit_to(&level("level2"), &jobs).await;
    cluster.admit_to(&level("level1"), &flood("level1", 40)).await;
    let busy = leased(cluster.claim_limited("1", &["level2"], ROOM, 1).await);
    make_overdue(&cluster, &jobs[1..]);
    // Four are looked at in each of the level's turns, and put behind.
    let mut claims = 0;
    while leased(cluster.claim_limited("1", &["level1", "level2"], ROOM, 1).await).job.id != jobs[11].id {
        claims += 1;
        assert!(claims < 8, "not lifted in {claims} claims");
    }
    // None of them is forgotten.
    cluster.store(&busy).await;
    let depth = &cluster.queue.depths(&[jobs[0].queue.clone()]).await.unwrap()[0];
    assert_eq!(depth.ready, 10);
    for _ in 0..10 {
        let lease = leased(cluster.claim_limited("1", &["level2"], ROOM, 1).await);
        cluster.store(&lease).await;
    }
    assert_eq!(idle(cluster.claim("1", &["level2"], ROOM).await), Idle::Empty);
}

#[tokio::test]
async fn an_overdue_job_of_a_closed_host_is_looked_at_again_when_it_opens_or_in_minutes() {
    let cluster = Cluster::start();
    let jobs = [job("level2", "opens-soon", 1), job("level2", "opens-late", 1)];
    cluster.admit_to(&level("level2"), &jobs).await;
    let now = cluster.queue.now_micros().await.unwrap();
    for (host, seconds) in [("opens-soon", 60), ("opens-late", 7200)] {
        let until = Millis(i64::try_from(now / 1000).unwrap() + seconds * 1000);
        cluster.queue.close_host(&server_id(host), until, "at night only").await.unwrap();
    }
    make_overdue(&cluster, &jobs);
    assert_eq!(idle(cluster.claim("1", &["level2"], ROOM).await), Idle::HostsBusy);
    let again = |job: &Job| cluster.redis::<u64>(&["ZSCORE", "longshore:due:level2", &job.id.to_string()]) - now;
    assert!((59_000_000..=60_000_000).contains(&again(&jobs[0])), "{}", again(&jobs[0]));
    assert!((300_000_000..310_000_000).contains(&again(&jobs[1])), "{}", again(&jobs[1]));
}

#[tokio::test]
async fn overdue_jobs_that_fit_nowhere_do_not_hide_others() {
    let cluster = Cluster::start();
    let mut jobs: Vec<Job> = (0..5).map(|number| job("level3", &format!("large{number}"), 1 << 40)).collect();
    // Older than the last one, and with time left.
    jobs.extend((0..3).map(|number| job("level3", &format!("old{number}"), 1)));
    jobs.push(job("level3", "late", 1));
    cluster.admit_to(&level("level3"), &jobs).await;
    cluster.admit_to(&level("level1"), &flood("level1", 40)).await;
    let late = jobs.remove(8);
    let overdue: Vec<Job> = jobs[..5].iter().chain([&late]).cloned().collect();
    make_overdue(&cluster, &overdue);
    let (node, levels) = (node_id("1"), [level("level1"), level("level3")]);
    let mut claims = 0;
    loop {
        let small = Room { bytes: 1 << 30, inodes: u64::MAX, ceiling_bytes: 1 << 30 };
        let claimed = cluster.queue.claim(&ClaimRequest { room: small, ..question(&node, &levels) }).await.unwrap();
        if leased(claimed).job.id == late.id {
            break;
        }
        claims += 1;
        assert!(claims < 8, "not lifted in {claims} claims");
    }
    // They wait for a disk that could hold them.
    let depth = &cluster.queue.depths(std::slice::from_ref(&late.queue)).await.unwrap()[0];
    assert_eq!(depth.ready, 8);
    let given = cluster.lease("2", &["level3"]).await;
    assert_eq!(given.job.id, jobs[0].id);
}

/// Jobs with these intervals, made so many seconds ago; and in which order their instances are without a fresh backup.
fn with_deadlines() -> (Vec<Job>, [usize; 4]) {
    let now = Millis::now().0;
    let mut jobs = flood("level1", 4);
    for (job, (interval, ago)) in jobs.iter_mut().zip([(86_400, 10), (3600, 0), (7200, 7000), (600, -86_400)]) {
        (job.interval_seconds, job.made_at) = (interval, Millis(now - ago * 1000));
    }
    // The last one's host has a clock that is a day ahead: it counts from its admission.
    (jobs, [2, 3, 1, 0])
}

async fn order_given(cluster: &Cluster, jobs: usize) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..jobs {
        ids.push(cluster.lease("1", &["level1"]).await.job.id);
    }
    ids
}

#[tokio::test]
async fn with_order_deadline_the_least_time_left_comes_first() {
    let cluster = Cluster::start();
    let (jobs, order) = with_deadlines();
    cluster.admit_to(&Level { order: Order::Deadline, ..level("level1") }, &jobs).await;
    assert_eq!(order_given(&cluster, 4).await, order.map(|at| jobs[at].id));
}

#[tokio::test]
async fn a_level_whose_rule_changes_has_its_waiting_jobs_placed_anew() {
    let cluster = Cluster::start();
    let (jobs, order) = with_deadlines();
    cluster.admit_to(&level("level1"), &jobs).await;
    // Among many, so that it takes several steps; they have the longest time of all.
    let mut others = flood("level1", 700);
    for job in &mut others {
        job.interval_seconds = 30 * 86_400;
    }
    cluster.admit_to(&level("level1"), &others).await;
    let changed = Level { order: Order::Deadline, max_wait: Some(Duration::from_secs(8000)), ..level("level1") };
    for _ in 0..2 {
        cluster.queue.relevel(&changed).await.unwrap();
    }
    for job in [&jobs[0], &others[699]] {
        let due: u64 = cluster.redis(&["ZSCORE", "longshore:due:level1", &job.id.to_string()]);
        let admitted: u64 = cluster.redis(&["HGET", &format!("longshore:job:{}", job.id), "admitted"]);
        assert_eq!(due - admitted, 7_000_000_000);
    }
    let mut expected: Vec<JobId> = order.map(|at| jobs[at].id).to_vec();
    assert_eq!(order_given(&cluster, 4).await, expected);
    // And back: what waits is in the order of its admission again, whatever was given meanwhile.
    let lease = cluster.lease("1", &["level1"]).await;
    cluster.queue.relevel(&level("level1")).await.unwrap();
    cluster.queue.release(&lease).await.unwrap();
    expected = others[1..4].iter().map(|job| job.id).collect();
    let limits = HostLimits { transfers: 1000, starts_per_second: 0.0 };
    let (node, levels) = (node_id("1"), levels(&["level1"]));
    let mut given = Vec::new();
    for _ in 0..4 {
        let request = longshore_core::queue::ClaimRequest { host: limits, ..question(&node, &levels) };
        given.push(leased(cluster.queue.claim(&request).await.unwrap()).job.id);
    }
    given.retain(|id| *id != lease.job.id);
    assert_eq!(given[..3], expected[..]);
}
