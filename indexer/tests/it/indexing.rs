//! From the stream into the catalog, with every part killed or away in between.

use std::{
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use longshore_catalog::{Freshness, FreshnessQuery};
use longshore_core::{HostBeat, Millis, Report};
use longshore_tests::{Elasticsearch, wait_until};

use crate::world::{SOON, World, failed, report, reports};

async fn server() -> &'static Elasticsearch {
    tokio::task::spawn_blocking(Elasticsearch::shared).await.unwrap()
}

async fn reports_and_beats_reach_the_catalog(world: World) {
    let mut expected = reports(120);
    expected.push(failed("3300", 500));
    let beat: HostBeat = serde_json::from_str(include_str!("../../../core/fixtures/host-beat-v1.json")).unwrap();
    world.queue.host_beat(&beat).await.unwrap();
    world.report(&expected).await;
    let indexer = world.start("one");
    indexer.healthy().await;
    world.drained().await;
    world.has_exactly(&expected).await;

    let fresh = world.catalog.freshness(&FreshnessQuery::default()).await.unwrap().items;
    let mut summary = Freshness::summary(&expected);
    assert_eq!(fresh.len(), summary.len());
    let host = world.catalog.host(&beat.server_id).await.unwrap().unwrap();
    assert_eq!(host.beat, beat);
    assert!(Millis::now().since(host.seen_at).as_secs() < 60, "{}", host.seen_at);
    for (one, other) in fresh.iter().zip(&mut summary) {
        other.host_seen = (one.key.server_id == beat.server_id).then_some(host.seen_at);
        assert_eq!(one, other);
    }
    wait_until("all is counted", SOON, async || {
        let metrics = indexer.metrics().await;
        metrics.contains("longshore_indexer_entries_total{kind=\"report\"} 121")
            && metrics.contains("longshore_indexer_entries_total{kind=\"host_beat\"} 1")
            && metrics.contains("longshore_indexer_puts_total{outcome=\"written\"} 121")
    })
    .await;
    // What comes later comes by itself.
    let later = report("3399", 1);
    world.report(std::slice::from_ref(&later)).await;
    wait_until("it is there", SOON, async || world.catalog.by_id(later.job.id).await.unwrap().is_some()).await;
    world.drained().await;
    assert_eq!(indexer.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_and_beats_reach_sqlite() {
    reports_and_beats_reach_the_catalog(World::on_sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_and_beats_reach_elasticsearch() {
    reports_and_beats_reach_the_catalog(World::on_elasticsearch(server().await)).await;
}

/// Killed at every border between two steps, and started again each time.
async fn killed_at_each_step_nothing_is_lost_or_doubled(world: World) {
    let mut expected: Vec<Report> = Vec::new();
    let mut unfit = report("3300", 1);
    unfit.job.made_at = Millis(-1);
    for step in ["read", "written", "freshness", "set_aside", "acknowledged"] {
        let more = reports(60);
        world.report(&more).await;
        let mut refused = unfit.clone();
        refused.job.id = longshore_core::JobId::fresh();
        world.report(&[refused]).await;
        expected.extend(more);
        let killed = world.start_with("one", Some(&format!("indexer.{step}"))).ended();
        assert_eq!(killed.signal(), Some(9), "{step}");
    }
    let indexer = world.start("one");
    world.drained().await;
    world.has_exactly(&expected).await;
    let dead = world.queue.dead_reports().await.unwrap();
    assert_eq!(dead.len(), 5);
    let fresh = world.catalog.freshness(&FreshnessQuery::default()).await.unwrap().items;
    let summary = Freshness::summary(&expected);
    assert_eq!(fresh, summary);
    assert_eq!(indexer.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_each_step_nothing_is_lost_or_doubled_in_sqlite() {
    killed_at_each_step_nothing_is_lost_or_doubled(World::on_sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_each_step_nothing_is_lost_or_doubled_in_elasticsearch() {
    killed_at_each_step_nothing_is_lost_or_doubled(World::on_elasticsearch(server().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_elasticsearch_is_away_the_stream_waits_and_health_says_so() {
    let server = tokio::task::spawn_blocking(Elasticsearch::start).await.unwrap();
    let world = World::on_elasticsearch(&server);
    let first = reports(30);
    world.report(&first).await;
    let indexer = world.start("one");
    indexer.healthy().await;
    world.drained().await;

    server.kill();
    let second = reports(200);
    world.report(&second).await;
    wait_until("the indexer says that it waits", SOON, async || {
        let Some((status, health)) = indexer.health().await else { return false };
        let parts: Vec<_> =
            health["troubles"].as_array().unwrap().iter().map(|t| t["part"].as_str().unwrap()).collect();
        status == 503 && health["status"] == "waiting" && parts == ["catalog", "writing"]
    })
    .await;
    let (_, health) = indexer.health().await.unwrap();
    let why = health["troubles"][0]["why"].as_str().unwrap();
    assert!(why.contains(&server.url()) && why.contains("refused"), "{why}");
    assert!(indexer.metrics().await.contains("longshore_indexer_up{part=\"writing\"} 0"));
    assert_eq!(world.on_stream().await, 200);

    // A restart while it is away loses nothing either, and the new one waits in the same way.
    assert_eq!(indexer.stop().code(), Some(0));
    let indexer = world.start("one");
    wait_until("the new one answers", SOON, async || indexer.health().await.is_some_and(|(status, _)| status == 503))
        .await;

    tokio::task::spawn_blocking(move || {
        server.start_again();
        server
    })
    .await
    .map(|server| async move {
        world.drained().await;
        indexer.healthy().await;
        world.has_exactly(&[first, second].concat()).await;
        drop(server);
    })
    .unwrap()
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_restarted_in_the_middle_loses_nothing() {
    let world = World::on_sqlite();
    let indexer = world.start("one");
    indexer.healthy().await;
    let first = reports(100);
    world.report(&first).await;
    world.redis.kill();
    wait_until("the indexer says that it waits", SOON, async || {
        indexer.health().await.is_some_and(|(status, health)| status == 503 && health["troubles"][0]["part"] == "redis")
    })
    .await;
    world.redis.start_again();
    let second = reports(100);
    world.report(&second).await;
    world.drained().await;
    indexer.healthy().await;
    world.has_exactly(&[first, second].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_or_unreadable_is_set_aside_and_the_rest_goes_on() {
    let world = World::on_sqlite();
    let good = reports(20);
    let mut unfit = report("3300", 1);
    unfit.revision = u64::MAX;
    world.report(&good[..10]).await;
    world.report(std::slice::from_ref(&unfit)).await;
    let mut connection = world.redis.connection();
    let _id: String = redis::cmd("XADD")
        .arg(&["longshore:reports", "*", "kind", "report", "body", "{no json"])
        .query(&mut connection)
        .unwrap();
    world.report(&good[10..]).await;
    let indexer = world.start("one");
    indexer.healthy().await;
    world.drained().await;
    world.has_exactly(&good).await;
    assert!(indexer.log().contains("refused by the catalog"), "{}", indexer.log());

    let output = world.ask(&["refused"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("revision 18446744073709551615 is too large"), "{text}");
    assert!(text.contains(&unfit.job.id.to_string()) && text.contains("8 bytes of \"report\""), "{text}");
    // Tried again, they are refused again; thrown away, they are gone.
    assert_eq!(world.ask(&["refused", "--retry"]).status.code(), Some(0));
    wait_until("they are back", SOON, async || {
        world.on_stream().await == 0 && world.queue.dead_reports().await.unwrap().len() == 2
    })
    .await;
    for dead in world.queue.dead_reports().await.unwrap() {
        assert_eq!(world.ask(&["refused", "--drop", &dead.id]).status.code(), Some(0));
    }
    let output = world.ask(&["refused"]);
    assert_eq!(
        (output.status.code(), String::from_utf8(output.stdout).unwrap()),
        (Some(0), "none is refused\n".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_indexers_share_the_stream_and_take_over_from_a_dead_one() {
    let world = World::on_elasticsearch(server().await);
    let first = reports(100);
    world.report(&first).await;
    // It dies with a batch in hand, and never comes back.
    assert_eq!(world.start_with("dead", Some("indexer.read")).ended().signal(), Some(9));
    let died_at = Instant::now();
    let (one, two) = (world.start("one"), world.start("two"));
    let second = reports(400);
    world.report(&second).await;
    wait_until("all but what the dead one has", SOON, async || world.on_stream().await <= 100).await;
    // Taken over after ten seconds, by those who look once a minute: so they are asked to look at a start.
    wait_until("the dead one's batch has been idle for long enough", SOON, async || {
        died_at.elapsed() > Duration::from_secs(11)
    })
    .await;
    assert_eq!(one.stop().code(), Some(0));
    let one = world.start("one");
    world.drained().await;
    world.has_exactly(&[first, second].concat()).await;
    drop((one, two));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_indexer_on_one_sqlite_catalog_is_refused() {
    let world = World::on_sqlite();
    let first = world.start("one");
    first.healthy().await;
    let output = world.ask(&["run"]);
    assert_eq!(output.status.code(), Some(69));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("another longshore-indexer"), "{text}");
    assert_eq!(world.ask(&["check"]).status.code(), Some(0));
}

#[tokio::test]
async fn check_names_what_is_away() {
    let world = World::on_sqlite();
    world.redis.stop();
    let output = world.ask(&["check"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(text.contains("wrong  queue") && text.contains("not there yet"), "{text}");
}
