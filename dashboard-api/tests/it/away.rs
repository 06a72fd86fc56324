//! When the catalog or Redis is away, the answer says which and since when, and the rest goes on.

use longshore_catalog::CatalogConfig;
use reqwest::Method;
use serde_json::json;

use crate::server::{Server, beat};

#[tokio::test]
async fn without_redis_the_registry_and_the_catalog_still_answer_and_nodes_are_as_last_heard() {
    let server = Server::start().await;
    server.queue.beat(&beat("5")).await.unwrap();
    assert_eq!(server.get("/api/v1/nodes").await["items"][0]["silent"], false);
    server.redis.stop();
    let nodes = server.get("/api/v1/nodes").await;
    assert_eq!(nodes["items"][0]["node_id"], "5", "as last heard of");
    let since = nodes["away"]["default"]["since"].as_i64().unwrap();
    let summary = server.get("/api/v1/summary").await;
    assert_eq!(summary["clusters"][0]["away"]["since"], since, "since the first failure");
    assert!(summary["catalog"]["away"].is_null() && summary["stored"]["count"] == 0, "{summary}");
    server.get("/api/v1/backups").await;
    server.post("/api/v1/businesses", json!({"business_id": "31", "name": "a"})).await;
    let problem = server.problem(server.request(Method::GET, "/api/v1/dead-letters"), 503).await;
    assert_eq!(problem["since"], since);
    assert_eq!(server.json(server.bare(Method::GET, "/healthz"), 200).await["status"], "degraded");
    let page = server.request(Method::GET, "/").send().await.unwrap().text().await.unwrap();
    assert!(page.contains("The Redis of cluster default is away"), "{page}");
    server.redis.start_again();
    assert!(server.get("/api/v1/nodes").await["away"].as_object().unwrap().is_empty());
    assert_eq!(server.json(server.bare(Method::GET, "/healthz"), 200).await["status"], "ok");
}

#[tokio::test]
async fn without_a_catalog_nodes_queues_and_the_page_still_answer() {
    let server = Server::start_with(|settings| {
        settings.catalog = CatalogConfig { path: settings.data_dir.join("none.db"), ..CatalogConfig::default() };
    })
    .await;
    server.queue.beat(&beat("5")).await.unwrap();
    let problem = server.problem(server.request(Method::GET, "/api/v1/backups"), 503).await;
    assert_eq!(problem["title"], "The catalog is away");
    assert!(problem["detail"].as_str().unwrap().contains("longshore-indexer"), "{problem}");
    let since = problem["since"].as_i64().unwrap();
    assert_eq!(server.get("/api/v1/nodes").await["items"][0]["node_id"], "5");
    let summary = server.get("/api/v1/summary").await;
    assert_eq!(summary["catalog"]["away"]["since"], since);
    assert!(summary["stored"].is_null() && summary["clusters"][0]["nodes"] == 1, "{summary}");
    let page = server.request(Method::GET, "/").send().await.unwrap().text().await.unwrap();
    assert!(page.contains("The catalog is away") && page.contains("10.0.1.5") || page.contains("claiming"), "{page}");
    let metrics = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let gauge = metrics.lines().find(|line| line.contains("away_seconds{service=\"The catalog\"}")).unwrap();
    assert!(!gauge.ends_with(" 0"), "{gauge}");
}
