//! Queues by command: looking, changing with a preview, and asking why.

use std::{io::Write as _, process::Stdio};

use longshore_core::{JobId, Outcome, Report, queue::JobFilter};
use longshore_tests::wait_until;

use crate::site::{Ran, SOON, Site, finish, on_terminal};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_shown_first_and_needs_a_yes() {
    let site = Site::start().await;
    let jobs = [site.waiting("1/mysql/3306", 3000).await, site.waiting("1/mysql/3307", 50_000).await];
    let other = site.waiting("2/redis/6379", 100).await;
    let ids: Vec<JobId> = jobs.iter().chain([&other]).map(|job| job.id).collect();
    let wrong = site.run(&["queue", "jobs", "--instance", "mysql/3306"]).await.ended(64);
    assert!(wrong.err.contains("SERVER/TYPE/INSTANCE"), "{}", wrong.err);
    let none = site.run(&["queue", "jobs", "--limit", "0"]).await.ended(0);
    assert!(none.out.starts_with("3 jobs, "), "{}", none.out);
    let held =
        async || site.run(&["queue", "jobs", "--state", "held", "--json"]).await.json()["total"].as_u64().unwrap();

    let hold = ["queue", "hold", "--host", "1"];
    let plan = site.run(&[&hold[..], &["--dry-run"]].concat()).await.ended(0);
    let lines: Vec<&str> = plan.out.lines().collect();
    let row = |key: &str, id: &JobId, size: &str| format!("{key}  ready     0s  {id}  {size}");
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["INSTANCE", "STATE", "WAITS", "ID", "SIZE"]);
    let settled = |line: &str| line.replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(settled(lines[1]), settled(&row("1/mysql/3306", &ids[0], " 2.9 KiB")));
    assert_eq!(settled(lines[2]), settled(&row("1/mysql/3307", &ids[1], "48.8 KiB")));
    assert_eq!(plan.out.lines().last(), Some("hold 2 jobs, 51.8 KiB"));
    assert!(plan.out.lines().all(|line| console::measure_text_width(line) <= 80), "{}", plan.out);
    let refused = site.run(&hold).await.ended(64);
    assert!(refused.err.contains("--yes"), "{}", refused.err);
    assert_eq!(held().await, 0, "nothing was done without a yes");
    let done = site.run(&[&hold[..], &["--yes", "--why", "a test"]].concat()).await.ended(0);
    assert_eq!(done.out.lines().last(), Some("hold: 2 jobs"));
    assert_eq!(held().await, 2);
    let queue = site.run(&["queue"]).await.ended(0);
    assert!(
        queue.out.contains("HELD") && queue.out.contains("53.1 KB") || queue.out.contains("51.9 KiB"),
        "{}",
        queue.out
    );

    let why = site.run(&["why", &ids[0].to_string()]).await.ended(0);
    assert!(why.out.starts_with("It is held by ") && why.out.contains(": a test."), "{}", why.out);
    assert!(why.out.contains("CST"), "moments are in the local zone: {}", why.out);
    let nothing = site.run(&["queue", "release", &ids[2].to_string(), "--yes"]).await.ended(1);
    assert_eq!(nothing.out, "nothing to release: 1 ready\n");
    site.run(&["queue", "release", "--instance", "1/mysql/3306", "--yes"]).await.ended(0);
    assert_eq!(held().await, 1);
    site.run(&["queue", "cancel", "--yes"]).await.ended(64);
    let moved = site.run(&["queue", "move", "--to", "level9", "--all", "--yes"]).await.ended(64);
    assert!(moved.err.contains("level9") && moved.err.contains("level1"), "{}", moved.err);
    let json = site.run(&["queue", "cancel", "--all", "--yes", "--json"]).await.ended(0).json();
    assert_eq!((&json["changed"], &json["left"]), (&3.into(), &serde_json::json!([])));
    let reports = site.reports(3).await;
    assert!(reports.iter().all(|report| report.outcome == Outcome::Cancelled));
    site.index(&reports).await;
    let why = site.run(&["why", "1/mysql/3306"]).await.ended(0);
    let words: Vec<&str> = why.out.split_whitespace().collect();
    assert!(words.join(" ").contains("nothing of it is queued, and its last run ended with cancelled"), "{}", why.out);
    let why = site.run(&["why", &ids[1].to_string()]).await.ended(0);
    assert!(why.out.contains("It was taken out of the queue") && why.out.contains("cancelled by"), "{}", why.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_transfer_ends_and_leaves_nothing_but_its_report() {
    let site = Site::start().await;
    let job = site.waiting("1/mysql/3306", 30 << 20).await;
    site.puller_with("5", "lease = \"3s\"\nrsync.bwlimit = \"1MiB\"").await;
    let running = async || {
        let nodes = site.queue.nodes().await.unwrap();
        nodes.iter().flat_map(|(beat, _)| &beat.running).any(|transfer| transfer.bytes > 0)
    };
    wait_until("the transfer runs", SOON, running).await;
    let why = site.run(&["why", &job.id.to_string()]).await.ended(0);
    assert!(why.out.starts_with("It is being fetched by node 5"), "{}", why.out);
    let nodes = site.run(&["nodes"]).await.ended(0);
    assert!(nodes.out.contains("1/mysql/3306") && nodes.out.contains("1/"), "{}", nodes.out);
    site.run(&["queue", "cancel", &job.id.to_string(), "--why", "too large", "--yes"]).await.ended(0);
    wait_until("the node has stopped", SOON, async || !running().await).await;
    let reports: Vec<Report> = site.reports(1).await;
    assert_eq!((reports[0].job.id, reports[0].outcome), (job.id, Outcome::Cancelled));
    assert!(reports[0].reason.as_ref().unwrap().text.ends_with(": too large"));
    let store = site.folder.path().join("store-5");
    assert!(!store.join("mysql").exists(), "nothing was published");
    wait_until("what was fetched is gone", SOON, async || {
        std::fs::read_dir(store.join(".incoming"))
            .unwrap()
            .all(|entry| entry.unwrap().file_name() != *job.id.to_string())
    })
    .await;
    assert_eq!(site.queue.find(&JobFilter::default(), 1).await.unwrap().total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_retried_and_dropped_by_command() {
    let site = Site::start().await;
    let level = longshore_core::queue::Level::new("level1".parse().unwrap());
    for text in ["{no json", "[]"] {
        let () = redis::cmd("LPUSH").arg("level1").arg(text).query(&mut site.redis.connection()).unwrap();
    }
    site.queue.admit(std::slice::from_ref(&level), 9).await.unwrap();
    let list = site.run(&["queue", "dead"]).await.ended(1);
    assert!(list.out.contains("{no json") && list.out.contains("raw:1"), "{}", list.out);
    let retry = site.run(&["queue", "dead", "retry", "raw:1", "--yes"]).await.ended(0);
    assert_eq!(retry.out.lines().last(), Some("retry: 1 dead letter"));
    site.queue.admit(&[level], 9).await.unwrap();
    let list = site.run(&["queue", "dead"]).await.ended(1);
    assert!(list.out.contains("raw:3") && !list.out.contains("raw:1"), "it can't be read still: {}", list.out);
    site.run(&["queue", "dead", "drop", "--queue", "level1", "--yes"]).await.ended(0);
    site.run(&["queue", "dead"]).await.ended(0);
    site.run(&["queue", "dead", "drop", "raw:3", "--yes"]).await.ended(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_dead_letters_than_one_answer_holds_are_listed_page_by_page() {
    let site = Site::start().await;
    let level = longshore_core::queue::Level::new("level1".parse().unwrap());
    let mut push = redis::cmd("LPUSH");
    push.arg("level1").arg(vec!["{no json"; 1010]);
    let () = push.query(&mut site.redis.connection()).unwrap();
    site.queue.admit(&[level], 1010).await.unwrap();
    let json = site.run(&["queue", "dead", "--limit", "1005", "--json"]).await.ended(1).json();
    let ids: std::collections::BTreeSet<_> =
        json["items"].as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap()).collect();
    assert_eq!((&json["total"], ids.len()), (&1010.into(), 1005));
    let some = site.run(&["queue", "dead", "--limit", "1005"]).await.ended(1);
    assert_eq!(some.out.lines().last(), Some("1005 of 1010; --limit shows more"));
    let all = site.run(&["queue", "dead", "--limit", "2000"]).await.ended(1);
    assert_eq!(all.out.lines().count(), 1 + 1010, "{}", all.out);
    let none = site.run(&["queue", "dead", "--limit", "0"]).await.ended(1);
    assert_eq!(none.out, "0 of 1010; --limit shows more\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_asked_for_only_where_it_is_shown() {
    let site = Site::start().await;
    site.waiting("1/mysql/3306", 10).await;
    let on_terminal = async |command: &str, keys: &'static [u8]| {
        let line = format!("{} {command}; echo $? > code", env!("CARGO_BIN_EXE_longshore"));
        let mut script = on_terminal(&site.command(), 80, &line);
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(keys).unwrap();
        let ran = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
        let code = std::fs::read_to_string(site.folder.path().join("code")).unwrap();
        (code.trim().to_owned(), String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    let (code, seen) = on_terminal("queue cancel --all > log", b"y\n").await;
    assert!(code == "64" && seen.contains("--yes") && !seen.contains("go on?"), "{code}: {seen}");
    let (code, seen) = on_terminal("queue cancel --all", b"n\n").await;
    assert!(code == "1" && seen.contains("1/mysql/3306") && seen.contains("nothing was changed"), "{code}: {seen}");
    assert_eq!(site.queue.find(&JobFilter::default(), 1).await.unwrap().total, 1);
    let (code, seen) = on_terminal("queue cancel --all", b"y\n").await;
    assert!(code == "0" && seen.contains("cancel: 1 job"), "{code}: {seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_of_an_instance_counts_all_its_jobs_and_says_that_it_explains_some() {
    let site = Site::start().await;
    for _ in 0..6 {
        site.waiting("1/mysql/3306", 10).await;
    }
    let why = site.run(&["why", "1/mysql/3306"]).await.ended(0);
    let words = why.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("6 jobs of it are queued"), "{}", why.out);
    assert_eq!(why.out.lines().filter(|line| line.starts_with("job ")).count(), 5, "{}", why.out);
    let last = "5 of 6 jobs are explained; `longshore queue jobs --instance 1/mysql/3306` lists them";
    assert!(words.ends_with(last), "{}", why.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_can_not_be_asked_is_away_and_not_empty() {
    let site = Site::start().await;
    site.run(&["queue"]).await.ended(0);
    site.redis.stop();
    for what in ["queue", "nodes"] {
        let away = site.run(&[what]).await.ended(1);
        assert!(away.out.starts_with("the Redis of cluster default is away since"), "{what}: {}", away.out);
        assert!(!away.out.contains("ever queued") && !away.out.contains("no node"), "{what}: {}", away.out);
        assert!(away.out.lines().all(|line| console::measure_text_width(line) <= 80), "{what}: {}", away.out);
        site.run(&[what, "--json"]).await.ended(1).json();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_of_what_is_not_known_says_so() {
    let site = Site::start().await;
    let unknown: Ran = site.run(&["why", &JobId::fresh().to_string()]).await.ended(1);
    assert!(unknown.err.contains("in no queue and not in the catalog"), "{}", unknown.err);
    site.run(&["why", "x"]).await.ended(64);
    site.run(&["why", "1/mysql"]).await.ended(64);
    site.run(&["why", "1/mysql/3306"]).await.ended(1);
    let mut without = site.command();
    without.env_remove("LONGSHORE_TOKEN").args(["queue", "cancel", "--all", "--yes"]);
    finish(without).await.ended(78);
}
