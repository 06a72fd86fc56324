use std::time::Duration;

use longshore_core::{Outcome, ReasonCode, report::Reason};
use reqwest::Method;
use serde_json::Value;

use crate::server::{Server, stored};

async fn filled() -> Server {
    let server = Server::start().await;
    let mut reports: Vec<_> =
        (0..7).map(|hours| stored("111111/mysql/3306", Duration::from_secs(hours * 3600 + 60))).collect();
    let mut failed = stored("222222/redis/6379", Duration::from_secs(600));
    failed.outcome = Outcome::Failed;
    failed.reason = Some(Reason::new(ReasonCode::ScriptWrong, "xtrabackup: 连接失败"));
    (failed.node_id, failed.path, failed.transfer) = (None, None, None);
    reports.push(failed);
    server.index(&reports).await;
    server
}

fn ids(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn pages_of_a_search_join_to_the_whole_newest_first() {
    let server = filled().await;
    let whole = ids(&server.get("/api/v1/backups?server_id=111111&type=mysql&instance=3306").await);
    assert_eq!(whole.len(), 7);
    let mut joined = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.get(&format!("/api/v1/backups?server_id=111111&limit=3&cursor={cursor}")).await;
        joined.extend(ids(&page));
        match page["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(joined, whole);
}

#[tokio::test]
async fn filters_narrow_and_wrong_ones_are_named() {
    let server = filled().await;
    let failed = server.get("/api/v1/backups?outcome=failed,refused&text=失败").await;
    assert_eq!(failed["items"][0]["reason_code"], "script_wrong");
    assert_eq!(ids(&failed).len(), 1);
    let recent = format!("/api/v1/backups?made_from={}", (longshore_core::Millis::now().0 - 2 * 3_600_000));
    assert_eq!(ids(&server.get(&recent).await).len(), 3);
    assert_eq!(ids(&server.get("/api/v1/backups?made_until=2020-01-01T00:00:00Z").await).len(), 0);
    for (query, wanted) in [
        ("outcome=lost", "lost"),
        ("limit=0", "1 to 1000"),
        ("made_from=yesterday", "yesterday"),
        ("colour=red", "colour"),
        ("server_id=../x", "server_id"),
        ("cursor=nonsense", "cursor"),
    ] {
        let problem = server.problem(server.request(Method::GET, &format!("/api/v1/backups?{query}")), 400).await;
        assert!(problem["detail"].as_str().unwrap().contains(wanted), "{query}: {problem}");
    }
}

#[tokio::test]
async fn one_backup_is_shown_with_its_report() {
    let server = filled().await;
    let id = ids(&server.get("/api/v1/backups?limit=1").await).remove(0);
    let one = server.get(&format!("/api/v1/backups/{id}")).await;
    assert_eq!((one["id"].as_str(), one["report"]["job"]["id"].as_str()), (Some(&*id), Some(&*id)));
    server.problem(server.request(Method::GET, "/api/v1/backups/x"), 400).await;
    let other = longshore_core::JobId::fresh();
    server.problem(server.request(Method::GET, &format!("/api/v1/backups/{other}")), 404).await;
}

#[tokio::test]
async fn statistics_count_and_add_up() {
    let server = filled().await;
    let outcomes = server.get("/api/v1/statistics?by=outcome").await;
    assert_eq!(outcomes["count"], 8);
    let count = |key: &str| {
        let buckets = outcomes["buckets"].as_array().unwrap();
        buckets.iter().find(|bucket| bucket["key"] == key).map_or(0, |bucket| bucket["count"].as_u64().unwrap())
    };
    assert_eq!((count("stored"), count("failed")), (7, 1));
    let days = server.get("/api/v1/statistics?type=mysql&utc_offset_minutes=480").await;
    let sum: u64 = days["buckets"].as_array().unwrap().iter().map(|bucket| bucket["bytes"].as_u64().unwrap()).sum();
    assert_eq!(sum, 7 * (10 << 20));
    server.problem(server.request(Method::GET, "/api/v1/statistics?by=colour"), 400).await;
}
