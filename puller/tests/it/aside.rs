//! What is set aside for a person, when, and for how long.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use longshore_core::{JobId, ReasonCode, config::ConfigArgs, report::Verified};
use longshore_puller::{
    carrier::{Carrier, Turn},
    peers::Peers,
    progress::Progress,
    settings,
    store::Store,
};
use longshore_tests::wait_until;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, SOON, bytes, files, incoming, place};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn what_was_set_aside_is_kept_a_month_and_then_removed_with_a_word() {
    let cluster = Cluster::start();
    let config = cluster.configure("1", "", "");
    assert!(config.command(&["init"]).status().unwrap().success());
    let made = |corner: &str, name: &str, age: Duration| {
        let folder = config.store.join(corner).join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("data"), "1234").unwrap();
        File::open(&folder).unwrap().set_modified(SystemTime::now() - age).unwrap();
        folder
    };
    let old = [made(".corrupt", "old", 31 * DAY), made(".superseded", "old", 31 * DAY)];
    let young = [made(".corrupt", "young", 29 * DAY), made(".superseded", "young", 29 * DAY)];
    let puller = config.start(&[]);
    let told = || puller.log().matches("removed what had been set aside").count();
    wait_until("two are removed with a word", SOON, async || told() == 2).await;
    assert!(old.iter().all(|folder| !folder.exists()) && young.iter().all(|folder| folder.exists()));
    wait_until("the metrics count the rest", SOON, async || {
        let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", puller.status)).await;
        let Ok(metrics) = metrics else { return false };
        let text = metrics.text().await.unwrap_or_default();
        text.contains("puller_set_aside 2") && text.contains("puller_set_aside_bytes 8")
    })
    .await;
}

#[tokio::test]
async fn what_was_left_while_the_node_runs_is_cleared_away_without_a_restart() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("a", 1000, 1).await;
    assert!(cluster.configure("2", "", "").once().success());
    let mut ours = cluster.report_of(&job).await;
    let puller = cluster.puller("1");
    let left = puller.store.join(".incoming");
    wait_until("it is there", SOON, async || left.exists()).await;
    let batch = left.join(format!("batch-{}", JobId::fresh()));
    fs::create_dir(&batch).unwrap();
    // As of a transfer that published, and then lost both its lease and the disk's answer to the rename.
    ours.revision -= 1;
    let folder = place(&puller.store, &ours);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("a"), bytes(1000, 1)).unwrap();
    fs::write(folder.join("manifest.json"), serde_json::to_vec(&ours).unwrap()).unwrap();
    fs::create_dir(left.join(job.id.to_string())).unwrap();
    wait_until("all of it is gone", SOON * 2, async || incoming(&puller.store).is_empty() && !batch.exists()).await;
    assert!(!folder.exists(), "the catalog has it elsewhere");
    let kept = puller.store.join(format!(".superseded/{}-{}/a", job.id, ours.revision));
    assert_eq!(fs::read(kept).unwrap(), bytes(1000, 1));
    assert_eq!(cluster.reports().len(), 1);
}

/// A file that can't be read, in place of a good one.
struct Unreadable(PathBuf);

impl Unreadable {
    fn over(file: &Path) -> Self {
        // Reading a process' memory from its beginning is an input/output error.
        let mounted = Command::new("mount").args(["--bind", "/proc/self/mem"]).arg(file).status().expect("mount");
        assert!(mounted.success(), "this test mounts, and needs to be root for it");
        Self(file.to_owned())
    }
}

impl Drop for Unreadable {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_backup_that_the_disk_does_not_give_back_is_the_nodes_trouble_and_stays_where_it_is() {
    let cluster = Cluster::start();
    cluster.write("d/a", 1000, 1);
    let job = cluster.job("d");
    cluster.offer(&job).await;
    let config = cluster.configure("1", "", "");
    assert!(config.once().success());
    let file = ConfigArgs { file: Some(config.config.clone()), ..ConfigArgs::default() };
    let settings = settings::read(&file, &[]).unwrap().value;
    let store = Arc::new(Store::open(&config.store, &settings.node_id, false).unwrap());
    let place = Store::place(&job).unwrap().below(store.root());
    let unreadable = Unreadable::over(&place.join("d/a"));
    let carrier = Carrier::new(
        &settings,
        Arc::clone(&store),
        Arc::default(),
        Arc::new(Peers::new(cluster.queue.clone(), settings.node_id.clone())),
    );
    let kept = || files(&config.store.join(".corrupt"));
    let bring = async || {
        let turn = Turn { revision: 1, attempts: 1, queue: &job.queue, verify: Verified::Received, copy_of: None };
        carrier.bring(&job, turn, &Progress::new(job.size_bytes()), &CancellationToken::new()).await
    };
    assert_eq!(bring().await.unwrap_err().reason.code, ReasonCode::StoreFailed);
    assert!(place.exists() && kept().is_empty());
    drop(unreadable);
    assert!(bring().await.is_ok());
    // Really damaged, it is set aside, and fetched again.
    fs::write(place.join("d/a"), "something else").unwrap();
    assert!(bring().await.is_ok());
    assert!(!kept().is_empty());
}
