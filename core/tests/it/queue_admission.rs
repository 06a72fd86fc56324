//! From an inbox, into which anyone pushes, to what nodes can claim.

use longshore_core::{
    Job, JobId, Outcome, ReasonCode,
    queue::{Admitted, Changed, End, JobState, Offered, Remains},
    report::Reason,
};

use crate::cluster::{Cluster, ROOM, failed, job, leased, levels, names, server_id};

fn push(cluster: &Cluster, queue: &str, entry: &[u8]) {
    let () = redis::cmd("LPUSH").arg(queue).arg(entry).query(&mut cluster.redis.connection()).unwrap();
}

fn seed_message(file: &str) -> &'static [u8] {
    match file {
        "success" => include_bytes!("../../fixtures/seed-success.json"),
        _ => include_bytes!("../../fixtures/seed-failure.json"),
    }
}

#[tokio::test]
async fn an_offered_job_is_claimed_as_it_was_offered() {
    let cluster = Cluster::start();
    let offered = job("level1", "111111", 73);
    assert_eq!(cluster.queue.offer(&offered).await.unwrap(), Offered::Pushed);
    let [depth] = &cluster.queue.depths(&names(&["level1"])).await.unwrap()[..] else { panic!() };
    assert_eq!((depth.inbox, depth.ready, depth.oldest_admitted_at), (1, 0, None));

    let admitted = cluster.queue.admit(&levels(&["level1"]), 100).await.unwrap();
    assert_eq!(admitted, Admitted { jobs: 1, ..Admitted::default() });
    let [depth] = &cluster.queue.depths(&names(&["level1"])).await.unwrap()[..] else { panic!() };
    assert_eq!((depth.inbox, depth.ready, depth.bytes), (0, 1, 73));
    let lease = cluster.lease("1", &["level1"]).await;
    assert_eq!(lease.job, offered);
    assert_eq!(depth.oldest_admitted_at, Some(lease.admitted_at));
    assert_eq!(cluster.queue.queue_names().await.unwrap(), names(&["level1"]));
    cluster.queue.know(&names(&["level2", "level1"])).await.unwrap();
    assert_eq!(cluster.queue.queue_names().await.unwrap(), names(&["level1", "level2"]));
}

#[tokio::test]
async fn an_offer_says_at_every_stage_that_the_job_is_known() {
    let cluster = Cluster::start();
    let offered = job("level1", "111111", 73);
    assert_eq!(cluster.queue.offer(&offered).await.unwrap(), Offered::Pushed);
    assert_eq!(cluster.queue.offer(&offered).await.unwrap(), Offered::Known);
    let admitted = cluster.queue.admit(&levels(&["level1"]), 100).await.unwrap();
    assert_eq!(admitted, Admitted { jobs: 1, ..Admitted::default() });

    assert_eq!(cluster.queue.offer(&offered).await.unwrap(), Offered::Known);
    let lease = cluster.lease("1", &["level1"]).await;
    assert_eq!(cluster.queue.offer(&offered).await.unwrap(), Offered::Known);
    cluster.store(&lease).await;
    let Offered::Ended(entry) = cluster.queue.offer(&offered).await.unwrap() else { panic!("not ended") };
    assert_eq!((entry.revision, entry.outcome), (lease.revision, Outcome::Stored));

    // The agent has read its mailbox, and a copy that was pushed before turns up: still known.
    cluster.queue.acknowledge(&offered.server_id, &[offered.id]).await.unwrap();
    push(&cluster, "level1", &serde_json::to_vec(&offered).unwrap());
    assert_eq!(cluster.queue.admit(&levels(&["level1"]), 100).await.unwrap().known, 1);
}

#[tokio::test]
async fn a_seed_client_pushes_and_is_served() {
    let cluster = Cluster::start();
    push(&cluster, "level1", seed_message("success"));
    push(&cluster, "level1", seed_message("success"));
    push(&cluster, "level1", seed_message("failure"));
    let admitted = cluster.queue.admit(&levels(&["level1"]), 100).await.unwrap();
    assert_eq!(admitted, Admitted { jobs: 1, known: 1, reports: 1, dead: 0, unread: None });

    let lease = cluster.lease("1", &["level1"]).await;
    assert_eq!(lease.job.server_id, server_id("111111"));
    cluster.store(&lease).await;
    let reports = cluster.reports().await;
    assert_eq!(reports.len(), 2);
    assert_eq!(reports[0].outcome, Outcome::Failed);
    assert_eq!(reports[0].reason.as_ref().unwrap().code, ReasonCode::SeedFailure);
    assert!(reports[0].revision > 1_700_000_000_000_000 && reports[0].revision < reports[1].revision);
    // Nobody reads a seed host's mailbox, so none is kept.
    assert!(cluster.keys("mailbox").is_empty());
}

#[tokio::test]
async fn what_can_not_be_read_is_kept_as_it_came() {
    let cluster = Cluster::start();
    let long = vec![b'{'; 10 * 1024 * 1024];
    push(&cluster, "level1", b"\xff\xfe not json");
    push(&cluster, "level1", &long);
    push(&cluster, "level1", b"");
    cluster.queue.offer(&job("level1", "111111", 1)).await.unwrap();
    let admitted = cluster.queue.admit(&levels(&["level1"]), 100).await.unwrap();
    assert_eq!(admitted, Admitted { jobs: 1, dead: 3, ..Admitted::default() });

    let dead = cluster.queue.dead_letters(0, 10).await.unwrap();
    assert_eq!(dead.total, 3);
    let found: Vec<_> = dead.letters.iter().map(|letter| (letter.reason.code.as_str(), &letter.remains)).collect();
    assert!(
        found.contains(&(
            "malformed",
            &Remains::Bytes { beginning: b"\xff\xfe not json".to_vec(), bytes: 11, job: None }
        ))
    );
    assert!(
        found.contains(&(
            "too_large",
            &Remains::Bytes { beginning: vec![b'{'; 4096], bytes: 10 * 1024 * 1024, job: None }
        ))
    );
    // Page by page they are the same.
    assert_eq!(cluster.queue.dead_letters(1, 1).await.unwrap().letters, dead.letters[1..2]);
    assert!(cluster.reports().await.is_empty());
}

#[tokio::test]
async fn a_refused_job_is_reported_and_kept_and_never_claimed() {
    let cluster = Cluster::start();
    let mut hostile = serde_json::to_value(job("level1", "111111", 1)).unwrap();
    hostile["source"]["path"] = "../../etc/shadow".into();
    let id: JobId = hostile["id"].as_str().unwrap().parse().unwrap();
    for _ in 0..2 {
        push(&cluster, "level1", &serde_json::to_vec(&hostile).unwrap());
    }
    let admitted = cluster.queue.admit(&levels(&["level1"]), 100).await.unwrap();
    assert_eq!(admitted, Admitted { jobs: 0, reports: 1, dead: 1, known: 1, unread: None });
    let reports = cluster.reports().await;
    assert_eq!((reports[0].job.id, reports[0].outcome), (id, Outcome::Refused));
    assert_eq!(reports[0].reason.as_ref().unwrap().code, ReasonCode::UnsafePath);
    let dead = cluster.queue.dead_letters(0, 10).await.unwrap();
    assert!(matches!(&dead.letters[0].remains, Remains::Bytes { job: Some(job), .. } if *job == id));
    crate::cluster::idle(cluster.claim("1", &["level1"], ROOM).await);
    // The agent that made it is told, else it would offer it with each run, to be refused and kept each time.
    assert_eq!(cluster.queue.mailbox(&server_id("111111")).await.unwrap()[&id].outcome, Outcome::Refused);
}

#[tokio::test]
async fn sizes_beyond_all_reason_neither_stop_admission_nor_break_the_counts() {
    let cluster = Cluster::start();
    // Of the last two one alone can be counted.
    for size in [u64::MAX, 9_000_000_000_000_000_000, 9_000_000_000_000_000_000] {
        cluster.queue.offer(&job("level1", "111111", size)).await.unwrap();
    }
    cluster.queue.offer(&job("level1", "111111", 5)).await.unwrap();
    assert_eq!(cluster.queue.admit(&levels(&["level1"]), 100).await.unwrap().jobs, 4);
    let small = leased(cluster.claim("1", &["level1"], 1 << 50).await);
    assert_eq!(small.job.size_bytes(), 5);
    for _ in 0..3 {
        cluster.store(&cluster.lease("1", &["level1"]).await).await;
    }
    let [depth] = &cluster.queue.depths(&names(&["level1"])).await.unwrap()[..] else { panic!() };
    assert_eq!((depth.ready, depth.leased), (0, 1));
    assert_eq!(cluster.redis::<i64>(&["HGET", "longshore:depth:level1", "bytes"]), 0);
}

#[tokio::test]
async fn an_inbox_that_can_not_be_read_keeps_no_other_waiting() {
    let cluster = Cluster::start();
    let () = cluster.redis(&["SET", "level1", "not a list"]);
    cluster.queue.offer(&job("level2", "111111", 1)).await.unwrap();
    let admitted = cluster.queue.admit(&levels(&["level1", "level2"]), 10).await.unwrap();
    let why = admitted.unread.unwrap();
    assert!(admitted.jobs == 1 && why.starts_with("level1: ") && why.contains("WRONGTYPE"), "{why}");
    cluster.lease("1", &["level2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_admit_at_once_and_each_job_is_admitted_once() {
    let cluster = Cluster::start();
    let jobs: Vec<Job> = (0..500).map(|n| job("level1", &format!("host{}", n % 7), n)).collect();
    for job in &jobs {
        push(&cluster, "level1", &serde_json::to_vec(job).unwrap());
    }
    let admitting = (0..8).map(|_| {
        let queue = cluster.queue.clone();
        tokio::spawn(async move {
            let mut jobs = 0;
            let mut calls = 0;
            while queue.depths(&names(&["level1"])).await.unwrap()[0].inbox > 0 {
                jobs += queue.admit(&levels(&["level1"]), 50).await.unwrap().jobs;
                calls += 1;
                assert!(calls < 1000, "admission does not get on");
            }
            jobs
        })
    });
    let mut admitted = 0;
    for task in admitting.collect::<Vec<_>>() {
        admitted += task.await.unwrap();
    }
    assert_eq!(admitted, 500);
    // In the order in which they were pushed.
    for expected in &jobs {
        assert_eq!(cluster.lease("1", &["level1"]).await.job.id, expected.id);
    }
}

#[tokio::test]
async fn the_budget_of_one_call_is_kept_over_all_inboxes() {
    let cluster = Cluster::start();
    for queue in ["level1", "level1", "level2", "level2"] {
        cluster.queue.offer(&job(queue, "111111", 1)).await.unwrap();
    }
    assert_eq!(cluster.queue.admit(&levels(&["level1", "level2"]), 3).await.unwrap().jobs, 3);
    let depths = cluster.queue.depths(&names(&["level1", "level2"])).await.unwrap();
    assert_eq!((depths[0].inbox, depths[1].inbox), (0, 1));
}

#[tokio::test]
async fn a_flood_in_the_first_inbox_leaves_the_others_their_part_of_a_call() {
    let cluster = Cluster::start();
    for queue in ["level1"; 30].into_iter().chain(["level3"]) {
        cluster.queue.offer(&job(queue, "111111", 1)).await.unwrap();
    }
    assert_eq!(cluster.queue.admit(&levels(&["level1", "level2", "level3"]), 12).await.unwrap().jobs, 12);
    let depths = cluster.queue.depths(&names(&["level1", "level3"])).await.unwrap();
    // What the others leave over is the first one's.
    assert_eq!((depths[0].inbox, depths[1].inbox), (19, 0));
}

#[tokio::test]
async fn a_queue_can_not_have_the_name_of_one_of_our_keys() {
    let cluster = Cluster::start();
    let error = cluster.queue.offer(&job("longshore:reports", "111111", 1)).await.unwrap_err();
    assert!(!error.is_transient());
    assert!(error.to_string().contains("Longshore's own"), "{error}");
}

#[tokio::test]
async fn a_buried_job_is_listed_and_can_be_tried_again_by_hand() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "111111", 10)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    let reason = Reason::new(ReasonCode::Unreachable, "no route to host");
    cluster.queue.settle(&lease, &failed(&lease, reason.clone()), End::Bury).await.unwrap();

    let dead = cluster.queue.dead_letters(0, 10).await.unwrap();
    assert_eq!(dead.letters[0].reason, reason);
    assert_eq!(dead.letters[0].remains, Remains::Job { job: Box::new(lease.job.clone()), attempts: 1 });
    let Offered::Ended(entry) = cluster.queue.offer(&lease.job).await.unwrap() else { panic!("not ended") };
    assert_eq!(entry.outcome, Outcome::Failed);

    let request = uuid::Uuid::now_v7();
    for _ in 0..2 {
        assert_eq!(
            cluster.queue.requeue(&lease.job.id, &[JobState::Dead], request).await.unwrap(),
            Changed::Done,
            "repeated, it is as it was"
        );
    }
    let again = cluster.lease("2", &["level1"]).await;
    assert_eq!((again.attempts, again.job.id), (1, lease.job.id));
    assert!(again.revision > lease.revision);
    cluster.store(&again).await;
    assert_eq!(cluster.queue.dead_letters(0, 10).await.unwrap().total, 0);
    assert_eq!(cluster.queue.mailbox(&lease.job.server_id).await.unwrap()[&lease.job.id].outcome, Outcome::Stored);
    assert_eq!(cluster.reports().await.len(), 2);
}

#[tokio::test]
async fn one_dead_letter_that_can_not_be_read_does_not_hide_the_others() {
    let cluster = Cluster::start();
    let jobs = [job("level1", "111111", 10), job("level1", "111111", 11)];
    cluster.admit(&jobs).await;
    for _ in &jobs {
        let lease = cluster.lease("1", &["level1"]).await;
        let reason = Reason::new(ReasonCode::Unreachable, "no route to host");
        cluster.queue.settle(&lease, &failed(&lease, reason), End::Bury).await.unwrap();
    }
    let body = format!("longshore:body:{}", jobs[0].id);
    let () = redis::cmd("SET").arg(&body).arg("{\"v\":7}").query(&mut cluster.redis.connection()).unwrap();
    let dead = cluster.queue.dead_letters(0, 10).await.unwrap();
    let remains: Vec<_> = dead.letters.into_iter().map(|letter| letter.remains).collect();
    let unread = Remains::Bytes { beginning: b"{\"v\":7}".to_vec(), bytes: 7, job: Some(jobs[0].id) };
    assert_eq!(remains, [Remains::Job { job: Box::new(jobs[1].clone()), attempts: 1 }, unread]);
}
