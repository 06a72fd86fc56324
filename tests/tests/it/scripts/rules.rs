//! What holds for every script: when a full comes and goes, who may run beside whom, and how failures and kills end.

use std::{
    fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use longshore_tests::{Process, wait_until_blocking};

use super::{Instance, Log, assert_same_tree, make_tree, script};

#[test]
fn fulls_come_when_they_are_due_and_old_chains_go() {
    let instance =
        Instance::new("folder", "site").with_last_all_log().with("INCREMENTS_PER_FULL", "2").with("KEEP_CHAINS", "2");
    let source = instance.path("source");
    make_tree(&source);
    fs::write(instance.back_dir().join("folder-site.notes"), "not the script's").unwrap();
    fs::write(instance.back_dir().join("folder-site2.20200101-000000.000-full.tar"), "another instance's").unwrap();
    let made: Vec<String> = (0..7)
        .map(|_| instance.good("folder-backup", &[&source]).file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let fulls: Vec<bool> = made.iter().map(|name| name.contains("-full")).collect();
    assert_eq!(fulls, [true, false, false, true, false, false, true]);
    let mut expected = made[3..].to_vec();
    expected.push("folder-site.notes".to_owned());
    expected.push("folder-site2.20200101-000000.000-full.tar".to_owned());
    expected.sort();
    assert_eq!(instance.kept(), expected);

    // One that is asked for, and one after the logs were lost.
    let asked = instance.command("folder-backup", &[&source]).env("FULL", "yes").status().unwrap();
    assert!(asked.success() && instance.log().lines[0].contains("-full"));
    instance.good("folder-backup", &[&source]);
    fs::remove_file(instance.path("last_all_log")).unwrap();
    let again = instance.good("folder-backup", &[&source]);
    assert!(again.to_str().unwrap().contains("-full"));
}

#[test]
fn without_a_last_all_log_every_backup_is_a_full() {
    let instance = Instance::new("folder", "site");
    let source = instance.path("source");
    make_tree(&source);
    for _ in 0..2 {
        assert!(instance.good("folder-backup", &[&source]).to_str().unwrap().contains("-full"));
        assert_eq!(instance.log().value("from"), None);
    }
}

#[test]
fn a_second_run_beside_a_running_one_leaves_its_logs_alone() {
    let instance = Instance::new("folder", "site").with_last_all_log();
    let source = instance.path("source");
    make_tree(&source);
    instance.good("folder-backup", &[&source]);
    let before = fs::read(instance.path("back_log")).unwrap();
    let lock = fs::File::open(instance.back_dir().join(".longshore/folder-site/lock")).unwrap();
    lock.lock().unwrap();
    let (output, _) = instance.backup("folder-backup", &[&source]);
    assert_eq!(output.status.code(), Some(75));
    assert_eq!(fs::read(instance.path("back_log")).unwrap(), before);
}

#[test]
fn a_full_disk_is_told_and_the_half_file_goes_away() {
    let instance = Instance::new("folder", "site").with_last_all_log().with("COMPRESS", "none");
    let source = instance.path("source");
    make_tree(&source);
    fs::write(source.join("large"), vec![7; 3 << 20]).unwrap();
    // A file system of 2 MiB in a mount name space of this command's own.
    let inside = "mount -t tmpfs -o size=2m tmpfs \"$LONGSHORE_BACK_DIR\" || exit 99
        \"$0\" \"$1\"; echo status $?; cd \"$LONGSHORE_BACK_DIR\"; find . -type f | sort
        rm \"$1/large\"; \"$0\" \"$1\"; echo status $?";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", inside])
        .arg(script("folder-backup"))
        .arg(&source)
        .env_clear()
        .envs(&instance.variables)
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_ne!(output.status.code(), Some(99), "this test needs user name spaces: {errors}");
    assert!(errors.contains("No space left on device"), "{errors}");
    assert_eq!(text.trim(), "status 1\n./.longshore/folder-site/failures\n./.longshore/folder-site/lock\nstatus 0");
    assert_eq!(instance.log().word, "ok");
}

#[test]
fn a_term_in_the_middle_is_told_and_leaves_nothing_behind() {
    let instance = Instance::new("folder", "site").with_last_all_log();
    let source = instance.path("source");
    make_tree(&source);
    // Tar waits for ever at the pipe that it is told to read its exclusions from.
    let pipe = instance.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let option = PathBuf::from(format!("--exclude-from={}", pipe.display()));
    let mut running = Process::spawn(&mut instance.command("folder-backup", &[&source, &option])).unwrap();
    let partial = instance.back_dir().join(".longshore/folder-site/partial");
    wait_until_blocking("the backup has begun", Duration::from_secs(10), || {
        fs::read_dir(&partial).is_ok_and(|entries| entries.count() == 1)
    });
    // As the agent ends it: with what it has started.
    running.signal_group(rustix::process::Signal::TERM);
    let mut status = None;
    wait_until_blocking("it has ended", Duration::from_secs(10), || {
        status = running.ended().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(143));
    assert_eq!(instance.log().word, "wrong");
    assert!(instance.log().lines[0].contains("ended by a signal"));
    assert!(instance.kept().is_empty());
    instance.good("folder-backup", &[&source]);
}

/// The script is killed at its nth call of one of the programs that change files, for every n, and each time the next runs
/// must go on so that what was announced, and only that, is a chain that restores to what was there.
#[test]
fn killed_at_any_step_the_announced_backups_still_make_a_whole_chain() {
    let shims = tempfile::tempdir().unwrap();
    for program in ["mv", "rm", "sync", "mkdir"] {
        let shim = format!(
            "#!/bin/sh\ncount=$(($(cat \"$KILL_COUNT\") - 1)); echo $count >\"$KILL_COUNT\"\n\
             if [ $count = 0 ]; then kill -KILL -\"$KILL_GROUP\"; fi\nexec /usr/bin/{program} \"$@\"\n"
        );
        let path = shims.path().join(program);
        fs::write(&path, shim).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut reached_the_end = [false, false];
    for (of_a_full, end) in [true, false].into_iter().zip(&mut reached_the_end) {
        for step in 1..40 {
            let instance = Instance::new("folder", "site").with_last_all_log();
            let source = instance.path("source");
            make_tree(&source);
            let mut announced = Vec::new();
            let mut seen = None;
            // What the agent would take up: a log that this run has written.
            let look = |seen: &mut Option<Vec<u8>>, announced: &mut Vec<Log>| {
                let now = fs::read(instance.path("back_log")).ok();
                if now != *seen {
                    announced.push(instance.log());
                    *seen = now;
                }
            };
            instance.good("folder-backup", &[&source]);
            look(&mut seen, &mut announced);
            for change in ["two", "three"] {
                fs::write(source.join(change), change).unwrap();
                if change == "two" {
                    let counter = instance.path("count");
                    fs::write(&counter, step.to_string()).unwrap();
                    let mut command = Command::new("sh");
                    command
                        .args(["-c", "KILL_GROUP=$$ \"$0\" \"$1\""])
                        .arg(script("folder-backup"))
                        .arg(&source)
                        .env_clear()
                        .envs(&instance.variables)
                        .env("KILL_COUNT", &counter)
                        .env("FULL", if of_a_full { "yes" } else { "no" })
                        .env("PATH", format!("{}:/usr/bin:/bin", shims.path().display()))
                        .process_group(0);
                    let output = command.output().unwrap();
                    *end = output.status.signal().is_none();
                } else {
                    instance.good("folder-backup", &[&source]);
                }
                look(&mut seen, &mut announced);
            }
            assert!(announced.iter().all(|log| log.word == "ok"), "step {step}: {announced:?}");
            let full = announced.iter().rposition(|log| log.lines[0].contains("-full")).unwrap();
            let chain = &announced[full..];
            for pair in chain.windows(2) {
                assert_eq!(pair[1].value("from"), pair[0].value("to"), "step {step}: {announced:?}");
            }
            let full_named = instance.read_log("last_all_log").unwrap().lines[0].clone();
            assert_eq!(full_named, chain[0].lines[0], "step {step}");
            let files: Vec<PathBuf> = chain.iter().map(|log| instance.back_dir().join(&log.lines[0])).collect();
            let target = instance.path("restored");
            instance.restored("folder-restore", &target, &files);
            assert_same_tree(&source, &target);
            if *end {
                break;
            }
        }
    }
    assert_eq!(reached_the_end, [true, true], "every step was passed");
}
