//! Dashboards that fail half way, servers that are none, and readers that are gone: the first two played by a small server of the
//! test, since a real dashboard does none of that on demand.

use std::{
    collections::VecDeque,
    process::Command,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse as _};
use serde_json::{Value, json};

use crate::site::finish;

/// The answers of a played server: a status and a body each, the last one for ever.
type Answers = Arc<Mutex<VecDeque<(u16, String)>>>;

/// The command that asks such a server.
async fn played(answers: &[(u16, String)]) -> Command {
    let answer = async |State(answers): State<Answers>| {
        let mut answers = answers.lock().unwrap();
        let (status, body) = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
        (StatusCode::from_u16(status).unwrap(), body).into_response()
    };
    let answers: Answers = Arc::new(Mutex::new(answers.iter().cloned().collect()));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer).with_state(answers)).into_future());
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    command.env_clear().env("LONGSHORE_SERVER", url).env("LONGSHORE_TOKEN", "any");
    command
}

fn problem(status: u16, detail: &str) -> (u16, String) {
    (status, json!({"type": "urn:longshore:problem:away", "status": status, "detail": detail}).to_string())
}

/// An answer to a change.
fn changed(changed: u64, more: bool, left: &[String]) -> (u16, String) {
    let left: Vec<Value> = left.iter().map(|job| json!({"job": job, "why": "it is leased"})).collect();
    let body = json!({"matched": 9000, "bytes": 0, "changed": changed, "more": more, "admitted_until": 1, "others": {},
        "left": left, "items": []});
    (200, body.to_string())
}

const HOLD: &[&str] = &["queue", "hold", "--all", "--yes"];

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_half_way_says_what_it_did() {
    let left: Vec<String> = (0..25).map(|number| format!("job-{number:02}")).collect();
    let answers = [changed(0, false, &[]), changed(5000, true, &left), problem(503, "the Redis is away")];
    let mut command = played(&answers).await;
    command.args(HOLD);
    let ran = finish(command).await.ended(69);
    assert!(ran.out.contains("\nhold: 5000 jobs\nleft alone: job-00: it is leased\n"), "{}", ran.out);
    assert!(ran.out.contains("\nand 5 more left alone; "), "{}", ran.out);
    assert!(ran.out.ends_with("\nmore pass the filter and were not reached\n"), "{}", ran.out);
    assert!(ran.err.starts_with("longshore: the Redis is away\n") && ran.err.contains("goes on"), "{}", ran.err);
    let mut command = played(&answers).await;
    command.args(HOLD).arg("--json");
    let json = finish(command).await.ended(69).json();
    assert_eq!((&json["changed"], &json["more"]), (&json!(5000), &json!(true)));
    assert_eq!(json["left"].as_array().unwrap().len(), 25);
    // Of nothing known to be done nothing is told, but that it may be.
    let mut command = played(&[changed(0, false, &[]), problem(503, "the Redis is away")]).await;
    command.args(HOLD).arg("--json");
    let ran = finish(command).await.ended(69);
    assert!(ran.out.is_empty() && ran.err.starts_with("longshore: the Redis is away\n"), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("may have changed some"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_alone_again_and_again_is_told_once_and_that_more_was_not_reached() {
    let left = ["job-1".to_owned()];
    let answers = [changed(0, false, &[]), changed(3, true, &left), changed(2, true, &left), changed(0, true, &left)];
    let mut command = played(&answers).await;
    command.args(HOLD);
    let ran = finish(command).await.ended(1);
    let end = "hold: 5 jobs\nleft alone: job-1: it is leased\nmore pass the filter and were not reached\n";
    assert!(ran.out.ends_with(end), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_dashboard_is_not_taken_for_one_that_found_something_wrong() {
    for (status, body) in [(404, "<html>Not Found</html>"), (409, "{}"), (500, "oops"), (422, "[]")] {
        for args in [&["nodes"][..], &["why", "1/mysql/3306"], &["nodes", "set", "n", "--weight", "1"]] {
            let mut command = played(&[(status, body.to_owned())]).await;
            command.args(args);
            let ran = finish(command).await.ended(69);
            let (start, end) = (format!(" answered {status} "), "; is it a longshore-dashboard?\n");
            assert!(ran.err.contains(&start) && ran.err.ends_with(end), "{}", ran.err);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_commands_the_terminal() {
    let mut command = played(&[problem(404, "no node \u{1b}]0;x\u{7}\u{1b}[2Jis known")]).await;
    command.arg("nodes");
    let ran = finish(command).await.ended(1);
    assert_eq!(ran.err, "longshore: no node  ]0;x  [2Jis known\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hint_promises_what_the_server_does_not_give() {
    let answer = (200, json!({"total": 20_000, "bytes": 0, "items": []}).to_string());
    for (limit, hint) in [("5000", true), ("10000", false), ("20000", false)] {
        let mut command = played(std::slice::from_ref(&answer)).await;
        command.args(["queue", "jobs", "--limit", limit]);
        let ran = finish(command).await.ended(0);
        assert_eq!(ran.out.contains("--limit shows more"), hint, "{limit}: {}", ran.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closed_its_pipe_is_no_bug() {
    let closed = || std::io::pipe().unwrap().1;
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    command.env_clear().args(["--server", "http://127.0.0.1:1", "status"]).stderr(closed());
    finish(command).await.ended(69);
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    command.env_clear().args(["completions", "bash"]).stdout(closed());
    finish(command).await.ended(0);
}
