//! What operators do with jobs and dead letters, and why a job waits, over HTTP.

use longshore_core::{
    ContentKind, Job, JobId, NodeId, Outcome, ReasonCode,
    queue::{BatchLimit, ClaimRequest, Claimed, End, HostLimits, Lease, Level, Patience, Room},
    report::Reason,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, beat, fixture, stored};

impl Server {
    /// Offers and admits a job of so many bytes.
    async fn job(&self, host: &str, size_bytes: u64) -> Job {
        let mut job: Job = serde_json::from_str(&fixture("job-v1.json")).unwrap();
        job.id = JobId::fresh();
        job.server_id = host.parse().unwrap();
        job.queue = "level1".parse().unwrap();
        job.content.as_mut().unwrap().size_bytes = size_bytes;
        self.queue.offer(&job).await.unwrap();
        self.queue.admit(&[level1()], 9).await.unwrap();
        job
    }

    /// What a node gets that has so much room.
    async fn claim(&self, node: &str, room_bytes: u64) -> Option<Lease> {
        self.claim_with(node, Room { bytes: room_bytes, inodes: u64::MAX, ceiling_bytes: 1 << 40 }).await
    }

    async fn claim_with(&self, node: &str, room: Room) -> Option<Lease> {
        let (node_id, levels): (NodeId, _) = (node.parse().unwrap(), [level1()]);
        let request = ClaimRequest {
            node_id: &node_id,
            request_id: uuid::Uuid::now_v7(),
            levels: &levels,
            room,
            weight: 100,
            free_slots: 1,
            lease: std::time::Duration::from_secs(60),
            host: HostLimits { transfers: 2, starts_per_second: 0.0 },
            batch: BatchLimit { jobs: 1, bytes: u64::MAX },
        };
        match self.queue.claim(&request).await.unwrap() {
            Claimed::Jobs(mut leases) => leases.pop(),
            Claimed::Nothing(_) => None,
        }
    }

    async fn change(&self, action: &str, body: Value) -> Value {
        let request = self.request(Method::POST, &format!("/api/v1/{action}")).json(&body);
        self.json(request.header("x-longshore-operator", "alice@control"), 200).await
    }

    /// The value of one metric, by its whole name with labels.
    async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.map(|value| value.parse().unwrap())
    }

    async fn why(&self, what: impl std::fmt::Display) -> Value {
        self.get(&format!("/api/v1/why/{what}")).await
    }
}

fn level1() -> Level {
    Level::new("level1".parse().unwrap())
}

#[track_caller]
fn says(why: &Value, wanted: &str) {
    assert!(why["answer"].as_str().unwrap().contains(wanted), "{wanted:?} in {why:#}");
}

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
async fn why_a_job_waits_is_one_sentence_and_the_facts() {
    let server = Server::start().await;
    let job = server.job("a", 1 << 30).await;
    says(&server.why(job.id).await, "no node was ever heard of");
    let beats = async |paused: Option<&str>| {
        let mut beat = beat("5");
        (beat.running, beat.paused) = (Vec::new(), paused.map(str::to_owned));
        server.queue.beat(&beat).await.unwrap();
    };
    beats(None).await;
    assert!(server.claim("5", 1 << 20).await.is_none());
    let why = server.why(job.id).await;
    says(
        &why,
        "no node has room for it: it needs 1.0 GiB, and the most, on node 5, is 1.0 MiB, which is 1023 MiB too little.",
    );
    assert_eq!(why["nodes"][0]["code"], "no_room");
    assert_eq!(why["instance"], "a/mysql/3306");
    beats(Some("the disk is read-only")).await;
    says(&server.why(job.id).await, "every node is paused; node 5: the disk is read-only");
    beats(Some("stopped")).await;
    let why = server.why(job.id).await;
    says(&why, "every node is silent or has stopped");
    assert!(why["nodes"][0]["text"].as_str().unwrap().starts_with("stopped "), "{why:#}");
    beats(None).await;
    let shut = "the level's window 22:00-06:00 is closed until 2026-11-20T22:00:00Z";
    let mut closed = beat("5");
    closed.closed.insert("level1".parse().unwrap(), shut.to_owned());
    server.queue.beat(&closed).await.unwrap();
    says(&server.why(job.id).await, &format!("level1 is closed on every node: {shut}"));
    closed.weight = 0;
    server.queue.beat(&closed).await.unwrap();
    says(&server.why(job.id).await, "no node asks for level1 now; node 5: its weight is 0");
    beats(None).await;
    // Closed, at its limit, failing.
    let opens = longshore_core::Millis(longshore_core::Millis::now().0 + 3_630_000);
    server.queue.close_host(&job.server_id, opens, "its window is 22:00-06:00").await.unwrap();
    says(&server.why(job.id).await, "host a is closed, and opens in 1h: its window is 22:00-06:00");
    // Urgent jobs are fetched all the same: their host is not what they wait for.
    server.post("/api/v1/policy/queues", json!({"queue": "level1", "urgent": true})).await;
    let urgent = server.why(job.id).await;
    says(&urgent, "no node has room for it");
    let facts = urgent["facts"].as_array().unwrap();
    let closed = facts.iter().find(|fact| fact["name"] == "host closed").unwrap();
    assert!(closed["text"].as_str().unwrap().ends_with(", but not to its level, which is urgent"), "{closed}");
    server.queue.open_host(&job.server_id).await.unwrap();
    let running = [server.job("a", 1).await, server.job("a", 1).await];
    let leases = [server.claim("5", 1 << 40).await.unwrap(), server.claim("5", 1 << 40).await.unwrap()];
    assert!(server.claim("5", 1 << 40).await.is_none());
    let third = running.iter().chain([&job]).find(|job| leases.iter().all(|lease| lease.job.id != job.id)).unwrap();
    says(&server.why(third.id).await, "host a has 2 transfers under way and may have no more at once");
    let reason = Reason::new(ReasonCode::Unreachable, "no route to host");
    let first = std::time::Duration::from_secs(630);
    let patience = Patience { first_rest: first, longest_rest: 10 * first, give_up: 100 * first };
    server.queue.host_failed(&leases[0], patience, &reason).await.unwrap();
    says(&server.why(third.id).await, "host a failed 1 time in a row and is asked again in 10m");
    let resting = &server.get("/api/v1/queues").await["clusters"][0]["resting"][0];
    assert_eq!((&resting["server_id"], &resting["reason_code"]), (&json!("a"), &json!("unreachable")));
    // Under way, to be tried again, and over.
    says(&server.why(leases[1].job.id).await, "Node 5 has had it for");
    server.queue.retry_later(&leases[1], first, &reason).await.unwrap();
    let delayed = server.why(leases[1].job.id).await;
    says(&delayed, "is tried again in 10m");
    says(&delayed, "it was tried 1 time: unreachable: no route to host");
    let backup = stored("111111/mysql/3306", std::time::Duration::from_secs(600));
    server.index(std::slice::from_ref(&backup)).await;
    says(&server.why(backup.job.id).await, "It was stored on node 5");
    server.problem(server.request(Method::GET, &format!("/api/v1/why/{}", JobId::fresh())), 404).await;
    server.problem(server.request(Method::GET, "/api/v1/why/x"), 400).await;
}

#[tokio::test]
async fn why_names_what_each_node_is_short_of() {
    let server = Server::start().await;
    let mut folder = server.job("a", 1 << 30).await;
    server.change("jobs/cancel", json!({"all": true})).await;
    folder.id = JobId::fresh();
    let content = folder.content.as_mut().unwrap();
    (content.kind, content.files) = (ContentKind::Directory, 1000);
    server.queue.offer(&folder).await.unwrap();
    server.queue.admit(&[level1()], 9).await.unwrap();
    let asked = async |node: &str, bytes: u64, inodes: u64| {
        let mut beat = beat(node);
        (beat.running, beat.paused) = (Vec::new(), None);
        server.queue.beat(&beat).await.unwrap();
        assert!(server.claim_with(node, Room { bytes, inodes, ceiling_bytes: 1 << 40 }).await.is_none());
    };
    asked("5", 1 << 40, 7).await;
    let why = server.why(folder.id).await;
    let need = why["nodes"][0]["text"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned();
    assert!(need.parse::<u64>().unwrap() > 1000, "{why:#}");
    says(&why, &format!("no node has room for it: it needs {need} inodes, and the most, on node 5, is 7."));
    // The fullest of bytes is not the one that is short of inodes.
    asked("6", 1 << 20, 1 << 20).await;
    asked("7", 1 << 21, 3).await;
    let why = server.why(folder.id).await;
    says(
        &why,
        &format!(
            "no node has room for it: it needs 1.0 GiB, and the most, on node 7, is 2.0 MiB, which is 1.0 GiB too little; \
             node 5 has the bytes, but 7 of the {need} inodes."
        ),
    );
    let both = format!("has room for 2.0 MiB, needs 1.0 GiB; has 3 inodes, needs {need}");
    assert_eq!((&why["nodes"][2]["code"], &why["nodes"][2]["text"]), (&json!("no_room"), &json!(both)), "{why:#}");
    assert_eq!(why["nodes"][1]["text"], "has room for 1.0 MiB, needs 1.0 GiB");
}

#[tokio::test]
async fn why_calls_a_job_too_large_for_every_disk_only_when_it_is() {
    let server = Server::start().await;
    let job = server.job("a", 10 << 30).await;
    let asked = async |node: &str, ceiling_bytes: u64, paused: Option<&str>| {
        let room = Room { bytes: 1 << 20, inodes: u64::MAX, ceiling_bytes };
        assert!(server.claim_with(node, room).await.is_none());
        let mut beat = beat(node);
        (beat.running, beat.paused) = (Vec::new(), paused.map(str::to_owned));
        server.queue.beat(&beat).await.unwrap();
    };
    asked("6", 1 << 30, None).await;
    asked("5", 100 << 30, Some("the disk is read-only")).await;
    let others = "node 6: needs 10.0 GiB, its disk without the reserve has 1.0 GiB";
    let wanted = format!("no node that could hold it asks for level1 now; node 5: the disk is read-only; {others}.");
    says(&server.why(job.id).await, &wanted);
    asked("5", 2 << 30, Some("the disk is read-only")).await;
    let wanted = "no disk could ever hold it: it needs 10.0 GiB, and the largest without its reserve has 2.0 GiB";
    says(&server.why(job.id).await, wanted);
    // Of one that never asked nobody knows what its disk could hold.
    let mut new = beat("7");
    (new.running, new.paused) = (Vec::new(), Some("it starts".to_owned()));
    server.queue.beat(&new).await.unwrap();
    says(&server.why(job.id).await, "no node that could hold it asks for level1 now");
}

#[tokio::test]
async fn why_of_what_smaller_ones_pass_tells_how_much_room_is_missing_also_while_all_slots_are_busy() {
    let server = Server::start().await;
    let large = server.job("a", 1 << 30).await;
    let small = server.job("b", 1 << 20).await;
    let mut full = beat("5");
    (full.running, full.paused, full.room_bytes) = (Vec::new(), None, 256 << 20);
    server.queue.beat(&full).await.unwrap();
    assert_eq!(server.claim("5", 512 << 20).await.unwrap().job.id, small.id);
    let why = server.why(large.id).await;
    says(&why, "it needs 1.0 GiB, and the most, on node 5, is 511 MiB, which is 513 MiB too little");
    let mut connection = server.redis.connection();
    let mut command = redis::cmd("HINCRBY");
    let () = command.arg("longshore:node:5").arg("asked").arg(-60_000_000).query(&mut connection).unwrap();
    let why = server.why(large.id).await;
    says(&why, "it needs 1.0 GiB, and the most, on node 5, is 256 MiB, which is 768 MiB too little");
    assert_eq!(why["nodes"][0]["code"], "no_room");
    assert!(why["nodes"][0]["text"].as_str().unwrap().contains("slots busy, last asked 1m ago"), "{why:#}");
}

#[tokio::test]
async fn a_node_that_gives_no_copies_is_called_a_node() {
    let server = Server::start().await;
    server.job("a", 1000).await;
    let first = server.claim("5", 1 << 20).await.unwrap();
    let mut report = stored("1/mysql/1", std::time::Duration::ZERO);
    (report.job, report.revision) = (first.job.clone(), first.revision);
    server.queue.settle(&first, &report, End::Copy).await.unwrap();
    let node_id = "6".parse().unwrap();
    let levels = server.queue.copy_levels(&node_id).await.unwrap();
    let request = ClaimRequest {
        node_id: &node_id,
        request_id: uuid::Uuid::now_v7(),
        levels: &levels,
        room: Room { bytes: 1 << 30, inodes: u64::MAX, ceiling_bytes: 1 << 40 },
        weight: 100,
        free_slots: 1,
        lease: std::time::Duration::from_secs(60),
        host: HostLimits { transfers: 2, starts_per_second: 0.0 },
        batch: BatchLimit { jobs: 1, bytes: 0 },
    };
    let Claimed::Jobs(leases) = server.queue.claim(&request).await.unwrap() else { panic!("no copy was claimed") };
    let rest = std::time::Duration::from_secs(630);
    let patience = Patience { first_rest: rest, longest_rest: rest, give_up: 100 * rest };
    server.queue.host_failed(&leases[0], patience, &Reason::new(ReasonCode::Unreachable, "it is off")).await.unwrap();
    let why = server.why(first.job.id).await;
    says(&why, "Its second copy waits: node 5 failed 1 time in a row and is asked again in 10m");
    assert!(!why.to_string().contains("@5: "), "{why:#}");
    let resting = &server.get("/api/v1/queues").await["clusters"][0]["resting"][0];
    assert_eq!((&resting["server_id"], &resting["node_id"]), (&json!("node 5"), &json!("5")));
    let page = server.request(Method::GET, "/page/queues").send().await.unwrap().text().await.unwrap();
    assert!(page.contains("<strong>node 5</strong>"), "{page}");
}

#[tokio::test]
async fn why_of_an_instance_tells_of_its_jobs_or_its_last_backup() {
    let server = Server::start().await;
    server.index(&[stored("111111/mysql/3306", std::time::Duration::from_secs(600))]).await;
    let why = server.why("111111/mysql/3306").await;
    says(&why, "It is protected: its last good backup is of 10m ago");
    says(&why, "nothing of it is queued");
    let job = server.job("111111", 10).await;
    let why = server.why("111111/mysql/3306").await;
    says(&why, "one job of it is queued");
    assert_eq!(why["jobs"][0]["job"], job.id.to_string());
    // All are counted, and the oldest explained; what was given up waits for nobody.
    for _ in 0..6 {
        server.job("111111", 10).await;
    }
    let lease = server.claim("5", 1 << 20).await.unwrap();
    let mut report = stored("1/mysql/1", std::time::Duration::ZERO);
    (report.job, report.revision, report.outcome) = (lease.job.clone(), lease.revision, Outcome::Failed);
    report.reason = Some(Reason::new(ReasonCode::SourceMissing, "no such file"));
    server.queue.settle(&lease, &report, End::Bury).await.unwrap();
    let why = server.why("111111/mysql/3306").await;
    says(&why, "6 jobs of it are queued");
    assert_eq!((&why["queued"], why["jobs"].as_array().unwrap().len()), (&json!(6), 5), "{why:#}");
    assert!(why["jobs"].as_array().unwrap().iter().all(|job| job["state"] == "ready"), "{why:#}");
    let facts = why["facts"].as_array().unwrap();
    let given_up = facts.iter().find(|fact| fact["name"] == "given up").unwrap();
    assert_eq!(given_up["text"], "1 job, kept for a person");
    let unknown = server.request(Method::GET, "/api/v1/why/111111/mysql/3360");
    assert_eq!(server.problem(unknown, 404).await["nearest"], json!(["111111/mysql/3306"]));
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
