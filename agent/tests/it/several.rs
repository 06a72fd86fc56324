//! Many sections, overlapping runs, scripts that hang.

use std::{fs, time::Instant};

use longshore_core::{ReasonCode, beat::SectionOutcome};
use longshore_tests::{Redis, wait_until_blocking};
use rustix::process::{Pid, Signal, kill_process};

use crate::host::{GOOD_SCRIPT, Host, SOON, runs, said};

#[test]
fn ten_sections_run_four_at_a_time_and_each_makes_its_own_job() {
    let host = Host::start();
    // Each marks that it runs, and counts those that do.
    let script = format!(
        "mkdir -p {0}/now; : > {0}/now/$LONGSHORE_INSTANCE; sleep 0.3; ls {0}/now | wc -l >> {0}/counts; rm {0}/now/$LONGSHORE_INSTANCE\n{GOOD_SCRIPT}",
        host.path("marks").display()
    );
    fs::create_dir(host.path("marks")).unwrap();
    for number in 0..10 {
        host.section(&format!("s{number}"), &script, "");
    }
    host.expect(&["run"], 0);
    let mut instances: Vec<String> = host.inbox("level1").iter().map(|job| job.instance.to_string()).collect();
    instances.sort();
    assert_eq!(instances, (0..10).map(|number| format!("s{number}")).collect::<Vec<_>>());
    let counts = fs::read_to_string(host.path("marks/counts")).unwrap();
    let most = counts.lines().map(|line| line.trim().parse::<u32>().unwrap()).max();
    assert!(matches!(most, Some(2..=4)), "{counts}");
    assert_eq!(host.beats()[0].sections.len(), 10);
}

#[test]
fn starts_are_staggered() {
    let host = Host::start();
    let config = fs::read_to_string(host.path("agent.toml")).unwrap().replace("stagger = 0", "stagger = \"1s\"");
    fs::write(host.path("agent.toml"), config).unwrap();
    for name in ["a", "b", "c"] {
        host.section(name, GOOD_SCRIPT, "");
    }
    host.expect(&["run"], 0);
    let jobs = host.inbox("level1");
    assert!(jobs.windows(2).all(|pair| pair[1].made_at.0 - pair[0].made_at.0 >= 500), "{jobs:?}");
}

#[test]
fn one_section_can_be_run_alone_into_another_queue() {
    let host = Host::start();
    host.section("a", GOOD_SCRIPT, "queue = \"level3\"").section("b", GOOD_SCRIPT, "");
    host.expect(&["run", "a", "-q", "urgent"], 0);
    assert_eq!(host.inbox("urgent").len(), 1);
    assert_eq!(host.inbox("level1").len() + host.inbox("level3").len(), 0);
    host.expect(&["run"], 0);
    assert_eq!((host.inbox("level3").len(), host.inbox("level1").len()), (1, 1));
    let said = host.expect(&["run", "bb"], 64);
    assert!(said.contains("[bb]") && said.contains("a, b"), "{said}");
}

#[test]
fn a_run_that_overlaps_the_one_before_skips_that_instance_and_says_so() {
    let host = Host::start();
    let script =
        format!(": > {0}/started; while [ ! -e {0}/go ]; do sleep 0.02; done\n{GOOD_SCRIPT}", host.data().display());
    host.section("slow", &script, "").section("quick", GOOD_SCRIPT, "");
    let first = host.spawn(&["run", "slow"]);
    wait_until_blocking("the script runs", SOON, || host.data().join("started").exists());
    let said_by_second = host.expect(&["run"], 0);
    assert!(said_by_second.contains("skipped: its earlier run is not over"), "{said_by_second}");
    let beat = host.beats().remove(0);
    let outcomes: Vec<_> = beat.sections.iter().map(|section| (section.name.as_str(), section.outcome)).collect();
    assert_eq!(outcomes, [("quick", SectionOutcome::Ok), ("slow", SectionOutcome::Skipped)]);
    assert!(host.status()["instances"][1]["running"].as_bool().unwrap());
    fs::write(host.data().join("go"), "").unwrap();
    let output = first.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(host.inbox("level1").len(), 2);
}

#[test]
fn a_timeout_ends_the_script_and_everything_it_started() {
    let host = Host::start();
    let script =
        format!("sh -c 'sleep 600 & echo $! > {0}/child; wait' & echo before; sleep 600", host.data().display());
    host.section("hangs", &script, "timeout = \"500ms\"");
    host.expect(&["run"], 1);
    let reason = host.only_report().reason.unwrap();
    assert_eq!(reason.code, ReasonCode::ScriptTimeout);
    assert!(reason.text.contains("before"), "{}", reason.text);
    let child = fs::read_to_string(host.data().join("child")).unwrap();
    assert!(!runs(child.trim()));
}

#[test]
fn what_ignores_the_request_to_end_is_killed_after_ten_seconds() {
    let host = Host::start();
    let script = format!(
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {0}/child; while :; do sleep 1; done' & while :; do sleep 1; done",
        host.data().display()
    );
    host.section("stubborn", &script, "timeout = \"200ms\"");
    let began = Instant::now();
    host.expect(&["run"], 1);
    assert!(began.elapsed().as_secs() >= 10);
    assert_eq!(host.only_report().reason.unwrap().code, ReasonCode::ScriptTimeout);
    let child = fs::read_to_string(host.data().join("child")).unwrap();
    assert!(!runs(child.trim()));
}

#[test]
fn an_agent_that_is_told_to_stop_ends_its_scripts_and_reports_them() {
    let host = Host::start();
    let script = format!(": > {0}/started; echo $$ > {0}/pid; sleep 600", host.data().display());
    host.section("long", &script, "").section("never", GOOD_SCRIPT, "");
    let config =
        fs::read_to_string(host.path("agent.toml")).unwrap().replace("stagger = 0", "stagger = 0\nparallel = 1");
    fs::write(host.path("agent.toml"), config).unwrap();
    let run = host.spawn(&["run"]);
    wait_until_blocking("the script runs", SOON, || host.data().join("started").exists());
    kill_process(Pid::from_raw(run.id().try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!runs(fs::read_to_string(host.data().join("pid")).unwrap().trim()));
    let reason = host.only_report().reason.unwrap();
    assert_eq!(reason.code, ReasonCode::ScriptSignal);
    assert_eq!(host.beats()[0].sections[1].outcome, SectionOutcome::Skipped);
}

#[test]
fn a_wrapper_that_is_told_to_stop_at_its_scripts_first_breath_ends_the_script() {
    let host = Host::start();
    let script = format!("kill -TERM $PPID; echo $$ > {0}/pid; exec sleep 600", host.data().display());
    host.section("early", &script, "");
    for round in 1..=10 {
        host.expect(&["run"], 1);
        let reason = host.reports().pop().unwrap().reason.unwrap();
        assert_eq!(reason.code, ReasonCode::ScriptSignal, "round {round}: {}", reason.text);
        // Empty, where the script was ended while it wrote.
        let pid = fs::read_to_string(host.data().join("pid")).unwrap_or_default();
        assert!(pid.trim().is_empty() || !runs(pid.trim()), "round {round}: the script goes on");
    }
}

#[test]
fn a_background_process_that_keeps_the_output_open_does_not_hold_the_run() {
    let host = Host::with(Redis::start(), "");
    let script = format!("sleep 600 & echo $! > {0}/daemon\n{GOOD_SCRIPT}", host.data().display());
    host.section("daemon", &script, "");
    let began = Instant::now();
    host.expect(&["run"], 0);
    assert!(began.elapsed().as_secs() < 10);
    let daemon = fs::read_to_string(host.data().join("daemon")).unwrap();
    assert!(runs(daemon.trim()), "what the script left running is its own affair");
    kill_process(Pid::from_raw(daemon.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
}
