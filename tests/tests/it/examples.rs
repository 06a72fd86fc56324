//! The example configurations: each program reads its own, and each tells of every key there is.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use longshore_tests::binary;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

const PROGRAMS: [(&str, &str); 4] = [
    ("longshore-agent", "agent.toml"),
    ("longshore-puller", "puller.toml"),
    ("longshore-indexer", "indexer.toml"),
    ("longshore-dashboard", "dashboard.toml"),
];

#[test]
fn each_program_reads_its_example_and_the_example_names_every_key() {
    for (program, example) in PROGRAMS {
        let path = deploy("examples").join(example);
        let output = Command::new(binary(program)).args(["config", "show", "-c"]).arg(&path).output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        let keys = |text: &str| -> BTreeSet<String> {
            let lines = text.lines().map(|line| line.trim_start_matches(['#', ' ']));
            lines.filter_map(|line| Some(line.split_once('=')?.0.trim().to_owned())).collect()
        };
        let named = keys(&std::fs::read_to_string(&path).unwrap());
        // A table may be shown as one list: [[cluster]] as `cluster = []`.
        let missing: Vec<String> =
            keys(&shown).into_iter().filter(|key| !named.contains(key) && key != "cluster").collect();
        assert!(missing.is_empty(), "{example} does not tell of {missing:?}");
    }
}

#[test]
fn every_line_of_an_example_that_is_commented_out_is_read_when_it_is_not() {
    for (program, example) in PROGRAMS {
        let text = std::fs::read_to_string(deploy("examples").join(example)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        // A secret file must exist to be read.
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "x").unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let text = text.replace("/var/log/longshore", &folder.path().display().to_string());
        let plain: Vec<String> = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| is_key(key)) => {
                    rest
                }
                _ => line,
            })
            .map(|line| match line.split_once("_file = ") {
                Some((key, _)) if key.ends_with("password") || key.ends_with("api_key") => {
                    format!("{key}_file = \"{}\"", secret.display())
                }
                _ => line.to_owned(),
            })
            // One of two that exclude each other.
            .filter(|line| !line.starts_with("public_key_file"))
            .collect();
        let path = folder.path().join(example);
        std::fs::write(&path, plain.join("\n")).unwrap();
        let output = Command::new(binary(program)).args(["config", "show", "-c"]).arg(&path).output().unwrap();
        assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_command_line_reads_its_example() {
    let example = deploy("examples/cli.toml");
    let nobody_there = format!("server=http://127.0.0.1:{}", longshore_tests::free_port());
    let mut command = Command::new(binary("longshore"));
    let output = command.args(["status", "--set", &nobody_there, "-c"]).arg(example).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "it was read, and nobody answers at its address: {errors}");
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|character| character.is_ascii_lowercase() || character == '_')
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let units = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(deploy("systemd")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "service" || ending == "timer") {
            // The programs are not installed here; what else stands in the units is checked.
            let text = std::fs::read_to_string(&path).unwrap().replace("/usr/local/bin/longshore-", "/usr/bin/true ");
            let copy = units.path().join(path.file_name().unwrap());
            std::fs::write(&copy, text).unwrap();
            names.push(copy);
        }
    }
    assert_eq!(names.len(), 5);
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&names).output().expect("systemd");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.trim().is_empty(), "{text}");
}

#[test]
fn the_pullers_unit_leaves_it_what_it_opens_files_of_a_store_with() {
    let unit = std::fs::read_to_string(deploy("systemd/longshore-puller.service")).unwrap();
    // Of this systemd takes openat2 away from the service, whatever SystemCallFilter= says: no restore is served.
    let restricts = unit.lines().any(|line| line.starts_with("RestrictSUIDSGID="));
    assert!(!restricts && unit.contains("SystemCallFilter=@system-service pidfd_getfd\n"));
}

#[test]
fn rsync_and_redis_read_their_samples() {
    let folder = tempfile::tempdir().unwrap();
    let rsyncd = std::fs::read_to_string(deploy("rsyncd/rsyncd.conf")).unwrap();
    let secrets = folder.path().join("secrets");
    std::fs::write(&secrets, "longshore:secret\n").unwrap();
    std::fs::set_permissions(&secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::create_dir(folder.path().join("files")).unwrap();
    std::fs::write(folder.path().join("files/a"), "content").unwrap();
    std::fs::create_dir(folder.path().join("files/.longshore")).unwrap();
    let mut text = String::new();
    for line in rsyncd.lines() {
        // Only what belongs to this machine is another: places, and the identity and chroot that only root may choose.
        let own = match line.trim_start().split_once(" = ").map(|(key, _)| key) {
            Some("uid" | "gid") => String::new(),
            Some("use chroot") => "use chroot = no".to_owned(),
            Some("path") => format!("path = {}", folder.path().join("files").display()),
            Some("secrets file") => format!("secrets file = {}", secrets.display()),
            Some("log file") => format!("log file = {}", folder.path().join("log").display()),
            _ => line.to_owned(),
        };
        text += &own;
        text.push('\n');
    }
    if rustix::process::geteuid().is_root() {
        text.insert_str(0, "uid = 0\ngid = 0\n");
    }
    let config = folder.path().join("rsyncd.conf");
    std::fs::write(&config, text).unwrap();
    let port = longshore_tests::free_port().to_string();
    let mut command = Command::new("rsync");
    command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]).arg(format!("--port={port}"));
    let _daemon = longshore_tests::Process::spawn(command.arg(format!("--config={}", config.display()))).unwrap();
    let fetch = |password: &str| {
        let from = format!("rsync://longshore@127.0.0.1:{port}/backup/");
        let to = folder.path().join("fetched");
        Command::new("rsync").args(["-rt", &from]).arg(to).env("RSYNC_PASSWORD", password).output().unwrap()
    };
    longshore_tests::wait_until_blocking("the module is served", std::time::Duration::from_secs(10), || {
        fetch("secret").status.success()
    });
    assert_eq!(std::fs::read_to_string(folder.path().join("fetched/a")).unwrap(), "content");
    assert!(!folder.path().join("fetched/.longshore").exists());
    assert_eq!(fetch("wrong").status.code(), Some(5), "another password is refused");
    let push = Command::new("rsync")
        .arg(folder.path().join("log"))
        .arg(format!("rsync://longshore@127.0.0.1:{port}/backup/"))
        .env("RSYNC_PASSWORD", "secret")
        .output()
        .unwrap();
    assert!(!push.status.success(), "nobody can write");

    let redis = std::fs::read_to_string(deploy("redis/redis.conf")).unwrap();
    let elsewhere = |line: &&str| !["bind ", "port ", "dir "].iter().any(|own| line.starts_with(own));
    let redis: Vec<&str> = redis.lines().filter(elsewhere).collect();
    let config = folder.path().join("redis.conf");
    std::fs::write(&config, redis.join("\n")).unwrap();
    let server = longshore_tests::Redis::start_with(&["--include", &config.display().to_string()]);
    let mut connection = server.connection();
    let policy: Vec<String> = redis::cmd("CONFIG").arg("GET").arg("maxmemory-policy").query(&mut connection).unwrap();
    assert_eq!(policy[1], "noeviction");
    let limit: Vec<String> = redis::cmd("CONFIG").arg("GET").arg("maxmemory").query(&mut connection).unwrap();
    assert_eq!(limit[1], (4_u64 << 30).to_string());
}

#[test]
fn what_is_said_once_for_all_programs_of_a_machine_wins_over_their_examples() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("redis.password");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let shared = std::fs::read_to_string(deploy("examples/redis.toml")).unwrap();
    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    let shared = shared.replace("/etc/longshore/redis.password", &secret.display().to_string());
    std::fs::write(folder.path().join("conf.d/redis.toml"), shared).unwrap();
    for (program, example) in PROGRAMS {
        let path = folder.path().join(example);
        std::fs::copy(deploy("examples").join(example), &path).unwrap();
        let output =
            Command::new(binary(program)).args(["config", "show", "--origin", "-c"]).arg(&path).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        let shown = String::from_utf8(output.stdout).unwrap();
        let of_redis = shown.split_once("[redis]\n").unwrap().1.split("\n[").next().unwrap();
        for key in ["address = ", "password = "] {
            let line = of_redis.lines().find(|line| line.starts_with(key)).unwrap();
            assert!(line.contains("conf.d/redis.toml:"), "{program}: {line}");
        }
    }
}
