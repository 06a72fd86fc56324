use std::time::Duration;

use longshore_core::{Millis, Outcome, token};
use reqwest::Method;
use serde_json::json;

use crate::server::{Server, beat, chain, stored};

const KEY: &str = "111111/mysql/3306";
const PLAN: &str = "/api/v1/instances/111111/mysql/3306/restore-plan";

#[tokio::test]
async fn a_plan_names_every_file_in_order_and_what_it_costs() {
    let server = Server::start().await;
    let mut reports = chain(KEY, 3);
    for report in &mut reports {
        report.node_id = Some("5".parse().unwrap());
    }
    server.index(&reports).await;
    server.queue.beat(&beat("5")).await.unwrap();
    let plan = server.get(PLAN).await;
    let steps = plan["steps"].as_array().unwrap();
    let jobs: Vec<&str> = steps.iter().map(|step| step["job"].as_str().unwrap()).collect();
    assert_eq!(jobs, reports.iter().map(|report| report.job.id.to_string()).collect::<Vec<_>>());
    assert_eq!((&plan["chain"]["state"], &plan["bytes_to_move"]), (&json!("whole"), &json!(4 * (10 << 20))));
    assert_eq!(plan["forecast_seconds"], 4.0, "10 MiB at 10 MiB/s each");
    assert_eq!(steps[0]["places"][0]["serve"], "http://10.0.1.5:7481");
    assert_eq!(steps[0]["places"][0]["path"], reports[0].path.as_ref().unwrap().as_str());
    assert_eq!((&steps[0]["position"], &steps[3]["number"]), (&json!("full"), &json!(4)));
    assert_eq!(plan["point"], reports[3].job.made_at.0);
    assert!(plan["warnings"].as_array().unwrap().is_empty(), "{plan}");
    // As of before the last increment.
    let at = reports[3].job.made_at.0 - 1;
    assert_eq!(server.get(&format!("{PLAN}?at={at}")).await["steps"].as_array().unwrap().len(), 3);
    let text = Millis(at).to_string();
    assert_eq!(server.get(&format!("{PLAN}?at={text}")).await["at"], at);
    let problem = server.problem(server.request(Method::GET, &format!("{PLAN}?at=2001-01-01T00:00:00Z")), 404).await;
    assert!(problem["detail"].as_str().unwrap().contains("no stored backup"), "{problem}");
    let shown = server.get(&PLAN.replace("restore-plan", "chain")).await;
    assert_eq!(shown["backups"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_broken_chain_and_a_seed_chain_are_called_so() {
    let server = Server::start().await;
    let mut reports = chain(KEY, 3);
    reports.remove(1);
    server.index(&reports).await;
    let plan = server.get(PLAN).await;
    assert_eq!(plan["chain"]["state"], "broken");
    assert!(!plan["chain"]["why"].as_str().unwrap().is_empty());
    assert!(plan["warnings"][0].as_str().unwrap().starts_with("the chain is broken"), "{plan}");
    let mut seed = chain("222222/mysql/3306", 1);
    for report in &mut seed {
        let link = report.job.chain.as_mut().unwrap();
        (link.previous, link.sequence) = (None, None);
    }
    server.index(&seed).await;
    let plan = server.get(&PLAN.replace("111111", "222222")).await;
    assert_eq!(plan["chain"]["state"], "unproven");
    assert_eq!(plan["steps"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_token_opens_just_the_plans_backups_for_a_quarter_of_an_hour_and_can_be_renewed() {
    let server = Server::start().await;
    let reports = chain(KEY, 1);
    let other = stored(KEY, Duration::from_secs(90_000));
    let mut failed = stored(KEY, Duration::from_secs(30));
    failed.outcome = Outcome::Failed;
    server.index(&reports).await;
    server.index(&[other.clone(), failed.clone()]).await;
    let jobs: Vec<String> = reports.iter().map(|report| report.job.id.to_string()).collect();
    let body = json!({"backups": jobs, "subject": "ops@db-31-7"});
    let public = std::fs::read_to_string(server.folder.path().join("data/restore.pub")).unwrap();
    let public = token::parse_public_key(&public).unwrap();
    for _ in ["first", "renewed"] {
        let permission = server.post("/api/v1/restores", body.clone()).await;
        let given = permission["token"].as_str().unwrap();
        let expires = Millis(permission["expires_at"].as_i64().unwrap());
        let life = expires.since(Millis::now());
        assert!(life > Duration::from_secs(14 * 60) && life <= token::TOKEN_LIFE, "{life:?}");
        let claims = token::verify(&public, given, reports[1].job.id, Millis::now()).unwrap();
        assert_eq!(claims.subject, "ops@db-31-7");
        assert!(token::verify(&public, given, other.job.id, Millis::now()).is_err());
        assert!(token::verify(&public, given, reports[1].job.id, expires).is_err());
    }
    for backups in [json!([]), json!([longshore_core::JobId::fresh()]), json!([failed.job.id]), json!(["x"])] {
        let request = server.request(Method::POST, "/api/v1/restores").json(&json!({"backups": backups}));
        server.problem(request, 422).await;
    }
}
