//! Under backlog nodes receive bytes in proportion to their weights, and none waits while work fits it.

use std::collections::BTreeMap;

use longshore_core::{
    Job, NodeId,
    queue::{ClaimRequest, Claimed, Idle, Level},
};

use crate::cluster::{Cluster, idle, job, leased, levels, node_id, question, room};

fn level() -> Level {
    Level::new("level1".parse().unwrap())
}

/// Sizes from 1 KiB to 1 GiB, every power of two as often; no two neighbours alike, every run the same.
fn jobs(count: u64) -> Vec<Job> {
    let mixed = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let size = |n: u64| {
        let power = 10 + mixed(n) % 20;
        (1 << power) + (mixed(n) >> 8) % (1 << power)
    };
    (0..count).map(|n| job("level1", &format!("host{}", n % 97), size(n))).collect()
}

/// Nodes that always have a free slot, and what they were given.
struct Nodes<'a> {
    cluster: &'a Cluster,
    weights: BTreeMap<&'static str, u32>,
    given: BTreeMap<&'static str, u64>,
    turn: usize,
}

impl Nodes<'_> {
    async fn ask(&self, node: &NodeId, weight: u32) -> Claimed {
        let levels = levels(&["level1"]);
        let request = ClaimRequest { weight, free_slots: 2, room: room(1 << 50), ..question(node, &levels) };
        self.cluster.queue.claim(&request).await.unwrap()
    }

    /// They ask by turns until so many jobs are given. What each received of it.
    async fn receive(&mut self, jobs: usize) -> BTreeMap<&'static str, u64> {
        let before = self.given.clone();
        let mut given = 0;
        while given < jobs {
            let (&name, &weight) = self.weights.iter().nth(self.turn % self.weights.len()).unwrap();
            self.turn += 1;
            match self.ask(&node_id(name), weight).await {
                Claimed::Jobs(leases) => {
                    *self.given.entry(name).or_default() += leases[0].job.size_bytes();
                    given += 1;
                }
                Claimed::Nothing(idle) => assert_eq!(idle, Idle::Yields),
            }
        }
        let received = |name| self.given.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
        self.weights.keys().map(|&name| (name, received(name))).collect()
    }

    /// How far, at most, a node's share of these bytes is from its share of the weights.
    fn error(&self, received: &BTreeMap<&'static str, u64>) -> f64 {
        let (bytes, weights) = (received.values().sum::<u64>(), self.weights.values().sum::<u32>());
        let off = |(name, weight): (&&'static str, &u32)| {
            (received[*name] as f64 / bytes as f64 - f64::from(*weight) / f64::from(weights)).abs()
        };
        self.weights.iter().map(off).fold(0.0, f64::max)
    }
}

#[tokio::test]
async fn bytes_follow_weights_while_nodes_join_leave_pause_and_change() {
    let cluster = Cluster::start();
    for part in jobs(4300).chunks(500) {
        cluster.admit_to(&level(), part).await;
    }
    let weights = [("1", 1), ("2", 2), ("4", 4)].into_iter().collect();
    let mut nodes = Nodes { cluster: &cluster, weights, given: BTreeMap::new(), turn: 0 };
    // 0.05: over a thousand jobs of 50 MiB in the middle and 1 GiB at most, a large one more or less is 2 %.
    let received = nodes.receive(1000).await;
    assert!(nodes.error(&received) < 0.05, "at first {received:?}");
    // One more joins, and is not owed what the others had before.
    nodes.weights.insert("new", 3);
    let received = nodes.receive(1000).await;
    assert!(nodes.error(&received) < 0.05, "joined {received:?}");
    // One leaves; weights change without a jump.
    nodes.weights.remove("4");
    nodes.weights.insert("1", 4);
    // Who does not ask is not waited for beyond a second: as if it were over.
    cluster.redis::<()>(&["HSET", "longshore:node:4", "asking", "0", "asked", "1"]);
    let received = nodes.receive(1000).await;
    assert!(nodes.error(&received) < 0.05, "left {received:?}");
    // It comes back, and is not owed what it missed; another one drains.
    nodes.weights.insert("4", 4);
    nodes.weights.insert("new", 0);
    let received = nodes.receive(1000).await;
    assert!(nodes.error(&received) < 0.05, "came back {received:?}");
    assert_eq!(received["new"], 0);
}

#[tokio::test]
async fn a_node_yields_only_to_one_that_asks_now_and_that_the_job_fits() {
    let cluster = Cluster::start();
    let sizes = [1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 1.0].map(|mib| (mib * 1048576.0) as u64);
    let jobs: Vec<Job> = sizes.into_iter().map(|size| job("level1", "a", size)).collect();
    cluster.admit_to(&level(), &jobs).await;
    let (ahead, behind, levels) = (node_id("ahead"), node_id("behind"), levels(&["level1"]));
    let ask = async |node, bytes, free_slots| {
        let request = ClaimRequest { free_slots, room: room(bytes), ..question(node, &levels) };
        cluster.queue.claim(&request).await.unwrap()
    };
    let set = |field: &str, value: u64| {
        cluster.redis::<()>(&["HSET", "longshore:node:behind", field, &value.to_string()]);
    };
    // Nothing fits the other one, which asks: nobody yields.
    assert_eq!(idle(ask(&behind, 10, 2).await), Idle::NoRoom);
    for job in &jobs[..2] {
        assert_eq!(leased(ask(&ahead, 1 << 40, 2).await).job.id, job.id);
    }
    // Nor is it owed what did not fit it. Without a slot left it is not waited for.
    assert_eq!(leased(ask(&behind, 1 << 20, 1).await).job.id, jobs[2].id);
    for job in &jobs[3..7] {
        assert_eq!(leased(ask(&ahead, 1 << 40, 2).await).job.id, job.id);
    }
    // It asks again, and the small one fits it: that is left to it, the large ones are not.
    set("room", 1 << 20);
    set("asking", cluster.queue.now_micros().await.unwrap());
    assert_eq!(leased(ask(&ahead, 1 << 40, 2).await).job.id, jobs[8].id);
    assert_eq!(leased(ask(&ahead, 1 << 40, 2).await).job.id, jobs[9].id);
    assert_eq!(idle(ask(&ahead, 1 << 40, 2).await), Idle::Yields);
    assert_eq!(cluster.redis::<String>(&["HGET", "longshore:node:ahead", "yields_to"]), "behind");
    // Nor to one that asked by a clock that has been set back since.
    set("asking", cluster.queue.now_micros().await.unwrap() + 3_600_000_000);
    assert_eq!(leased(ask(&ahead, 1 << 40, 2).await).job.id, jobs[7].id);
    set("asking", 0);
    assert_eq!(leased(ask(&ahead, 1 << 40, 2).await).job.id, jobs[10].id);
}

#[tokio::test]
async fn a_weight_of_nothing_drains() {
    let cluster = Cluster::start();
    cluster.admit_to(&level(), &jobs(1)).await;
    let (node, levels) = (node_id("1"), levels(&["level1"]));
    let drains = ClaimRequest { weight: 0, ..question(&node, &levels) };
    assert_eq!(idle(cluster.queue.claim(&drains).await.unwrap()), Idle::Yields);
    leased(cluster.queue.claim(&question(&node, &levels)).await.unwrap());
}
