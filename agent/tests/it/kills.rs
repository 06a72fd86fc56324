//! The agent, its wrapper, or both are killed at each border between two steps. The next run neither loses nor doubles.

use std::{collections::BTreeMap, fs, os::unix::process::ExitStatusExt};

use longshore_core::{JobId, Outcome, ReasonCode, Report, chain};
use longshore_tests::wait_until_blocking;

use crate::host::{Host, SOON, said};

/// Each run makes a file of its own number; the first is a full, the others are increments.
const SCRIPT: &str = r#"n=$(($(cat "$LONGSHORE_BACK_DIR/count" 2>/dev/null || echo 0) + 1)); echo $n > "$LONGSHORE_BACK_DIR/count"
echo $n > "$LONGSHORE_BACK_DIR/run-$n"
[ $n = 1 ] && printf 'ok\nrun-1\n' > "$LONGSHORE_LAST_ALL_LOG"
printf 'ok\nrun-%s\n' $n > "$LONGSHORE_BACK_LOG""#;

fn chained() -> Host {
    let host = Host::start();
    host.section("db", SCRIPT, &format!("last_all_log = \"{}\"", host.path("full.log").display()));
    host
}

/// Runs the agent, killed at `step`; it must have been.
fn killed_at(host: &Host, step: &str) {
    let output = host.command(&["run"]).env("LONGSHORE_STOP_AT", step).output().unwrap();
    assert_eq!(output.status.signal(), Some(9), "{step} was not reached: {}", said(&output));
    host.wait_until_quiet();
}

/// Runs and drains until nothing is left, then returns all reports by job, of which each must have one.
fn settled(host: &Host) -> BTreeMap<JobId, Report> {
    host.drain();
    host.age_ends();
    host.expect(&["flush"], 0);
    assert_eq!((host.spooled("spool"), host.spooled("sent")), (vec![], vec![]));
    let mut reports = BTreeMap::new();
    for report in host.reports() {
        let id = report.job.id;
        assert!(reports.insert(id, report).is_none(), "{id} has two reports");
    }
    reports
}

/// Every script run up to now was stored exactly once, and their chain is whole.
fn assert_all_stored(host: &Host, step: &str, reports: &BTreeMap<JobId, Report>) {
    let count: usize = fs::read_to_string(host.data().join("count")).unwrap().trim().parse().unwrap();
    let mut names: Vec<&str> = reports.values().filter_map(|report| report.job.name()).collect();
    names.sort_unstable();
    let mut expected: Vec<String> = (1..=count).map(|number| format!("run-{number}")).collect();
    expected.sort_unstable();
    assert_eq!(names, expected, "killed at {step}");
    assert!(reports.values().all(|report| report.outcome == Outcome::Stored), "killed at {step}");
    let links = reports.values().map(|report| (report.job.id, report.job.chain.as_ref().unwrap()));
    assert_eq!(chain::judge(links), chain::ChainState::Whole, "killed at {step}");
}

#[test]
fn killed_at_any_step_after_the_script_began_nothing_is_lost_and_nothing_is_doubled() {
    for step in [
        "agent.script_started",
        "agent.script_ended",
        "agent.examined",
        "agent.chained",
        "agent.spooled",
        "agent.intent_removed",
        "agent.offered",
        "agent.sent",
        "agent.beat",
        "agent.mailbox_read",
        "agent.sent_cleaned",
        "agent.acknowledged",
    ] {
        let host = chained();
        host.expect(&["run"], 0);
        host.drain();
        host.age_ends();
        killed_at(&host, step);
        // What is pushed already may be stored before the next run finds the rest.
        host.drain();
        host.age_ends();
        host.expect(&["run"], 0);
        let reports = settled(&host);
        assert_all_stored(&host, step, &reports);
    }
}

#[test]
fn a_full_that_was_noted_before_the_kill_is_the_same_full_afterwards() {
    let host = chained();
    killed_at(&host, "agent.full_noted");
    host.expect(&["run"], 0);
    let reports = settled(&host);
    assert_all_stored(&host, "agent.full_noted", &reports);
    assert_eq!(reports.len(), 2);
}

#[test]
fn killed_before_the_intent_nothing_had_begun() {
    let host = chained();
    host.expect(&["run"], 0);
    killed_at(&host, "agent.locked");
    host.expect(&["run"], 0);
    let reports = settled(&host);
    assert_all_stored(&host, "agent.locked", &reports);
    assert_eq!(reports.len(), 2);
}

#[test]
fn killed_between_the_intent_and_the_script_the_run_is_reported_as_unknown() {
    let host = chained();
    host.expect(&["run"], 0);
    killed_at(&host, "agent.intent");
    assert!(host.status()["instances"][0]["unfinished"].as_bool().unwrap());
    host.expect(&["run"], 1);
    let reports = settled(&host);
    let failed: Vec<_> = reports.values().filter(|report| report.outcome == Outcome::Failed).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].reason.as_ref().unwrap().code, ReasonCode::ScriptUnknown);
    assert_eq!(reports.len(), 3);
}

#[test]
fn a_wrapper_that_is_killed_after_its_record_loses_nothing() {
    let host = chained();
    host.expect(&["run"], 0);
    let run = host.command(&["run"]).env("LONGSHORE_STOP_AT", "wrapper.recorded").output().unwrap();
    assert!(run.status.success(), "{}", said(&run));
    let reports = settled(&host);
    assert_all_stored(&host, "wrapper.recorded", &reports);
    assert_eq!(reports.len(), 2);
}

#[test]
fn a_wrapper_that_is_killed_before_its_record_is_a_failure_and_its_script_is_ended() {
    for step in ["wrapper.script_started", "wrapper.script_ended"] {
        let host = Host::start();
        let script = match step {
            "wrapper.script_started" => format!("echo $$ > {}/pid; sleep 600", host.data().display()),
            _ => SCRIPT.to_owned(),
        };
        host.section("db", &script, "");
        let run = host.command(&["run"]).env("LONGSHORE_STOP_AT", step).output().unwrap();
        assert_eq!(run.status.code(), Some(1), "{}", said(&run));
        assert_eq!(host.only_report().reason.unwrap().code, ReasonCode::ScriptUnknown, "{step}");
        if let Ok(pid) = fs::read_to_string(host.data().join("pid")) {
            assert!(!crate::host::runs(pid.trim()), "the script outlived its wrapper");
        }
    }
}

#[test]
fn a_script_outlives_its_killed_agent_and_the_next_run_waits_for_it() {
    let host = Host::start();
    let script = format!("while [ ! -e {0}/go ]; do sleep 0.02; done; echo said\n{SCRIPT}", host.data().display());
    host.section("db", &script, &format!("last_all_log = \"{}\"", host.path("full.log").display()));
    let output = host.command(&["run"]).env("LONGSHORE_STOP_AT", "agent.script_started").output().unwrap();
    assert_eq!(output.status.signal(), Some(9), "{}", said(&output));
    let second = host.expect(&["run"], 0);
    assert!(second.contains("skipped"), "{second}");
    assert_eq!(host.inbox("level1"), []);
    fs::write(host.data().join("go"), "").unwrap();
    host.wait_until_quiet();
    let third = host.expect(&["run"], 0);
    assert!(third.contains("finishing an earlier run"), "{third}");
    let reports = settled(&host);
    assert_all_stored(&host, "agent.script_started", &reports);
    assert_eq!(reports.len(), 2);
}

#[test]
fn when_agent_and_wrapper_are_both_killed_the_script_is_not_started_a_second_time_beside_itself() {
    let host = Host::start();
    let script =
        format!("echo $$ >> {0}/pids; while [ ! -e {0}/go ]; do sleep 0.02; done\n{SCRIPT}", host.data().display());
    host.section("db", &script, &format!("last_all_log = \"{}\"", host.path("full.log").display()));
    let mut run = host.spawn(&["run"]);
    wait_until_blocking("the script runs", SOON, || host.data().join("pids").exists());
    let process = host.state().join("instances/111111/folder/db/process.json");
    wait_until_blocking("its process is noted", SOON, || process.exists());
    let wrapper = fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).unwrap();
    let mut kill = vec!["-KILL".to_owned(), run.id().to_string()];
    kill.extend(wrapper.split_whitespace().map(str::to_owned));
    assert!(std::process::Command::new("kill").args(kill).status().unwrap().success());
    run.wait().unwrap();

    wait_until_blocking("the lock is free", SOON, || host.status()["instances"][0]["running"] == false);
    let second = host.expect(&["run"], 0);
    assert!(second.contains("skipped: the script of its earlier run is not over"), "{second}");
    fs::write(host.data().join("go"), "").unwrap();
    let pid = fs::read_to_string(host.data().join("pids")).unwrap();
    wait_until_blocking("the script ends", SOON, || !crate::host::runs(pid.trim()));
    host.expect(&["run"], 1);
    let reports = settled(&host);
    let codes: Vec<_> =
        reports.values().map(|report| report.reason.as_ref().map(|reason| reason.code.clone())).collect();
    assert_eq!(codes, [Some(ReasonCode::ScriptUnknown), None]);
}

#[test]
fn what_was_begun_for_a_section_that_is_gone_is_finished_too() {
    let host = chained();
    killed_at(&host, "agent.script_ended");
    let config = fs::read_to_string(host.path("agent.toml")).unwrap();
    fs::write(host.path("agent.toml"), config.replace("instance = \"db\"", "instance = \"other\"")).unwrap();
    host.expect(&["run"], 0);
    let jobs = host.inbox("level1");
    let instances: Vec<_> = jobs.iter().map(|job| job.instance.as_str()).collect();
    assert_eq!(instances, ["db", "other"]);
}

#[test]
fn a_run_that_cannot_take_the_lock_leaves_what_an_earlier_one_began() {
    let host = chained();
    killed_at(&host, "agent.script_ended");
    let lock = host.state().join("instances/111111/folder/db/lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let said = host.expect(&["run"], 1);
    assert!(said.contains(lock.to_str().unwrap()), "{said}");
    fs::remove_dir(&lock).unwrap();
    host.expect(&["run"], 0);
    let mut reports = settled(&host);
    reports.retain(|_, report| report.reason.as_ref().is_none_or(|reason| reason.code != ReasonCode::ScriptStart));
    assert_all_stored(&host, "agent.script_ended", &reports);
    assert_eq!(reports.len(), 2);
}

#[test]
fn a_submitted_file_that_was_spooled_is_pushed_by_the_next_run() {
    let host = chained();
    fs::write(host.data().join("by-hand"), "x").unwrap();
    let file = host.data().join("by-hand");
    let arguments = ["submit", file.to_str().unwrap(), "--type", "folder", "--instance", "db"];
    let output = host.command(&arguments).env("LONGSHORE_STOP_AT", "agent.spooled").output().unwrap();
    assert_eq!(output.status.signal(), Some(9), "{}", said(&output));
    host.expect(&["run"], 0);
    assert_eq!(host.inbox("level1").len(), 2);
}
