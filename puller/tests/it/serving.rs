//! Stored files over HTTP: ranges, tokens, and nothing outside of the backup.

use longshore_core::{Job, Millis, token};
use longshore_tests::wait_until;
use reqwest::StatusCode;

use crate::cluster::{Cluster, Puller, SOON, bytes, signing_key};

fn token_for(jobs: &[&Job]) -> String {
    let claims = token::RestoreClaims {
        backups: jobs.iter().map(|job| job.id).collect(),
        expires_at: Millis::now().plus(token::TOKEN_LIFE),
        subject: "test".into(),
    };
    token::sign(&signing_key(), &claims)
}

async fn get(puller: &Puller, path: &str, bearer: Option<&str>, range: Option<&str>) -> reqwest::Response {
    let mut request = reqwest::Client::new().get(format!("http://127.0.0.1:{}{path}", puller.serve));
    if let Some(bearer) = bearer {
        request = request.bearer_auth(bearer);
    }
    if let Some(range) = range {
        request = request.header("range", range);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_file_is_served_whole_and_in_ranges_to_its_tokens_bearer_only() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("full 1.xb", 100_000, 1).await;
    let other = cluster.offer_file("other", 10, 2).await;
    let puller = cluster.puller("1");
    cluster.report_of(&job).await;
    cluster.report_of(&other).await;
    let path = format!("/v1/backups/{}/files/full%201.xb", job.id);
    let good = token_for(&[&job]);
    let whole = get(&puller, &path, Some(&good), None).await;
    assert_eq!(whole.status(), StatusCode::OK);
    assert_eq!(whole.bytes().await.unwrap(), bytes(100_000, 1));
    let part = get(&puller, &path, Some(&good), Some("bytes=99990-")).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], "bytes 99990-99999/100000");
    assert_eq!(part.bytes().await.unwrap(), bytes(100_000, 1)[99_990..]);
    assert_eq!(
        get(&puller, &path, Some(&good), Some("bytes=100000-")).await.status(),
        StatusCode::RANGE_NOT_SATISFIABLE
    );

    let none = get(&puller, &path, None, None).await;
    assert_eq!(
        (none.status(), none.headers()["content-type"].to_str().unwrap()),
        (StatusCode::UNAUTHORIZED, "application/problem+json")
    );
    assert_eq!(get(&puller, &path, Some("a.b"), None).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(get(&puller, &path, Some(&token_for(&[&other])), None).await.status(), StatusCode::FORBIDDEN);
    for outside in
        ["manifest.json", "full%201.xb%2F..%2Fmanifest.json", "..%2F..%2F.longshore-store", "%2Fetc%2Fpasswd", "gone"]
    {
        let answer = get(&puller, &format!("/v1/backups/{}/files/{outside}", job.id), Some(&good), None).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{outside}");
    }
}

#[tokio::test]
async fn another_node_of_the_cluster_is_served_by_its_own_key_and_nobody_else_is() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("a", 1000, 1).await;
    let puller = cluster.puller("1");
    cluster.report_of(&job).await;
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let claims = token::RestoreClaims {
        backups: vec![job.id],
        expires_at: Millis::now().plus(token::TOKEN_LIFE),
        subject: "a copy for node 2".into(),
    };
    let get_as = async |node: &str, bearer: &str| {
        let url = format!("http://127.0.0.1:{}/v1/backups/{}/files/a", puller.serve, job.id);
        let request = reqwest::Client::new().get(url).bearer_auth(bearer).header("longshore-node", node);
        request.send().await.unwrap().status()
    };
    let theirs = token::sign(&key, &claims);
    assert_eq!(get_as("2", &theirs).await, StatusCode::FORBIDDEN, "it is no node of this cluster");
    let (mut beat, _) = cluster.queue.nodes().await.unwrap().remove(0);
    assert!(beat.public_key.is_some(), "a puller tells its own key");
    beat.node_id = "2".parse().unwrap();
    beat.public_key = Some(token::public_key_text(&key.verifying_key()));
    cluster.queue.beat(&beat).await.unwrap();
    wait_until("the new node is known", SOON, async || get_as("2", &theirs).await == StatusCode::OK).await;
    for (node, bearer) in [("1", &theirs), ("3", &theirs), ("2", &token_for(&[&job])), ("\u{e9}", &theirs)] {
        assert_eq!(get_as(node, bearer).await, StatusCode::FORBIDDEN, "{node}");
    }
}

#[tokio::test]
async fn a_folder_is_listed_with_every_file_and_its_digest() {
    let cluster = Cluster::start();
    cluster.write("tree/a", 10, 1);
    cluster.write("tree/in/库 b", 20, 2);
    let job = cluster.job("tree");
    cluster.offer(&job).await;
    let puller = cluster.puller("1");
    cluster.report_of(&job).await;
    let good = token_for(&[&job]);
    let listing: serde_json::Value =
        get(&puller, &format!("/v1/backups/{}", job.id), Some(&good), None).await.json().await.unwrap();
    assert_eq!(listing["outcome"], "stored");
    let files: Vec<(&str, u64)> = listing["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (file["path"].as_str().unwrap(), file["size_bytes"].as_u64().unwrap()))
        .collect();
    assert_eq!(files, [("tree/a", 10), ("tree/in/库 b", 20)]);
    let path = format!("/v1/backups/{}/files/tree/in/%E5%BA%93%20b", job.id);
    assert_eq!(get(&puller, &path, Some(&good), None).await.bytes().await.unwrap(), bytes(20, 2));
    let report: longshore_core::Report = serde_json::from_value(listing).unwrap();
    assert_eq!(report.job.id, job.id, "the listing is a report with more in it");
}
