//! A node that was taken out is forgotten, but never one that lives or that others need.

use std::time::Duration;

use longshore_core::{
    ReasonCode,
    queue::{Budget, End, Forgetting, Idle, JobState, Queue, RateRequest},
    report::Reason,
};

use crate::cluster::{Cluster, LEASE, ROOM, beat, failed, idle, job, leased, node_id, stored};

/// Every node was silent for longer.
const NONE: Duration = Duration::ZERO;
const COPIES: &str = "longshore:copies@1";

impl Cluster {
    async fn forget(&self, node: &str, silence: Duration) -> Forgetting {
        self.queue.forget_node(&node_id(node), silence).await.unwrap()
    }

    /// Every key that has to do with node 1.
    fn traces(&self) -> Vec<String> {
        let mut traces = self.keys(":1");
        let look = [("HEXISTS", "nodes", "1"), ("ZRANK", "nodes_seen", "1"), ("ZRANK", "pace", "1")];
        let budgets = [("HEXISTS", "budget:fetch", "node:1"), ("HEXISTS", "budget:restore", "node:1")];
        for (command, key, member) in look.into_iter().chain(budgets) {
            let found: redis::Value = self.redis(&[command, &format!("longshore:{key}"), member]);
            let is_there = match command {
                "HEXISTS" => found == redis::Value::Int(1),
                _ => found != redis::Value::Nil,
            };
            traces.extend(is_there.then(|| key.to_owned()));
        }
        traces
    }
}

#[tokio::test]
async fn a_silent_node_is_forgotten_and_comes_back_with_its_next_beat() {
    let cluster = Cluster::start();
    assert_eq!(cluster.forget("1", NONE).await, Forgetting::Unknown);
    cluster.queue.beat(&beat("1", &[])).await.unwrap();
    cluster.queue.beat(&beat("2", &[])).await.unwrap();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    cluster.queue.beat(&beat("1", &[&lease])).await.unwrap();
    cluster.store(&lease).await;
    for (budget, node) in [(Budget::Fetch, "1"), (Budget::Restore, "1"), (Budget::Fetch, "2")] {
        let node_id = &node_id(node);
        let request = RateRequest { budget, node_id, weight: 1, demand: 100, used: 0, cap: 100, lease: LEASE };
        cluster.queue.lease_rate(&request).await.unwrap();
    }
    assert!(cluster.traces().len() > 5, "{:?}", cluster.traces());

    assert_eq!(cluster.forget("1", LEASE).await, Forgetting::Heard);
    assert_eq!(cluster.queue.nodes().await.unwrap().len(), 2, "nothing has changed");
    assert_eq!(cluster.forget("1", NONE).await, Forgetting::Forgotten);
    assert_eq!(cluster.traces(), [""; 0]);
    let nodes = cluster.queue.nodes().await.unwrap();
    assert_eq!(nodes.iter().map(|(beat, _)| beat.node_id.as_str()).collect::<Vec<_>>(), ["2"]);
    let share: bool = cluster.redis(&["HEXISTS", "longshore:budget:fetch", "node:2"]);
    assert!(share, "another's share is its own");
    assert_eq!(cluster.forget("1", NONE).await, Forgetting::Unknown);

    cluster.queue.beat(&beat("1", &[])).await.unwrap();
    assert_eq!(cluster.queue.nodes().await.unwrap().len(), 2);
    cluster.admit(&[job("level1", "a", 1)]).await;
    cluster.lease("1", &["level1"]).await;
}

#[tokio::test]
async fn one_that_asks_is_alive_whatever_became_of_its_beats() {
    let cluster = Cluster::start();
    cluster.claim("1", &["level1"], ROOM).await;
    assert_eq!(cluster.forget("1", LEASE).await, Forgetting::Heard);
    assert_eq!(cluster.forget("1", NONE).await, Forgetting::Forgotten);
    assert_eq!(cluster.traces(), [""; 0]);
}

#[tokio::test]
async fn one_that_says_that_it_stopped_need_not_become_silent() {
    let cluster = Cluster::start();
    cluster.claim("1", &["level1"], ROOM).await;
    let mut last = beat("1", &[]);
    last.last_error = Some(r#"a host said {"paused":"stopped"}"#.to_owned());
    for paused in ["stopping", "the disk is full"] {
        last.paused = Some(paused.to_owned());
        cluster.queue.beat(&last).await.unwrap();
        assert_eq!(cluster.forget("1", LEASE).await, Forgetting::Heard, "{paused}");
    }
    last.paused = Some("stopped".to_owned());
    cluster.queue.beat(&last).await.unwrap();
    // Started again, its first beat lost: it asks.
    cluster.claim("1", &["level1"], ROOM).await;
    assert_eq!(cluster.forget("1", LEASE).await, Forgetting::Heard);
    cluster.queue.beat(&last).await.unwrap();
    assert_eq!(cluster.forget("1", LEASE).await, Forgetting::Forgotten);
    // Started again, it beats again.
    cluster.queue.beat(&last).await.unwrap();
    cluster.queue.beat(&beat("1", &[])).await.unwrap();
    assert_eq!(cluster.forget("1", LEASE).await, Forgetting::Heard);
}

#[tokio::test]
async fn its_leases_are_put_back_first() {
    let cluster = Cluster::start();
    cluster.queue.beat(&beat("1", &[])).await.unwrap();
    cluster.admit(&[job("level1", "a", 1), job("level1", "a", 1), job("level1", "a", 1)]).await;
    let mut own = Vec::new();
    for _ in 0..2 {
        own.push(cluster.lease("1", &["level1"]).await);
    }
    cluster.lease("2", &["level1"]).await;
    assert_eq!(cluster.forget("1", NONE).await, Forgetting::Leases(2));
    for lease in &own {
        cluster.queue.release(lease).await.unwrap();
    }
    assert_eq!(cluster.forget("1", NONE).await, Forgetting::Forgotten, "another's lease is no matter");
}

#[tokio::test]
async fn what_others_are_to_copy_from_it_keeps_it_however_it_waits() {
    let cluster = Cluster::start();
    let reason = Reason::new(ReasonCode::SourceMissing, "node 1 has no such backup");
    for _ in 0..4 {
        cluster.admit(&[job("level1", "a", 1)]).await;
        let lease = cluster.lease("1", &["level1"]).await;
        cluster.queue.settle(&lease, &stored(&lease), End::Copy).await.unwrap();
    }
    // One is delayed, one held, one on its way, one ready.
    let (delayed, held) = (cluster.lease("2", &[COPIES]).await, cluster.lease("2", &[COPIES]).await);
    let on_its_way = cluster.lease("2", &[COPIES]).await;
    cluster.queue.retry_later(&delayed, LEASE, &reason).await.unwrap();
    cluster.queue.release(&held).await.unwrap();
    cluster.queue.hold(&held.job.id, "alice", "").await.unwrap();
    assert_eq!(cluster.forget("1", NONE).await, Forgetting::Copies(4));
    assert_eq!(cluster.forget("2", NONE).await, Forgetting::Leases(1), "who copies is no other");

    // As they end, it counts fewer; that one was given up is no reason.
    cluster.queue.settle(&on_its_way, &failed(&on_its_way, reason.clone()), End::Bury).await.unwrap();
    let cancelled = Queue::cancel_reason("alice", "it burnt");
    for lease in [&delayed, &held] {
        cluster.queue.cancel(&lease.job.id, &cancelled, JobState::ALL).await.unwrap();
    }
    assert_eq!(cluster.forget("1", NONE).await, Forgetting::Copies(1));
    let last = leased(cluster.claim("2", &[COPIES], ROOM).await);
    cluster.queue.settle(&last, &stored(&last), End::Final).await.unwrap();
    assert_eq!(cluster.forget("1", NONE).await, Forgetting::Forgotten);

    // The given up one can still be retried, since its level is still known.
    assert_eq!(cluster.queue.copy_levels(&node_id("2")).await.unwrap().len(), 1);
    cluster.queue.retry_letter(&format!("job:{}", on_its_way.job.id)).await.unwrap();
    let again = leased(cluster.claim("2", &[COPIES], ROOM).await);
    cluster.queue.settle(&again, &stored(&again), End::Final).await.unwrap();
    cluster.queue.beat(&beat("1", &[])).await.unwrap();
    assert_eq!(cluster.forget("1", NONE).await, Forgetting::Forgotten);
    assert_eq!(cluster.queue.copy_levels(&node_id("2")).await.unwrap(), [], "its level is gone with it");
    assert_eq!(idle(cluster.claim("2", &[COPIES], ROOM).await), Idle::Empty);
}
