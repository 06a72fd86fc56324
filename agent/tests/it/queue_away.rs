//! The queue is away, forgets, or comes back.

use std::{
    fs, io,
    net::{TcpListener, TcpStream},
    process::Stdio,
    thread,
};

use longshore_core::Outcome;
use longshore_tests::wait_until_blocking;

use crate::host::{GOOD_SCRIPT, Host, SERVER, SOON};

#[test]
fn without_the_queue_results_are_kept_in_order_and_flush_pushes_them() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "").section("bad", "exit 1", "");
    host.redis.stop();
    for _ in 0..3 {
        let said = host.expect(&["run", "web"], 75);
        assert!(said.contains("spool"), "{said}");
    }
    host.expect(&["run", "bad"], 1);
    host.expect(&["flush"], 75);
    let kept = host.spooled("spool");
    assert_eq!(kept.len(), 4);
    assert_eq!(host.status()["spool"]["waiting"], 4);

    host.redis.start_again();
    host.expect(&["flush"], 0);
    let pushed: Vec<String> = host.inbox("level1").iter().map(|job| job.id.to_string()).collect();
    assert_eq!(pushed, kept[..3]);
    assert_eq!(host.only_report().job.id.to_string(), kept[3]);
    assert_eq!((host.spooled("spool").len(), host.spooled("sent").len()), (0, 4));
}

#[test]
fn the_next_run_pushes_what_the_one_before_had_to_keep() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "");
    host.redis.stop();
    host.expect(&["run"], 75);
    host.redis.start_again();
    host.expect(&["run"], 0);
    assert_eq!(host.inbox("level1").len(), 2);
}

#[test]
fn a_queue_that_has_lost_its_data_is_healed_by_the_next_run() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "");
    host.expect(&["run"], 0);
    let lost = host.inbox("level1").remove(0);
    let _: () = redis::cmd("FLUSHALL").query(&mut host.redis.connection()).unwrap();
    host.expect(&["run"], 0);
    let jobs = host.inbox("level1");
    assert_eq!(jobs.len(), 2);
    assert!(jobs.contains(&lost));
    // While it is known nothing is pushed twice, however often a run asks.
    for _ in 0..3 {
        host.expect(&["flush"], 0);
    }
    assert_eq!(host.inbox("level1").len(), 2);
    assert_eq!(host.drain().len(), 2);
    host.age_ends();
    host.expect(&["flush"], 0);
    assert_eq!((host.spooled("sent").len(), host.mailbox()), (0, 0));
}

#[test]
fn a_job_whose_whole_life_the_queue_may_still_lose_is_kept_and_offered_again() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "").section("bad", "exit 1", "");
    host.expect(&["run"], 1);
    let stored = host.drain();
    // Ended just now, and so is the failure: as often as a run looks, both stay here, and neither is offered beside its report.
    for _ in 0..2 {
        host.expect(&["flush"], 0);
        assert_eq!((host.spooled("sent").len(), host.mailbox()), (2, 2));
        assert_eq!((host.inbox("level1").len(), host.reports().len()), (0, 2));
    }
    // Redis comes back without its last seconds: no report, no mailbox, no job.
    redis::cmd("FLUSHALL").exec(&mut host.redis.connection()).unwrap();
    host.expect(&["flush"], 0);
    assert_eq!(host.inbox("level1"), stored);
    assert_eq!((host.only_report().outcome, host.spooled("sent").len()), (Outcome::Failed, 2));
    assert_eq!(host.drain(), stored);
    host.age_ends();
    host.expect(&["flush"], 0);
    assert_eq!((host.spooled("sent").len(), host.mailbox(), host.reports().len()), (0, 0, 2));
}

#[test]
fn a_job_that_ended_before_the_queue_answered_its_offer_is_kept_as_long() {
    for is_old in [false, true] {
        let host = Host::start();
        host.section("web", GOOD_SCRIPT, "");
        let run = host.command(&["run"]).env("LONGSHORE_STOP_AT", "agent.offered").output().unwrap();
        assert!(!run.status.success(), "{}", crate::host::said(&run));
        host.wait_until_quiet();
        assert_eq!((host.drain().len(), host.spooled("spool").len()), (1, 1));
        if is_old {
            host.age_ends();
        }
        host.expect(&["flush"], 0);
        let left = usize::from(!is_old);
        assert_eq!((host.spooled("spool").len(), host.spooled("sent").len(), host.mailbox()), (0, left, left));
        // Where only the queue's own memory tells of the end, and no mailbox.
        redis::cmd("DEL").arg(format!("longshore:mailbox:{SERVER}")).exec(&mut host.redis.connection()).unwrap();
        host.expect(&["flush"], 0);
        assert_eq!((host.spooled("sent").len(), host.inbox("level1").len()), (left, 0));
    }
}

#[test]
fn a_refused_login_keeps_everything_and_says_what_to_do() {
    let host = Host::with(longshore_tests::Redis::start_with(&["--requirepass", "secret"]), "");
    host.section("web", GOOD_SCRIPT, "");
    let said = host.expect(&["run"], 75);
    assert!(said.contains("username and password"), "{said}");
    assert_eq!(host.spooled("spool").len(), 1);
    let mut flush = host.command(&["flush"]);
    assert!(flush.env("LONGSHORE__REDIS__PASSWORD", "secret").output().unwrap().status.success());
    assert_eq!(host.spooled("sent").len(), 1);
}

#[test]
fn a_queue_that_comes_back_while_scripts_run_gets_the_jobs_before_the_run_ends() {
    let host = Host::start();
    let script = format!("while [ ! -e {}/go ]; do sleep 0.05; done\n{GOOD_SCRIPT}", host.data().display());
    host.section("fast", GOOD_SCRIPT, "").section("slow", &script, "");
    host.redis.stop();
    let run = host.spawn(&["run"]);
    wait_until_blocking("the fast one is kept", SOON, || host.spooled("spool").len() == 1);
    host.redis.start_again();
    wait_until_blocking("the fast one is pushed", SOON, || host.spooled("sent").len() == 1);
    fs::write(host.data().join("go"), "").unwrap();
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", crate::host::said(&output));
    assert_eq!(host.inbox("level1").len(), 2);
}

#[test]
fn a_full_disk_is_named_and_the_result_is_pushed_all_the_same() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "");
    host.expect(&["run"], 0);
    // A spool that takes nothing, for root too: a file stands where the folder was.
    fs::remove_dir_all(host.state().join("spool")).unwrap();
    fs::write(host.state().join("spool"), "").unwrap();
    let said = host.expect(&["run"], 1);
    let spool = host.state().join("spool");
    assert!(said.contains(spool.to_str().unwrap()) && said.contains("pushed without being kept"), "{said}");
    assert_eq!(host.inbox("level1").len(), 2);
    assert_eq!(host.beats().len(), 2, "a host whose disk failed is not silent");
    // With room again the intent is still there: its run is kept now, and known to the queue.
    fs::remove_file(&spool).unwrap();
    host.expect(&["run"], 0);
    assert_eq!(host.inbox("level1").len(), 3);
    assert_eq!(host.spooled("sent").len(), 3);
}

#[test]
fn a_result_that_neither_disk_nor_queue_took_is_not_overwritten_by_the_next_run() {
    let host = Host::start();
    let script = format!("echo run >> {}/runs\n{GOOD_SCRIPT}", host.data().display());
    host.section("web", &script, "");
    host.expect(&["run"], 0);
    fs::remove_dir_all(host.state().join("spool")).unwrap();
    fs::write(host.state().join("spool"), "").unwrap();
    host.redis.stop();
    for _ in 0..2 {
        let said = host.expect(&["run"], 1);
        assert!(said.contains("could not be pushed either"), "{said}");
    }
    fs::remove_file(host.state().join("spool")).unwrap();
    host.redis.start_again();
    host.expect(&["run"], 0);
    let runs = fs::read_to_string(host.data().join("runs")).unwrap().lines().count();
    assert_eq!(host.inbox("level1").len() + host.reports().len(), runs, "each script that ran has its result");
}

#[test]
fn what_another_agent_has_cleaned_up_meanwhile_is_not_pushed_again() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "");
    host.expect(&["run"], 0);
    host.drain();
    host.age_ends();
    // Listens where the second agent thinks that Redis is: once it connects, it has seen what was sent.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let flush =
        host.command(&["flush"]).env("LONGSHORE__REDIS__ADDRESS", address).stderr(Stdio::piped()).spawn().unwrap();
    let (mut agent, _) = listener.accept().unwrap();
    // The first one cleans up, and it is long ago that the job ended.
    host.expect(&["flush"], 0);
    assert_eq!((host.spooled("sent").len(), host.mailbox()), (0, 0));
    let job = &host.reports()[0].job;
    let _: () =
        redis::cmd("DEL").arg(format!("longshore:ended:{}", job.id)).query(&mut host.redis.connection()).unwrap();
    let mut redis = TcpStream::connect(host.redis.address()).unwrap();
    let (mut answers, mut to_agent) = (redis.try_clone().unwrap(), agent.try_clone().unwrap());
    thread::spawn(move || io::copy(&mut answers, &mut to_agent));
    thread::spawn(move || io::copy(&mut agent, &mut redis));
    let output = flush.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", crate::host::said(&output));
    assert_eq!(host.inbox("level1"), []);
}
