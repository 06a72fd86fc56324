//! What a script and its log can say, and what becomes of it.

use std::{fs, os::unix::fs::symlink};

use longshore_core::{ContentKind, ReasonCode, beat::SectionOutcome};

use crate::host::{GOOD_SCRIPT, Host, SERVER, runs};

#[test]
fn a_backup_becomes_a_job_with_everything_a_node_needs() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "interval = \"1d\"");
    host.expect(&["run"], 0);
    let job = host.inbox("level1").remove(0);
    assert_eq!(job.key().to_string(), format!("{SERVER}/folder/web"));
    assert_eq!((job.business_id.as_str(), job.interval_seconds), ("31", 86400));
    let source = job.source.unwrap();
    assert_eq!((source.module.as_str(), source.path.as_str()), ("backup", "data/web.tar"));
    let content = job.content.unwrap();
    let bytes = fs::read(host.data().join("web.tar")).unwrap();
    let digest = longshore_core::digest::digest_reader(&bytes[..], Default::default()).unwrap();
    assert_eq!((content.kind, content.size_bytes), (ContentKind::File, bytes.len() as u64));
    assert_eq!(content.xxh3_128, digest.xxh3_128);
    assert_eq!((job.script.unwrap().exit, job.chain), (Some(0), None));
    assert_eq!((host.spooled("spool").len(), host.spooled("sent")), (0, vec![job.id.to_string()]));

    let beat = host.beats().remove(0);
    assert_eq!(beat.sections.len(), 1);
    assert_eq!((beat.sections[0].outcome, beat.sections[0].job), (SectionOutcome::Ok, Some(job.id)));
    assert!(beat.rsync_version.is_some());

    host.drain();
    host.age_ends();
    host.expect(&["run"], 0);
    assert_eq!(host.spooled("sent").len(), 1, "the stored job is forgotten, the new one is sent");
    assert_eq!(host.mailbox(), 0);
}

#[test]
fn a_directory_is_one_backup() {
    let host = Host::start();
    host.section(
        "tree",
        "mkdir -p $LONGSHORE_BACK_DIR/base/sub; echo 1 > $LONGSHORE_BACK_DIR/base/a; echo 22 > $LONGSHORE_BACK_DIR/base/sub/b\n\
         printf 'ok\\nbase/\\n' > $LONGSHORE_BACK_LOG",
        "",
    );
    host.expect(&["run"], 0);
    let content = host.inbox("level1").remove(0).content.unwrap();
    assert_eq!((content.kind, content.size_bytes, content.files), (ContentKind::Directory, 5, 2));
}

#[test]
fn the_script_has_the_names_of_its_instance_and_none_of_the_configuration() {
    let host = Host::start();
    host.section("env", "env > \"$LONGSHORE_BACK_DIR/env\"; printf 'ok\\nenv\\n' > \"$LONGSHORE_BACK_LOG\"", "");
    let mut command = host.command(&["run"]);
    command.env("LONGSHORE__REDIS__USERNAME", "default").env("LONGSHORE_LAST_ALL_LOG", "/stray");
    assert!(command.output().unwrap().status.success());
    let given = fs::read_to_string(host.data().join("env")).unwrap();
    for line in [
        "LONGSHORE_SERVER_ID=111111".to_owned(),
        "LONGSHORE_TYPE=folder".to_owned(),
        "LONGSHORE_INSTANCE=env".to_owned(),
        format!("LONGSHORE_BACK_DIR={}", host.data().display()),
        format!("LONGSHORE_BACK_LOG={}", host.log("env").display()),
    ] {
        assert!(given.lines().any(|given| given == line), "{line} is not in {given}");
    }
    assert!(!given.contains("LONGSHORE__") && !given.contains("ORDER") && !given.contains("/stray"), "{given}");
}

#[test]
fn each_failure_is_reported_with_its_own_reason() {
    let cases: &[(&str, &str, ReasonCode)] = &[
        ("wrong", "printf 'wrong\\nno such database\\n' > $LONGSHORE_BACK_LOG", ReasonCode::ScriptWrong),
        ("wrong-exit", "printf 'wrong\\nno disk\\n' > $LONGSHORE_BACK_LOG; exit 2", ReasonCode::ScriptWrong),
        ("exit", "echo it broke >&2; exit 3", ReasonCode::ScriptExit),
        (
            "ok-exit",
            "echo x > $LONGSHORE_BACK_DIR/f; printf 'ok\\nf\\n' > $LONGSHORE_BACK_LOG; exit 4",
            ReasonCode::ScriptExit,
        ),
        ("not-found", "/no/such/program", ReasonCode::ScriptExit),
        ("signal", "kill -KILL $$", ReasonCode::ScriptSignal),
        ("no-log", "true", ReasonCode::LogMissing),
        ("empty-log", ": > $LONGSHORE_BACK_LOG", ReasonCode::LogEmpty),
        ("log-folder", "mkdir $LONGSHORE_BACK_LOG", ReasonCode::LogUnreadable),
        ("word", "printf 'fine\\nf\\n' > $LONGSHORE_BACK_LOG", ReasonCode::LogWord),
        ("no-name", "printf 'ok\\n' > $LONGSHORE_BACK_LOG", ReasonCode::LogNoName),
        ("absolute", "printf 'ok\\n/etc/passwd\\n' > $LONGSHORE_BACK_LOG", ReasonCode::FileUnsafe),
        ("climbs", "printf 'ok\\n../agent.toml\\n' > $LONGSHORE_BACK_LOG", ReasonCode::FileUnsafe),
        ("control", "printf 'ok\\na\\033b\\n' > $LONGSHORE_BACK_LOG", ReasonCode::FileUnsafe),
        ("missing", "printf 'ok\\nnothing.tar\\n' > $LONGSHORE_BACK_LOG", ReasonCode::FileMissing),
        ("empty", ": > $LONGSHORE_BACK_DIR/e; printf 'ok\\ne\\n' > $LONGSHORE_BACK_LOG", ReasonCode::FileEmpty),
        (
            "link",
            "ln -sf /etc/passwd $LONGSHORE_BACK_DIR/l; printf 'ok\\nl\\n' > $LONGSHORE_BACK_LOG",
            ReasonCode::FileKind,
        ),
        ("pipe", "mkfifo $LONGSHORE_BACK_DIR/p; printf 'ok\\np\\n' > $LONGSHORE_BACK_LOG", ReasonCode::FileKind),
        (
            "growing",
            "(while :; do echo more >> $LONGSHORE_BACK_DIR/g; sleep 0.05; done) >/dev/null 2>&1 & echo $! > $LONGSHORE_BACK_DIR/g.pid\n\
             until [ -s $LONGSHORE_BACK_DIR/g ]; do :; done; printf 'ok\\ng\\n' > $LONGSHORE_BACK_LOG",
            ReasonCode::FileGrowing,
        ),
    ];
    let host = Host::with(longshore_tests::Redis::start(), "parallel = 8");
    for (name, script, _) in cases {
        host.section(name, script, "");
    }
    host.expect(&["run"], 1);
    let writer = fs::read_to_string(host.data().join("g.pid")).unwrap();
    assert!(runs(writer.trim()));
    let pid = rustix::process::Pid::from_raw(writer.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();

    assert_eq!(host.inbox("level1"), []);
    let reports = host.reports();
    assert_eq!(reports.len(), cases.len());
    for (name, _, code) in cases {
        let report = reports.iter().find(|report| report.job.instance.as_str() == *name).unwrap();
        let reason = report.reason.as_ref().unwrap();
        assert_eq!(&reason.code, code, "{name}: {}", reason.text);
        assert_eq!((report.node_id.is_none(), report.job.content.is_none()), (true, true));
    }
    let text = |name: &str| {
        let report = reports.iter().find(|report| report.job.instance.as_str() == name).unwrap();
        report.reason.as_ref().unwrap().text.clone()
    };
    assert_eq!(text("wrong"), "no such database");
    assert_eq!(text("wrong-exit"), "no disk (exit status 2)");
    assert_eq!(text("exit"), "exit status 3; its last output:\nit broke");
    let beat = host.beats().remove(0);
    assert!(beat.sections.iter().all(|section| section.outcome == SectionOutcome::Failed));

    let status = host.agent(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(crate::host::said(&status).contains("no such database"));
    // The next run sees the reports in the mailbox, and has nothing more to remember of them.
    host.age_ends();
    host.expect(&["flush"], 0);
    assert_eq!((host.spooled("sent").len(), host.mailbox()), (0, 0));
}

#[test]
fn a_log_that_this_run_did_not_write_is_stale_and_the_same_words_written_again_are_not() {
    let host = Host::start();
    // The same bytes, the same size, over and over, as fast as it goes.
    host.section("same", "echo x > $LONGSHORE_BACK_DIR/same; printf 'ok\\nsame\\n' > $LONGSHORE_BACK_LOG", "");
    for _ in 0..15 {
        host.expect(&["run", "same"], 0);
    }
    assert_eq!(host.inbox("level1").len(), 15);
    assert_eq!(host.reports(), []);

    host.section("stale", "true", "");
    fs::write(host.log("stale"), "ok\nsame\n").unwrap();
    host.expect(&["run", "stale"], 1);
    assert_eq!(host.only_report().reason.unwrap().code, ReasonCode::LogStale);

    // Other rights are not another log.
    host.section("chmod", "chmod 640 $LONGSHORE_BACK_LOG", "");
    fs::write(host.log("chmod"), "ok\nsame\n").unwrap();
    host.expect(&["run", "chmod"], 1);
    assert_eq!(host.reports()[1].reason.as_ref().unwrap().code, ReasonCode::LogStale);

    // A log replaced by a rename, or by one made before, is another one.
    for (name, write) in [
        ("renamed", "printf 'ok\\nsame\\n' > $LONGSHORE_BACK_LOG.new; mv $LONGSHORE_BACK_LOG.new $LONGSHORE_BACK_LOG"),
        ("removed", "rm $LONGSHORE_BACK_LOG; printf 'ok\\nsame\\n' > $LONGSHORE_BACK_LOG"),
    ] {
        host.section(name, write, "");
        fs::write(host.log(name), "ok\nsame\n").unwrap();
        host.expect(&["run", name], 0);
    }
}

#[test]
fn a_log_may_be_reached_through_a_link() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "");
    symlink(host.path("real.log"), host.log("web")).unwrap();
    host.expect(&["run"], 0);
    host.expect(&["run"], 0);
    assert_eq!(host.inbox("level1").len(), 2);
}

#[test]
fn verbose_shows_the_end_of_what_the_script_wrote() {
    let host = Host::start();
    let script = format!("seq 1 20000; echo the end >&2\n{GOOD_SCRIPT}");
    host.section("loud", &script, "");
    let quiet = host.agent(&["run"]);
    assert!(quiet.stdout.is_empty(), "{}", crate::host::said(&quiet));
    let loud = host.agent(&["run", "-v"]);
    let shown = String::from_utf8(loud.stdout).unwrap();
    assert!(shown.ends_with("19999\n20000\nthe end\n"), "{}", &shown[shown.len().saturating_sub(200)..]);
    assert!(!shown.contains("\n77\n") && shown.len() < 66 * 1024);
}
