//! Renew, commit, settle, retry, release: each checks the fence, each may be repeated.

use std::time::Duration;

use longshore_core::{
    Outcome, ReasonCode,
    queue::{End, Held, JobState, Lease, Returned, Settled},
    report::Reason,
};
use longshore_tests::wait_until;

use crate::cluster::{Cluster, LEASE, failed, job, names, stored};

fn reason() -> Reason {
    Reason::new(ReasonCode::TransferFailed, "rsync ended with 12")
}

/// A lease of node 1 that was taken from it, and node 2's lease of the same job.
async fn stolen(cluster: &Cluster) -> (Lease, Lease) {
    cluster.admit(&[job("level1", "a", 1)]).await;
    let stale = cluster.lease("1", &["level1"]).await;
    let key = "longshore:leases";
    let id = stale.job.id.to_string();
    let () = redis::cmd("ZADD").arg(key).arg(1).arg(&id).query(&mut cluster.redis.connection()).unwrap();
    cluster.queue.reap_silent(10, Duration::ZERO).await.unwrap();
    let fresh = cluster.lease("2", &["level1"]).await;
    assert_eq!(fresh.job.id, stale.job.id);
    (stale, fresh)
}

#[tokio::test]
async fn a_stored_job_leaves_one_report_one_mailbox_entry_and_nothing_else() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    assert_eq!(cluster.queue.leases().await.unwrap()[0].revision, lease.revision);
    assert_eq!(cluster.queue.renew(&lease, LEASE).await.unwrap(), Held::Yours);
    assert_eq!(cluster.queue.commit(&lease, LEASE).await.unwrap(), Held::Yours);
    assert_eq!(cluster.store(&lease).await, Settled::Done);

    assert_eq!(cluster.reports().await, [stored(&lease)]);
    let mailbox = cluster.queue.mailbox(&lease.job.server_id).await.unwrap();
    assert_eq!(mailbox.len(), 1);
    assert_eq!((mailbox[&lease.job.id].revision, mailbox[&lease.job.id].outcome), (lease.revision, Outcome::Stored));
    cluster.queue.acknowledge(&lease.job.server_id, &[lease.job.id]).await.unwrap();
    assert!(cluster.queue.mailbox(&lease.job.server_id).await.unwrap().is_empty());

    assert!(cluster.queue.leases().await.unwrap().is_empty());
    for part in
        ["job:", "body:", "lane:", "heads:", "classes:", "aside:", "due:", "host:", "offered:", "timers", "leases"]
    {
        assert_eq!(cluster.keys(part), Vec::<String>::new());
    }
    let [depth] = &cluster.queue.depths(&names(&["level1"])).await.unwrap()[..] else { panic!() };
    assert_eq!((depth.inbox, depth.ready, depth.delayed, depth.leased, depth.bytes), (0, 0, 0, 0, 0));
}

#[tokio::test]
async fn settling_again_is_recognized_even_when_the_agent_was_quicker() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    assert_eq!(cluster.store(&lease).await, Settled::Done);
    assert_eq!(cluster.store(&lease).await, Settled::AlreadyYours);
    cluster.queue.acknowledge(&lease.job.server_id, &[lease.job.id]).await.unwrap();
    assert_eq!(cluster.store(&lease).await, Settled::AlreadyYours);
    assert_eq!(cluster.reports().await.len(), 1);
    // What has ended can be neither renewed nor given back.
    assert_eq!(cluster.queue.renew(&lease, LEASE).await.unwrap(), Held::Lost);
    assert_eq!(cluster.queue.commit(&lease, LEASE).await.unwrap(), Held::Lost);
    assert_eq!(cluster.queue.release(&lease).await.unwrap(), Held::Lost);
    assert_eq!(cluster.queue.retry_later(&lease, LEASE, &reason()).await.unwrap(), Returned::Lost);
}

#[tokio::test]
async fn a_report_that_nobody_remembers_is_written_again_rather_than_its_backup_given_up() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    cluster.store(&lease).await;
    cluster.queue.acknowledge(&lease.job.server_id, &[lease.job.id]).await.unwrap();
    // The node was off for longer than an end is remembered, and doesn't know whether it had settled.
    let ended = format!("longshore:ended:{}", lease.job.id);
    let () = redis::cmd("DEL").arg(&ended).query(&mut cluster.redis.connection()).unwrap();
    assert_eq!(cluster.store(&lease).await, Settled::Done);
    assert_eq!(cluster.store(&lease).await, Settled::AlreadyYours);
    // The same report under the same revision, which the catalog takes for one.
    assert_eq!(cluster.reports().await, [stored(&lease), stored(&lease)]);
    assert_eq!(cluster.queue.mailbox(&lease.job.server_id).await.unwrap().len(), 1);
    assert_eq!(cluster.keys("job:"), Vec::<String>::new());
}

#[tokio::test]
async fn an_end_says_when_it_was_written_also_under_a_lease_that_was_lost_long_ago() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    // A kill took offer, admission and claim; the node goes on asking until Redis is back.
    cluster.redis::<()>(&["FLUSHALL"]);
    let before = cluster.queue.now_micros().await.unwrap();
    assert_eq!(cluster.store(&lease).await, Settled::Done);
    let end = cluster.queue.mailbox(&lease.job.server_id).await.unwrap()[&lease.job.id];
    assert_eq!((end.revision, end.outcome), (lease.revision, Outcome::Stored));
    assert!(end.revision < before && end.written >= before, "{end:?}, asked at {before}");
}

#[tokio::test]
async fn burying_again_is_recognized_too() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    let report = failed(&lease, reason());
    assert_eq!(cluster.queue.settle(&lease, &report, End::Bury).await.unwrap(), Settled::Done);
    assert_eq!(cluster.queue.settle(&lease, &report, End::Bury).await.unwrap(), Settled::AlreadyYours);
    assert_eq!(cluster.queue.renew(&lease, LEASE).await.unwrap(), Held::Lost);
    assert_eq!(cluster.reports().await, [report]);
    assert_eq!(cluster.queue.dead_letters(0, 9).await.unwrap().total, 1);
}

#[tokio::test]
async fn a_stale_holder_can_do_nothing_to_the_job() {
    let cluster = Cluster::start();
    let (stale, fresh) = stolen(&cluster).await;
    assert!(fresh.revision > stale.revision);
    assert_eq!(cluster.queue.renew(&stale, LEASE).await.unwrap(), Held::Lost);
    assert_eq!(cluster.queue.commit(&stale, LEASE).await.unwrap(), Held::Lost);
    assert_eq!(cluster.queue.release(&stale).await.unwrap(), Held::Lost);
    assert_eq!(cluster.queue.retry_later(&stale, LEASE, &reason()).await.unwrap(), Returned::Lost);
    assert_eq!(cluster.store(&stale).await, Settled::Lost);
    assert!(cluster.reports().await.is_empty());

    assert_eq!(cluster.queue.commit(&fresh, LEASE).await.unwrap(), Held::Yours);
    assert_eq!(cluster.store(&fresh).await, Settled::Done);
    // Also not when it wakes after the other has finished.
    assert_eq!(cluster.store(&stale).await, Settled::Over);
    assert_eq!(cluster.reports().await, [stored(&fresh)]);
}

#[tokio::test]
async fn the_same_node_with_an_older_revision_is_a_stale_holder_too() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let first = cluster.lease("1", &["level1"]).await;
    cluster.queue.release(&first).await.unwrap();
    let second = cluster.lease("1", &["level1"]).await;
    assert_eq!(cluster.queue.release(&first).await.unwrap(), Held::Lost);
    assert_eq!(cluster.store(&first).await, Settled::Lost);
    assert_eq!(cluster.store(&second).await, Settled::Done);
}

#[tokio::test]
async fn a_released_job_is_as_if_it_had_never_been_claimed() {
    let cluster = Cluster::start();
    let jobs = [job("level1", "a", 1), job("level1", "a", 1)];
    cluster.admit(&jobs).await;
    let lease = cluster.lease("1", &["level1"]).await;
    for _ in 0..2 {
        assert_eq!(cluster.queue.release(&lease).await.unwrap(), Held::Yours);
    }
    assert_eq!(cluster.queue.depths(&names(&["level1"])).await.unwrap()[0].ready, 2);
    let again = cluster.lease("2", &["level1"]).await;
    assert_eq!((again.job.id, again.attempts, again.admitted_at), (jobs[0].id, 1, lease.admitted_at));
    assert!(again.revision > lease.revision);
}

#[tokio::test]
async fn a_retry_comes_when_its_time_has_come_and_its_attempt_counts() {
    let cluster = Cluster::start();
    let jobs = [job("level1", "a", 100), job("level1", "a", 7)];
    cluster.admit(&jobs).await;
    let lease = cluster.lease("1", &["level1"]).await;
    for _ in 0..2 {
        let held = cluster.queue.retry_later(&lease, Duration::from_millis(300), &reason()).await.unwrap();
        assert_eq!(held, Returned::GivenBack);
    }
    let [depth] = &cluster.queue.depths(&names(&["level1"])).await.unwrap()[..] else { panic!() };
    assert_eq!((depth.ready, depth.delayed, depth.leased, depth.bytes), (1, 1, 0, 107));
    assert_eq!(cluster.lease("1", &["level1"]).await.job.id, jobs[1].id);
    let mut again = None;
    wait_until("the retry is due", Duration::from_secs(10), async || {
        if let longshore_core::queue::Claimed::Jobs(leases) = cluster.claim("1", &["level1"], u64::MAX).await {
            again = leases.into_iter().next();
        }
        again.is_some()
    })
    .await;
    let again = again.unwrap();
    assert_eq!((again.job.id, again.attempts), (jobs[0].id, 2));
    assert!(again.revision >= lease.revision + 300_000);
    let [depth] = &cluster.queue.depths(&names(&["level1"])).await.unwrap()[..] else { panic!() };
    assert_eq!((depth.ready, depth.delayed, depth.leased, depth.bytes), (0, 0, 2, 0));
    assert!(cluster.reports().await.is_empty());
}

#[tokio::test]
async fn revisions_are_exact_microseconds_and_only_grow() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let mut last = cluster.queue.now_micros().await.unwrap();
    assert!(last > 1_700_000_000_000_000);
    let mut last_digits = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let lease = cluster.lease("1", &["level1"]).await;
        assert!(lease.revision > last, "{} after {last}", lease.revision);
        last = lease.revision;
        last_digits.insert(last % 100);
        let stored: String = redis::cmd("HGET")
            .arg(format!("longshore:job:{}", lease.job.id))
            .arg("revision")
            .query(&mut cluster.redis.connection())
            .unwrap();
        assert_eq!(stored, last.to_string());
        cluster.queue.release(&lease).await.unwrap();
    }
    assert!(cluster.queue.now_micros().await.unwrap() >= last);
    // A number cut to 14 digits would always end the same.
    assert!(last_digits.len() > 20, "{last_digits:?}");

    // A clock that was set back: the revision goes on from the last one.
    let lease = cluster.lease("1", &["level1"]).await;
    cluster.queue.release(&lease).await.unwrap();
    let ahead = 8_999_999_999_999_999_u64;
    let key = format!("longshore:job:{}", lease.job.id);
    let () = redis::cmd("HSET").arg(&key).arg("revision").arg(ahead).query(&mut cluster.redis.connection()).unwrap();
    assert_eq!(cluster.lease("1", &["level1"]).await.revision, ahead + 1);
}

#[tokio::test]
async fn what_differs_a_second_time_is_to_be_given_up_whoever_fetched_it_first() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "111111", 10)]).await;
    let differs = Reason::new(ReasonCode::DigestDiffers, "not what was announced");
    let first = cluster.lease("1", &["level1"]).await;
    for _ in 0..2 {
        // The second time its answer was lost.
        let returned = cluster.queue.retry_later(&first, Duration::ZERO, &differs).await.unwrap();
        assert_eq!(returned, Returned::GivenBack);
    }
    // Something else in between changes nothing.
    let between = cluster.lease("2", &["level1"]).await;
    cluster.queue.retry_later(&between, Duration::ZERO, &reason()).await.unwrap();
    let again = cluster.lease("3", &["level1"]).await;
    for _ in 0..2 {
        let returned = cluster.queue.retry_later(&again, Duration::ZERO, &differs).await.unwrap();
        assert_eq!(returned, Returned::GiveUp);
    }
    assert_eq!(cluster.queue.commit(&again, LEASE).await.unwrap(), Held::Yours, "its holder ends it");
    // A person who tries it again begins anew.
    cluster.queue.requeue(&again.job.id, JobState::ALL, uuid::Uuid::now_v7()).await.unwrap();
    let anew = cluster.lease("1", &["level1"]).await;
    assert_eq!(cluster.queue.retry_later(&anew, Duration::ZERO, &differs).await.unwrap(), Returned::GivenBack);
}
