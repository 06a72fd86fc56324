//! Leases whose holder is gone.

use std::time::Duration;

use longshore_core::queue::{Held, Lease, Settled};
use longshore_tests::wait_until;

use crate::cluster::{Cluster, LEASE, beat, job};

const SILENCE: Duration = Duration::from_secs(30);

/// Puts a lease past its time.
fn expire(cluster: &Cluster, lease: &Lease) {
    let id = lease.job.id.to_string();
    let () = redis::cmd("ZADD").arg("longshore:leases").arg(1).arg(id).query(&mut cluster.redis.connection()).unwrap();
}

/// As if the node's last beat, or the last call to the reaper, had come so many seconds earlier.
fn age(cluster: &Cluster, command: &str, key: &str, field: &str, micros: i64) {
    let mut command = redis::cmd(command);
    command.arg(format!("longshore:{key}"));
    let by = -micros;
    let command = if key == "nodes_seen" { command.arg(by).arg(field) } else { command.arg(field).arg(by) };
    let () = command.query(&mut cluster.redis.connection()).unwrap();
}

fn silence_node(cluster: &Cluster, node: &str) {
    age(cluster, "ZINCRBY", "nodes_seen", node, 31_000_000);
}

/// A reaper that is called every few seconds since long.
async fn armed(cluster: &Cluster) {
    assert!(cluster.queue.reap_silent(10, SILENCE).await.unwrap().is_empty());
    age(cluster, "HINCRBY", "reaper", "after", 60_000_000);
}

#[tokio::test]
async fn a_lease_is_reaped_only_when_it_expired_and_its_node_is_silent() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    cluster.queue.beat(&beat("1", &[&lease])).await.unwrap();
    armed(&cluster).await;

    silence_node(&cluster, "1");
    assert!(cluster.queue.reap(10).await.unwrap().is_empty(), "it has time left");
    expire(&cluster, &lease);
    cluster.queue.beat(&beat("1", &[&lease])).await.unwrap();
    assert!(cluster.queue.reap(10).await.unwrap().is_empty(), "its node works on it");
    assert_eq!(cluster.queue.renew(&lease, LEASE).await.unwrap(), Held::Yours);

    expire(&cluster, &lease);
    silence_node(&cluster, "1");
    assert_eq!(cluster.queue.reap(10).await.unwrap(), [lease.job.id]);
    assert_eq!(cluster.store(&lease).await, Settled::Lost);
    let next = cluster.lease("2", &["level1"]).await;
    assert_eq!((next.job.id, next.attempts), (lease.job.id, 2));
}

#[tokio::test]
async fn a_node_that_was_started_again_does_not_hold_what_it_had_forgotten() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    armed(&cluster).await;
    // The new process beats, and knows nothing of the transfer.
    cluster.queue.beat(&beat("1", &[])).await.unwrap();
    assert!(cluster.queue.reap(10).await.unwrap().is_empty(), "it has time left");
    expire(&cluster, &lease);
    assert_eq!(cluster.queue.reap(10).await.unwrap(), [lease.job.id]);
}

#[tokio::test]
async fn few_are_reaped_at_a_time_and_living_nodes_in_front_do_not_hide_the_dead() {
    let cluster = Cluster::start();
    cluster.admit(&(0..9).map(|_| job("level1", "a", 1)).collect::<Vec<_>>()).await;
    let mut alive = Vec::new();
    for _ in 0..4 {
        alive.push(cluster.lease("alive", &["level1"]).await);
    }
    for _ in 0..5 {
        expire(&cluster, &cluster.lease("dead", &["level1"]).await);
    }
    alive.iter().for_each(|lease| expire(&cluster, lease));
    cluster.queue.beat(&beat("alive", &alive.iter().collect::<Vec<_>>())).await.unwrap();
    armed(&cluster).await;
    assert_eq!(cluster.queue.reap(2).await.unwrap().len(), 2);
    assert_eq!(cluster.queue.reap(2).await.unwrap().len(), 2);
    assert_eq!(cluster.queue.reap(2).await.unwrap().len(), 1);
    assert!(cluster.queue.reap(2).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_clock_that_steps_or_a_redis_that_was_away_expires_nobody() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    armed(&cluster).await;
    cluster.queue.beat(&beat("1", &[&lease])).await.unwrap();
    // All at once the last beat, the last call and the lease are an hour old.
    let hour = 3_600_000_000;
    age(&cluster, "ZINCRBY", "nodes_seen", "1", hour);
    age(&cluster, "HINCRBY", "reaper", "last", hour);
    expire(&cluster, &lease);
    assert!(cluster.queue.reap(10).await.unwrap().is_empty());
    assert!(cluster.queue.reap(10).await.unwrap().is_empty());
    // The living beat and renew; whoever doesn't is reaped one silence later.
    age(&cluster, "HINCRBY", "reaper", "after", 31_000_000);
    assert_eq!(cluster.queue.reap(10).await.unwrap(), [lease.job.id]);
}

#[tokio::test]
async fn without_any_hand_in_the_clock_a_short_silence_does_the_same() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let node = crate::cluster::node_id("1");
    let levels = crate::cluster::levels(&["level1"]);
    let request = longshore_core::queue::ClaimRequest {
        lease: Duration::from_millis(300),
        ..crate::cluster::question(&node, &levels)
    };
    let lease = crate::cluster::leased(cluster.queue.claim(&request).await.unwrap());
    let started = std::time::Instant::now();
    wait_until("the lease is reaped", Duration::from_secs(10), async || {
        let reaped = cluster.queue.reap_silent(10, Duration::from_millis(500)).await.unwrap();
        reaped == [lease.job.id]
    })
    .await;
    assert!(started.elapsed() >= Duration::from_millis(500), "reaped after {:?}", started.elapsed());
}

#[tokio::test]
async fn beats_are_read_with_the_time_of_their_coming() {
    let cluster = Cluster::start();
    let before = cluster.queue.now_micros().await.unwrap() / 1000;
    let (one, two) = (beat("1", &[]), beat("2", &[]));
    cluster.queue.beat(&two).await.unwrap();
    cluster.queue.beat(&one).await.unwrap();
    let after = cluster.queue.now_micros().await.unwrap() / 1000;
    let nodes = cluster.queue.nodes().await.unwrap();
    assert_eq!(nodes.iter().map(|(beat, _)| beat).collect::<Vec<_>>(), [&one, &two]);
    for (_, seen) in nodes {
        assert!((before..=after).contains(&u64::try_from(seen.0).unwrap()));
    }
}
