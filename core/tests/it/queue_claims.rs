//! Which job a node is given.

use longshore_core::{ReasonCode, queue::Idle, report::Reason};

use crate::cluster::{Cluster, ROOM, idle, job, leased, levels, names, node_id, question};

#[tokio::test]
async fn the_first_queue_comes_first_and_in_it_the_oldest_job() {
    let cluster = Cluster::start();
    let jobs = [
        job("level2", "a", 1),
        job("level1", "a", 1 << 30),
        job("level1", "b", 1),
        job("level3", "c", 1),
        job("level1", "a", 1 << 10),
    ];
    cluster.admit(&jobs).await;
    for expected in [1, 2, 4, 0, 3] {
        let lease = cluster.lease("1", &["level1", "level2", "level3"]).await;
        assert_eq!(lease.job.id, jobs[expected].id);
    }
    assert_eq!(idle(cluster.claim("1", &["level1", "level2", "level3"], ROOM).await), Idle::Empty);
}

#[tokio::test]
async fn a_node_sees_only_the_queues_that_it_names() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level2", "a", 1)]).await;
    assert_eq!(idle(cluster.claim("1", &["level1"], ROOM).await), Idle::Empty);
    cluster.lease("1", &["level1", "level2"]).await;
}

#[tokio::test]
async fn the_oldest_that_fits_passes_those_that_do_not() {
    let cluster = Cluster::start();
    let sizes = [5000, 1500, 4000, 1100, 700, 3];
    let jobs: Vec<_> = sizes.iter().map(|&size| job("level1", "a", size)).collect();
    cluster.admit(&jobs).await;
    assert_eq!(idle(cluster.claim("1", &["level1"], 2).await), Idle::NoRoom);
    // 1200 is in the class of 1500 and 1100: one of the two fits.
    assert_eq!(leased(cluster.claim("1", &["level1"], 1200).await).job.size_bytes(), 1100);
    assert_eq!(leased(cluster.claim("1", &["level1"], 1200).await).job.size_bytes(), 700);
    assert_eq!(leased(cluster.claim("1", &["level1"], 4500).await).job.size_bytes(), 1500);
    assert_eq!(leased(cluster.claim("1", &["level1"], 5000).await).job.size_bytes(), 5000);
    assert_eq!(leased(cluster.claim("1", &["level1"], 4000).await).job.size_bytes(), 4000);
    assert_eq!(leased(cluster.claim("1", &["level1"], 3).await).job.size_bytes(), 3);
    assert_eq!(idle(cluster.claim("1", &["level1"], ROOM).await), Idle::Empty);
}

#[tokio::test]
async fn a_job_that_fits_is_found_behind_thousands_of_its_class_that_do_not() {
    let cluster = Cluster::start();
    for n in 0..2000 {
        cluster.queue.offer(&job("level1", &format!("host{}", n % 40), 2000 + n % 40)).await.unwrap();
    }
    cluster.queue.offer(&job("level1", "host39", 1030)).await.unwrap();
    assert_eq!(cluster.queue.admit(&levels(&["level1"]), 5000).await.unwrap().jobs, 2001);
    // Beyond the oldest few, sources and jobs are looked at at random, so some asks are needed: 5 of 40 sources, 12 of 51 jobs.
    let mut asks = 0;
    let lease = loop {
        asks += 1;
        assert!(asks < 1500, "not found in {asks} asks");
        if let longshore_core::queue::Claimed::Jobs(mut leases) = cluster.claim("1", &["level1"], 1100).await {
            break leases.remove(0);
        }
    };
    assert_eq!(lease.job.size_bytes(), 1030);
}

#[tokio::test]
async fn a_host_at_its_limit_is_passed_over_and_comes_back() {
    let cluster = Cluster::start();
    let mut jobs: Vec<_> = (0..4).map(|size| job("level1", "a", 1 << (size * 3))).collect();
    jobs.push(job("level1", "b", 1));
    jobs.push(job("level2", "a", 7));
    cluster.admit(&jobs).await;
    let claim = async |node| cluster.claim_limited(node, &["level1", "level2"], ROOM, 2).await;

    let first = leased(claim("1").await);
    let second = leased(claim("2").await);
    assert_eq!((first.job.id, second.job.id), (jobs[0].id, jobs[1].id));
    assert_eq!(leased(claim("1").await).job.id, jobs[4].id);
    // Everything else is of the host that two nodes are asking already.
    assert_eq!(idle(claim("1").await), Idle::HostsBusy);
    let depths = cluster.queue.depths(&names(&["level1", "level2"])).await.unwrap();
    assert_eq!((depths[0].ready, depths[1].ready), (2, 1));
    // What is put aside still counts as waiting, and its age is seen.
    assert!(depths[0].oldest_admitted_at.is_some() && depths[1].oldest_admitted_at.is_some());

    cluster.store(&first).await;
    let third = leased(claim("3").await);
    assert_eq!(third.job.id, jobs[2].id);
    assert_eq!(idle(claim("3").await), Idle::HostsBusy);
    // Jobs that come while their host is put aside wait with the others.
    cluster.admit(&[job("level1", "a", 1)]).await;
    assert_eq!(idle(claim("3").await), Idle::HostsBusy);
    // Every way of ending a lease frees its host.
    cluster.queue.release(&third).await.unwrap();
    let third = leased(claim("3").await);
    assert_eq!(third.job.id, jobs[2].id);
    let reason = Reason::new(ReasonCode::Unreachable, "no route to host");
    cluster.queue.retry_later(&third, std::time::Duration::from_secs(60), &reason).await.unwrap();
    assert_eq!(leased(claim("3").await).job.id, jobs[3].id);
}

#[tokio::test]
async fn a_thousand_busy_hosts_do_not_hide_the_one_that_is_free() {
    let cluster = Cluster::start();
    for n in 0..1000 {
        for _ in 0..2 {
            cluster.queue.offer(&job("level1", &format!("busy{n}"), 10)).await.unwrap();
        }
    }
    cluster.queue.offer(&job("level1", "free", 10)).await.unwrap();
    cluster.queue.admit(&levels(&["level1"]), 5000).await.unwrap();
    for _ in 0..1000 {
        leased(cluster.claim_limited("1", &["level1"], ROOM, 1).await);
    }
    assert_eq!(leased(cluster.claim_limited("1", &["level1"], ROOM, 1).await).job.server_id.as_str(), "free");
    assert_eq!(idle(cluster.claim_limited("1", &["level1"], ROOM, 1).await), Idle::HostsBusy);
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_gets_the_same_job() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1), job("level1", "a", 1)]).await;
    let request = uuid::Uuid::now_v7();
    let first = leased(cluster.claim_as(request, "1", &["level1"], ROOM, 9).await);
    let repeated = leased(cluster.claim_as(request, "1", &["level1"], ROOM, 9).await);
    assert_eq!((repeated.job.id, repeated.revision, repeated.attempts), (first.job.id, first.revision, 1));
    // Another request, and the same request of another node, are other questions.
    assert_ne!(leased(cluster.claim_as(request, "2", &["level1"], ROOM, 9).await).job.id, first.job.id);
    // Once the lease has ended, the same request is a new one.
    cluster.store(&first).await;
    assert_eq!(idle(cluster.claim_as(request, "1", &["level1"], ROOM, 9).await), Idle::Empty);
}

#[tokio::test]
async fn a_damaged_record_is_put_off_and_named_and_does_not_stop_the_queue() {
    let cluster = Cluster::start();
    let jobs = [job("level1", "a", 1), job("level1", "a", 2)];
    cluster.admit(&jobs).await;
    let key = format!("longshore:body:{}", jobs[0].id);
    let () = redis::cmd("SET").arg(&key).arg("{").query(&mut cluster.redis.connection()).unwrap();
    let (node, levels) = (node_id("1"), levels(&["level1"]));
    let error = cluster.queue.claim(&question(&node, &levels)).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains(&jobs[0].id.to_string()), "{error}");
    assert_eq!(leased(cluster.claim("1", &["level1"], ROOM).await).job.id, jobs[1].id);
    assert_eq!(cluster.queue.depths(&names(&["level1"])).await.unwrap()[0].delayed, 1);
}
