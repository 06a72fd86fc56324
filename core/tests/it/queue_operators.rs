//! What operators see of jobs, and do with them.

use std::time::Duration;

use longshore_core::{
    JobId, Millis, Outcome, ReasonCode,
    queue::{Changed, End, Held, Idle, JobFilter, JobState, Level, Patience, Queue, Settled},
    report::Reason,
};

use uuid::Uuid;

use crate::cluster::{Cluster, ROOM, beat, failed, idle, job, leased, names, node_id, question, stored};

impl Cluster {
    async fn state(&self, id: &JobId) -> Option<JobState> {
        let filter = JobFilter { jobs: vec![*id], ..JobFilter::default() };
        self.queue.find(&filter, 1).await.unwrap().jobs.first().map(|job| job.state)
    }

    /// Inbox, ready, delayed, held, leased, bytes.
    async fn counts(&self, queue: &str) -> [u64; 6] {
        let depth = self.queue.depths(&names(&[queue])).await.unwrap().remove(0);
        [depth.inbox, depth.ready, depth.delayed, depth.held, depth.leased, depth.bytes]
    }
}

fn reason() -> Reason {
    Reason::new(ReasonCode::Unreachable, "no route to host")
}

#[tokio::test]
async fn a_held_job_is_kept_back_counted_and_let_go_at_its_old_place() {
    let cluster = Cluster::start();
    let jobs = [job("level1", "a", 10), job("level1", "b", 20), job("level1", "c", 30)];
    cluster.admit(&jobs).await;
    let delayed = leased(cluster.claim("1", &["level1"], ROOM).await);
    cluster.queue.retry_later(&delayed, Duration::from_secs(60), &reason()).await.unwrap();
    for held in &jobs[..2] {
        for _ in 0..2 {
            assert_eq!(cluster.queue.hold(&held.id, "alice", "a test").await.unwrap(), Changed::Done);
        }
    }
    assert_eq!(cluster.counts("level1").await, [0, 1, 0, 2, 0, 60]);
    let third = leased(cluster.claim("1", &["level1"], ROOM).await);
    assert_eq!(third.job.id, jobs[2].id);
    assert_eq!(cluster.queue.hold(&third.job.id, "alice", "").await.unwrap(), Changed::Left(JobState::Leased));
    assert_eq!(idle(cluster.claim("2", &["level1"], ROOM).await), Idle::Empty);
    // Known all the while: an agent that offers it again changes nothing.
    cluster.queue.offer(&jobs[0]).await.unwrap();
    assert_eq!(cluster.counts("level1").await, [0, 0, 0, 2, 1, 30]);
    let standing = cluster.queue.why(&jobs[1].id).await.unwrap();
    let (_, by, why) = standing.record.unwrap().held.unwrap();
    assert_eq!((by.as_str(), why.as_str()), ("alice", "a test"));
    for released in [&jobs[1], &jobs[0], &jobs[0]] {
        assert_eq!(cluster.queue.let_go(&released.id).await.unwrap(), Changed::Done);
    }
    assert_eq!(cluster.lease("2", &["level1"]).await.job.id, jobs[0].id);
    assert_eq!(cluster.lease("2", &["level1"]).await.job.id, jobs[1].id);
    assert_eq!(cluster.counts("level1").await, [0, 0, 0, 0, 3, 0]);
    assert_eq!(cluster.queue.hold(&JobId::fresh(), "alice", "").await.unwrap(), Changed::Unknown);
}

#[tokio::test]
async fn a_cancelled_job_has_one_report_wherever_it_was() {
    let cluster = Cluster::start();
    let jobs: Vec<_> = (0..4).map(|n| job("level1", &format!("host{n}"), 10)).collect();
    cluster.admit(&jobs).await;
    let running = cluster.lease("1", &["level1"]).await;
    let waiting = cluster.lease("1", &["level1"]).await;
    cluster.queue.retry_later(&waiting, Duration::from_secs(60), &reason()).await.unwrap();
    cluster.queue.hold(&jobs[2].id, "alice", "").await.unwrap();
    let why = Queue::cancel_reason("alice", "not needed");
    for cancelled in &jobs {
        for _ in 0..2 {
            assert_eq!(cluster.queue.cancel(&cancelled.id, &why, JobState::ALL).await.unwrap(), Changed::Done);
        }
    }
    // The node that was fetching finds it lost at each step, and its report is not written.
    assert_eq!(cluster.queue.renew(&running, Duration::from_secs(9)).await.unwrap(), Held::Lost);
    assert_eq!(cluster.queue.commit(&running, Duration::from_secs(9)).await.unwrap(), Held::Lost);
    assert_eq!(cluster.store(&running).await, Settled::Over);
    assert_eq!(cluster.counts("level1").await, [0; 6]);
    assert_eq!(idle(cluster.claim("1", &["level1"], ROOM).await), Idle::Empty);
    let reports = cluster.reports().await;
    assert_eq!(reports.len(), 4);
    for report in &reports {
        assert_eq!((report.outcome, report.reason.as_ref()), (Outcome::Cancelled, Some(&why)));
        assert!(report.reason.as_ref().unwrap().text.contains("alice"));
    }
    let of_running = reports.iter().find(|report| report.job.id == running.job.id).unwrap();
    assert!(of_running.revision > running.revision, "it stands above what the node may still write");
    // Its agent learns the end.
    let mailbox = cluster.queue.mailbox(&jobs[0].server_id).await.unwrap();
    assert_eq!(mailbox[&jobs[0].id].outcome, Outcome::Cancelled);
    assert!(cluster.keys("lease").is_empty() && cluster.keys("job:").is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn a_transfer_taken_from_its_node_is_given_to_another_and_the_first_settles_nothing() {
    let cluster = Cluster::start();
    let known = job("level1", "a", 10);
    cluster.admit(std::slice::from_ref(&known)).await;
    let first = cluster.lease("1", &["level1"]).await;
    assert_eq!(cluster.queue.requeue(&known.id, &[JobState::Leased], Uuid::now_v7()).await.unwrap(), Changed::Done);
    let second = cluster.lease("2", &["level1"]).await;
    assert_eq!((second.job.id, second.attempts), (known.id, 1));
    assert_eq!(cluster.store(&first).await, Settled::Lost);
    assert_eq!(cluster.store(&second).await, Settled::Done);
    assert_eq!(cluster.reports().await.len(), 1);
    assert_eq!(cluster.counts("level1").await, [0; 6]);
}

#[tokio::test]
async fn a_requeue_whose_answer_was_lost_takes_nothing_from_the_node_that_has_the_job_by_then() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 10)]).await;
    let given_up = cluster.lease("1", &["level1"]).await;
    cluster.queue.settle(&given_up, &failed(&given_up, reason()), End::Bury).await.unwrap();
    let (id, request) = (given_up.job.id, Uuid::now_v7());
    assert_eq!(cluster.queue.requeue(&id, JobState::ALL, request).await.unwrap(), Changed::Done);
    let running = cluster.lease("2", &["level1"]).await;
    assert_eq!(cluster.queue.requeue(&id, JobState::ALL, request).await.unwrap(), Changed::Done, "done before");
    assert_eq!(cluster.queue.renew(&running, Duration::from_secs(9)).await.unwrap(), Held::Yours);
    // Another request is another wish.
    assert_eq!(cluster.queue.requeue(&id, JobState::ALL, Uuid::now_v7()).await.unwrap(), Changed::Done);
    assert_eq!(cluster.queue.renew(&running, Duration::from_secs(9)).await.unwrap(), Held::Lost);
}

#[tokio::test]
async fn a_job_that_went_on_since_it_was_seen_is_left_alone() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 10)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    let seen = [JobState::Delayed, JobState::Dead];
    assert_eq!(
        cluster.queue.requeue(&lease.job.id, &seen, Uuid::now_v7()).await.unwrap(),
        Changed::Left(JobState::Leased)
    );
    let waits = [JobState::Ready, JobState::Held];
    assert_eq!(cluster.queue.cancel(&lease.job.id, &reason(), &waits).await.unwrap(), Changed::Left(JobState::Leased));
    assert_eq!(cluster.store(&lease).await, Settled::Done);
    assert_eq!(cluster.reports().await.len(), 1);
}

#[tokio::test]
async fn a_record_that_stays_damaged_is_kept_for_a_person_in_the_end() {
    let cluster = Cluster::start();
    let damaged = job("level1", "a", 10);
    cluster.admit(std::slice::from_ref(&damaged)).await;
    let (body, record) = (format!("longshore:body:{}", damaged.id), format!("longshore:job:{}", damaged.id));
    cluster.redis::<()>(&["SET", &body, "{"]);
    let (node, levels) = (node_id("1"), [Level::new("level1".parse().unwrap())]);
    let mut tries = 0;
    while cluster.state(&damaged.id).await != Some(JobState::Dead) {
        assert!(cluster.queue.claim(&question(&node, &levels)).await.is_err());
        tries += 1;
        assert!(tries < 100, "it is tried for ever");
        // As if the time of its next try had come.
        if cluster.state(&damaged.id).await == Some(JobState::Delayed) {
            cluster.redis::<()>(&["ZADD", "longshore:timers", "1", &format!("job:{}", damaged.id)]);
        }
    }
    assert_eq!(tries, 12, "for two hours");
    let letters = cluster.queue.dead_letters(0, 10).await.unwrap().letters;
    assert_eq!((letters.len(), &letters[0].reason.code), (1, &ReasonCode::Malformed));
    assert_eq!(cluster.counts("level1").await, [0; 6]);
    assert!(cluster.keys("lease").is_empty() && cluster.keys("host:").is_empty());
    // With its numbers damaged it can't even be leased, and says so at once; with its body gone it still shows.
    assert_eq!(cluster.queue.retry_letter(&letters[0].id).await.unwrap(), Changed::Done);
    cluster.redis::<()>(&["HSET", &record, "attempts", "some"]);
    cluster.redis::<()>(&["DEL", &body]);
    assert_eq!(idle(cluster.claim("1", &["level1"], ROOM).await), Idle::Empty);
    let letters = cluster.queue.dead_letters(0, 10).await.unwrap().letters;
    assert_eq!((letters.len(), &letters[0].reason.code), (1, &ReasonCode::Malformed));
}

#[tokio::test]
async fn a_delayed_job_is_tried_at_once_when_an_operator_says_so() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 10)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    cluster.queue.retry_later(&lease, Duration::from_secs(3600), &reason()).await.unwrap();
    assert_eq!(idle(cluster.claim("1", &["level1"], ROOM).await), Idle::Empty);
    assert_eq!(
        cluster.queue.requeue(&lease.job.id, &[JobState::Delayed], Uuid::now_v7()).await.unwrap(),
        Changed::Done
    );
    assert_eq!(cluster.counts("level1").await, [0, 1, 0, 0, 0, 10]);
    assert_eq!(cluster.lease("1", &["level1"]).await.attempts, 1);
    assert!(cluster.keys("timers").is_empty());
}

#[tokio::test]
async fn a_job_is_moved_to_another_level_and_stays_held_when_it_was() {
    let cluster = Cluster::start();
    let jobs = [job("level3", "a", 10), job("level3", "b", 20), job("level1", "c", 5)];
    cluster.admit(&jobs).await;
    cluster.queue.hold(&jobs[1].id, "alice", "later").await.unwrap();
    let level1 = Level::new("level1".parse().unwrap());
    for moved in &jobs {
        assert_eq!(cluster.queue.move_to(&moved.id, &level1).await.unwrap(), Changed::Done);
    }
    assert_eq!(cluster.counts("level3").await, [0; 6]);
    assert_eq!(cluster.counts("level1").await, [0, 2, 0, 1, 0, 35]);
    assert_eq!(cluster.state(&jobs[1].id).await, Some(JobState::Held));
    // It stands by its age there.
    assert_eq!(cluster.lease("1", &["level1"]).await.job.id, jobs[0].id);
    assert_eq!(
        cluster.queue.move_to(&jobs[0].id, &Level::new("level2".parse().unwrap())).await.unwrap(),
        Changed::Left(JobState::Leased)
    );
}

#[tokio::test]
async fn dead_letters_are_retried_or_dropped_and_a_reports_end_stands() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 10), job("level1", "b", 10)]).await;
    for node in ["1", "1"] {
        let lease = cluster.lease(node, &["level1"]).await;
        cluster.queue.settle(&lease, &failed(&lease, reason()), End::Bury).await.unwrap();
    }
    let () = redis::cmd("LPUSH").arg("level1").arg("{no json").query(&mut cluster.redis.connection()).unwrap();
    cluster.queue.admit(&[Level::new("level1".parse().unwrap())], 9).await.unwrap();
    let letters = cluster.queue.dead_letters(0, 10).await.unwrap().letters;
    assert_eq!(letters.len(), 3);
    let raw = &letters[0].id;
    assert!(raw.starts_with("raw:"), "{raw}");
    for _ in 0..2 {
        assert_eq!(cluster.queue.retry_letter(raw).await.unwrap(), Changed::Done);
        assert_eq!(cluster.queue.drop_letter(&letters[1].id).await.unwrap(), Changed::Done);
    }
    assert_eq!(cluster.counts("level1").await, [1, 0, 0, 0, 0, 0], "the entry is back in its inbox, once");
    assert_eq!(cluster.queue.retry_letter(&letters[2].id).await.unwrap(), Changed::Done);
    assert_eq!(cluster.counts("level1").await, [1, 1, 0, 0, 0, 10]);
    assert_eq!(cluster.queue.dead_letters(0, 10).await.unwrap().total, 0);
    assert_eq!(cluster.reports().await.len(), 2, "what was reported stands");
    assert_eq!(cluster.keys("bytes:").len() + cluster.keys("body:").len(), 1);
}

#[tokio::test]
async fn a_refused_entry_that_is_retried_is_read_again_although_its_end_is_remembered() {
    let cluster = Cluster::start();
    let mut value = serde_json::to_value(job("level1", "a", 10)).unwrap();
    value["v"] = 99.into();
    let () = redis::cmd("LPUSH").arg("level1").arg(value.to_string()).query(&mut cluster.redis.connection()).unwrap();
    let level = [Level::new("level1".parse().unwrap())];
    for _ in 0..2 {
        let admitted = cluster.queue.admit(&level, 9).await.unwrap();
        assert_eq!((admitted.reports, admitted.dead, admitted.known), (1, 1, 0));
        let letter = cluster.queue.dead_letters(0, 1).await.unwrap().letters.remove(0);
        cluster.queue.retry_letter(&letter.id).await.unwrap();
    }
}

#[tokio::test]
async fn jobs_are_found_by_every_part_of_a_filter() {
    let cluster = Cluster::start();
    let mut jobs = Vec::new();
    for n in 0..60 {
        let mut made = job(["level1", "level2"][n % 2], &format!("host{}", n % 3), 100 + n as u64);
        made.instance = ["3306", "3307"][n % 2].parse().unwrap();
        made.source.as_mut().unwrap().module = ["left", "right side"][n / 30].parse().unwrap();
        jobs.push(made);
    }
    cluster.admit(&jobs).await;
    cluster.queue.hold(&jobs[0].id, "alice", "").await.unwrap();
    let find = async |filter: JobFilter| cluster.queue.find(&filter, 5).await.unwrap();
    let any = JobFilter::default;
    let all = find(any()).await;
    assert_eq!((all.total, all.jobs.len(), all.bytes), (60, 5, (100..160).sum()));
    assert_eq!(
        all.jobs.iter().map(|job| job.id).collect::<Vec<_>>(),
        jobs[..5].iter().map(|job| job.id).collect::<Vec<_>>()
    );
    assert_eq!(all.jobs[0].job.as_ref(), Some(&jobs[0]));
    for (filter, total) in [
        (JobFilter { queue: Some("level2".parse().unwrap()), ..any() }, 30),
        (JobFilter { movable_to: Some("level2".parse().unwrap()), ..any() }, 30),
        (JobFilter { server_id: Some("host1".parse().unwrap()), ..any() }, 20),
        (JobFilter { backup_type: Some("mysql".parse().unwrap()), ..any() }, 60),
        (JobFilter { backup_type: Some("redis".parse().unwrap()), ..any() }, 0),
        (JobFilter { instance: Some("3306".parse().unwrap()), ..any() }, 30),
        (JobFilter { module: Some("right side".parse().unwrap()), ..any() }, 30),
        (JobFilter { larger_than_bytes: Some(149), ..any() }, 10),
        (JobFilter { admitted_until: Some(Millis(all.jobs[0].admitted_at.0 - 1)), ..any() }, 0),
        (JobFilter { admitted_until: Some(Millis(Millis::now().0 + 60_000)), ..any() }, 60),
        (JobFilter { jobs: vec![jobs[7].id, jobs[8].id, JobId::fresh()], ..any() }, 2),
        (JobFilter { jobs: vec![jobs[7].id], queue: Some("level1".parse().unwrap()), ..any() }, 0),
    ] {
        assert_eq!(find(filter.clone()).await.total, total, "{filter:?}");
    }
    let held = find(JobFilter { states: vec![JobState::Held], ..any() }).await;
    assert_eq!((held.total, held.others.get(&JobState::Ready)), (1, Some(&59)));
}

#[tokio::test]
async fn what_decides_about_a_job_is_read_at_one_moment() {
    let cluster = Cluster::start();
    let jobs = [job("level1", "a", 10), job("level1", "a", 1 << 30), job("level1", "b", 1 << 30)];
    cluster.admit(&jobs).await;
    let first = cluster.lease("1", &["level1"]).await;
    cluster.queue.beat(&beat("1", &[&first])).await.unwrap();
    assert_eq!(idle(cluster.claim("1", &["level1"], 1 << 20).await), Idle::NoRoom);
    let standing = cluster.queue.why(&jobs[2].id).await.unwrap();
    let record = standing.record.as_ref().unwrap();
    assert_eq!((record.state, record.need_bytes >= 1 << 30, record.before), (JobState::Ready, true, Some(1)));
    let node = &standing.nodes[0];
    assert_eq!((node.node_id.as_str(), node.said.as_str(), node.room_bytes), ("1", "room", 1 << 20));
    assert_eq!(node.levels, ["level1"]);
    let of_a = cluster.queue.why(&jobs[1].id).await.unwrap();
    assert_eq!((of_a.fetched, of_a.host.active), (vec![(first.job.id, "1".to_owned())], 1));
    // Its host fails, and rests.
    let minute = Duration::from_secs(60);
    let patience = Patience { first_rest: minute, longest_rest: 10 * minute, give_up: 100 * minute };
    cluster.queue.host_failed(&first, patience, &reason()).await.unwrap();
    let host = cluster.queue.why(&jobs[1].id).await.unwrap().host;
    assert_eq!((host.failures, host.reason), (1, Some(reason())));
    assert!(host.rests_until.unwrap() > Millis::now());
    let resting = cluster.queue.resting_hosts(10).await.unwrap();
    assert_eq!((resting.total, resting.hosts[0].host.as_str(), resting.hosts[0].failures), (1, "a", 1));
    // Ended, in an inbox, and unknown.
    let lease = cluster.lease("1", &["level1"]).await;
    cluster.queue.settle(&lease, &stored(&lease), End::Final).await.unwrap();
    let ended = cluster.queue.why(&lease.job.id).await.unwrap();
    assert_eq!((ended.record, ended.ended.map(|entry| entry.outcome)), (None, Some(Outcome::Stored)));
    let new = job("level2", "c", 1);
    cluster.queue.offer(&new).await.unwrap();
    assert_eq!(cluster.queue.why(&new.id).await.unwrap().inbox, Some("level2".parse().unwrap()));
    let unknown = cluster.queue.why(&JobId::fresh()).await.unwrap();
    assert_eq!((unknown.record, unknown.ended, unknown.inbox), (None, None, None));
}
