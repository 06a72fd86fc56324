//! The cluster's bandwidth: shares by weight and demand, whose sum holds whatever is lost.

use std::time::Duration;

use longshore_core::{
    NodeId,
    queue::{Budget, RateLease, RateRequest},
};
use longshore_tests::wait_until;

use crate::cluster::{Cluster, LEASE, node_id};

const CAP: u64 = 100_000_000;

/// A node that keeps what it was given.
struct Sharer {
    id: NodeId,
    weight: u32,
    demand: u64,
    rate: u64,
}

impl Sharer {
    fn new(id: &str, weight: u32, demand: u64) -> Self {
        Self { id: node_id(id), weight, demand, rate: 0 }
    }

    async fn asks(&self, cluster: &Cluster, cap: u64, lease: Duration) -> RateLease {
        let request = RateRequest {
            budget: Budget::Fetch,
            node_id: &self.id,
            weight: self.weight,
            demand: self.demand,
            used: self.rate,
            cap,
            lease,
        };
        cluster.queue.lease_rate(&request).await.unwrap()
    }

    async fn renews(&mut self, cluster: &Cluster) {
        self.rate = self.asks(cluster, CAP, LEASE).await.rate;
    }
}

fn sum(nodes: &[Sharer]) -> u64 {
    nodes.iter().map(|node| node.rate).sum()
}

/// Each asks in turn, as they do every second; the sum holds after every answer.
async fn rounds(cluster: &Cluster, nodes: &mut [Sharer], times: usize) {
    for _ in 0..times {
        for turn in 0..nodes.len() {
            nodes[turn].renews(cluster).await;
            assert!(sum(nodes) <= CAP);
        }
    }
}

fn close(found: u64, wanted: u64) -> bool {
    found.abs_diff(wanted) <= 2
}

#[tokio::test]
async fn shares_are_by_weight_and_what_one_does_not_want_is_lent() {
    let cluster = Cluster::start();
    let mut nodes = [Sharer::new("1", 100, CAP), Sharer::new("2", 300, CAP), Sharer::new("3", 100, 5_000_000)];
    rounds(&cluster, &mut nodes, 3).await;
    assert!(close(nodes[2].rate, 5_000_000), "no more than it wants");
    assert!(close(nodes[0].rate, 23_750_000) && close(nodes[1].rate, 71_250_000), "the rest by weight");
    // The large one has nothing to do any more: within three questions its share is the others'.
    nodes[1].demand = 0;
    rounds(&cluster, &mut nodes, 3).await;
    assert!(close(nodes[0].rate, 95_000_000) && nodes[1].rate == 0);
    nodes[1].demand = CAP;
    rounds(&cluster, &mut nodes, 3).await;
    assert!(close(nodes[1].rate, 71_250_000), "and as soon its own again");
    // When all want little, all is given away all the same.
    nodes.iter_mut().for_each(|node| node.demand = 1_000_000);
    rounds(&cluster, &mut nodes, 3).await;
    assert!(sum(&nodes) > CAP - 10, "{}", sum(&nodes));
    assert!(nodes[1].rate > 2 * nodes[0].rate);
}

#[tokio::test]
async fn the_share_of_a_node_that_died_returns_when_its_lease_ends() {
    let cluster = Cluster::start();
    let (dies, mut lives) = (Sharer::new("1", 100, CAP), Sharer::new("2", 100, CAP));
    assert_eq!(dies.asks(&cluster, CAP, Duration::from_millis(1500)).await, RateLease { rate: CAP, weights: 100 });
    lives.renews(&cluster).await;
    assert_eq!(lives.rate, 0, "what the other was promised is not promised twice");
    wait_until("all of it is here", Duration::from_secs(20), async || {
        lives.rate = lives.asks(&cluster, CAP, LEASE).await.rate;
        lives.rate == CAP
    })
    .await;
}

#[tokio::test]
async fn a_new_cap_holds_for_all_at_once() {
    let cluster = Cluster::start();
    let mut nodes = [Sharer::new("1", 100, CAP), Sharer::new("2", 100, CAP)];
    rounds(&cluster, &mut nodes, 3).await;
    // As each node does when it hears of it.
    nodes.iter_mut().for_each(|node| node.rate /= 10);
    for node in &mut nodes {
        node.rate = node.asks(&cluster, CAP / 10, LEASE).await.rate;
    }
    assert!(nodes.iter().all(|node| close(node.rate, CAP / 20)), "{} {}", nodes[0].rate, nodes[1].rate);
    assert_eq!(nodes[0].asks(&cluster, 0, LEASE).await.rate, 0, "a cap of nothing is nothing");
    assert!(nodes[0].asks(&cluster, CAP, LEASE).await.rate > 0, "and can be raised again");
}

/// Any order of questions, answers that get lost (their asker goes on with what it had), changing wants and weights.
#[tokio::test]
async fn the_sum_never_exceeds_the_cap_whatever_is_lost() {
    let cluster = Cluster::start();
    let seed = getrandom::u64().unwrap();
    println!("seed {seed}");
    let mut state = seed | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut nodes: Vec<Sharer> = (0..5).map(|id| Sharer::new(&id.to_string(), 100, 0)).collect();
    for _ in 0..2000 {
        let turn = usize::try_from(random(5)).unwrap();
        let node = &mut nodes[turn];
        match random(6) {
            0 => node.demand = random(2 * CAP),
            1 => node.weight = u32::try_from(random(400)).unwrap(),
            2 => _ = node.asks(&cluster, CAP, LEASE).await,
            _ => node.renews(&cluster).await,
        }
        assert!(sum(&nodes) <= CAP, "seed {seed}");
    }
    nodes.iter_mut().for_each(|node| (node.weight, node.demand) = (100, CAP));
    // Judged by old wants in the first; told to shrink in the second; known to have shrunk in the third; given the rest in
    // the fourth.
    rounds(&cluster, &mut nodes, 4).await;
    assert!(nodes.iter().all(|node| close(node.rate, CAP / 5)), "seed {seed}");
}
