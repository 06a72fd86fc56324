//! Why a job waits, over HTTP.

use longshore_core::{
    ContentKind, JobId, Outcome, ReasonCode,
    queue::{BatchLimit, ClaimRequest, Claimed, End, HostLimits, Patience, Room},
    report::Reason,
};
use reqwest::Method;
use serde_json::json;

use crate::server::{Server, beat, level1, says, stored};

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
