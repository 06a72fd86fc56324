//! `check`, and configurations that are wrong.

use std::fs;

use longshore_tests::{Redis, Rsyncd};

use crate::host::{GOOD_SCRIPT, Host};

fn with_rsyncd(host: &Host, rsyncd: &Rsyncd) {
    let config = fs::read_to_string(host.path("agent.toml")).unwrap();
    fs::write(host.path("agent.toml"), format!("{config}\n[rsyncd]\nport = {}\n", rsyncd.port())).unwrap();
}

#[test]
fn check_follows_a_file_from_back_dir_through_the_daemon() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "");
    let above = host.data().parent().unwrap().to_owned();
    let rsyncd = Rsyncd::start(&[("backup", &above)]);
    with_rsyncd(&host, &rsyncd);
    let said = host.expect(&["check"], 0);
    assert!(said.contains("0 wrong") && said.contains("backup/data of the daemon"), "{said}");
    assert_eq!(fs::read_dir(host.data()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn check_sees_a_module_that_is_another_folder_or_none_and_a_daemon_that_is_away() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(elsewhere.path().join("data")).unwrap();
    let rsyncd = Rsyncd::start(&[("backup", elsewhere.path()), ("other", elsewhere.path())]);
    with_rsyncd(&host, &rsyncd);
    let said = host.expect(&["check"], 1);
    assert!(said.contains("is not") && said.contains("1 wrong"), "{said}");

    let config = fs::read_to_string(host.path("agent.toml")).unwrap();
    fs::write(host.path("agent.toml"), config.replace("backup/data", "missing/data")).unwrap();
    let said = host.expect(&["check"], 1);
    assert!(said.contains("Unknown module") || said.contains("unknown module"), "{said}");

    rsyncd.kill();
    let said = host.expect(&["check"], 1);
    assert!(said.contains("refused"), "{said}");
}

#[test]
fn check_knows_modules_with_a_secret() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "");
    let secrets = host.path("secrets");
    fs::write(&secrets, "puller:word\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    let above = host.data().parent().unwrap().to_owned();
    let lines = format!("auth users = puller\nsecrets file = {}\n", secrets.display());
    let rsyncd = Rsyncd::start_with(&[("backup", &above)], "", &lines);
    with_rsyncd(&host, &rsyncd);
    assert!(host.expect(&["check"], 0).contains("wants a secret"));
    let config = fs::read_to_string(host.path("agent.toml")).unwrap();
    fs::write(host.path("agent.toml"), format!("{config}user = \"puller\"\npassword = \"word\"\n")).unwrap();
    assert!(host.expect(&["check"], 0).contains("backup/data of the daemon"));
    fs::write(host.path("agent.toml"), format!("{config}user = \"puller\"\npassword = \"other\"\n")).unwrap();
    assert!(host.expect(&["check"], 1).contains("1 wrong"));
}

#[test]
fn check_names_what_is_missing() {
    let host = Host::with(Redis::start(), "");
    host.section("a", "if then", "").section("b", "sh /no/such/script.sh", "");
    host.redis.stop();
    let config = fs::read_to_string(host.path("agent.toml")).unwrap();
    fs::write(host.path("agent.toml"), config.replace("/data\"", "/nowhere\"")).unwrap();
    let said = host.expect(&["check"], 1);
    for problem in ["redis", "does not understand", "/no/such/script.sh does not exist", "nowhere"] {
        assert!(said.contains(problem), "{problem} is not in {said}");
    }
}

#[test]
fn a_wrong_configuration_is_told_with_file_line_and_key() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "las_all_log = \"/x\"");
    let said = host.expect(&["run"], 78);
    assert!(said.contains("agent.toml:") && said.contains("last_all_log"), "{said}");

    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "last_all_log = \"relative.log\"").section("two", GOOD_SCRIPT, "");
    let config = fs::read_to_string(host.path("agent.toml")).unwrap();
    fs::write(host.path("agent.toml"), config.replace("instance = \"two\"", "instance = \"web\"")).unwrap();
    let said = host.expect(&["check"], 78);
    assert!(said.contains("relative.log is relative") && said.contains("same type and instance"), "{said}");

    let host = Host::start();
    let said = host.expect(&["run"], 78);
    assert!(said.contains("[instance.NAME]"), "{said}");
}

#[test]
fn the_program_needs_no_shared_library_but_those_of_libc() {
    let output = std::process::Command::new("ldd").arg(env!("CARGO_BIN_EXE_longshore-agent")).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert!(listed.contains("libc.so"), "{listed}");
    let of_libc =
        ["linux-vdso", "linux-gate", "libc.so", "libm.so", "libpthread.so", "libdl.so", "librt.so", "ld-linux"];
    for line in listed.lines() {
        assert!(of_libc.iter().any(|name| line.contains(name)), "{line}");
    }
}
