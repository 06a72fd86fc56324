//! Restores of what real pullers stored.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::site::{Site, bytes, finish};

const KEY: &str = "111111/mysql/3306";

fn script(folder: &Path, text: &str) -> String {
    let file = folder.join("restore-script");
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_comes_back_in_order_and_the_script_is_told_everything() {
    let site = Site::start().await;
    site.puller("1").await;
    let jobs = site.chain(KEY);
    site.store(&jobs).await;
    let plan = site.run(&["restore", "plan", KEY]).await.ended(0);
    assert!(plan.out.contains("whole") && plan.out.contains("CST"), "{}", plan.out);
    let dry = site.run(&["restore", "run", KEY, "--dry-run", "--to", "none"]).await.ended(0);
    assert!(dry.out.contains("full.xb") && !site.folder.path().join("none").exists());
    let told = site.folder.path().join("told");
    let script = script(
        site.folder.path(),
        &format!(
            "for f in \"$@\"; do echo \"$f\"; done > {told:?}; env | sort | grep ^LONGSHORE >> {told:?}; cat \"$@\" > {told:?}.all"
        ),
    );
    let to = site.folder.path().join("to");
    let run = site.run(&["restore", "run", KEY, "--to", "to", "--script", &script]).await.ended(0);
    assert!(run.out.contains("is restored as of"), "{}", run.out);
    let names = ["full.xb", "inc 1.xb", "inc-2 库.xb"];
    let files: Vec<String> =
        names.iter().enumerate().map(|(at, name)| format!("{}/{:02}/{name}", to.display(), at + 1)).collect();
    let told_text = fs::read_to_string(&told).unwrap();
    assert!(told_text.starts_with(&files.join("\n")), "{told_text}");
    for wanted in [
        "LONGSHORE_SERVER_ID=111111",
        "LONGSHORE_TYPE=mysql",
        "LONGSHORE_INSTANCE=3306",
        &format!("LONGSHORE_RESTORE_DIR={}", to.display()),
        &format!("LONGSHORE_RESTORE_FILES={}", files[0]),
        &format!("LONGSHORE_RESTORE_AT={}", jobs[2].made_at),
    ] {
        assert!(told_text.contains(wanted), "{wanted} in {told_text}");
    }
    assert!(!told_text.contains("LONGSHORE_TOKEN"), "the script needs no access to the cluster");
    let wanted: Vec<u8> = (0..3).flat_map(|at| bytes(300_000 + at * 1000, at as u8)).collect();
    assert_eq!(fs::read(site.folder.path().join("told.all")).unwrap(), wanted);
    // Again: nothing is moved, the script runs.
    let again = site.run(&["restore", "run", KEY, "--to", "to", "--script", &script, "--json"]).await.ended(0);
    assert_eq!((again.json()["bytes_moved"].as_u64(), again.json()["script"]["exit"].as_i64()), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_time_gives_the_earlier_chain() {
    let site = Site::start().await;
    site.puller("1").await;
    let jobs = site.chain(KEY);
    site.store(&jobs).await;
    let at = jobs[1].made_at.to_string();
    let run = site.run(&["restore", "fetch", KEY, "--at", &at, "--to", "to", "--json"]).await.ended(0);
    assert_eq!(run.json()["files"].as_array().unwrap().len(), 2);
    let before = site.run(&["restore", "plan", KEY, "--at", "10h ago"]).await.ended(1);
    assert!(before.err.contains("no stored backup made at or before"), "{}", before.err);
    // The same folder without a time goes on as of its own.
    let again = site.run(&["restore", "fetch", KEY, "--to", "to", "--json"]).await.ended(0);
    assert_eq!(again.json()["files"].as_array().unwrap().len(), 2);
    assert!(again.err.contains("going on"), "{}", again.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_comes_back_with_every_file_under_its_name() {
    let site = Site::start().await;
    site.puller("1").await;
    for (name, size) in [("tree/a", 10), ("tree/in/a b?#%", 70_000), ("tree/in/库/-x", 5), ("tree/empty", 0)] {
        site.write(name, size, 9);
    }
    site.store(&[site.job("1/folder/site", "tree")]).await;
    site.run(&["restore", "fetch", "1/folder/site", "--to", "to"]).await.ended(0);
    for (name, size) in [("a", 10), ("in/a b?#%", 70_000), ("in/库/-x", 5), ("empty", 0)] {
        let file = site.folder.path().join("to/01/tree").join(name);
        assert_eq!(fs::read(&file).unwrap(), bytes(size, 9), "{name}");
    }
    assert!(!site.folder.path().join("to/.partial").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripts_end_decides_and_its_absence_is_seen_before_anything_moves() {
    let site = Site::start().await;
    site.puller("1").await;
    site.store(&site.chain(KEY)).await;
    let failing = script(site.folder.path(), "echo it failed >&2; exit 7");
    let run = site.run(&["restore", "run", KEY, "--to", "to", "--script", &failing]).await.ended(1);
    assert!(run.err.contains("exit status 7") && run.err.contains("it failed"), "{}", run.err);
    let none = site.run(&["restore", "run", KEY, "--to", "other", "--script", "/none"]).await.ended(64);
    assert!(none.err.contains("no script /none"), "{}", none.err);
    fs::set_permissions(&failing, fs::Permissions::from_mode(0o644)).unwrap();
    let plain = site.run(&["restore", "run", KEY, "--to", "other", "--script", &failing]).await.ended(64);
    assert!(plain.err.contains("chmod +x"), "{}", plain.err);
    assert!(!site.folder.path().join("other").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_something_else_is_left_alone() {
    let site = Site::start().await;
    site.puller("1").await;
    site.store(&site.chain(KEY)).await;
    site.write("x", 10, 1);
    site.store(&[site.job("1/folder/site", "x")]).await;
    fs::create_dir(site.folder.path().join("full")).unwrap();
    fs::write(site.folder.path().join("full/mine"), "mine").unwrap();
    let run = site.run(&["restore", "fetch", KEY, "--to", "full"]).await.ended(64);
    assert!(run.err.contains("not empty"), "{}", run.err);
    site.run(&["restore", "fetch", "1/folder/site", "--to", "to"]).await.ended(0);
    let other = site.run(&["restore", "fetch", KEY, "--to", "to"]).await.ended(64);
    assert!(other.err.contains("1/folder/site as of"), "{}", other.err);
    assert_eq!(fs::read_dir(site.folder.path().join("full")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_chain_is_refused_unless_it_is_forced() {
    let site = Site::start().await;
    site.puller("1").await;
    let mut jobs = site.chain(KEY);
    jobs.remove(1);
    site.store(&jobs).await;
    site.run(&["restore", "plan", KEY]).await.ended(1);
    let run = site.run(&["restore", "fetch", KEY, "--to", "to"]).await.ended(1);
    assert!(run.err.contains("the chain is broken") && run.err.contains("--force"), "{}", run.err);
    assert!(!site.folder.path().join("to").exists());
    let forced = site.run(&["restore", "fetch", KEY, "--to", "to", "--force"]).await.ended(0);
    assert!(forced.err.contains("warning: the chain is broken"), "{}", forced.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_instance_is_answered_with_known_ones() {
    let site = Site::start().await;
    site.puller("1").await;
    site.store(&site.chain(KEY)).await;
    let run = site.run(&["restore", "plan", "111111/mysql/3360"]).await.ended(1);
    assert!(run.err.contains("did you mean 111111/mysql/3306?"), "{}", run.err);
    let shape = site.run(&["restore", "plan", "111111"]).await.ended(64);
    assert!(shape.err.contains("SERVER_ID/TYPE/INSTANCE"), "{}", shape.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_restores_are_not_let_into_one_folder() {
    let site = Site::start().await;
    site.puller("1").await;
    site.store(&site.chain(KEY)).await;
    // The script holds the folder until it is told to end.
    let (started, end) = (site.folder.path().join("started"), site.folder.path().join("end"));
    let waiting = format!("touch {started:?}; while [ ! -e {end:?} ]; do sleep 0.05; done");
    let waiting = script(site.folder.path(), &waiting);
    let mut first = site.command();
    first.args(["restore", "run", KEY, "--to", "to", "--script", &waiting]);
    let first = tokio::spawn(finish(first));
    longshore_tests::wait_until("the script runs", crate::site::SOON, async || started.exists()).await;
    let second = site.run(&["restore", "fetch", KEY, "--to", "to"]).await.ended(69);
    assert!(second.err.contains("another restore is at work"), "{}", second.err);
    fs::write(&end, "").unwrap();
    first.await.unwrap().ended(0);
}
