//! What the command shows, and how it ends.

use longshore_core::{Outcome, ReasonCode, report::Reason};

use crate::site::{Site, finish};

const KEY: &str = "111111/mysql/3306";

async fn filled() -> Site {
    let site = Site::start().await;
    site.puller("1").await;
    let mut reports = site.store(&site.chain(KEY)).await;
    let mut failed = reports.remove(0);
    failed.job.id = longshore_core::JobId::fresh();
    failed.job.instance = "6379".parse().unwrap();
    failed.outcome = Outcome::Failed;
    let reason = "连接失败，请检查数据库的用户名和密码，然后再试一次: access denied for user backup at 10.0.0.1";
    failed.reason = Some(Reason::new(ReasonCode::ScriptWrong, reason));
    site.index(&[failed]).await;
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_fits_80_columns_and_every_json_is_json() {
    let site = filled().await;
    for (args, code, wanted) in [
        (&["status"][..], 1, "late"),
        (&["backups"], 0, "inc 2"),
        (&["backups", "list", KEY], 0, "full"),
        (&["backups", "list", "--outcome", "failed"], 0, "failed"),
        (&["instances"], 0, "never"),
        (&["instances", "list", "--late"], 1, "never"),
        (&["instances", "show", KEY], 0, "last good"),
        (&["nodes"], 0, "claiming"),
        (&["queue"], 0, "level1"),
        (&["queue", "dead"], 0, "nothing is kept"),
        (&["restore", "plan", KEY], 0, "whole"),
        (&["registry", "list", "nodes"], 0, "no nodes"),
    ] {
        let ran = site.run(args).await.ended(code);
        assert!(ran.out.to_lowercase().contains(wanted), "{args:?}: {}", ran.out);
        for line in ran.out.lines() {
            // Names and values of one thing are lines, not a table: they may be longer.
            let is_table = !matches!(args, ["status"] | ["instances", "show", ..] | ["restore", ..]);
            let width = console::measure_text_width(line);
            assert!(!is_table || width <= 80, "{width} columns: {line}");
        }
        let json = site.run(&[args, &["--json"]].concat()).await.ended(code);
        assert!(json.json().is_object(), "{args:?}");
    }
    let times = site.run(&["backups"]).await;
    assert!(times.out.contains("MADE (CST)"), "the zone is shown: {}", times.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_backup_is_shown_whole() {
    let site = filled().await;
    let list = site.run(&["backups", "list", "--json", "--limit", "1"]).await.json();
    assert!(list["next"].is_string(), "there are more");
    let id = list["items"][0]["id"].as_str().unwrap();
    let shown = site.run(&["backups", "show", id]).await.ended(0);
    for wanted in [id, "inc-2 库.xb", "xxh3-128", "CST"] {
        assert!(shown.out.contains(wanted), "{wanted} in {}", shown.out);
    }
    site.run(&["backups", "show", "x"]).await.ended(64);
    let other = longshore_core::JobId::fresh().to_string();
    site.run(&["backups", "show", &other]).await.ended(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_and_a_wrong_token_are_told_apart() {
    let site = Site::start().await;
    let away = site.run(&["--server", "http://127.0.0.1:1", "status"]).await.ended(69);
    assert!(away.err.contains("no answer") && away.err.contains("LONGSHORE_SERVER"), "{}", away.err);
    let mut wrong = site.command();
    wrong.env("LONGSHORE_TOKEN", "wrong").arg("status");
    let wrong = finish(wrong).await.ended(78);
    assert!(wrong.err.contains("does not take this token") && wrong.err.contains("--token-file"), "{}", wrong.err);
    let mut none = site.command();
    none.env_remove("LONGSHORE_TOKEN").arg("nodes");
    finish(none).await.ended(78);
    site.run(&["--server", "ftp://x", "status"]).await.ended(78);
    site.run(&["nonsense"]).await.ended(64);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_file_says_where_and_the_token_file_is_read() {
    let site = Site::start().await;
    let home = site.folder.path().join("home");
    std::fs::create_dir_all(home.join(".config")).unwrap();
    let token = site.folder.path().join("data/token");
    let text = format!("server = \"{}\"\ntoken_file = {token:?}\n", site.url);
    std::fs::write(home.join(".config/longshore.toml"), text).unwrap();
    let mut command = site.command();
    command.env_remove("LONGSHORE_SERVER").env_remove("LONGSHORE_TOKEN").env("HOME", &home).arg("nodes");
    finish(command).await.ended(0);
    let mut flags = site.command();
    flags.env_remove("LONGSHORE_TOKEN").arg("--token-file").arg(&token).arg("nodes");
    finish(flags).await.ended(0);
    std::fs::write(home.join(".config/longshore.toml"), "servr = \"x\"\n").unwrap();
    let mut wrong = site.command();
    wrong.env("HOME", &home).arg("nodes");
    let wrong = finish(wrong).await.ended(78);
    assert!(wrong.err.contains("longshore.toml:1") && wrong.err.contains("server"), "{}", wrong.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_are_made_for_a_shell() {
    let site = Site::start().await;
    let made = site.run(&["completions", "bash"]).await.ended(0);
    assert!(made.out.contains("longshore"));
}
