//! What operators do with jobs and dead letters, over HTTP, and how what waits is counted.

use longshore_core::{
    Outcome, ReasonCode,
    queue::{End, Patience},
    report::Reason,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, beat, says, stored};

#[tokio::test]
async fn a_change_is_previewed_and_done_to_what_was_seen_alone() {
    let server = Server::start().await;
    for host in ["a", "a", "b"] {
        server.job(host, 1000).await;
    }
    let body = json!({"filter": {"server_id": "a"}, "preview": true});
    let seen = server.change("jobs/hold", body).await;
    assert_eq!((&seen["matched"], &seen["bytes"], &seen["changed"]), (&json!(2), &json!(2000), &json!(0)), "{seen}");
    assert_eq!(seen["items"].as_array().unwrap().len(), 2);
    assert_eq!(server.get("/api/v1/jobs?state=held").await["total"], 0, "a preview changes nothing");
    // Admitted a moment later: not seen, not changed.
    let until = seen["admitted_until"].as_i64().unwrap();
    longshore_tests::wait_until("the clock goes on", std::time::Duration::from_secs(5), async || {
        server.queue.now_micros().await.unwrap() / 1000 > until as u64
    })
    .await;
    let late = server.job("a", 1000).await;
    let body = json!({"filter": {"server_id": "a"}, "admitted_until": until, "why": "a test"});
    assert_eq!(server.change("jobs/hold", body).await["changed"], 2);
    let held = server.get("/api/v1/jobs?state=held&server_id=a").await;
    assert_eq!((&held["total"], &held["bytes"]), (&json!(2), &json!(2000)));
    let queues = server.get("/api/v1/queues").await;
    let level = &queues["clusters"][0]["levels"][0];
    assert_eq!((&level["held"], &level["ready"], &level["waiting"]), (&json!(2), &json!(2), &json!(4)), "{queues}");
    let why = server.why(held["items"][0]["id"].as_str().unwrap()).await;
    says(&why, "held by alice@control (127.0.0.1)");
    says(&why, "a test");
    let others = server.change("jobs/release", json!({"filter": {"jobs": late.id.to_string()}})).await;
    assert_eq!((&others["matched"], &others["others"]), (&json!(0), &json!({"ready": 1})));
    assert_eq!(server.change("jobs/release", json!({"all": true})).await["changed"], 2);
    assert_eq!(server.get("/api/v1/jobs?state=ready").await["total"], 4);
}

#[tokio::test]
async fn what_can_not_be_meant_is_refused_and_only_the_token_changes() {
    let server = Server::start().await;
    server.job("a", 1).await;
    let post = |path: &str, body: Value| server.request(Method::POST, &format!("/api/v1/{path}")).json(&body);
    for (path, body, status, wanted) in [
        ("jobs/hold", json!({}), 422, "which jobs"),
        ("jobs/hold", json!({"filter": {"state": "leased"}}), 422, "ready, delayed"),
        ("jobs/hold", json!({"filter": {"state": "none"}}), 400, "no state"),
        ("jobs/hold", json!({"all": true, "to": "level1"}), 422, "to:"),
        ("jobs/move", json!({"all": true}), 422, "to:"),
        ("jobs/move", json!({"all": true, "to": "level9"}), 422, "level1"),
        ("jobs/cancel", json!({"filter": {"jobs": "x"}}), 400, "job's id"),
        ("jobs/cancel", json!({"filter": {"host": "a"}}), 422, "host"),
        ("jobs/cancel", json!({"filter": {"cluster": "none"}, "all": true}), 404, "none"),
        ("jobs/melt", json!({"all": true}), 400, "melt"),
        // An empty variable in a script is not every job.
        ("jobs/cancel", json!({"filter": {"jobs": ","}}), 422, "jobs: no id"),
        ("jobs/cancel", json!({"filter": {"jobs": " "}, "all": true}), 422, "jobs: no id"),
        ("jobs/requeue", json!({"filter": {"state": "", "server_id": "a"}}), 422, "state: no state"),
        ("dead-letters/drop", json!({"filter": {"jobs": ","}}), 422, "jobs: no id"),
        ("dead-letters/drop", json!({"filter": {"state": "ready"}}), 422, "state: dead letters"),
        ("jobs/cancel", json!({"all": true, "why": "x".repeat(1025)}), 422, "why: longer"),
        ("jobs/cancel", json!({"filter": {"jobs": "x,".repeat(5001)}}), 422, "at most 5000"),
        ("jobs/cancel", json!({"filter": {"server_id": "a", "limit": 1}}), 422, "limit:"),
    ] {
        let problem = server.problem(post(path, body), status).await;
        assert!(problem["detail"].as_str().unwrap().contains(wanted), "{wanted} in {problem}");
    }
    let cookie = format!("longshore={}", server.keys.cookie());
    let page = server.bare(Method::POST, "/api/v1/jobs/cancel").header("cookie", cookie).json(&json!({"all": true}));
    server.problem(page, 401).await;
    assert_eq!(server.get("/api/v1/jobs").await["total"], 1);
    assert_eq!(server.get(&format!("/api/v1/jobs?older_than_seconds={}", u64::MAX)).await["total"], 0);
}

#[tokio::test]
async fn jobs_are_moved_requeued_and_cancelled_by_id_and_filter() {
    let server = Server::start().await;
    let small = server.job("a", 10).await;
    server.job("b", 1 << 30).await;
    let mut client = redis::Client::open(server.redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("SADD").arg("longshore:queues").arg("level2").query_async(&mut client).await.unwrap();
    let moved = server.change("jobs/move", json!({"filter": {"larger_than_bytes": 1000}, "to": "level2"})).await;
    assert_eq!(moved["changed"], 1);
    let again = server.change("jobs/move", json!({"filter": {"larger_than_bytes": 1000}, "to": "level2"})).await;
    assert_eq!(again["matched"], 0, "what is there already is not found again for ever");
    assert_eq!(server.get("/api/v1/jobs?queue=level2").await["total"], 1);
    let lease = server.claim("5", 1 << 20).await.unwrap();
    assert_eq!(lease.job.id, small.id);
    // By the way, a transfer is not begun anew; by name it is.
    assert_eq!(server.change("jobs/requeue", json!({"filter": {"server_id": "a"}})).await["matched"], 0);
    let requeued = server.change("jobs/requeue", json!({"filter": {"jobs": small.id.to_string()}})).await;
    assert_eq!(requeued["changed"], 1, "{requeued}");
    let body = json!({"filter": {"type": "mysql"}, "why": "the disk was empty"});
    assert_eq!(server.change("jobs/cancel", body).await["changed"], 2);
    assert_eq!(server.get("/api/v1/jobs").await["total"], 0);
    let why = server.why(small.id).await;
    assert_eq!(why["state"], "cancelled");
    says(&why, "on the way into the catalog");
}

#[tokio::test]
async fn a_move_by_filter_is_not_for_second_copies() {
    let server = Server::start().await;
    let copy = server.job("a", 10).await;
    let lease = server.claim("5", 1 << 20).await.unwrap();
    let mut report = stored("1/mysql/1", std::time::Duration::ZERO);
    (report.job, report.revision) = (lease.job.clone(), lease.revision);
    server.queue.settle(&lease, &report, End::Copy).await.unwrap();
    server.job("a", 10).await;
    let mut connection = server.redis.connection();
    let () = redis::cmd("SADD").arg("longshore:queues").arg("level2").query(&mut connection).unwrap();
    let moved = server.change("jobs/move", json!({"all": true, "to": "level2"})).await;
    assert_eq!((&moved["matched"], &moved["changed"], &moved["left"]), (&json!(1), &json!(1), &json!([])), "{moved}");
    let named = server.change("jobs/move", json!({"filter": {"jobs": copy.id.to_string()}, "to": "level2"})).await;
    assert_eq!(named["left"][0]["why"], "it is a second copy of what is stored", "{named}");
}

#[tokio::test]
async fn a_level_that_the_configuration_does_not_name_is_shown_and_moved_to_all_the_same() {
    let named = ["level2", "level3"].map(|name| name.parse().unwrap());
    let server = Server::start_with(|settings| settings.queues = named.to_vec()).await;
    server.job("a", 1000).await;
    let queues = server.get("/api/v1/queues").await;
    let levels: Vec<_> = queues["clusters"][0]["levels"].as_array().unwrap().iter().collect();
    let seen: Vec<_> = levels.iter().map(|level| (level["queue"].as_str().unwrap(), &level["ready"])).collect();
    assert_eq!(seen, [("level2", &json!(0)), ("level3", &json!(0)), ("level1", &json!(1))], "{queues}");
    for to in ["level3", "level1"] {
        let moved = server.change("jobs/move", json!({"all": true, "to": to})).await;
        assert_eq!(moved["changed"], 1, "{to}: {moved}");
    }
}

#[tokio::test]
async fn how_long_a_level_lasts_is_not_foretold_while_no_node_claims() {
    let server = Server::start().await;
    server.job("a", 1000).await;
    let lasts = async |weight: u32, paused: Option<&str>| {
        let mut beat = beat("5");
        beat.by_queue = [("level1".parse().unwrap(), 100)].into();
        (beat.weight, beat.paused) = (weight, paused.map(str::to_owned));
        server.queue.beat(&beat).await.unwrap();
        server.get("/api/v1/queues").await["clusters"][0]["levels"][0]["eta_seconds"].clone()
    };
    assert_eq!(lasts(100, None).await, 10);
    assert_eq!(lasts(0, None).await, Value::Null);
    assert_eq!(lasts(100, Some("the disk is full")).await, Value::Null);
}

#[tokio::test]
async fn an_age_is_counted_from_the_preview_not_from_the_change() {
    let server = Server::start().await;
    server.job("a", 1).await;
    let started = server.queue.now_micros().await.unwrap() / 1000;
    let body =
        |until: Option<i64>| json!({"filter": {"older_than_seconds": 1}, "preview": true, "admitted_until": until});
    let seen = server.change("jobs/hold", body(None)).await;
    let until = seen["admitted_until"].as_i64().unwrap();
    let now = server.queue.now_micros().await.unwrap() / 1000;
    assert!((started as i64 - 1000..=now as i64 - 1000).contains(&until), "{until} {started} {now}");
    let again = server.change("jobs/hold", body(Some(until))).await;
    assert_eq!(again["admitted_until"], until);
    let letters = server.change("dead-letters/drop", body(Some(until))).await;
    assert_eq!(letters["admitted_until"], until);
}

#[tokio::test]
async fn dead_letters_are_retried_and_dropped() {
    let server = Server::start().await;
    for host in ["a", "b"] {
        server.job(host, 10).await;
        let lease = server.claim("5", 1 << 20).await.unwrap();
        let reason = Reason::new(ReasonCode::SourceMissing, "no such file");
        let mut report = stored("1/mysql/1", std::time::Duration::ZERO);
        (report.job, report.revision) = (lease.job.clone(), lease.revision);
        (report.outcome, report.reason) = (Outcome::Failed, Some(reason));
        server.queue.settle(&lease, &report, End::Bury).await.unwrap();
    }
    let letters = server.get("/api/v1/dead-letters").await;
    let of_b = letters["items"][0]["id"].as_str().unwrap();
    let why = server.why(of_b.strip_prefix("job:").unwrap()).await;
    says(&why, "given up after 1 try: source_missing: no such file");
    let preview = server.change("dead-letters/drop", json!({"filter": {"jobs": of_b}, "preview": true})).await;
    assert_eq!((&preview["matched"], &preview["items"][0]["id"]), (&json!(1), &json!(of_b)));
    assert_eq!(server.change("dead-letters/drop", json!({"filter": {"jobs": of_b}})).await["changed"], 1);
    assert_eq!(server.change("dead-letters/retry", json!({"filter": {"server_id": "b"}})).await["matched"], 0);
    assert_eq!(server.change("dead-letters/retry", json!({"filter": {"server_id": "a"}})).await["changed"], 1);
    assert_eq!(server.get("/api/v1/dead-letters").await["total"], 0);
    assert_eq!(server.get("/api/v1/jobs?state=ready").await["total"], 1);
}

#[tokio::test]
async fn what_waits_is_counted_by_what_keeps_it() {
    let server = Server::start().await;
    let jobs = async |state: &str| {
        let name = format!("longshore_dashboard_jobs{{cluster=\"default\",queue=\"level1\",state=\"{state}\"}}");
        server.metric(&name).await
    };
    let of_cluster =
        async |name: &str| server.metric(&format!("longshore_dashboard_{name}{{cluster=\"default\"}}")).await;
    let nodes = async |state: &str| {
        server.metric(&format!("longshore_dashboard_nodes{{cluster=\"default\",state=\"{state}\"}}")).await
    };
    // How long held ones wait is not known; that is not 0.
    let oldest = "longshore_dashboard_oldest_seconds{cluster=\"default\",queue=\"level1\"}";
    server.job("b", 1000).await;
    server.change("jobs/hold", json!({"filter": {"server_id": "b"}})).await;
    assert_eq!(server.metric(oldest).await, None);
    for host in ["a", "a", "a"] {
        server.job(host, 1000).await;
    }
    assert!(server.metric(oldest).await.is_some_and(|seconds| seconds < 60.0));
    let reason = Reason::new(ReasonCode::Unreachable, "no route to host");
    let rest = std::time::Duration::from_secs(60);
    let patience = Patience { first_rest: rest, longest_rest: rest, give_up: 100 * rest };
    let [first, second] = [server.claim("5", 1 << 20).await.unwrap(), server.claim("5", 1 << 20).await.unwrap()];
    server.queue.retry_later(&first, rest, &reason).await.unwrap();
    assert_eq!([jobs("ready").await, jobs("held").await, jobs("delayed").await, jobs("leased").await], [Some(1.0); 4]);
    assert_eq!((jobs("inbox").await, of_cluster("resting_hosts").await), (Some(0.0), Some(0.0)));
    server.queue.host_failed(&second, patience, &reason).await.unwrap();
    assert_eq!((jobs("ready").await, of_cluster("resting_hosts").await), (Some(2.0), Some(1.0)));
    assert_eq!(of_cluster("dead_letters").await, Some(0.0));
    let kept_waiting = async |reason: &str| {
        server
            .metric(&format!("longshore_dashboard_kept_waiting_total{{cluster=\"default\",reason=\"{reason}\"}}"))
            .await
    };
    assert_eq!([kept_waiting("rests").await, kept_waiting("room").await], [Some(0.0); 2]);
    assert!(server.claim("5", 1 << 20).await.is_none());
    assert_eq!([kept_waiting("rests").await, kept_waiting("room").await], [Some(1.0), Some(0.0)]);
    for (node, weight, paused) in
        [("5", 100, None), ("6", 0, Some("its weight is 0")), ("7", 100, Some("the disk is full"))]
    {
        let mut beat = beat(node);
        (beat.weight, beat.paused) = (weight, paused.map(str::to_owned));
        if node != "6" {
            beat.closed.insert("level1".parse().unwrap(), "the level's window is closed".to_owned());
        }
        server.queue.beat(&beat).await.unwrap();
    }
    let closed = "longshore_dashboard_closed_nodes{cluster=\"default\",queue=\"level1\"}";
    assert_eq!(server.metric(closed).await, Some(2.0));
    let counted = [nodes("claiming").await, nodes("draining").await, nodes("paused").await, nodes("silent").await];
    assert_eq!(counted, [Some(1.0), Some(1.0), Some(1.0), Some(0.0)]);
    server.redis.stop();
    assert_eq!((jobs("ready").await, nodes("claiming").await), (None, None), "nobody knows; that is not 0");
}
