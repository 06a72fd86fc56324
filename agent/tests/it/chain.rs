//! Fulls and increments, as nodes and the catalog will see them.

use std::fs;

use longshore_core::{ChainPosition, Millis, ReasonCode, chain};

use crate::host::Host;

/// `plan` says what the next run makes: `full`, `inc`, or `wrong`; the number of the run is in the name.
const SCRIPT: &str = r#"n=$(($(cat "$LONGSHORE_BACK_DIR/count" 2>/dev/null || echo 0) + 1)); echo $n > "$LONGSHORE_BACK_DIR/count"
what=$(cat "$LONGSHORE_BACK_DIR/plan")
[ "$what" = wrong ] && { printf 'wrong\nbusy\n' > "$LONGSHORE_BACK_LOG"; exit 0; }
[ "$what" = exit ] && exit 9
echo $n > "$LONGSHORE_BACK_DIR/$what-$n"
[ "$what" = full ] && printf 'ok\nfull-%s\n' $n > "$LONGSHORE_LAST_ALL_LOG"
printf 'ok\n%s-%s\n' $what $n > "$LONGSHORE_BACK_LOG""#;

fn chained() -> (Host, std::path::PathBuf) {
    let host = Host::start();
    let full_log = host.path("full.log");
    host.section("db", SCRIPT, &format!("last_all_log = \"{}\"", full_log.display()));
    (host, full_log)
}

fn run(host: &Host, what: &str, code: i32) {
    fs::write(host.data().join("plan"), what).unwrap();
    host.expect(&["run"], code);
}

fn judged(host: &Host) -> chain::ChainState {
    let jobs = host.inbox("level1");
    chain::judge(jobs.iter().map(|job| (job.id, job.chain.as_ref().unwrap())))
}

#[test]
fn a_full_and_its_increments_are_a_whole_chain_and_the_log_has_the_full_s_time() {
    let (host, full_log) = chained();
    for what in ["full", "inc", "inc", "inc"] {
        run(&host, what, 0);
    }
    assert_eq!(judged(&host), chain::ChainState::Whole);
    let jobs = host.inbox("level1");
    let links: Vec<_> = jobs.iter().map(|job| job.chain.clone().unwrap()).collect();
    assert_eq!(links[0].position, ChainPosition::Full);
    assert_eq!(links[3].sequence, Some(3));
    assert_eq!(links[3].previous, Some(jobs[2].id));
    assert!(links.iter().all(|link| link.full.made_at == jobs[0].made_at && link.full.name.as_str() == "full-1"));
    assert_eq!(fs::read_to_string(full_log).unwrap(), format!("ok\nfull-1\n{}\n", jobs[0].made_at.seconds()));
    run(&host, "full", 0);
    let again = host.inbox("level1").pop().unwrap().chain.unwrap();
    assert_eq!((again.position, again.sequence, again.full.name.as_str()), (ChainPosition::Full, Some(0), "full-5"));
}

#[test]
fn a_script_that_says_wrong_leaves_no_gap_and_one_that_dies_leaves_doubt() {
    let (host, _) = chained();
    run(&host, "full", 0);
    run(&host, "wrong", 1);
    run(&host, "inc", 0);
    assert_eq!(judged(&host), chain::ChainState::Whole);
    run(&host, "exit", 1);
    run(&host, "inc", 0);
    assert_eq!(judged(&host), chain::ChainState::Unproven);
}

#[test]
fn an_increment_that_was_made_and_cannot_be_sent_breaks_the_chain() {
    let (host, _) = chained();
    run(&host, "full", 0);
    // The next one is there, says the log, and is not.
    fs::create_dir(host.data().join("inc-2")).unwrap();
    run(&host, "inc", 1);
    assert_eq!(host.only_report().reason.unwrap().code, ReasonCode::FileEmpty);
    run(&host, "inc", 0);
    assert!(matches!(judged(&host), chain::ChainState::Broken { .. }));
}

#[test]
fn without_a_usable_log_of_the_full_the_chain_is_not_guessed() {
    let (host, full_log) = chained();
    run(&host, "inc", 1);
    fs::write(&full_log, "wrong\nfull failed\n").unwrap();
    run(&host, "inc", 1);
    for report in host.reports() {
        assert_eq!(report.reason.unwrap().code, ReasonCode::FullLogUnusable);
    }
}

#[test]
fn a_chain_begun_by_the_seed_s_client_goes_on() {
    let (host, full_log) = chained();
    fs::write(&full_log, "ok\nfull-of-old.xb\n1779000000\n").unwrap();
    run(&host, "inc", 0);
    let link = host.inbox("level1").remove(0).chain.unwrap();
    assert_eq!((link.full.name.as_str(), link.full.made_at), ("full-of-old.xb", Millis::from_seconds(1_779_000_000)));
    assert_eq!((link.previous, link.sequence), (None, None));
    assert_eq!(fs::read_to_string(full_log).unwrap(), "ok\nfull-of-old.xb\n1779000000\n");
}
