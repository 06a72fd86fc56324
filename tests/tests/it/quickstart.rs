//! `deploy/quickstart`, as a newcomer runs it: twice in a row, looked at, and ended.

use std::{
    path::Path,
    process::{Command, Output},
};

use longshore_tests::binary;

fn quickstart(folder: &Path, arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/quickstart");
    let programs = binary("longshore-agent");
    let mut command = Command::new(program);
    command.args(arguments).arg("--dir").arg(folder).arg("--programs").arg(programs.parent().unwrap());
    command.output().unwrap()
}

/// Ends what a failed test leaves running.
struct Stopped<'a>(&'a Path);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        quickstart(self.0, &["stop"]);
    }
}

fn twice_in_a_row_then_stop(options: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let cluster = folder.path().join("cluster");
    let _stopped = Stopped(&cluster);
    for _ in 0..2 {
        let output = quickstart(&cluster, options);
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
        assert!(text.contains("byte for byte") && text.contains("dashboard   http://127.0.0.1:"), "{text}");
        assert!(quickstart(&cluster, &["status"]).status.success(), "everything runs");
    }
    let pids: Vec<String> = std::fs::read_dir(cluster.join("run"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pid"))
        .map(|path| std::fs::read_to_string(path).unwrap().split(' ').next().unwrap().to_owned())
        .collect();
    assert!(pids.len() >= 6, "Redis, rsyncd, two pullers, indexer, dashboard: {pids:?}");
    assert!(quickstart(&cluster, &["stop"]).status.success());
    for pid in pids {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!command.contains(cluster.to_str().unwrap()), "{pid} still runs: {command}");
    }
    assert_eq!(quickstart(&cluster, &["status"]).status.code(), Some(1), "nothing runs");
}

#[test]
fn the_quickstart_restores_what_it_backed_up_and_stops_what_it_started() {
    twice_in_a_row_then_stop(&["--mariadb"]);
}

#[test]
fn the_quickstart_does_the_same_with_elasticsearch() {
    twice_in_a_row_then_stop(&["--elasticsearch"]);
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis"), "irreplaceable").unwrap();
    let output = quickstart(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(64));
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["thesis"]);
}

#[test]
fn a_stale_pid_file_never_ends_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(run.join("redis.pid"), format!("{} 1 {boot}", other.id())).unwrap();
    std::fs::write(run.join("order"), "redis\n").unwrap();
    assert!(quickstart(folder.path(), &["stop"]).status.success());
    assert!(other.try_wait().unwrap().is_none(), "another process with that number goes on");
    other.kill().unwrap();
    other.wait().unwrap();
}
