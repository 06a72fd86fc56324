//! Taking a node out, over HTTP.

use std::time::Duration;

use longshore_core::{
    Job, JobId,
    queue::{BatchLimit, ClaimRequest, Claimed, End, HostLimits, Lease, Level, Room},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, beat, fixture, stored};

const NODE: &str = "/api/v1/nodes/5";

impl Server {
    /// As if nothing had been heard of node 5 for an hour.
    fn silence(&self) {
        let hour = 3_600_000_000_i64;
        let mut connection = self.redis.connection();
        let () = redis::cmd("ZINCRBY").arg("longshore:nodes_seen").arg(-hour).arg("5").query(&mut connection).unwrap();
        let asked: Option<i64> =
            redis::cmd("HGET").arg("longshore:node:5").arg("asked").query(&mut connection).unwrap();
        if let Some(asked) = asked {
            let mut set = redis::cmd("HSET");
            let () = set.arg("longshore:node:5").arg("asked").arg(asked - hour).query(&mut connection).unwrap();
        }
    }

    /// A new job's lease by node 5.
    async fn leased(&self) -> Lease {
        let mut job: Job = serde_json::from_str(&fixture("job-v1.json")).unwrap();
        job.id = JobId::fresh();
        self.queue.offer(&job).await.unwrap();
        let levels = [Level::new(job.queue.clone())];
        self.queue.admit(&levels, 9).await.unwrap();
        let request = ClaimRequest {
            node_id: &"5".parse().unwrap(),
            request_id: uuid::Uuid::now_v7(),
            levels: &levels,
            room: Room { bytes: 1 << 40, inodes: u64::MAX, ceiling_bytes: 1 << 40 },
            weight: 100,
            free_slots: 1,
            lease: Duration::from_secs(60),
            host: HostLimits { transfers: 9, starts_per_second: 0.0 },
            batch: BatchLimit { jobs: 1, bytes: 0 },
        };
        match self.queue.claim(&request).await.unwrap() {
            Claimed::Jobs(mut leases) => leases.remove(0),
            Claimed::Nothing(idle) => panic!("nothing was claimed: {idle:?}"),
        }
    }

    async fn kept(&self, wanted: &str) {
        let problem = self.problem(self.request(Method::DELETE, NODE), 409).await;
        assert!(problem["detail"].as_str().unwrap().contains(wanted), "{wanted:?} in {problem}");
        assert_eq!(self.get("/api/v1/nodes").await["items"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_node_that_was_taken_out_is_forgotten_and_can_come_back() {
    let server = Server::start().await;
    let unknown = server.problem(server.request(Method::DELETE, NODE), 404).await;
    assert_eq!(unknown["detail"], "node 5 is neither registered nor heard of");
    server.queue.beat(&beat("5")).await.unwrap();
    server.post("/api/v1/nodes", json!({"node_id": "5", "weight": 0})).await;
    server.kept("stop its longshore-puller first").await;
    assert_eq!(server.get(NODE).await["registered"]["weight"], 0, "nothing has changed");

    server.silence();
    assert_eq!(server.get(NODE).await["silent"], true);
    let request = || server.request(Method::DELETE, NODE);
    let forgotten = server.json(request(), 200).await;
    assert_eq!(forgotten, json!({"node_id": "5", "cluster": "default"}));
    assert_eq!(server.get("/api/v1/nodes").await["items"], json!([]), "in the registry neither");
    assert_eq!(server.get("/api/v1/summary").await["clusters"][0]["nodes_silent"], 0);
    server.problem(request(), 404).await;
    server.queue.beat(&beat("5")).await.unwrap();
    assert_eq!(server.get(NODE).await["silent"], false, "it has come back");

    // Also while Redis is away it is not shown from memory.
    server.silence();
    server.json(request(), 200).await;
    server.redis.stop();
    assert_eq!(server.get("/api/v1/nodes").await["items"], json!([]));
    server.problem(request(), 503).await;
}

#[tokio::test]
async fn a_node_that_says_that_it_stopped_is_there_no_more() {
    let server = Server::start().await;
    let mut last = beat("5");
    (last.running, last.paused) = (Vec::new(), Some("stopped".to_owned()));
    server.queue.beat(&last).await.unwrap();
    server.queue.beat(&beat("6")).await.unwrap();
    let nodes = server.get("/api/v1/nodes").await;
    let (five, six) = (&nodes["items"][0], &nodes["items"][1]);
    assert_eq!((&five["silent"], &five["weight_percent"]), (&json!(false), &json!(null)), "{five}");
    assert_eq!(six["weight_percent"], 100.0, "its weight is not among the others'");
    let policy = server.get("/api/v1/policy").await["items"][0].clone();
    assert_eq!(policy["nodes"].as_object().unwrap().keys().collect::<Vec<_>>(), ["6"], "it can't obey");
    // Nobody need wait until it is silent.
    server.json(server.request(Method::DELETE, NODE), 200).await;
    server.queue.beat(&beat("5")).await.unwrap();
    let back = server.problem(server.request(Method::DELETE, NODE), 409).await;
    assert!(back["detail"].as_str().unwrap().contains("stop its longshore-puller first"), "{back}");
}

#[tokio::test]
async fn a_node_that_was_never_heard_of_leaves_the_registry() {
    let server = Server::start().await;
    server.post("/api/v1/nodes", json!({"node_id": "5"})).await;
    let forgotten = server.json(server.request(Method::DELETE, NODE), 200).await;
    assert_eq!(forgotten, json!({"node_id": "5", "cluster": Value::Null}));
    server.problem(server.request(Method::GET, NODE), 404).await;
}

#[tokio::test]
async fn one_that_others_need_is_kept_and_the_answer_says_what_to_do() {
    let server = Server::start().await;
    server.queue.beat(&beat("5")).await.unwrap();
    let lease = server.leased().await;
    server.silence();
    server.kept("node 5 still holds 1 job: another node puts them back").await;
    let mut report = stored("1/mysql/1", Duration::ZERO);
    (report.job, report.revision) = (lease.job.clone(), lease.revision);
    server.queue.settle(&lease, &report, End::Copy).await.unwrap();
    server.kept("`longshore queue cancel --queue longshore:copies@5`").await;
    let cancel = server.request(Method::POST, "/api/v1/jobs/cancel");
    let body = json!({"filter": {"queue": "longshore:copies@5"}});
    assert_eq!(server.json(cancel.json(&body), 200).await["changed"], 1);
    server.json(server.request(Method::DELETE, NODE), 200).await;
}
