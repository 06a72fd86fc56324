//! `queue watch`: on a terminal and without one, and what it does while the dashboard refuses or hangs.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse as _};
use longshore_tests::{wait_until, wait_until_blocking};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::site::{Ran, SOON, Site, finish, on_terminal};

/// One look takes at most ten seconds: who asks for the end has it before.
const ENDS_WITHIN: Duration = Duration::from_secs(8);

const WATCH: &str = concat!(env!("CARGO_BIN_EXE_longshore"), " queue watch --every 200ms");

/// A dashboard that hangs, but for the first two times that it is asked: it refuses, and answers.
async fn played(asked: &Arc<AtomicU32>) -> Command {
    let answer = async |State(asked): State<Arc<AtomicU32>>| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        1 => Json(json!({"clusters": []})).into_response(),
        _ => std::future::pending().await,
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer).with_state(Arc::clone(asked))).into_future());
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("LONGSHORE_SERVER", url).env("LONGSHORE_TOKEN", "any");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_without_a_terminal_appends_and_ends_with_ctrl_c() {
    let site = Site::start().await;
    site.waiting("1/mysql/3306", 10).await;
    let mut command = site.command();
    let mut child = command.args(["queue", "watch", "--every", "200ms"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let seen = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(&mut out).lines();
        let mut seen = String::new();
        // Two looks, one below the other.
        while seen.matches("LEVEL").count() < 2 {
            seen.push_str(&lines.next().unwrap().unwrap());
            seen.push('\n');
        }
        seen
    });
    let seen = seen.await.unwrap();
    assert!(!seen.contains('\u{1b}'), "{seen:?}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_on_a_terminal_draws_in_place_and_ends_with_q() {
    let site = Site::start().await;
    site.waiting("1/mysql/3306", 10).await;
    // Narrower than the table: a line that took two rows would not be gone up over.
    let mut child =
        on_terminal(&site.command(), 30, WATCH).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    let mut out = child.stdout.take().unwrap();
    let ran = tokio::task::spawn_blocking(move || {
        let mut seen = Vec::new();
        let mut byte = [0];
        // The second look begins by going up over the first.
        while !String::from_utf8_lossy(&seen).contains("\u{1b}[3A") {
            assert_eq!(std::io::Read::read(&mut out, &mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
        keys.write_all(b"q").unwrap();
        std::io::Read::read_to_end(&mut out, &mut seen).unwrap();
        (child.wait().unwrap(), String::from_utf8_lossy(&seen).into_owned())
    });
    let (status, seen) = tokio::time::timeout(Duration::from_secs(60), ran).await.unwrap().unwrap();
    assert!(status.success() && seen.contains("level1"), "{status:?} {seen}");
    for line in seen.lines() {
        let shown = console::strip_ansi_codes(line).replace('\r', "");
        assert!(console::measure_text_width(&shown) <= 30, "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_on_a_terminal_ends_with_q_while_the_dashboard_hangs() {
    let asked = Arc::new(AtomicU32::new(2));
    let mut command = on_terminal(&played(&asked).await, 80, WATCH);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    wait_until("the dashboard is asked", SOON, async || asked.load(Ordering::SeqCst) > 2).await;
    let ended = move || {
        wait_until_blocking("q ends it", ENDS_WITHIN, || {
            // Once it has ended there is nobody to read.
            let _ = keys.write_all(b"q");
            child.try_wait().unwrap().is_some()
        });
        child.wait().unwrap()
    };
    assert!(tokio::task::spawn_blocking(ended).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_for_programs_outlives_a_refusal_and_ends_with_ctrl_c_alone() {
    let asked = Arc::new(AtomicU32::new(0));
    let mut command = played(&asked).await;
    command.args(["queue", "watch", "--every", "200ms", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    wait_until("the dashboard hangs", SOON, async || asked.load(Ordering::SeqCst) > 2).await;
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ended = move || {
        wait_until_blocking("Ctrl-C ends it", ENDS_WITHIN, || child.try_wait().unwrap().is_some());
        child.wait_with_output().unwrap()
    };
    let ran = Ran::of(tokio::task::spawn_blocking(ended).await.unwrap()).ended(0);
    assert_eq!(ran.json(), json!({"clusters": []}));
    assert!(
        ran.err.starts_with("longshore: ") && ran.err.contains("503") && ran.err.lines().count() == 1,
        "{}",
        ran.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_where_it_would_be_refused_for_ever() {
    let site = Site::start().await;
    for args in [&["queue", "watch", "--json"][..], &["queue", "watch"]] {
        let mut command = Command::new("timeout");
        command.args(["30", env!("CARGO_BIN_EXE_longshore")]).args(args).env_clear();
        command.env("LONGSHORE_SERVER", &site.url).env("LONGSHORE_TOKEN", "wrong");
        let ran = finish(command).await.ended(78);
        assert!(ran.out.is_empty() && ran.err.contains("does not take this token"), "{}{}", ran.out, ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_ended_by_a_signal_leaves_the_terminal_as_it_was() {
    let site = Site::start().await;
    let file = |name: &str| site.folder.path().join(name);
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap_or_default().trim().to_owned();
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        ["before", "pid", "code", "after"].iter().for_each(|name| drop(std::fs::remove_file(file(name))));
        let line = format!("stty -g > before; sh -c 'echo $$ > pid; exec {WATCH}'; echo $? > code; stty -g > after");
        let mut child =
            on_terminal(&site.command(), 80, &line).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let terminal = || {
            let terminal = std::fs::File::open(format!("/proc/{}/fd/0", read("pid"))).ok()?;
            let stty = Command::new("stty").arg("-g").stdin(terminal).output().unwrap();
            Some(String::from_utf8(stty.stdout).unwrap().trim().to_owned())
        };
        wait_until("keys are read", SOON, async || terminal().is_some_and(|now| now != read("before"))).await;
        kill_process(Pid::from_raw(read("pid").parse().unwrap()).unwrap(), signal).unwrap();
        wait_until("it has ended", ENDS_WITHIN, async || child.try_wait().unwrap().is_some()).await;
        assert_eq!((read("code").as_str(), read("after")), ("0", read("before")), "{signal:?}");
    }
}
