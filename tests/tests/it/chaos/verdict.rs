//! What must be true in the end: every backup that a script finished is in the catalog once, whole on the node that the entry
//! names, and of a type that is kept twice on one other that it names as well; no node was ever below its reserve; and nothing is
//! left over anywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use longshore_core::{NodeId, Outcome, ReasonCode, RelativePath};
use longshore_tests::wait_until_blocking;

use super::{
    host::{KEPT_TWICE, is_same},
    site::Site,
};
use crate::evidence::{Ledger, names_in, published};

/// A node that was frozen, or whose disk was full, comes back within this.
const SOON: Duration = Duration::from_secs(180);

/// Waits for the end, and judges it.
pub(super) fn judge(site: &Site, ledger: &Ledger) {
    for (number, host) in site.hosts.iter().enumerate() {
        wait_until_blocking(&format!("host {number} knows that all its backups have reports"), SOON, || {
            host.is_settled()
        });
    }
    let made: BTreeSet<(usize, String)> = (site.hosts.iter().enumerate())
        .flat_map(|(number, host)| host.made().into_iter().map(move |name| (number, name)))
        .collect();
    let mut stored = 0;
    wait_until_blocking("every finished backup is in the catalog", SOON, || {
        stored = ledger.stored_count();
        stored >= made.len() as u64
    });
    // Second copies are made after that, and their reports are the last.
    nothing_waits(site);
    let entries = ledger.entries().unwrap();
    let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for folder in site.nodes.iter().flat_map(|node| published(node.disk.path())) {
        let id = folder.file_name().unwrap().to_string_lossy().into_owned();
        places.entry(id).or_default().push(folder);
    }
    let mut seen = BTreeSet::new();
    let (mut unknown_ends, mut several, mut twice) = (0, 0, 0);
    for entry in &entries {
        let report = &entry.report;
        let id = entry.id();
        if report.outcome != Outcome::Stored {
            // An agent was killed before a script began, or with the wrapper that knew its end: said so, and nothing was made.
            let is_unknown = report.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::ScriptUnknown);
            assert!(is_unknown, "{id} ended as {:?}: {:?}", report.outcome, report.reason);
            unknown_ends += 1;
            continue;
        }
        let name = report.job.name().unwrap().to_owned();
        let host = number(report.job.server_id.as_str());
        let is_twice = report.job.backup_type.as_str() == KEPT_TWICE;
        let below = |node: &NodeId, path: &RelativePath| path.below(site.nodes[number(node.as_str())].disk.path());
        let (first, path) = (report.node_id.as_ref().unwrap(), report.path.as_ref().unwrap());
        let mut named = vec![below(first, path)];
        named.extend(report.copies.iter().map(|copy| below(&copy.node_id, &copy.path)));
        let folders = places.get(&id.to_string()).map_or(&[][..], Vec::as_slice);
        assert!(
            named.iter().all(|place| folders.contains(place)),
            "{name} is not at each of {named:?}, but at {folders:?}"
        );
        assert_eq!(report.copies.len(), usize::from(is_twice), "copies of {name}: {report:?}");
        assert!(report.copies.iter().all(|copy| copy.node_id != *first), "{name} is twice on one node: {report:?}");
        twice += usize::from(is_twice);
        // A Redis that was killed may forget a settlement of its last second; then another node fetches the job again.
        several += usize::from(folders.len() > named.len());
        for folder in folders {
            assert!(
                is_same(&folder.join(&name), &site.hosts[host].source(&name)),
                "{} is not what was made",
                folder.display()
            );
        }
        assert!(seen.insert((host, name)), "{id} is in the catalog under a second id");
    }
    let missing: Vec<_> = made.difference(&seen).collect();
    assert!(missing.is_empty(), "{} of {} finished backups are missing: {missing:?}", missing.len(), made.len());
    let further: Vec<_> = seen.difference(&made).collect();
    assert!(further.is_empty(), "the catalog has what no script finished: {further:?}");
    assert_eq!(places.len(), made.len(), "the stores have what the catalog has not");
    let spare: Vec<i64> = site.nodes.iter().map(super::node::Node::lowest_spare_bytes).collect();
    println!(
        "{} backups, each once in the catalog and whole, {twice} of them on two nodes as wanted; {several} in one place more; \
         {unknown_ends} runs with an unknown end; least room above the reserves {spare:?} bytes",
        made.len()
    );
    assert!(spare.iter().all(|spare| *spare >= 0), "a node was below its reserve: {spare:?} bytes");
    nothing_is_half_done(site);
}

/// Nothing waiting, under lease, dead, or unread.
fn nothing_waits(site: &Site) {
    let mut redis = site.redis.connection();
    wait_until_blocking("nothing waits and nothing is leased", SOON, || {
        let dead: Vec<String> = redis::cmd("ZRANGE").arg("longshore:dead").arg(0).arg(-1).query(&mut redis).unwrap();
        assert_eq!(dead, Vec::<String>::new(), "dead letters");
        left_keys(&mut redis).is_empty()
    });
    wait_until_blocking("the report stream is empty", SOON, || {
        redis::cmd("XLEN").arg("longshore:reports").query::<u64>(&mut redis).unwrap() == 0
    });
}

/// No half transfers on the nodes, once each has started anew.
fn nothing_is_half_done(site: &Site) {
    for node in &site.nodes {
        node.restart();
        let incoming = node.disk.path().join(".incoming");
        wait_until_blocking(&format!("no half transfer is left in {}", incoming.display()), SOON, || {
            names_in(&incoming).is_empty()
        });
    }
}

/// Keys that exist only while something is under way.
fn left_keys(redis: &mut redis::Connection) -> Vec<String> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(redis).unwrap();
    let under_way = ["lane:", "heads:", "classes:", "lifted:", "claims:", "job:", "body:", "offered:"];
    let whole = ["leases", "delayed", "active"];
    let is_left = |key: &String| match key.strip_prefix("longshore:") {
        None => true,
        Some(name) => whole.contains(&name) || under_way.iter().any(|start| name.starts_with(start)),
    };
    keys.into_iter().filter(is_left).collect()
}

/// Of `host-1` or `node-2`.
fn number(id: &str) -> usize {
    id.rsplit('-').next().unwrap().parse().unwrap()
}
