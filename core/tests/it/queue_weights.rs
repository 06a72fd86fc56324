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

/// Nodes that always have a free slot, the bytes they were given, and those that their weights had entitled them to.
struct Nodes<'a> {
    cluster: &'a Cluster,
    weights: BTreeMap<&'static str, u32>,
    turn: usize,
    given: BTreeMap<&'static str, u64>,
    owed: BTreeMap<&'static str, f64>,
}

impl Nodes<'_> {
    async fn ask(&self, node: &NodeId, weight: u32) -> Claimed {
        let levels = levels(&["level1"]);
        let request = ClaimRequest { weight, free_slots: 2, room: room(1 << 50), ..question(node, &levels) };
        self.cluster.queue.claim(&request).await.unwrap()
    }

    /// They ask by turns until so many jobs are given.
    async fn receive(&mut self, jobs: usize) {
        let (mut given, mut bytes) = (0, 0);
        while given < jobs {
            let (&name, &weight) = self.weights.iter().nth(self.turn % self.weights.len()).unwrap();
            self.turn += 1;
            match self.ask(&node_id(name), weight).await {
                Claimed::Jobs(leases) => {
                    let size = leases[0].job.size_bytes();
                    *self.given.entry(name).or_default() += size;
                    bytes += size;
                    given += 1;
                }
                Claimed::Nothing(idle) => assert_eq!(idle, Idle::Yields),
            }
        }
        let weights = f64::from(self.weights.values().sum::<u32>());
        for (name, weight) in &self.weights {
            *self.owed.entry(name).or_default() += bytes as f64 * f64::from(*weight) / weights;
        }
    }

    /// Who does not ask is not waited for beyond a second: as if that were over.
    fn leaves(&mut self, name: &str) {
        self.weights.remove(name);
        self.cluster.redis::<()>(&["HSET", &format!("longshore:node:{name}"), "asking", "0", "asked", "1"]);
    }
}

#[tokio::test]
async fn bytes_follow_weights_while_nodes_join_leave_pause_and_change() {
    const PART: usize = 2_000;
    let cluster = Cluster::start();
    // A few more than are given: with none left, what is rare runs out first.
    for part in jobs(5 * PART as u64 + 500).chunks(500) {
        cluster.admit_to(&level(), part).await;
    }
    let weights = [("1", 1), ("2", 2), ("4", 4)].into_iter().collect();
    let mut nodes = Nodes { cluster: &cluster, weights, turn: 0, given: BTreeMap::new(), owed: BTreeMap::new() };
    nodes.receive(PART).await;
    // One more joins, and is not owed what the others had before.
    nodes.weights.insert("new", 3);
    nodes.receive(PART).await;
    // One leaves; weights change without a jump.
    nodes.leaves("4");
    nodes.weights.insert("1", 4);
    nodes.receive(PART).await;
    // It comes back, and is not owed what it missed; another one pauses.
    nodes.weights.insert("4", 4);
    nodes.leaves("new");
    nodes.receive(PART).await;
    // That one goes on; another one drains.
    nodes.weights.insert("new", 3);
    nodes.weights.insert("2", 0);
    let drained = nodes.given["2"];
    nodes.receive(PART).await;
    assert_eq!(nodes.given["2"], drained);
    let bytes: f64 = nodes.owed.values().sum();
    for (node, owed) in &nodes.owed {
        let off = (nodes.given[node] as f64 - owed).abs() / bytes;
        assert!(off < 0.02, "{node} is {off} of all bytes away from {owed} with {}", nodes.given[node]);
    }
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
