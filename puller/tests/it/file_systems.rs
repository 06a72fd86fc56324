//! The store on real file systems that fail: read-only, away, out of files, hanging, and giving back other bytes than they took.
//! Each time the node says so, loses nothing, writes nowhere else, and goes on by itself.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use longshore_core::{JobId, Millis, NodeBeat, Outcome, report::Verified, token};
use longshore_tests::{Process, wait_until};
use rustix::{
    fs::{major, minor},
    process::Signal,
};

use crate::cluster::{Cluster, Configured, Puller, SOON, bytes, files, incoming, place, signing_key};

/// The node rests for half a minute after its disk failed.
const AFTER_REST: Duration = Duration::from_secs(100);

/// A mounted file system; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path, arguments: &[&str]) -> Self {
        fs::create_dir_all(path).unwrap();
        run(Command::new("mount").args(arguments).arg(path));
        Self(path.to_owned())
    }

    /// An ext4 of its own in a file, which becomes read-only when it finds itself damaged.
    fn ext4(cluster: &Cluster) -> Self {
        let image = image(cluster);
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        let options = ["-o", "loop,errors=remount-ro", image.to_str().unwrap()];
        Self::new(&cluster.folder.path().join("disk"), &options)
    }

    fn remount(&self, options: &str) {
        run(&mut self.remounting(options));
    }

    fn remounting(&self, options: &str) -> Command {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,{options}")]).arg(&self.0);
        command
    }

    /// Lets nothing write on it until the answer is dropped.
    fn freeze(&self) -> Frozen<'_> {
        run(Command::new("fsfreeze").arg("-f").arg(&self.0));
        Frozen(&self.0)
    }

    /// Has an ext4 find an error of its own.
    fn damage(&self) {
        let device = fs::metadata(&self.0).unwrap().dev();
        let device = fs::canonicalize(format!("/sys/dev/block/{}:{}", major(device), minor(device))).unwrap();
        let name = device.file_name().unwrap().to_str().unwrap();
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "this test").unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Thawed when dropped: before any puller that waits for the disk, and could not end.
struct Frozen<'a>(&'a Path);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(self.0).output();
    }
}

/// A folder as a FUSE server shows it at another path. In the folder itself, what is on the disk is seen also while the disk hangs.
struct Mirrored {
    server: Process,
    disk: Mounted,
    real: PathBuf,
}

impl Mirrored {
    async fn new(cluster: &Cluster) -> Self {
        let (real, disk) = (cluster.folder.path().join("real"), Mounted(cluster.folder.path().join("disk")));
        fs::create_dir(&real).unwrap();
        fs::create_dir(&disk.0).unwrap();
        let mut command = Command::new("bindfs");
        let server = Process::spawn(command.args(["-f", "--no-allow-other"]).arg(&real).arg(&disk.0)).unwrap();
        let device = |path| fs::metadata(path).unwrap().dev();
        wait_until("it is mounted", SOON, async || device(&disk.0) != device(&real)).await;
        Self { server, disk, real }
    }

    /// No call on it comes back until the answer is dropped.
    fn hang(&self) -> Hanging<'_> {
        self.server.signal(Signal::STOP);
        Hanging(&self.server)
    }
}

/// Goes on when dropped: before any puller that waits for the disk, and could not end.
struct Hanging<'a>(&'a Process);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

fn image(cluster: &Cluster) -> PathBuf {
    cluster.folder.path().join("image")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "this test mounts, and needs to be root for it: {command:?}: {errors}");
}

fn started(cluster: &Cluster, disk: &Path) -> (Configured, Puller) {
    started_with(cluster, disk, "")
}

/// `more` is further TOML.
fn started_with(cluster: &Cluster, disk: &Path, more: &str) -> (Configured, Puller) {
    let config = cluster.configure_at("1", disk, "", more);
    assert!(config.command(&["init"]).status().unwrap().success());
    let puller = config.start(&[("LONGSHORE__STORE__HANG", "5s")]);
    (config, puller)
}

/// Of the node whose disk fails.
async fn beat(cluster: &Cluster) -> Option<NodeBeat> {
    let nodes = cluster.queue.nodes().await.unwrap();
    nodes.into_iter().map(|(beat, _)| beat).find(|beat| beat.node_id.as_str() == "1")
}

async fn paused(cluster: &Cluster, why: &str) {
    wait_until(&format!("it is paused: {why}"), SOON * 2, async || {
        beat(cluster).await.is_some_and(|beat| beat.paused.is_some_and(|paused| paused.contains(why)))
    })
    .await;
}

async fn claims_again(cluster: &Cluster) {
    let claims = async || beat(cluster).await.is_some_and(|beat| beat.paused.is_none());
    wait_until("it claims again", AFTER_REST, claims).await;
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
async fn a_disk_that_becomes_read_only_between_two_files_of_a_folder_costs_its_job_no_try() {
    let cluster = Cluster::start();
    let disk = Mounted::new(&cluster.folder.path().join("disk"), &["-t", "tmpfs", "-o", "size=64m", "tmpfs"]);
    let (_, puller) = started(&cluster, &disk.0);
    for number in 0..6000 {
        cluster.write(&format!("many/{number}"), 100, number);
    }
    let job = cluster.job("many");
    cluster.offer(&job).await;
    let arrived = disk.0.join(format!(".incoming/{}/backup/many", job.id));
    wait_until("some of its files are here", SOON, async || files(&arrived).len() > 20).await;
    // It is refused for as long as a file is open for writing.
    let remounted = || disk.remounting("ro").output().unwrap().status.success();
    wait_until("it is remounted", SOON, async || remounted()).await;
    assert!(files(&arrived).len() < 6000, "in the middle of the transfer");
    wait_until("the job is given back", SOON, async || puller.log().contains("no attempt counted")).await;
    paused(&cluster, "resting").await;
    assert!(!puller.log().contains("the host has no such file\"") && puller.log().contains("the disk takes nothing"));
    let other = cluster.puller("2");
    let report = cluster.report_of(&job).await;
    assert_eq!((report.outcome, report.attempts), (Outcome::Stored, 1), "{:?}", report.reason);
    assert_eq!(files(&place(&other.store, &report).join("many")).len(), 6000);
    assert!(other.stop().await.success());
    disk.remount("rw");
    let next = cluster.offer_file("b", 1000, 2).await;
    stored(&cluster, &disk.0, &next, "b", &bytes(1000, 2)).await;
    wait_until("no half transfer is left", SOON, async || incoming(&disk.0).is_empty()).await;
    assert_eq!(cluster.reports().len(), 2);
}

#[tokio::test]
async fn a_disk_that_fails_in_the_middle_of_a_file_costs_its_job_no_try() {
    let cluster = Cluster::start();
    let disk = Mounted::ext4(&cluster);
    let (_, puller) = started_with(&cluster, &disk.0, "[rsync]\nbwlimit = \"1MiB\"");
    let job = cluster.offer_file("a", 6_000_000, 1).await;
    let arrived = disk.0.join(format!(".incoming/{}/backup/a", job.id));
    wait_until("bytes arrive", SOON, async || fs::metadata(&arrived).is_ok_and(|found| found.len() > 1 << 20)).await;
    disk.damage();
    wait_until("the job is given back", SOON, async || puller.log().contains("no attempt counted")).await;
    assert!(fs::metadata(&arrived).unwrap().len() < 6_000_000, "in the middle of the transfer");
    assert!(puller.log().contains("Read-only file system"));
    paused(&cluster, "resting").await;
    let other = cluster.puller("2");
    stored(&cluster, &other.store, &job, "a", &bytes(6_000_000, 1)).await;
}

#[tokio::test]
async fn what_a_disk_gives_back_otherwise_than_it_took_it_is_kept_aside_and_fetched_once_more() {
    let cluster = Cluster::start();
    let disk = Mounted::ext4(&cluster);
    let config =
        cluster.configure_at("1", &disk.0, "", "[rsync]\nbwlimit = \"1MiB\"\n[types.mysql]\nverify = \"reread\"");
    assert!(config.command(&["init"]).status().unwrap().success());
    let job = cluster.offer_file("a", 3_000_000, 1).await;
    let good = bytes(3_000_000, 1);
    let puller = config.start(&[("LONGSHORE__LEASE", "60s")]);
    let arrived = disk.0.join(format!(".incoming/{}/backup/a", job.id));
    wait_until("bytes arrive", SOON, async || fs::metadata(&arrived).is_ok_and(|found| found.len() > 0)).await;
    // Its rsync goes on to the end, which it does not see yet.
    puller.process.signal(Signal::STOP);
    let changed = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let source = changed(&cluster.source.path().join("a"));
    wait_until("all is here", SOON, async || changed(&arrived) == source).await;
    // On the disk itself one bit turns over, below the whole bytes that the system still has in memory.
    fs::File::open(&arrived).unwrap().sync_all().unwrap();
    let blocks = fs::read(image(&cluster)).unwrap();
    let block = blocks.chunks(1024).position(|block| good.starts_with(block)).unwrap();
    let device = fs::File::options().write(true).open(image(&cluster)).unwrap();
    device.write_all_at(&[good[500] ^ 1], block as u64 * 1024 + 500).unwrap();
    assert!(fs::read(&arrived).unwrap() == good, "nobody sees it yet");
    puller.process.signal(Signal::CONT);
    let kept = disk.0.join(format!(".corrupt/{}/a", job.id));
    wait_until("it is kept aside", SOON, async || kept.exists()).await;
    assert!(cluster.reports().is_empty(), "and not counted as good");
    let report = cluster.report_of(&job).await;
    assert_eq!((report.outcome, report.attempts), (Outcome::Stored, 2), "{:?}", report.reason);
    assert_eq!(report.verified, Some(Verified::Reread));
    assert!(puller.log().contains("and the disk gives back"));
    assert!(fs::read(place(&disk.0, &report).join("a")).unwrap() == good);
    let mut damaged = good;
    damaged[500] ^= 1;
    assert!(fs::read(kept).unwrap() == damaged, "as the disk gave it back");
    assert_eq!(cluster.reports().len(), 1);
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
    let frozen = disk.freeze();
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
    drop(frozen);
    claims_again(&cluster).await;
    assert_eq!(cluster.reports().len(), jobs.len() + 1, "nothing is settled twice");
    // What had waited for the disk did nothing more than to clear away.
    wait_until("no half transfer is left", SOON, async || files(&disk.0.join(".incoming")).is_empty()).await;
    let is_backup = |path: &PathBuf| !path.strip_prefix(&disk.0).unwrap().to_string_lossy().starts_with('.');
    let backups: Vec<_> = files(&disk.0).into_iter().filter(is_backup).collect();
    assert_eq!(backups.len(), 2, "only the first backup and its manifest: {backups:?}");
}

#[tokio::test]
async fn a_disk_that_does_not_even_tell_its_room_stops_only_its_own_node() {
    let cluster = Cluster::start();
    let disk = Mirrored::new(&cluster).await;
    let (_, puller) = started_with(&cluster, &disk.disk.0, "[rsync]\nbwlimit = \"256KiB\"");
    let first = cluster.offer_file("a", 1000, 1).await;
    stored(&cluster, &disk.real, &first, "a", &bytes(1000, 1)).await;
    let mut jobs = vec![cluster.offer_file("f0", 8_000_000, 0).await];
    let arrived = disk.real.join(format!(".incoming/{}/backup/f0", jobs[0].id));
    wait_until("bytes arrive", SOON, async || fs::metadata(&arrived).is_ok_and(|found| found.len() > 0)).await;
    let hanging = disk.hang();
    let other = cluster.puller("2");
    for number in 1..12u64 {
        jobs.push(cluster.offer_file(&format!("f{number}"), 1000, number).await);
    }
    wait_until("the question for its room is given up", SOON, async || puller.log().contains("no answer in 5 s")).await;
    paused(&cluster, "hangs").await;
    let before = beat(&cluster).await.unwrap().at;
    wait_until("it goes on beating", SOON, async || beat(&cluster).await.unwrap().at > before).await;
    let health = reqwest::get(format!("http://127.0.0.1:{}/healthz", puller.status)).await.unwrap();
    let health = health.text().await.unwrap();
    assert!(health.contains("\"status\":\"paused\"") && health.contains("hangs"), "{health}");
    // What it was fetching too.
    wait_until("the other node has stored them", SOON, async || cluster.reports().len() == jobs.len() + 1).await;
    for (number, job) in jobs.iter().enumerate() {
        let size = if number == 0 { 8_000_000 } else { 1000 };
        stored(&cluster, &other.store, job, &format!("f{number}"), &bytes(size, number as u64)).await;
    }
    assert!(other.stop().await.success());
    drop(hanging);
    claims_again(&cluster).await;
    let last = cluster.offer_file("b", 1000, 2).await;
    stored(&cluster, &disk.real, &last, "b", &bytes(1000, 2)).await;
    assert_eq!(cluster.reports().len(), jobs.len() + 2, "nothing is settled twice");
    wait_until("no half transfer is left", SOON, async || incoming(&disk.real).is_empty()).await;
    let manifests = files(&disk.real).iter().filter(|file| file.ends_with("manifest.json")).count();
    assert_eq!(manifests, 2, "the first backup and the last");
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
