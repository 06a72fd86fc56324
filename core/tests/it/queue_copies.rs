//! A second copy goes on from the settling of the first, by the same transitions, and takes nothing back from it.

use std::time::Duration;

use longshore_core::{
    Outcome, ReasonCode, Report,
    queue::{Changed, End, Idle, JobFilter, JobState, Lease, Returned, Settled},
    report::{self, Reason},
};

use crate::cluster::{Cluster, ROOM, failed, idle, job, leased, levels, node_id, stored};

const COPIES: &str = "longshore:copies@1";

async fn wanted(cluster: &Cluster) -> (Lease, Report) {
    cluster.admit(&[job("level1", "a", 4 << 20)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    let report = stored(&lease);
    assert_eq!(cluster.queue.settle(&lease, &report, End::Copy).await.unwrap(), Settled::Done);
    (lease, report)
}

fn copied(first: &Report, lease: &Lease) -> Report {
    let (node_id, path) = (lease.node_id.clone(), first.job.source.as_ref().unwrap().path.clone());
    let copies = vec![report::Copy { node_id, path, stored_at: first.stored_at }];
    Report { revision: lease.revision, copies, ..first.clone() }
}

#[tokio::test]
async fn a_stored_job_is_copied_by_any_other_node_and_reported_again() {
    let cluster = Cluster::start();
    let (first, report) = wanted(&cluster).await;
    let mailbox = cluster.queue.mailbox(&first.job.server_id).await.unwrap();
    assert_eq!(mailbox[&first.job.id].revision, first.revision, "the host's care has ended");
    cluster.queue.acknowledge(&first.job.server_id, &[first.job.id]).await.unwrap();
    assert_eq!(cluster.queue.copy_levels(&node_id("1")).await.unwrap(), [], "it has that one");
    let levels = cluster.queue.copy_levels(&node_id("2")).await.unwrap();
    assert_eq!(levels.iter().map(|level| level.name.as_str()).collect::<Vec<_>>(), [COPIES]);
    let depth = cluster.queue.depths(&[levels[0].name.clone()]).await.unwrap().remove(0);
    assert_eq!((depth.ready, depth.bytes), (1, 4 << 20), "it waits visibly");

    // What is fresh comes first, and it must fit.
    cluster.admit(&[job("level1", "a", 1)]).await;
    assert_eq!(cluster.lease("2", &["level1", COPIES]).await.copy_of, None);
    assert_eq!(idle(cluster.claim("2", &["level1", COPIES], 1 << 20).await), Idle::NoRoom);
    let lease = leased(cluster.claim("2", &["level1", COPIES], ROOM).await);
    assert_eq!((&lease.job, lease.copy_of.as_deref()), (&first.job, Some(&report)));
    assert!(lease.revision > first.revision && lease.attempts == 1);

    // The first node doesn't know that it was told, and asks again, at any time.
    let again = async || cluster.queue.settle(&first, &report, End::Copy).await.unwrap();
    assert_eq!(again().await, Settled::AlreadyYours);
    let _: () = redis::cmd("DEL")
        .arg(format!("longshore:ended:{}", first.job.id))
        .query(&mut cluster.redis.connection())
        .unwrap();
    assert_eq!(again().await, Settled::AlreadyYours, "also when its end is forgotten");
    let second = copied(&report, &lease);
    for settled in [Settled::Done, Settled::AlreadyYours] {
        assert_eq!(cluster.queue.settle(&lease, &second, End::Final).await.unwrap(), settled);
    }
    let reports = cluster.reports().await;
    assert_eq!(reports[..], [report, second]);
    assert!(cluster.queue.mailbox(&first.job.server_id).await.unwrap().is_empty(), "its host is not told again");
    for part in ["job:", "body:", "lane:", "heads:", "classes:", "due:", "timers"] {
        assert_eq!(
            cluster.keys(part).iter().filter(|key| key.contains(&first.job.id.to_string())).count(),
            0,
            "{part}"
        );
    }
    assert_eq!(cluster.queue.leases().await.unwrap().len(), 1, "the fresh one");
}

#[tokio::test]
async fn a_copy_is_not_among_what_could_be_moved() {
    let cluster = Cluster::start();
    wanted(&cluster).await;
    let other = job("level1", "a", 1);
    cluster.admit(std::slice::from_ref(&other)).await;
    assert_eq!(cluster.queue.find(&JobFilter::default(), 9).await.unwrap().total, 2);
    let movable = JobFilter { movable_to: Some("level2".parse().unwrap()), ..JobFilter::default() };
    let found = cluster.queue.find(&movable, 9).await.unwrap();
    assert_eq!(found.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [other.id]);
}

#[tokio::test]
async fn a_copy_that_fails_for_good_is_kept_for_a_person_and_nothing_else_changes() {
    let cluster = Cluster::start();
    let (first, report) = wanted(&cluster).await;
    let reason = Reason::new(ReasonCode::SourceMissing, "node 1 has no such backup");
    let lease = cluster.lease("2", &[COPIES]).await;
    assert_eq!(cluster.queue.retry_later(&lease, Duration::ZERO, &reason).await.unwrap(), Returned::GivenBack);
    let lease = cluster.lease("3", &[COPIES]).await;
    assert_eq!((lease.attempts, lease.copy_of.as_deref()), (2, Some(&report)));
    let settled = cluster.queue.settle(&lease, &failed(&lease, reason), End::Bury).await.unwrap();
    assert_eq!(settled, Settled::Done);
    assert_eq!(cluster.reports().await[..], std::slice::from_ref(&report)[..]);
    let mailbox = cluster.queue.mailbox(&first.job.server_id).await.unwrap();
    assert_eq!(mailbox[&first.job.id].outcome, Outcome::Stored);
    let letters = cluster.queue.dead_letters(0, 10).await.unwrap().letters;
    assert_eq!((letters.len(), letters[0].reason.code.as_str()), (1, "source_missing"));
    assert_eq!(cluster.queue.settle(&first, &report, End::Copy).await.unwrap(), Settled::AlreadyYours);
    assert_eq!(
        cluster.queue.requeue(&first.job.id, &[JobState::Dead], uuid::Uuid::now_v7()).await.unwrap(),
        Changed::Done,
        "by hand"
    );
    let lease = cluster.lease("2", &[COPIES]).await;
    assert_eq!((lease.attempts, lease.copy_of.as_deref()), (1, Some(&report)));
}

#[tokio::test]
async fn a_copy_is_wanted_too_when_the_queue_has_forgotten_the_job() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let lease = cluster.lease("1", &["level1"]).await;
    cluster.redis.connection();
    let _: () = redis::cmd("FLUSHALL").query(&mut cluster.redis.connection()).unwrap();
    let report = stored(&lease);
    for settled in [Settled::Done, Settled::AlreadyYours] {
        assert_eq!(cluster.queue.settle(&lease, &report, End::Copy).await.unwrap(), settled);
    }
    assert_eq!(cluster.lease("2", &[COPIES]).await.copy_of.as_deref(), Some(&report));
}

#[tokio::test]
async fn no_host_can_push_a_job_that_says_it_is_a_copy() {
    let cluster = Cluster::start();
    let mut hostile = job("level1", "a", 1);
    let (_, report) = wanted(&cluster).await;
    hostile.extra.insert("copy_of".into(), serde_json::to_value(&report).unwrap());
    cluster.admit(&[hostile]).await;
    assert_eq!(cluster.lease("2", &["level1"]).await.copy_of, None);
    assert!(cluster.queue.offer(&job(COPIES, "a", 1)).await.is_err());
}

#[tokio::test]
async fn a_first_settle_repeated_after_its_end_is_forgotten_starts_no_other_copy() {
    let cluster = Cluster::start();
    let (first, report) = wanted(&cluster).await;
    let lease = cluster.lease("2", &[COPIES]).await;
    assert_eq!(cluster.queue.settle(&lease, &copied(&report, &lease), End::Final).await.unwrap(), Settled::Done);
    let remembered: i64 = cluster.redis(&["TTL", &format!("longshore:ended:{}/copy", first.job.id)]);
    assert!(remembered > 86_400, "{remembered} s");
    // Longer ago than the first one's end is remembered, and its host has read its mailbox.
    cluster.redis::<()>(&["DEL", &format!("longshore:ended:{}", first.job.id)]);
    cluster.queue.acknowledge(&first.job.server_id, &[first.job.id]).await.unwrap();
    assert_eq!(cluster.queue.settle(&first, &report, End::Copy).await.unwrap(), Settled::AlreadyYours);
    assert_eq!(idle(cluster.claim("3", &[COPIES], ROOM).await), Idle::Empty);
}

#[tokio::test]
async fn cancelling_a_copy_leaves_the_backup_as_it_is() {
    let cluster = Cluster::start();
    let (first, report) = wanted(&cluster).await;
    assert_ne!(cluster.queue.move_to(&first.job.id, &levels(&["level1"])[0]).await.unwrap(), Changed::Done);
    let lease = cluster.lease("2", &[COPIES]).await;
    let reason = Reason::new(ReasonCode::Cancelled, "one is enough");
    for _ in 0..2 {
        assert_eq!(cluster.queue.cancel(&first.job.id, &reason, JobState::ALL).await.unwrap(), Changed::Done);
    }
    assert_eq!(cluster.queue.settle(&lease, &copied(&report, &lease), End::Final).await.unwrap(), Settled::Over);
    assert_eq!(cluster.queue.settle(&first, &report, End::Copy).await.unwrap(), Settled::AlreadyYours);
    assert_eq!(cluster.reports().await, [report]);
}

#[tokio::test]
async fn who_lost_the_first_lease_is_told_that_it_is_over_also_when_the_first_ones_end_is_forgotten() {
    let cluster = Cluster::start();
    cluster.admit(&[job("level1", "a", 1)]).await;
    let stale = cluster.lease("9", &["level1"]).await;
    cluster.redis::<()>(&["ZADD", "longshore:leases", "1", &stale.job.id.to_string()]);
    assert_eq!(cluster.queue.reap_silent(10, Duration::ZERO).await.unwrap(), [stale.job.id]);
    let asked = async || cluster.queue.settle(&stale, &stored(&stale), End::Copy).await.unwrap();
    assert_eq!(asked().await, Settled::Lost, "it waits: what the stale one has may be all there is");
    let first = cluster.lease("1", &["level1"]).await;
    assert_eq!(asked().await, Settled::Lost);
    let report = stored(&first);
    assert_eq!(cluster.queue.settle(&first, &report, End::Copy).await.unwrap(), Settled::Done);
    let forgotten = async || {
        cluster.redis::<()>(&["DEL", &format!("longshore:ended:{}", first.job.id)]);
        cluster.queue.acknowledge(&first.job.server_id, &[first.job.id]).await.unwrap();
    };
    for _ in 0..2 {
        assert_eq!(asked().await, Settled::Over);
        forgotten().await;
    }
    let copy = cluster.lease("2", &[COPIES]).await;
    assert_eq!(cluster.queue.settle(&copy, &copied(&report, &copy), End::Final).await.unwrap(), Settled::Done);
    forgotten().await;
    assert_eq!(asked().await, Settled::Over);
    assert_eq!(cluster.reports().await.len(), 2);
}
