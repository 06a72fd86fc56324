//! Several jobs of one host and module in one claim: one transfer, and each job its own lease.

use longshore_core::{
    Job,
    job::ContentKind,
    queue::{BatchLimit, ClaimRequest, Claimed, HostLimits, Idle, Lease, Level},
};

use crate::cluster::{Cluster, idle, job, levels, node_id, question, room};

const MOST: BatchLimit = BatchLimit { jobs: 50, bytes: 1 << 40 };

fn ids(leases: &[Lease]) -> Vec<longshore_core::JobId> {
    leases.iter().map(|lease| lease.job.id).collect()
}

fn all(claimed: Claimed) -> Vec<Lease> {
    match claimed {
        Claimed::Jobs(leases) => leases,
        Claimed::Nothing(idle) => panic!("nothing was claimed: {idle:?}"),
    }
}

/// Five jobs of host a (1, 2, 3, 4, 5 KiB), one of b between them, and one of another module of a.
async fn prepared(cluster: &Cluster) -> Vec<Job> {
    let mut jobs: Vec<Job> = (1..=5).map(|kib| job("level1", "a", kib << 10)).collect();
    jobs.insert(2, job("level1", "b", 1));
    jobs.insert(3, job("level1", "a", 1));
    jobs[3].source.as_mut().unwrap().module = "other module".parse().unwrap();
    cluster.admit_to(&Level::new("level1".parse().unwrap()), &jobs).await;
    jobs
}

#[tokio::test]
async fn a_batch_is_of_one_host_and_module_in_their_order_and_within_its_bounds() {
    let cluster = Cluster::start();
    let jobs = prepared(&cluster).await;
    let (node, levels) = (node_id("1"), levels(&["level1"]));
    let claim = async |batch, bytes, inodes| {
        let mut request = ClaimRequest { batch, room: room(bytes), ..question(&node, &levels) };
        request.room.inodes = inodes;
        all(cluster.queue.claim(&request).await.unwrap())
    };
    let release = async |leases: Vec<Lease>| {
        for lease in leases {
            cluster.queue.release(&lease).await.unwrap();
        }
    };
    let expected: Vec<_> = [0, 1, 4, 5, 6].map(|at| jobs[at].id).to_vec();
    // By jobs, by bytes, by room, by inodes (4 for each file).
    for (batch, bytes, inodes, taken) in [
        (MOST, 1 << 40, 1 << 40, 5),
        (BatchLimit { jobs: 1, ..MOST }, 1 << 40, 1 << 40, 1),
        (BatchLimit { jobs: 3, ..MOST }, 1 << 40, 1 << 40, 3),
        (BatchLimit { bytes: 6 << 10, ..MOST }, 1 << 40, 1 << 40, 3),
        (BatchLimit { bytes: 1, ..MOST }, 1 << 40, 1 << 40, 1),
        (MOST, 3 << 10, 1 << 40, 2),
        (MOST, 1 << 40, 16, 4),
    ] {
        let leases = claim(batch, bytes, inodes).await;
        assert_eq!(ids(&leases), expected[..taken], "{batch:?}, room {bytes}, {inodes}");
        assert!(leases.iter().all(|lease| lease.attempts == 1 && lease.queue == jobs[0].queue));
        release(leases).await;
    }
    assert_eq!(claim(MOST, 1 << 40, 1 << 40).await.len(), 5);
    assert_eq!(ids(&claim(MOST, 1 << 40, 1 << 40).await), [jobs[2].id]);
    assert_eq!(ids(&claim(MOST, 1 << 40, 1 << 40).await), [jobs[3].id]);
    assert_eq!(idle(cluster.queue.claim(&question(&node, &levels)).await.unwrap()), Idle::Empty);
    let depth = &cluster.queue.depths(&[jobs[0].queue.clone()]).await.unwrap()[0];
    assert_eq!((depth.ready, depth.leased, depth.bytes), (0, 7, 0));
}

#[tokio::test]
async fn a_batch_is_one_transfer_of_its_host_until_the_last_of_it_ends() {
    let cluster = Cluster::start();
    prepared(&cluster).await;
    let (node, levels) = (node_id("1"), levels(&["level1"]));
    let one_at_a_time = HostLimits { transfers: 1, starts_per_second: 0.0 };
    let batch = BatchLimit { jobs: 3, ..MOST };
    let request = || ClaimRequest { batch, host: one_at_a_time, ..question(&node, &levels) };
    let leases = all(cluster.queue.claim(&request()).await.unwrap());
    assert_eq!(leases.len(), 3);
    let other = all(cluster.queue.claim(&request()).await.unwrap());
    assert_eq!(other[0].job.server_id.as_str(), "b");
    assert_eq!(idle(cluster.queue.claim(&request()).await.unwrap()), Idle::HostsBusy);
    cluster.store(&leases[1]).await;
    cluster.store(&leases[1]).await;
    cluster.queue.release(&leases[0]).await.unwrap();
    cluster.queue.release(&leases[0]).await.unwrap();
    assert_eq!(idle(cluster.queue.claim(&request()).await.unwrap()), Idle::HostsBusy);
    cluster.store(&leases[2]).await;
    let rest = all(cluster.queue.claim(&request()).await.unwrap());
    assert_eq!(rest[0].job.id, leases[0].job.id);
    for lease in rest.iter().chain(&other) {
        cluster.store(lease).await;
    }
    let last = all(cluster.queue.claim(&request()).await.unwrap());
    cluster.store(&last[0]).await;
    assert_eq!(cluster.keys("host:"), Vec::<String>::new());
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_gets_the_same_whole_batch() {
    let cluster = Cluster::start();
    prepared(&cluster).await;
    let (node, levels) = (node_id("1"), levels(&["level1"]));
    let request = ClaimRequest { batch: MOST, ..question(&node, &levels) };
    let first = all(cluster.queue.claim(&request).await.unwrap());
    let again = all(cluster.queue.claim(&request).await.unwrap());
    let revisions = |leases: &[Lease]| leases.iter().map(|lease| (lease.job.id, lease.revision)).collect::<Vec<_>>();
    assert_eq!(revisions(&again), revisions(&first));
    // What has ended meanwhile is not given again.
    cluster.store(&first[0]).await;
    assert_eq!(revisions(&all(cluster.queue.claim(&request).await.unwrap())), revisions(&first[1..]));
    assert_eq!(cluster.redis::<u64>(&["HGET", "longshore:host:a", "active"]), 1);
}

#[tokio::test]
async fn a_damaged_record_in_a_batch_is_put_off_and_the_others_come() {
    let cluster = Cluster::start();
    let jobs = prepared(&cluster).await;
    cluster.redis::<()>(&["SET", &format!("longshore:body:{}", jobs[1].id), "{"]);
    let (node, levels) = (node_id("1"), levels(&["level1"]));
    let leases = all(cluster.queue.claim(&ClaimRequest { batch: MOST, ..question(&node, &levels) }).await.unwrap());
    assert_eq!(ids(&leases), [0, 4, 5, 6].map(|at| jobs[at].id));
    let depth = &cluster.queue.depths(&[jobs[0].queue.clone()]).await.unwrap()[0];
    assert_eq!((depth.ready, depth.delayed, depth.leased), (2, 1, 4));
    for lease in leases {
        cluster.store(&lease).await;
    }
    assert_eq!(cluster.keys("host:"), Vec::<String>::new());
}

#[tokio::test]
async fn folders_and_what_came_much_later_are_no_part_of_a_batch() {
    let cluster = Cluster::start();
    let mut jobs: Vec<Job> = (1..=4).map(|kib| job("level1", "a", kib << 10)).collect();
    let content = jobs[1].content.as_mut().unwrap();
    (content.kind, content.files, content.folders) = (ContentKind::Directory, 2, Some(1));
    cluster.admit_to(&Level::new("level1".parse().unwrap()), &jobs).await;
    // The last one was admitted eleven minutes after the first.
    let lane = cluster.keys("lane:").remove(0);
    let (last, members) = (jobs[3].id.to_string(), cluster.redis::<Vec<String>>(&["ZRANGE", &lane, "0", "-1"]));
    let member = members.iter().find(|member| member.starts_with(&last)).unwrap();
    cluster.redis::<()>(&["ZINCRBY", &lane, "660000000", member]);
    let (node, levels) = (node_id("1"), levels(&["level1"]));
    let claim =
        async || all(cluster.queue.claim(&ClaimRequest { batch: MOST, ..question(&node, &levels) }).await.unwrap());
    assert_eq!(ids(&claim().await), [jobs[0].id, jobs[2].id]);
    assert_eq!(ids(&claim().await), [jobs[1].id], "a folder goes alone, though a file comes after it");
    assert_eq!(ids(&claim().await), [jobs[3].id]);
}
