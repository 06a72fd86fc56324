//! What must be true in the end: every backup that a script finished is in the catalog once, whole on the node that the entry
//! names, and of a type that is kept twice on one other that it names as well; no node was ever below its reserve; and nothing is
//! left over anywhere, in Redis or on the nodes, without anyone having started anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
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
/// A node looks for what nobody comes back for every 20 s.
const SWEPT_WITHIN: Duration = Duration::from_secs(60);

/// By job, the numbers of the nodes that have it by the catalog's word.
type Holders = BTreeMap<String, BTreeSet<usize>>;

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
    nothing_is_half_done(site);
    let entries = ledger.entries().unwrap();
    let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for folder in site.nodes.iter().flat_map(|node| published(node.disk.path())) {
        let id = folder.file_name().unwrap().to_string_lossy().into_owned();
        places.entry(id).or_default().push(folder);
    }
    let (mut seen, mut holders) = (BTreeSet::new(), Holders::new());
    let (mut unknown_ends, mut forgotten, mut twice) = (0, 0, 0);
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
        for folder in folders {
            assert!(
                is_same(&folder.join(&name), &site.hosts[host].source(&name)),
                "{} is not what was made",
                folder.display()
            );
            if !named.contains(folder) {
                let may_be = site.witness.may_be_forgotten(folder, report.revision);
                assert!(may_be, "{} was published too, and no killed Redis forgot it: {report:?}", folder.display());
                forgotten += 1;
            }
        }
        let nodes = std::iter::once(first).chain(report.copies.iter().map(|copy| &copy.node_id));
        holders.insert(id.to_string(), nodes.map(|node| number(node.as_str())).collect());
        assert!(seen.insert((host, name)), "{id} is in the catalog under a second id");
    }
    let missing: Vec<_> = made.difference(&seen).collect();
    assert!(missing.is_empty(), "{} of {} finished backups are missing: {missing:?}", missing.len(), made.len());
    let further: Vec<_> = seen.difference(&made).collect();
    assert!(further.is_empty(), "the catalog has what no script finished: {further:?}");
    assert_eq!(places.len(), made.len(), "the stores have what the catalog has not");
    let superseded = aside(site, &holders);
    let spare: Vec<i64> = site.nodes.iter().map(super::node::Node::lowest_spare_bytes).collect();
    println!(
        "{} backups, each once in the catalog and whole, {twice} of them on two nodes as wanted; {forgotten} in a place more that a \
         killed Redis forgot, {superseded} superseded; {unknown_ends} runs with an unknown end; least room above the reserves \
         {spare:?} bytes",
        made.len()
    );
    assert!(spare.iter().all(|spare| *spare >= 0), "a node was below its reserve: {spare:?} bytes");
    site.nodes.iter().for_each(super::node::Node::stop);
}

/// Nothing waiting, under lease, dead, or unread.
fn nothing_waits(site: &Site) {
    let mut redis = site.redis.connection();
    nothing_is_left("in Redis", SOON, || {
        let dead: Vec<String> = redis::cmd("ZRANGE").arg("longshore:dead").arg(0).arg(-1).query(&mut redis).unwrap();
        assert_eq!(dead, Vec::<String>::new(), "dead letters");
        left_keys(&mut redis)
    });
    wait_until_blocking("the report stream is empty", SOON, || {
        redis::cmd("XLEN").arg("longshore:reports").query::<u64>(&mut redis).unwrap() == 0
    });
}

/// No half transfers on the nodes. What a frozen or killed node had of a job that another one stored meanwhile goes by itself.
fn nothing_is_half_done(site: &Site) {
    nothing_is_left("of transfers", SWEPT_WITHIN, || {
        let folders = site.nodes.iter().map(|node| node.disk.path().join(".incoming"));
        folders.flat_map(|folder| names_in(&folder).into_iter().map(move |name| folder.join(name))).collect()
    });
}

/// Waits until nothing is left, and tells what is.
fn nothing_is_left<T: std::fmt::Debug>(what: &str, within: Duration, mut left: impl FnMut() -> Vec<T>) {
    let began = Instant::now();
    loop {
        let found = left();
        if found.is_empty() {
            return;
        }
        assert!(began.elapsed() < within, "left {what} after {within:?}: {found:?}");
        thread::park_timeout(Duration::from_millis(50));
    }
}

/// What nodes set aside: nothing as corrupt, since no source ever changes, and as superseded only what another node has. Answers
/// how many of these there are.
fn aside(site: &Site, holders: &Holders) -> usize {
    let mut superseded = 0;
    for (number, node) in site.nodes.iter().enumerate() {
        let names = |corner| names_in(&node.disk.path().join(corner));
        assert_eq!(names(".corrupt"), BTreeSet::new(), "node {number} called it corrupt, and no source changed");
        for name in names(".superseded") {
            // JOB-FENCE.
            let job = name.rsplit_once('-').unwrap().0;
            let is_elsewhere = holders.get(job).is_some_and(|nodes| nodes.iter().any(|node| *node != number));
            assert!(
                is_elsewhere,
                "node {number} moved {name} out of the way, and no other has it: {:?}",
                holders.get(job)
            );
            superseded += 1;
        }
    }
    superseded
}

/// Everything in Redis but what stays when nothing is under way: of a host not even its fields (host.lua), of a level only counts
/// of nothing.
fn left_keys(redis: &mut redis::Connection) -> Vec<String> {
    let stays = |name: &str| {
        let whole = ["queues", "nodes", "nodes_seen", "pace", "reaper", "kept_waiting", "policy", "reports"];
        let each = ["node:", "ended:", "mailbox:"];
        whole.contains(&name) || each.iter().any(|start| name.starts_with(start))
    };
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(redis).unwrap();
    let mut left = Vec::new();
    for key in keys {
        match key.strip_prefix("longshore:") {
            Some(name) if stays(name) => {}
            Some(name) if name.starts_with("depth:") => {
                let counts: BTreeMap<String, i64> = redis::cmd("HGETALL").arg(&key).query(redis).unwrap();
                left.extend(
                    counts.iter().filter(|(_, count)| **count != 0).map(|(of, count)| format!("{key} {of}={count}")),
                );
            }
            Some(name) if name.starts_with("host:") => {
                let fields: BTreeMap<String, String> = redis::cmd("HGETALL").arg(&key).query(redis).unwrap();
                left.extend(fields.iter().map(|(field, value)| format!("{key} {field}={value}")));
            }
            _ => left.push(key),
        }
    }
    left
}

/// Of `host-1` or `node-2`.
fn number(id: &str) -> usize {
    id.rsplit('-').next().unwrap().parse().unwrap()
}
