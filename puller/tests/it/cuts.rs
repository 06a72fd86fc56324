//! A transfer that is cut at 70 % moves at most 35 % again on the same node, whatever cut it: promised for 2 GiB, which one of
//! the ways is tried with. The others have an eighth: rsync's block size grows with the file, so the share that is lost does not.

use std::{
    fs,
    io::{BufWriter, Write},
    path::Path,
};

use longshore_core::{
    Outcome,
    digest::{DigestChoice, digest_reader},
};
use longshore_tests::{Proxy, wait_until};

use crate::cluster::{Cluster, Configured, Puller, SOON, bytes, place};

const PROMISED: u64 = 2 << 30;
const AN_EIGHTH: u64 = PROMISED / 8;
const PIECE: usize = 1 << 20;

/// What may be cut.
struct Way<'a> {
    cluster: &'a Cluster,
    line: &'a Proxy,
    config: &'a Configured,
    puller: Puller,
}

/// Writes a file in pieces of which no two are the same, so that nothing in it can stand for something else.
fn write(path: &Path, size: u64) {
    let mut file = BufWriter::with_capacity(PIECE, fs::File::create(path).unwrap());
    let pieces = size / PIECE as u64;
    (1..=pieces).for_each(|piece| file.write_all(&bytes(PIECE, piece)).unwrap());
    file.flush().unwrap();
}

/// Runs `cut` just after 70 % has come through a line of the transfer's own; it gives back the puller that goes on.
fn little_moves_again(size: u64, cut: impl AsyncFnOnce(Way<'_>) -> Puller) {
    let cluster = Cluster::start();
    // It has a runtime of its own, which must neither begin nor end within another.
    let line = Proxy::to(cluster.host.port());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        write(&cluster.source.path().join("big.xb"), size);
        let mut job = cluster.job("big.xb");
        job.source.as_mut().unwrap().port = Some(line.port());
        cluster.offer(&job).await;
        let config = cluster.configure("1", "", "[rsync]\nbwlimit = \"200MiB\"");
        let puller = config.start(&[]);
        let partial = puller.store.join(".incoming").join(job.id.to_string()).join("backup/big.xb");
        let cut_at = size / 10 * 7;
        wait_until("70 % is here", SOON * 2, async || fs::metadata(&partial).is_ok_and(|found| found.len() > cut_at))
            .await;
        let puller = cut(Way { cluster: &cluster, line: &line, config: &config, puller }).await;
        let found = || cluster.reports().into_iter().find(|report| report.job.id == job.id);
        wait_until("it is stored", SOON * 3, async || found().is_some()).await;
        let report = found().unwrap();
        assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
        let transfer = report.transfer.unwrap();
        assert!(transfer.bytes <= size / 100 * 35, "{transfer:?}");
        assert!(transfer.resumed_bytes >= size / 100 * 65, "{transfer:?}");
        let stored = fs::File::open(place(&puller.store, &report).join("big.xb")).unwrap();
        let digest = digest_reader(stored, DigestChoice::Xxh3).unwrap();
        let sent = job.content.as_ref().unwrap();
        assert_eq!((digest.size_bytes, digest.xxh3_128), (size, sent.xxh3_128), "the same bytes");
    });
}

#[test]
fn after_a_kill_of_the_puller_little_moves_again() {
    little_moves_again(PROMISED, async |way| {
        way.puller.kill().await;
        way.config.start(&[])
    });
}

#[test]
fn after_a_cut_of_the_network_little_moves_again() {
    little_moves_again(AN_EIGHTH, async |way| {
        way.line.cut();
        way.puller
    });
}

#[test]
fn after_a_reboot_of_the_host_little_moves_again() {
    little_moves_again(AN_EIGHTH, async |way| {
        way.cluster.host.kill();
        way.line.cut();
        wait_until("the puller has noticed", SOON, async || way.puller.log().contains("\"WARN\"")).await;
        way.cluster.host.start_again();
        way.puller
    });
}
