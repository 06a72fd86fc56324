//! The report stream and its readers.

use std::time::Duration;

use longshore_core::{
    HostBeat, Millis, Outcome, ReasonCode, Report,
    queue::{StreamBody, StreamEntry},
    report::Reason,
    shutdown::Shutdown,
};
use longshore_tests::wait_until;

use crate::cluster::{Cluster, job, queue_at};

const NOW: Duration = Duration::ZERO;

fn failure(host: &str) -> Report {
    let mut job = job("level1", host, 0);
    (job.source, job.content) = (None, None);
    let reason = Reason::new(ReasonCode::ScriptWrong, "xtrabackup: 连接失败");
    Report::without_transfer(job, 1_795_143_600_000_001, Outcome::Failed, reason, Millis(1_795_143_600_000))
}

fn ids(entries: &[StreamEntry]) -> Vec<String> {
    entries.iter().map(|entry| entry.id.clone()).collect()
}

fn stop() -> Shutdown {
    Shutdown::new()
}

#[tokio::test]
async fn a_host_s_failure_is_written_once_and_its_mailbox_knows() {
    let cluster = Cluster::start();
    let report = failure("a");
    for _ in 0..2 {
        cluster.queue.report(&report).await.unwrap();
    }
    assert_eq!(cluster.reports().await, std::slice::from_ref(&report));
    let mailbox = cluster.queue.mailbox(&report.job.server_id).await.unwrap();
    assert_eq!(mailbox[&report.job.id].revision, report.revision);
    // And after the agent has cleaned up, for a while.
    cluster.queue.acknowledge(&report.job.server_id, &[report.job.id]).await.unwrap();
    cluster.queue.report(&report).await.unwrap();
    assert_eq!(cluster.reports().await.len(), 1);
}

#[tokio::test]
async fn everything_on_the_stream_is_read_in_order_and_gone_once_acknowledged() {
    let cluster = Cluster::start();
    let beat: HostBeat = serde_json::from_str(include_str!("../../fixtures/host-beat-v1.json")).unwrap();
    let report = failure("a");
    cluster.queue.host_beat(&beat).await.unwrap();
    cluster.queue.report(&report).await.unwrap();
    let mut connection = cluster.redis.connection();
    for kind in ["report", "weather"] {
        let mut command = redis::cmd("XADD");
        let _: String =
            command.arg("longshore:reports").arg("*").arg(&["kind", kind, "body", "{"]).query(&mut connection).unwrap();
    }
    let mut reader = cluster.queue.reports("indexers", "one");
    let lag = reader.lag().await.unwrap();
    assert_eq!((lag.entries, lag.pending), (4, 0));
    let age = Millis::now().since(lag.oldest_at.unwrap());
    assert!(age < Duration::from_secs(60), "{age:?}");

    let entries = reader.read(10, NOW, &stop()).await.unwrap();
    assert_eq!(entries[0].body, StreamBody::HostBeat(Box::new(beat)));
    assert_eq!(entries[1].body, StreamBody::Report(Box::new(report)));
    assert!(matches!(&entries[2].body, StreamBody::Undecodable { bytes, .. } if bytes == b"{"));
    assert!(matches!(&entries[3].body, StreamBody::Undecodable { why, .. } if why.contains("weather")));
    assert_eq!(reader.lag().await.unwrap().pending, 4);

    reader.acknowledge(&ids(&entries)).await.unwrap();
    assert_eq!(reader.lag().await.unwrap(), longshore_core::queue::Backlog::default());
    assert!(reader.read(10, NOW, &stop()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_this_version_cannot_know_is_given_out_to_be_set_aside() {
    let cluster = Cluster::start();
    let beat: HostBeat = serde_json::from_str(include_str!("../../fixtures/host-beat-v1.json")).unwrap();
    let beat = serde_json::to_vec(&HostBeat { v: 2, ..beat }).unwrap();
    let report = serde_json::to_vec(&Report { v: 2, ..failure("a") }).unwrap();
    let fields = [
        [b"kind".as_slice(), b"host_beat", b"body", &beat],
        [b"kind".as_slice(), b"report", b"body", &report],
        [b"\xff".as_slice(), b"report", b"body", b"{"],
    ];
    for fields in fields {
        let mut command = redis::cmd("XADD");
        let _: String =
            command.arg("longshore:reports").arg("*").arg(&fields).query(&mut cluster.redis.connection()).unwrap();
    }
    let mut reader = cluster.queue.reports("indexers", "one");
    let entries = reader.read(10, NOW, &stop()).await.unwrap();
    assert_eq!(entries.len(), 3);
    let why = |at: usize| match &entries[at].body {
        StreamBody::Undecodable { why, .. } => why.as_str(),
        other => panic!("{other:?}"),
    };
    assert_eq!((why(0), why(1)), ("version 2; this build reads 1", "version 2; this build reads 1"));
    assert!(why(2).contains("kind"), "{}", why(2));
}

#[tokio::test]
async fn two_consumers_share_the_stream() {
    let cluster = Cluster::start();
    for _ in 0..10 {
        cluster.queue.report(&failure("a")).await.unwrap();
    }
    let mut one = cluster.queue.reports("indexers", "one");
    let mut two = cluster.queue.reports("indexers", "two");
    let mut seen = ids(&one.read(4, NOW, &stop()).await.unwrap());
    seen.extend(ids(&two.read(100, NOW, &stop()).await.unwrap()));
    assert_eq!(seen.len(), 10);
    seen.dedup();
    assert_eq!(seen.len(), 10);
}

#[tokio::test]
async fn what_a_killed_reader_had_in_hand_comes_first_after_its_restart() {
    let cluster = Cluster::start();
    for _ in 0..5 {
        cluster.queue.report(&failure("a")).await.unwrap();
    }
    let mut reader = cluster.queue.reports("indexers", "one");
    let first = ids(&reader.read(2, NOW, &stop()).await.unwrap());
    let second = ids(&reader.read(2, NOW, &stop()).await.unwrap());
    reader.acknowledge(&first[..1]).await.unwrap();
    drop(reader);

    let mut reader = cluster.queue.reports("indexers", "one");
    let mut again = Vec::new();
    for _ in 0..4 {
        again.extend(ids(&reader.read(2, NOW, &stop()).await.unwrap()));
    }
    assert_eq!(again[..3], [&first[1..], &second[..]].concat());
    assert_eq!(again.len(), 4, "and then what nobody has read");
    // One that was deleted while it was pending is nobody's any more.
    let () = redis::cmd("XDEL").arg("longshore:reports").arg(&again[0]).query(&mut cluster.redis.connection()).unwrap();
    let mut reader = cluster.queue.reports("indexers", "one");
    assert_eq!(ids(&reader.read(10, NOW, &stop()).await.unwrap()), again[1..]);
    assert_eq!(reader.lag().await.unwrap().pending, 3);
}

#[tokio::test]
async fn what_a_dead_consumer_had_in_hand_is_adopted_once() {
    let cluster = Cluster::start();
    for _ in 0..5 {
        cluster.queue.report(&failure("a")).await.unwrap();
    }
    let mut dead = cluster.queue.reports("indexers", "dead");
    let had = ids(&dead.read(3, NOW, &stop()).await.unwrap());
    let mut alive = cluster.queue.reports("indexers", "alive");
    let mut own = ids(&alive.read(10, NOW, &stop()).await.unwrap());
    assert!(alive.adopt(Duration::from_secs(60), 100).await.unwrap().is_empty(), "nobody is dead for a minute yet");
    let adopted = ids(&alive.adopt(NOW, 100).await.unwrap());
    assert_eq!(adopted, had);
    assert!(alive.adopt(NOW, 100).await.unwrap().is_empty());
    own.extend(adopted);
    alive.acknowledge(&own).await.unwrap();
    assert_eq!(alive.lag().await.unwrap().entries, 0);
}

#[tokio::test]
async fn a_reader_waits_for_the_first_entry_and_no_longer_than_told() {
    let cluster = Cluster::start();
    let mut reader = cluster.queue.reports("indexers", "one");
    let started = std::time::Instant::now();
    assert!(reader.read(10, Duration::from_millis(250), &stop()).await.unwrap().is_empty());
    assert!(started.elapsed() >= Duration::from_millis(250));

    let looked = || {
        let commands: String = cluster.redis(&["INFO", "commandstats"]);
        let calls = commands.split_once("cmdstat_xreadgroup:calls=").unwrap().1.split_once(',').unwrap().0;
        calls.parse::<u64>().unwrap()
    };
    let (before, never) = (looked(), stop());
    let (read, ()) = tokio::join!(reader.read(10, Duration::from_secs(30), &never), async {
        wait_until("it has looked in vain", Duration::from_secs(30), async || looked() > before + 1).await;
        cluster.queue.report(&failure("a")).await.unwrap();
    });
    assert_eq!(read.unwrap().len(), 1);

    let shutdown = Shutdown::new();
    let stopper = shutdown.clone();
    let waiting = tokio::spawn(async move { reader.read(10, Duration::from_secs(3600), &shutdown).await });
    stopper.request();
    assert!(waiting.await.unwrap().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_after_its_connection_was_cut_and_after_redis_was_restarted() {
    let cluster = Cluster::start_durable();
    let mut reader = cluster.queue.reports("indexers", "one");
    let mut seen = Vec::new();
    for round in 0..6 {
        for _ in 0..20 {
            queue_at(&cluster.redis).report(&failure("a")).await.unwrap();
        }
        let batch = ids(&reader.read(15, NOW, &stop()).await.unwrap_or_default());
        seen.extend(batch.iter().cloned());
        match round {
            1 | 4 => {
                let mut command = redis::cmd("CLIENT");
                let () = command.arg(&["KILL", "TYPE", "normal"]).query(&mut cluster.redis.connection()).unwrap();
            }
            3 => {
                cluster.redis.kill();
                cluster.redis.start_again();
            }
            _ => {}
        }
        if round % 2 == 0 {
            wait_until("the batch is acknowledged", Duration::from_secs(10), async || {
                reader.acknowledge(&batch).await.is_ok()
            })
            .await;
        }
    }
    wait_until("everything is read", Duration::from_secs(20), async || {
        seen.extend(ids(&reader.read(15, NOW, &stop()).await.unwrap_or_default()));
        seen.len() >= 120
    })
    .await;
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (120, 120), "each once, to a reader that was not restarted itself");
}

#[tokio::test]
async fn what_redis_forgot_was_acknowledged_comes_again_to_a_reader_that_lives_on() {
    let cluster = Cluster::start();
    let mut reader = cluster.queue.reports("indexers", "one");
    cluster.queue.report(&failure("a")).await.unwrap();
    let first = ids(&reader.read(10, NOW, &stop()).await.unwrap());
    let written = cluster.redis.written();
    reader.acknowledge(&first).await.unwrap();
    cluster.redis.kill();
    cluster.redis.forget_since(&written);
    cluster.redis.start_again();
    // The connection is shared: that it broke is seen by another.
    wait_until("another has connected", Duration::from_secs(10), async || cluster.queue.now_micros().await.is_ok())
        .await;
    let other_is_dead = Duration::from_secs(300);
    assert!(reader.adopt(other_is_dead, 10).await.unwrap().is_empty());
    assert_eq!(ids(&reader.read(10, NOW, &stop()).await.unwrap()), first);
    reader.acknowledge(&first).await.unwrap();
    assert_eq!(reader.lag().await.unwrap().entries, 0);
}

#[tokio::test]
async fn a_stream_that_was_removed_is_made_anew() {
    let cluster = Cluster::start();
    let mut reader = cluster.queue.reports("indexers", "one");
    assert!(reader.read(1, NOW, &stop()).await.unwrap().is_empty());
    let () = redis::cmd("FLUSHALL").query(&mut cluster.redis.connection()).unwrap();
    cluster.queue.report(&failure("a")).await.unwrap();
    let mut found = Vec::new();
    wait_until("the group is there again", Duration::from_secs(5), async || {
        found = reader.read(10, NOW, &stop()).await.unwrap_or_default();
        !found.is_empty()
    })
    .await;
    assert_eq!(found.len(), 1);
}
