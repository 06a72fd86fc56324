//! `submit`: files that no script of ours has made.

use std::{fs, os::unix::fs::symlink};

use crate::host::{GOOD_SCRIPT, Host};

fn submit(host: &Host, file: &str, instance: &str, code: i32) -> String {
    host.expect(&["submit", file, "--type", "folder", "--instance", instance], code)
}

#[test]
fn a_file_below_an_instance_s_folder_is_handed_over() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "interval = \"1d\"");
    fs::create_dir(host.data().join("by")).unwrap();
    let file = host.data().join("by/hand.tar");
    fs::write(&file, "12345").unwrap();
    submit(&host, file.to_str().unwrap(), "web", 0);
    let job = host.inbox("level1").remove(0);
    assert_eq!(job.source.as_ref().unwrap().path.as_str(), "data/by/hand.tar");
    assert_eq!((job.interval_seconds, job.size_bytes(), job.script, job.chain), (86400, 5, None, None));

    let arguments = ["submit", file.to_str().unwrap(), "--type", "git", "--instance", "wiki", "--queue", "urgent"];
    host.expect(&arguments, 0);
    assert_eq!(host.inbox("urgent")[0].key().to_string(), "111111/git/wiki");
}

#[test]
fn a_file_elsewhere_needs_a_folder_that_nodes_can_reach() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "");
    let drop_box = host.path("drop");
    fs::create_dir(&drop_box).unwrap();
    let file = drop_box.join("bundle");
    fs::write(&file, "1").unwrap();
    let said = submit(&host, file.to_str().unwrap(), "wiki", 1);
    assert!(said.contains("[submit]") && said.contains("data"), "{said}");
    let config = fs::read_to_string(host.path("agent.toml")).unwrap();
    let mapping = format!("[submit]\nback_dir = \"{}\"\nrsync_module = \"drop\"\n", drop_box.display());
    fs::write(host.path("agent.toml"), config + &mapping).unwrap();
    submit(&host, file.to_str().unwrap(), "wiki", 0);
    let source = host.inbox("level1").remove(0).source.unwrap();
    assert_eq!((source.module.as_str(), source.path.as_str()), ("drop", "bundle"));
}

#[test]
fn what_cannot_be_fetched_is_not_handed_over() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "");
    symlink("/etc/passwd", host.data().join("link")).unwrap();
    fs::write(host.data().join("empty"), "").unwrap();
    for name in ["link", "empty", "missing", "../agent.toml"] {
        submit(&host, host.data().join(name).to_str().unwrap(), "web", 1);
    }
    assert_eq!(host.inbox("level1"), []);
    assert_eq!(host.spooled("spool").len(), 0);
}

#[test]
fn without_the_queue_it_is_kept() {
    let host = Host::start();
    host.section("web", GOOD_SCRIPT, "");
    let file = host.data().join("x");
    fs::write(&file, "1").unwrap();
    host.redis.stop();
    submit(&host, file.to_str().unwrap(), "web", 75);
    host.redis.start_again();
    host.expect(&["flush"], 0);
    assert_eq!(host.inbox("level1").len(), 1);
}
