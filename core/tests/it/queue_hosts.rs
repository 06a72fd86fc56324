//! A host is not trampled, and one that can't be asked holds nobody up.

use std::time::Duration;

use longshore_core::{
    Job, Millis, ReasonCode,
    queue::{ClaimRequest, Claimed, Held, HostLimits, HostOverrides, Idle, Lease, Level, Patience, Queue, Returned},
    report::Reason,
};
use longshore_tests::wait_until;

use crate::cluster::{Cluster, LEASE, idle, job, leased, levels, node_id, question, server_id};

const NO_LIMITS: HostLimits = HostLimits { transfers: 1000, starts_per_second: 0.0 };
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(150);

fn level() -> Level {
    Level::new("level1".parse().unwrap())
}

async fn claim(queue: &Queue, host: HostLimits) -> Claimed {
    let (node, levels) = (node_id("1"), levels(&["level1"]));
    queue.claim(&ClaimRequest { host, ..question(&node, &levels) }).await.unwrap()
}

async fn lease(cluster: &Cluster) -> Lease {
    leased(claim(&cluster.queue, NO_LIMITS).await)
}

fn refused() -> Reason {
    Reason::new(ReasonCode::Unreachable, "connection refused")
}

const PATIENCE: Patience = Patience { first_rest: FIRST, longest_rest: LONGEST, give_up: Duration::from_secs(3600) };

async fn host_fails(cluster: &Cluster, lease: &Lease) -> Returned {
    cluster.queue.host_failed(lease, PATIENCE, &refused()).await.unwrap()
}

/// The time of a host's rest is over.
fn rested(cluster: &Cluster, host: &str) {
    cluster.redis::<()>(&["HSET", &format!("longshore:host:{host}"), "rests_until", "1"]);
    cluster.redis::<()>(&["ZADD", "longshore:timers", "1", &format!("host:{host}")]);
}

fn of_module(host: &str, module: &str) -> Job {
    let mut job = job("level1", host, 1);
    job.source.as_mut().unwrap().module = module.parse().unwrap();
    job
}

#[tokio::test]
async fn a_host_and_a_module_may_have_limits_of_their_own() {
    let cluster = Cluster::start();
    let jobs: Vec<Job> = (0..6).map(|n| of_module("a", if n < 4 { "one" } else { "two" })).collect();
    cluster.admit_to(&level(), &jobs).await;
    let limits = |transfers, one| HostOverrides {
        transfers,
        modules: [("one".parse().unwrap(), one)].into_iter().collect(),
        ..HostOverrides::default()
    };
    cluster.queue.limit_host(&server_id("a"), &limits(Some(3), 2)).await.unwrap();
    let two = HostLimits { transfers: 1, starts_per_second: 0.0 };
    for expected in [0, 1, 4] {
        assert_eq!(leased(claim(&cluster.queue, two).await).job.id, jobs[expected].id);
    }
    assert_eq!(idle(claim(&cluster.queue, two).await), Idle::HostsBusy);
    // Raised, it is asked for more at once; set to nothing, the node's own limit counts again.
    cluster.queue.limit_host(&server_id("a"), &limits(Some(4), 3)).await.unwrap();
    let last = leased(claim(&cluster.queue, two).await);
    assert_eq!(last.job.id, jobs[2].id);
    cluster.queue.limit_host(&server_id("a"), &HostOverrides::default()).await.unwrap();
    cluster.store(&last).await;
    assert_eq!(idle(claim(&cluster.queue, two).await), Idle::HostsBusy);
}

#[tokio::test]
async fn a_host_is_not_asked_more_often_than_so_many_times_a_second() {
    let cluster = Cluster::start();
    cluster.admit_to(&level(), &[job("level1", "a", 1), job("level1", "a", 1), job("level1", "b", 1)]).await;
    let slow = HostLimits { transfers: 1000, starts_per_second: 0.5 };
    let first = leased(claim(&cluster.queue, slow).await);
    assert_eq!(leased(claim(&cluster.queue, slow).await).job.server_id.as_str(), "b");
    assert_eq!(idle(claim(&cluster.queue, slow).await), Idle::HostsBusy);
    // Also not when its transfer has ended.
    cluster.store(&first).await;
    let mut second = None;
    wait_until("the host may be asked again", Duration::from_secs(20), async || {
        second = match claim(&cluster.queue, slow).await {
            Claimed::Jobs(mut leases) => leases.pop(),
            Claimed::Nothing(_) => None,
        };
        second.is_some()
    })
    .await;
    let gap = second.unwrap().revision - first.revision;
    assert!(gap >= 2_000_000, "asked again after {gap} microseconds");
}

#[tokio::test]
async fn a_host_that_fails_rests_longer_each_time_and_its_jobs_lose_no_attempt() {
    let cluster = Cluster::start();
    let jobs = [job("level1", "a", 1), job("level1", "a", 1), job("level1", "b", 1)];
    cluster.admit_to(&level(), &jobs).await;
    let (one, two) = (lease(&cluster).await, lease(&cluster).await);
    // Two side by side, and one answer lost: it failed once.
    assert_eq!(host_fails(&cluster, &one).await, Returned::GivenBack);
    assert_eq!(host_fails(&cluster, &one).await, Returned::GivenBack);
    assert_eq!(host_fails(&cluster, &two).await, Returned::GivenBack);
    let state = |field| cluster.redis::<Option<u64>>(&["HGET", "longshore:host:a", field]);
    assert_eq!(state("failures"), Some(1));
    // Nobody waits for it.
    assert_eq!(lease(&cluster).await.job.id, jobs[2].id);
    assert_eq!(idle(claim(&cluster.queue, NO_LIMITS).await), Idle::HostsBusy);
    assert_eq!(cluster.queue.depths(&[jobs[0].queue.clone()]).await.unwrap()[0].ready, 2);
    let since = state("failing_since").unwrap();
    let mut rests = vec![state("rests_until").unwrap() - since];
    let mut tried = None;
    for failures in 2..=4 {
        rested(&cluster, "a");
        // One finds out, another job each time; the others' slots are not spent on it.
        let probe = lease(&cluster).await;
        assert_eq!((probe.job.server_id.as_str(), probe.attempts), ("a", 1));
        assert_ne!(tried.replace(probe.job.id), Some(probe.job.id));
        assert_eq!(idle(claim(&cluster.queue, NO_LIMITS).await), Idle::HostsBusy);
        assert_eq!(host_fails(&cluster, &probe).await, Returned::GivenBack);
        assert_eq!(state("failures"), Some(failures));
        let claimed = probe.revision;
        rests.push(state("rests_until").unwrap() - claimed);
    }
    for (rest, at_least) in rests.iter().zip([60_000_000, 120_000_000, 150_000_000, 150_000_000]) {
        assert!((at_least..at_least + 10_000_000).contains(rest), "{rests:?}");
    }
    assert_eq!(state("failing_since"), Some(since));
    assert_eq!(cluster.redis::<Vec<String>>(&["ZRANGE", "longshore:failing", "0", "-1"]), ["a"]);
    // A stored job ends it.
    rested(&cluster, "a");
    cluster.store(&lease(&cluster).await).await;
    assert_eq!((state("failures"), state("rests_until")), (None, None));
    assert_eq!(cluster.redis::<u64>(&["ZCARD", "longshore:failing"]), 0);
    lease(&cluster).await;
}

#[tokio::test]
async fn a_job_that_is_refused_for_too_long_is_given_up_though_its_host_gives_others() {
    let cluster = Cluster::start();
    let refused_job = of_module("a", "bad");
    cluster.admit_to(&level(), std::slice::from_ref(&refused_job)).await;
    let record = format!("longshore:job:{}", refused_job.id);
    let now = cluster.queue.now_micros().await.unwrap();
    let (long_ago, lately) = ((now - 3_700_000_000).to_string(), (now - 3_500_000_000).to_string());
    // It waited for room or its turn, and its host has failed others for long: that is not held against it.
    cluster.redis::<()>(&["HSET", &record, "admitted", &long_ago]);
    cluster.redis::<()>(&["HSET", "longshore:host:a", "failing_since", &long_ago]);
    assert_eq!(host_fails(&cluster, &lease(&cluster).await).await, Returned::GivenBack);
    cluster.redis::<()>(&["HSET", &record, "refused_since", &lately]);
    rested(&cluster, "a");
    assert_eq!(host_fails(&cluster, &lease(&cluster).await).await, Returned::GivenBack);
    // Another module gives; the host is well, and the job is still refused.
    cluster.redis::<()>(&["HSET", &record, "refused_since", &long_ago]);
    cluster.admit_to(&level(), &[of_module("a", "good")]).await;
    let mut leases = Vec::new();
    for _ in 0..2 {
        rested(&cluster, "a");
        leases.push(lease(&cluster).await);
        if leases.last().unwrap().job.id != refused_job.id {
            cluster.store(leases.last().unwrap()).await;
        }
    }
    let last = leases.iter().find(|lease| lease.job.id == refused_job.id).unwrap();
    assert_eq!(host_fails(&cluster, last).await, Returned::GiveUp);
    assert_eq!(host_fails(&cluster, last).await, Returned::GiveUp, "asked again after a lost answer");
    assert_eq!(cluster.queue.renew(last, LEASE).await.unwrap(), Held::Yours, "its holder is to end it");
}

#[tokio::test]
async fn what_fails_otherwise_is_refused_anew() {
    let cluster = Cluster::start();
    let job = job("level1", "a", 1);
    cluster.admit_to(&level(), std::slice::from_ref(&job)).await;
    let record = format!("longshore:job:{}", job.id);
    let since = || cluster.redis::<Option<u64>>(&["HGET", &record, "refused_since"]);
    host_fails(&cluster, &lease(&cluster).await).await;
    assert!(since().is_some());
    rested(&cluster, "a");
    cluster.queue.retry_later(&lease(&cluster).await, Duration::ZERO, &refused()).await.unwrap();
    assert_eq!(since(), None);
}

#[tokio::test]
async fn a_host_that_nobody_asks_again_is_not_shown_as_failing_for_ever() {
    let cluster = Cluster::start();
    cluster.admit_to(&level(), &[job("level1", "a", 1), job("level1", "b", 1)]).await;
    for _ in 0..2 {
        let lease = lease(&cluster).await;
        assert_eq!(host_fails(&cluster, &lease).await, Returned::GivenBack);
    }
    let day_ago = (cluster.queue.now_micros().await.unwrap() - 86_500_000_000).to_string();
    let () = cluster.redis(&["HSET", "longshore:host:a", "rests_until", &day_ago]);
    assert!(cluster.queue.reap(10).await.unwrap().is_empty());
    assert_eq!(cluster.redis::<Vec<String>>(&["ZRANGE", "longshore:failing", "0", "-1"]), ["b"]);
    assert_eq!(cluster.redis::<Option<u64>>(&["HGET", "longshore:host:a", "failures"]), None);
    assert_eq!(cluster.redis::<Option<u64>>(&["HGET", "longshore:host:b", "failures"]), Some(1));
}

#[tokio::test]
async fn a_stale_holder_can_not_make_a_host_rest() {
    let cluster = Cluster::start();
    cluster.admit_to(&level(), &[job("level1", "a", 1)]).await;
    let stale = lease(&cluster).await;
    cluster.redis::<()>(&["ZADD", "longshore:leases", "1", &stale.job.id.to_string()]);
    cluster.queue.reap_silent(10, Duration::ZERO).await.unwrap();
    let fresh = lease(&cluster).await;
    assert_eq!(host_fails(&cluster, &stale).await, Returned::Lost);
    assert_eq!(cluster.queue.renew(&fresh, LEASE).await.unwrap(), Held::Yours);
    assert_eq!(cluster.redis::<Option<u64>>(&["HGET", "longshore:host:a", "failures"]), None);
}

#[tokio::test]
async fn a_closed_host_gives_only_urgent_jobs_until_it_opens() {
    let cluster = Cluster::start();
    let urgent = Level { urgent: true, ..Level::new("urgent".parse().unwrap()) };
    let jobs = [job("level1", "a", 1), job("level1", "a", 1), job("urgent", "a", 1)];
    cluster.admit_to(&level(), &jobs[..2]).await;
    let host = server_id("a");
    let tomorrow = Millis(Millis::now().0 + 86_400_000);
    for _ in 0..2 {
        cluster.queue.close_host(&host, tomorrow, "only at night").await.unwrap();
    }
    assert_eq!(idle(claim(&cluster.queue, NO_LIMITS).await), Idle::HostsBusy);
    cluster.admit_to(&urgent, &jobs[2..]).await;
    let (node, levels) = (node_id("1"), [level(), urgent]);
    let both = || question(&node, &levels);
    assert_eq!(leased(cluster.queue.claim(&both()).await.unwrap()).job.id, jobs[2].id);
    assert_eq!(idle(cluster.queue.claim(&both()).await.unwrap()), Idle::HostsBusy);
    cluster.queue.open_host(&host).await.unwrap();
    assert_eq!(leased(cluster.queue.claim(&both()).await.unwrap()).job.id, jobs[0].id);

    // A window's end needs nobody to say so, be it moved to an earlier time.
    cluster.queue.close_host(&host, tomorrow, "never").await.unwrap();
    assert_eq!(idle(claim(&cluster.queue, NO_LIMITS).await), Idle::HostsBusy);
    let soon = Millis(i64::try_from(cluster.queue.now_micros().await.unwrap() / 1000).unwrap() + 1000);
    cluster.queue.close_host(&host, soon, "only at night").await.unwrap();
    assert_eq!(idle(claim(&cluster.queue, NO_LIMITS).await), Idle::HostsBusy);
    let mut last = None;
    wait_until("the window opens", Duration::from_secs(20), async || {
        last = match claim(&cluster.queue, NO_LIMITS).await {
            Claimed::Jobs(mut leases) => leases.pop(),
            Claimed::Nothing(_) => None,
        };
        last.is_some()
    })
    .await;
    let last = last.unwrap();
    assert!(last.job.id == jobs[1].id && last.revision / 1000 >= u64::try_from(soon.0).unwrap());
}

#[tokio::test]
async fn what_keeps_a_hosts_jobs_waiting_is_counted() {
    let cluster = Cluster::start();
    let jobs = ["limited", "asked", "failed", "closed"].map(|host| [job("level1", host, 1), job("level1", host, 1)]);
    let counted = async || {
        let counts = cluster.queue.kept_waiting().await.unwrap();
        ["transfers", "start_gap", "rests", "closed"].map(|reason| counts[reason])
    };
    for (decision, jobs) in jobs.iter().enumerate() {
        let mut expected = counted().await;
        expected[decision] += 1;
        cluster.admit_to(&level(), jobs).await;
        let slow = HostLimits { starts_per_second: 0.0001, ..NO_LIMITS };
        let limits = match decision {
            0 => HostLimits { transfers: 1, ..NO_LIMITS },
            1 => slow,
            _ => NO_LIMITS,
        };
        let first = leased(claim(&cluster.queue, limits).await);
        match decision {
            2 => assert_eq!(host_fails(&cluster, &first).await, Returned::GivenBack),
            3 => cluster.queue.close_host(&first.job.server_id, Millis(i64::MAX / 2000), "never").await.unwrap(),
            _ => {}
        }
        // It is decided once, however often nodes ask.
        for _ in 0..2 {
            assert_eq!(idle(claim(&cluster.queue, limits).await), Idle::HostsBusy);
        }
        assert_eq!(counted().await, expected);
    }
}

/// A host that names another module in each of its jobs: what was put aside comes back in pieces.
#[tokio::test]
async fn a_host_of_very_many_modules_is_put_back_in_pieces() {
    let cluster = Cluster::start();
    let mut jobs: Vec<Job> = (0..300).map(|number| of_module("many", &format!("m{number}"))).collect();
    jobs.push(job("level1", "other", 1));
    cluster.admit_to(&level(), &jobs).await;
    let two = HostLimits { transfers: 2, ..NO_LIMITS };
    let mut held = vec![leased(claim(&cluster.queue, two).await), leased(claim(&cluster.queue, two).await)];
    assert_eq!(leased(claim(&cluster.queue, two).await).job.server_id, server_id("other"));
    let aside = || cluster.redis::<usize>(&["SCARD", "longshore:aside:many"]);
    assert_eq!((idle(claim(&cluster.queue, two).await), aside()), (Idle::HostsBusy, 298));
    cluster.store(&held.remove(0)).await;
    assert_eq!(aside(), 298 - 64);
    held.push(leased(claim(&cluster.queue, two).await));
    for _ in 0..297 {
        cluster.store(&held.remove(0)).await;
        held.push(leased(claim(&cluster.queue, two).await));
    }
    assert_eq!(cluster.keys("aside"), Vec::<String>::new());
}
