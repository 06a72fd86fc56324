//! The program itself: its commands, its end, and how it says what is wrong.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use longshore_tests::{Redis, free_port, wait_until_blocking};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore-dashboard"));
    command.env_clear();
    command
}

fn configuration(folder: &Path, listen: u16, redis: &str) -> std::path::PathBuf {
    let file = folder.join("dashboard.toml");
    let (data, catalog) = (folder.join("data"), folder.join("catalog.db"));
    let text = format!(
        "listen = \"127.0.0.1:{listen}\"\ndata_dir = {data:?}\n[redis]\naddress = \"{redis}\"\n[catalog]\npath = {catalog:?}\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn init_makes_the_keys_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = configuration(folder.path(), 1, "127.0.0.1:1");
    let output = program().arg("-c").arg(&file).arg("init").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for name in ["token", "restore.key", "restore.pub"] {
        assert!(folder.path().join("data").join(name).exists(), "{name}");
    }
    assert!(
        !String::from_utf8_lossy(&output.stdout)
            .contains(&std::fs::read_to_string(folder.path().join("data/token")).unwrap())
    );
}

#[test]
fn a_wrong_configuration_ends_with_78_and_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:1\"\nlegacy_client = []\n").unwrap();
    let output = program().arg("-c").arg(&file).arg("check").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("dashboard.toml:2") && text.contains("legacy_clients"), "{text}");
}

#[test]
fn check_says_what_is_away_and_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let file = configuration(folder.path(), free_port(), &redis.address());
    let output = program().arg("-c").arg(&file).arg("check").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "there is no catalog yet");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("WRONG  there is no catalog") && text.contains(&format!("ok     Redis {}", redis.address())),
        "{text}"
    );
    assert!(text.contains("made at the first start") && !folder.path().join("data").exists(), "{text}");
}

#[test]
fn it_serves_at_once_without_a_catalog_and_ends_on_term() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let file = configuration(folder.path(), port, "127.0.0.1:1");
    let mut child = program().arg("-c").arg(&file).stderr(Stdio::piped()).spawn().unwrap();
    let answers = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    wait_until_blocking("the dashboard listens", Duration::from_secs(20), answers);
    let second = program().arg("-c").arg(&file).output().unwrap();
    assert_eq!(second.status.code(), Some(69), "{second:?}");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let token = std::fs::read_to_string(folder.path().join("data/token")).unwrap();
    assert!(log.contains("listening") && !log.contains(token.trim()), "{log}");
}
