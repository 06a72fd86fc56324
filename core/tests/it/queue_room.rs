//! What fits, and how a large job that fits nowhere comes to its room.

use longshore_core::{
    Job,
    job::ContentKind,
    queue::{ClaimRequest, Claimed, Idle, Level, Room},
};

use crate::cluster::{Cluster, idle, job, leased, levels, node_id, question};

const GIB: u64 = 1 << 30;

fn level() -> Level {
    Level::new("level1".parse().unwrap())
}

fn folder(host: &str, files: u64) -> Job {
    let mut job = job("level1", host, 1000);
    let content = job.content.as_mut().unwrap();
    (content.kind, content.files, content.folders) = (ContentKind::Directory, files, Some(1));
    job
}

async fn claim(cluster: &Cluster, node: &str, room: Room) -> Claimed {
    let (node, levels) = (node_id(node), levels(&["level1"]));
    cluster.queue.claim(&ClaimRequest { room, ..question(&node, &levels) }).await.unwrap()
}

fn room_of(bytes: u64, ceiling_bytes: u64) -> Room {
    Room { bytes, inodes: 1 << 40, ceiling_bytes }
}

#[tokio::test]
async fn a_folder_of_many_files_needs_inodes_and_blocks_and_is_passed_by_others() {
    let cluster = Cluster::start();
    let jobs = [folder("a", 1000), job("level1", "a", 5000), folder("b", 3)];
    cluster.admit_to(&level(), &jobs).await;
    let inodes = |inodes| Room { bytes: GIB, inodes, ceiling_bytes: GIB };
    assert_eq!(idle(claim(&cluster, "1", inodes(3)).await), Idle::NoRoom);
    assert_eq!(leased(claim(&cluster, "1", inodes(100)).await).job.id, jobs[1].id);
    assert_eq!(leased(claim(&cluster, "1", inodes(100)).await).job.id, jobs[2].id);
    assert_eq!(idle(claim(&cluster, "1", inodes(100)).await), Idle::NoRoom);
    // A thousand files take up to a block each beyond their bytes.
    let bytes = |bytes| Room { bytes, inodes: 1 << 40, ceiling_bytes: GIB };
    assert_eq!(idle(claim(&cluster, "1", bytes(4_000_000)).await), Idle::NoRoom);
    assert_eq!(leased(claim(&cluster, "1", bytes(4_200_000)).await).job.id, jobs[0].id);
}

/// A job of 10 GiB that is overdue, small ones behind it, and three nodes: the third has the most room, but its disk could never
/// hold the large one.
async fn prepared(cluster: &Cluster) -> Vec<Job> {
    let mut jobs = vec![job("level1", "large", 10 * GIB)];
    jobs.extend((0..20).map(|n| job("level1", &format!("host{n}"), 1000)));
    cluster.admit_to(&level(), &jobs).await;
    // Not overdue yet: small ones pass it, and nobody keeps room.
    for (node, bytes, ceiling) in [("1", 2 * GIB, 100 * GIB), ("2", 3 * GIB, 100 * GIB), ("3", 4 * GIB, 9 * GIB)] {
        assert_ne!(leased(claim(cluster, node, room_of(bytes, ceiling)).await).job.id, jobs[0].id);
        let reserved: Option<String> = cluster.redis(&["HGET", &format!("longshore:node:{node}"), "reserved"]);
        assert_eq!(reserved, None);
    }
    cluster.redis::<()>(&["ZADD", "longshore:due:level1", "1", &jobs[0].id.to_string()]);
    jobs
}

#[tokio::test]
async fn an_overdue_job_that_fits_nowhere_is_kept_the_room_of_the_node_with_most() {
    let cluster = Cluster::start();
    let jobs = prepared(&cluster).await;
    leased(claim(&cluster, "1", room_of(2 * GIB, 100 * GIB)).await);
    let large = jobs[0].id.to_string();
    assert_eq!(cluster.redis::<String>(&["HGET", "longshore:node:2", "reserved"]), large);
    assert_eq!(cluster.redis::<String>(&["HGET", &format!("longshore:job:{large}"), "reserved"]), "2");
    // Node 2 takes nothing that would eat its room; the others go on.
    assert_eq!(idle(claim(&cluster, "2", room_of(9 * GIB, 100 * GIB)).await), Idle::Reserved);
    leased(claim(&cluster, "1", room_of(2 * GIB, 100 * GIB)).await);
    // When there is room, it is the large one's.
    assert_eq!(leased(claim(&cluster, "2", room_of(10 * GIB, 100 * GIB)).await).job.id, jobs[0].id);
    assert_ne!(leased(claim(&cluster, "2", room_of(GIB, 100 * GIB)).await).job.id, jobs[0].id);
    assert!(cluster.redis::<Option<String>>(&["HGET", "longshore:node:2", "reserved"]).is_none());
}

#[tokio::test]
async fn room_beyond_what_is_kept_is_given_to_others() {
    let cluster = Cluster::start();
    let jobs = prepared(&cluster).await;
    leased(claim(&cluster, "2", room_of(3 * GIB, 100 * GIB)).await);
    // It fits now, but its host is asked by another node: what is more than it needs is free for others.
    cluster.redis::<()>(&["HSET", "longshore:host:large", "active", "1000"]);
    assert_eq!(idle(claim(&cluster, "2", room_of(10 * GIB, 100 * GIB)).await), Idle::Reserved);
    assert_ne!(leased(claim(&cluster, "2", room_of(11 * GIB, 100 * GIB)).await).job.id, jobs[0].id);
}

#[tokio::test]
async fn kept_room_is_free_again_when_its_time_or_its_job_has_ended() {
    let cluster = Cluster::start();
    let jobs = prepared(&cluster).await;
    let (large, small) = (format!("longshore:job:{}", jobs[0].id), room_of(GIB, 100 * GIB));
    leased(claim(&cluster, "2", room_of(3 * GIB, 100 * GIB)).await);
    assert_eq!(idle(claim(&cluster, "2", small).await), Idle::Reserved);
    let kept_micros = cluster.redis::<u64>(&["HGET", "longshore:node:2", "reserved_until"]);
    let now = cluster.queue.now_micros().await.unwrap();
    assert!((590_000_000..=600_000_000).contains(&(kept_micros - now)), "ten minutes");
    // Ten minutes later: it works again, and everyone is left in peace for as long.
    cluster.redis::<()>(&["HSET", "longshore:node:2", "reserved_until", "1"]);
    leased(claim(&cluster, "2", small).await);
    leased(claim(&cluster, "2", small).await);
    assert_eq!(cluster.redis::<u64>(&["HGET", "longshore:node:2", "reserved_until"]), 1);
    let peace = cluster.redis::<u64>(&["HGET", &large, "reserve_after"]) - kept_micros;
    assert_eq!(peace, 600_000_000);
    // Then another is tried: the one that has most now.
    cluster.redis::<()>(&["HSET", &large, "reserve_after", "1"]);
    leased(claim(&cluster, "1", room_of(5 * GIB, 100 * GIB)).await);
    assert_eq!(idle(claim(&cluster, "1", small).await), Idle::Reserved);
    // Someone else had room after all, new perhaps: nothing is kept for a job that no longer waits.
    assert_eq!(leased(claim(&cluster, "9", room_of(20 * GIB, 100 * GIB)).await).job.id, jobs[0].id);
    leased(claim(&cluster, "1", small).await);
}

#[tokio::test]
async fn room_is_kept_on_one_node_of_three_at_most_and_small_jobs_go_on_elsewhere() {
    let cluster = Cluster::start();
    let mut jobs: Vec<Job> = (0..3).map(|n| job("level1", &format!("large{n}"), 10 * GIB)).collect();
    jobs.extend((0..30).map(|n| job("level1", &format!("host{n}"), 1000)));
    cluster.admit_to(&level(), &jobs).await;
    let nodes = ["1", "2", "3"];
    let small = room_of(2 * GIB, 100 * GIB);
    for node in nodes {
        leased(claim(&cluster, node, small).await);
    }
    for large in &jobs[..3] {
        cluster.redis::<()>(&["ZADD", "longshore:due:level1", "1", &large.id.to_string()]);
    }
    let mut idle_nodes = Vec::new();
    for round in 0..6 {
        for node in nodes {
            match claim(&cluster, node, small).await {
                Claimed::Jobs(_) => {}
                Claimed::Nothing(why) => {
                    assert_eq!(why, Idle::Reserved);
                    idle_nodes.push((round, node));
                }
            }
        }
    }
    let reserved =
        nodes.map(|node| cluster.redis::<Option<String>>(&["HGET", &format!("longshore:node:{node}"), "reserved"]));
    assert_eq!(reserved.iter().flatten().count(), 1, "{reserved:?}");
    let kept = nodes[reserved.iter().position(Option::is_some).unwrap()];
    assert!(!idle_nodes.is_empty() && idle_nodes.iter().all(|(_, node)| *node == kept), "{idle_nodes:?}");
    // When that room has served, some is kept for the next one at once.
    let first = leased(claim(&cluster, kept, room_of(10 * GIB, 100 * GIB)).await);
    assert_eq!(first.job.size_bytes(), 10 * GIB);
    for node in [kept, nodes[0], nodes[1], nodes[2]] {
        claim(&cluster, node, small).await;
    }
    let reserved =
        nodes.map(|node| cluster.redis::<Option<String>>(&["HGET", &format!("longshore:node:{node}"), "reserved"]));
    assert_eq!(reserved.iter().flatten().filter(|job| **job != first.job.id.to_string()).count(), 1, "{reserved:?}");
}

#[tokio::test]
async fn what_an_overdue_job_lacks_is_counted() {
    let cluster = Cluster::start();
    let jobs = prepared(&cluster).await;
    let counted = async || {
        let counts = cluster.queue.kept_waiting().await.unwrap();
        (counts["room"], counts["too_large"])
    };
    assert_eq!(counted().await, (0, 0));
    leased(claim(&cluster, "2", room_of(3 * GIB, 100 * GIB)).await);
    assert_eq!(counted().await, (1, 0));
    // None of the nodes that ask has a disk that could hold it.
    let large = format!("longshore:job:{}", jobs[0].id);
    cluster.redis::<()>(&["HDEL", &large, "reserve_after"]);
    for node in ["1", "2"] {
        cluster.redis::<()>(&["HSET", &format!("longshore:node:{node}"), "ceiling", "1000", "reserved_until", "1"]);
    }
    leased(claim(&cluster, "3", room_of(4 * GIB, 9 * GIB)).await);
    assert_eq!(counted().await, (2, 1));
}
