//! The store on real file systems that fail: read-only, away, out of files, and hanging. Each time the node says so, loses
//! nothing, writes nowhere else, and goes on by itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use longshore_core::{JobId, Millis, NodeBeat, Outcome, token};
use longshore_tests::wait_until;

use crate::cluster::{Cluster, Configured, Puller, SOON, bytes, files, place, signing_key};

/// The node rests for half a minute after its disk failed.
const AFTER_REST: Duration = Duration::from_secs(100);

/// A mounted file system; thawed and unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path, arguments: &[&str]) -> Self {
        fs::create_dir_all(path).unwrap();
        run(Command::new("mount").args(arguments).arg(path));
        Self(path.to_owned())
    }

    /// An ext4 of its own in a file.
    fn ext4(cluster: &Cluster) -> Self {
        let image = cluster.folder.path().join("image");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        Self::new(&cluster.folder.path().join("disk"), &["-o", "loop", image.to_str().unwrap()])
    }

    fn remount(&self, options: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).output();
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "this test mounts, and needs to be root for it: {command:?}: {errors}");
}

fn started(cluster: &Cluster, disk: &Path) -> (Configured, Puller) {
    let config = cluster.configure_at("1", disk, "", "");
    assert!(config.command(&["init"]).status().unwrap().success());
    let puller = config.start(&[("LONGSHORE__STORE__HANG", "5s")]);
    (config, puller)
}

async fn beat(cluster: &Cluster) -> Option<NodeBeat> {
    cluster.queue.nodes().await.unwrap().into_iter().map(|(beat, _)| beat).next()
}

async fn paused(cluster: &Cluster, why: &str) {
    wait_until(&format!("it is paused: {why}"), SOON * 2, async || {
        beat(cluster).await.is_some_and(|beat| beat.paused.is_some_and(|paused| paused.contains(why)))
    })
    .await;
}

async fn stored(cluster: &Cluster, store: &Path, job: &longshore_core::Job, name: &str, content: &[u8]) {
    let there = || cluster.reports().into_iter().find(|report| report.job.id == job.id);
    wait_until(&format!("{name} is stored"), AFTER_REST, async || there().is_some()).await;
    let report = there().unwrap();
    assert_eq!((report.outcome, report.attempts), (Outcome::Stored, 1), "{name}: {:?}", report.reason);
    assert_eq!(fs::read(place(store, &report).join(name)).unwrap(), content, "{name}");
}

#[tokio::test]
async fn a_disk_that_became_read_only_gets_no_job_until_it_takes_them_again() {
    let cluster = Cluster::start();
    let disk = Mounted::new(&cluster.folder.path().join("disk"), &["-t", "tmpfs", "-o", "size=32m", "tmpfs"]);
    let (_, puller) = started(&cluster, &disk.0);
    let first = cluster.offer_file("a", 1000, 1).await;
    stored(&cluster, &disk.0, &first, "a", &bytes(1000, 1)).await;
    disk.remount("ro");
    let second = cluster.offer_file("b", 1000, 2).await;
    wait_until("the job is given back", SOON, async || puller.log().contains("no attempt counted")).await;
    paused(&cluster, "resting").await;
    assert_eq!(cluster.reports().len(), 1);
    disk.remount("rw");
    stored(&cluster, &disk.0, &second, "b", &bytes(1000, 2)).await;
}

#[tokio::test]
async fn a_store_whose_disk_is_away_is_never_written_under() {
    let cluster = Cluster::start();
    let (real, point) = (cluster.folder.path().join("real"), cluster.folder.path().join("disk"));
    fs::create_dir(&real).unwrap();
    let bind = ["--bind", real.to_str().unwrap()];
    let disk = Mounted::new(&point, &bind);
    let (config, puller) = started(&cluster, &point);
    let first = cluster.offer_file("a", 1000, 1).await;
    stored(&cluster, &point, &first, "a", &bytes(1000, 1)).await;
    drop(disk);
    let second = cluster.offer_file("b", 1000, 2).await;
    paused(&cluster, ".longshore-store").await;
    assert!(files(&point).is_empty(), "{:?}", files(&point));
    // Nor by a start: the folder is empty, and was a store's.
    assert!(puller.stop().await.success());
    for command in ["once", "check"] {
        let output = config.command(&[command]).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert!(!output.status.success() && said.contains("mount it"), "{said}");
        assert_eq!(fs::read_dir(&point).unwrap().count(), 0);
    }
    let _disk = Mounted::new(&point, &bind);
    let _puller = config.start(&[]);
    stored(&cluster, &point, &second, "b", &bytes(1000, 2)).await;
    assert_eq!(cluster.reports().len(), 2);
}

#[tokio::test]
async fn a_disk_without_files_to_make_pauses_the_node_and_one_with_few_takes_small_folders_only() {
    let cluster = Cluster::start();
    let options = ["-t", "tmpfs", "-o", "size=32m,nr_inodes=1200", "tmpfs"];
    let disk = Mounted::new(&cluster.folder.path().join("disk"), &options);
    let (_, puller) = started(&cluster, &disk.0);
    for number in 0..1500 {
        cluster.write(&format!("many/{number}"), 1, number);
    }
    let large = cluster.job("many");
    cluster.offer(&large).await;
    let small = cluster.offer_file("a", 1000, 1).await;
    stored(&cluster, &disk.0, &small, "a", &bytes(1000, 1)).await;
    assert_eq!(cluster.reports().len(), 1, "the folder has more files than the disk can make");
    let filler = disk.0.join(".filler");
    fs::create_dir(&filler).unwrap();
    for number in 0..400 {
        fs::write(filler.join(number.to_string()), "").unwrap();
    }
    let next = cluster.offer_file("b", 1000, 2).await;
    paused(&cluster, "more files").await;
    fs::remove_dir_all(&filler).unwrap();
    stored(&cluster, &disk.0, &next, "b", &bytes(1000, 2)).await;
    disk.remount("size=32m,nr_inodes=9000");
    wait_until("the folder is stored", SOON, async || cluster.reports().len() == 3).await;
    assert_eq!(cluster.report_of(&large).await.outcome, Outcome::Stored);
    assert!(puller.stop().await.success());
}

#[tokio::test]
async fn a_hanging_disk_stops_neither_the_beat_nor_downloads_nor_other_nodes() {
    let cluster = Cluster::start();
    let disk = Mounted::ext4(&cluster);
    let (_, puller) = started(&cluster, &disk.0);
    let first = cluster.offer_file("a", 100_000, 1).await;
    stored(&cluster, &disk.0, &first, "a", &bytes(100_000, 1)).await;
    run(Command::new("fsfreeze").arg("-f").arg(&disk.0));
    // More than it has slots, and threads.
    let mut jobs = Vec::new();
    for number in 0..12u64 {
        jobs.push(cluster.offer_file(&format!("f{number}"), 1000, number).await);
    }
    paused(&cluster, "hangs").await;
    let before = beat(&cluster).await.unwrap().at;
    wait_until("it goes on beating", SOON, async || beat(&cluster).await.unwrap().at > before).await;
    let health = reqwest::get(format!("http://127.0.0.1:{}/healthz", puller.status)).await.unwrap();
    assert!(health.status().as_u16() < 600, "it answers");
    assert_eq!(download(&puller, first.id, "a").await, bytes(100_000, 1));
    // What it had claimed was given back: another node has all of it.
    let other = cluster.puller("2");
    wait_until("the other node has stored them", SOON * 2, async || cluster.reports().len() == jobs.len() + 1).await;
    for (number, job) in jobs.iter().enumerate() {
        let report = cluster.report_of(job).await;
        let content = fs::read(place(&other.store, &report).join(format!("f{number}"))).unwrap();
        assert_eq!(content, bytes(1000, number as u64));
    }
    run(Command::new("fsfreeze").arg("-u").arg(&disk.0));
    wait_until("it claims again", AFTER_REST, async || beat(&cluster).await.is_some_and(|beat| beat.paused.is_none()))
        .await;
    assert_eq!(cluster.reports().len(), jobs.len() + 1, "nothing is settled twice");
    // What had waited for the disk did nothing more than to clear away.
    wait_until("no half transfer is left", SOON, async || files(&disk.0.join(".incoming")).is_empty()).await;
    let is_backup = |path: &PathBuf| !path.strip_prefix(&disk.0).unwrap().to_string_lossy().starts_with('.');
    let backups: Vec<_> = files(&disk.0).into_iter().filter(is_backup).collect();
    assert_eq!(backups.len(), 2, "only the first backup and its manifest: {backups:?}");
}

async fn download(puller: &Puller, job: JobId, name: &str) -> Vec<u8> {
    let claims = token::RestoreClaims {
        backups: vec![job],
        expires_at: Millis::now().plus(token::TOKEN_LIFE),
        subject: "test".into(),
    };
    let url = format!("http://127.0.0.1:{}/v1/backups/{job}/files/{name}", puller.serve);
    let request = reqwest::Client::new().get(url).bearer_auth(token::sign(&signing_key(), &claims));
    request.send().await.unwrap().bytes().await.unwrap().to_vec()
}
