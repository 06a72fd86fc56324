//! What is set aside for a person, when, and for how long.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use longshore_core::{ReasonCode, config::ConfigArgs, report::Verified};
use longshore_puller::{
    carrier::{Carrier, Turn},
    peers::Peers,
    progress::Progress,
    settings,
    store::Store,
};
use longshore_tests::wait_until;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, SOON};

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
    wait_until("the old ones are gone", SOON, async || old.iter().all(|folder| !folder.exists())).await;
    assert!(young.iter().all(|folder| folder.exists()));
    assert_eq!(puller.log().matches("removed what had been set aside").count(), 2, "{}", puller.log());
    wait_until("the metrics count the rest", SOON, async || {
        let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", puller.status)).await;
        let Ok(metrics) = metrics else { return false };
        let text = metrics.text().await.unwrap_or_default();
        text.contains("puller_set_aside 2") && text.contains("puller_set_aside_bytes 8")
    })
    .await;
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
    let bring = async || {
        let turn = Turn { revision: 1, attempts: 1, queue: &job.queue, verify: Verified::Received, copy_of: None };
        carrier.bring(&job, turn, &Progress::new(job.size_bytes()), &CancellationToken::new()).await
    };
    assert_eq!(bring().await.unwrap_err().reason.code, ReasonCode::StoreFailed);
    assert!(place.exists() && !carrier.was_corrupt(&job));
    drop(unreadable);
    assert!(bring().await.is_ok());
    // Really damaged, it is set aside, and fetched again.
    fs::write(place.join("d/a"), "something else").unwrap();
    assert!(bring().await.is_ok());
    assert!(carrier.was_corrupt(&job));
}
