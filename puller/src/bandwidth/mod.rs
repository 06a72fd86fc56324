//! One bandwidth: what all transfers of a node share, and how each of them is held to it.
//!
//! The bytes of a transfer from a host pass a [`Lane`]: the limit of its queue, that of its host, the node's share of the
//! cluster's, and the node's own. Those of a second copy come from another node: only the node's own limit counts them. What is
//! sent has lanes of its own, so that nothing here takes from it: downloads pass their limit, and copies for other nodes none,
//! since each of those nodes holds what it fetches to its own.

pub mod bucket;
pub mod connect;
pub mod connection;
pub mod proxy;
pub mod relay;
pub mod route;
pub mod share;
pub mod tunnel;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use longshore_core::{QueueName, ServerId, Transport, queue::Budget};
use tokio::sync::{OnceCell, watch};

pub use self::{bucket::Bucket, route::Route};
use self::{bucket::Taker, proxy::Proxy};

/// What is allowed now, in bytes a second; what is not named has no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caps {
    /// All transfers to this node together.
    pub node: Option<u64>,
    /// All downloads from this node together.
    pub restore: Option<u64>,
    /// All transfers from hosts of the cluster together.
    pub cluster: Option<u64>,
    /// All downloads of the cluster together.
    pub cluster_restore: Option<u64>,
    /// Transfers from a host.
    pub hosts: BTreeMap<ServerId, u64>,
    /// Transfers of a queue.
    pub queues: BTreeMap<QueueName, u64>,
}

/// The limits of one node.
#[derive(Debug)]
pub struct Bandwidth {
    node: Arc<Bucket>,
    /// Of transfers from hosts: the node's share of the cluster's.
    fetch: Arc<Bucket>,
    restore: Arc<Bucket>,
    /// Of copies for other nodes. Without a limit; those who send them are still told apart.
    peers: Arc<Bucket>,
    parts: Mutex<Parts>,
    changes: watch::Sender<()>,
    /// Listens from the first transfer on that needs it.
    proxy: OnceCell<Proxy>,
}

/// The caps in use, and the limits below the node's of the transfers that run.
#[derive(Debug, Default)]
struct Parts {
    caps: Caps,
    /// Of what the cluster may take, in bytes a second.
    fetch_share: Option<u64>,
    restore_share: Option<u64>,
    hosts: HashMap<ServerId, Weak<Bucket>>,
    queues: HashMap<QueueName, Weak<Bucket>>,
    /// Transports whose children's sockets this system does not let us look at.
    hidden: HashSet<Transport>,
}

impl Default for Bandwidth {
    fn default() -> Self {
        let unlimited = || Arc::new(Bucket::new(None));
        Self {
            node: unlimited(),
            fetch: unlimited(),
            restore: unlimited(),
            peers: unlimited(),
            parts: Mutex::default(),
            changes: watch::Sender::default(),
            proxy: OnceCell::new(),
        }
    }
}

impl Bandwidth {
    /// Puts `caps` into force, for transfers under way too.
    pub fn set_caps(&self, caps: Caps) {
        let mut parts = self.parts();
        if parts.caps == caps {
            return;
        }
        tracing::info!(?caps, "limits");
        // The share of a cluster's limit that is new is not known yet; nothing passes until it is.
        parts.fetch_share = caps.cluster.and(parts.fetch_share.or(Some(0)));
        parts.restore_share = caps.cluster_restore.and(parts.restore_share.or(Some(0)));
        parts.caps = caps;
        self.apply(&mut parts);
        self.changes.send_replace(());
    }

    /// What is in force.
    pub fn caps(&self) -> Caps {
        self.parts().caps.clone()
    }

    /// Tells when caps were put into force.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Puts the node's share of the cluster's limit into force; `None` where the cluster has no limit.
    pub fn set_share(&self, of: Budget, rate: Option<u64>) {
        let mut parts = self.parts();
        match of {
            Budget::Fetch => parts.fetch_share = rate,
            Budget::Restore => parts.restore_share = rate,
        }
        self.apply(&mut parts);
    }

    fn apply(&self, parts: &mut Parts) {
        let Parts { caps, fetch_share, restore_share, hosts, queues, .. } = parts;
        self.node.set(caps.node);
        self.fetch.set(*fetch_share);
        self.restore.set(lower(caps.restore, *restore_share));
        for (host, bucket) in hosts.iter() {
            bucket.upgrade().inspect(|bucket| bucket.set(caps.hosts.get(host).copied()));
        }
        for (queue, bucket) in queues.iter() {
            bucket.upgrade().inspect(|bucket| bucket.set(caps.queues.get(queue).copied()));
        }
    }

    /// What a transfer from `host`, of a job that waited in `queue`, has to pass.
    pub fn lane(&self, host: &ServerId, queue: &QueueName) -> Lane {
        let mut parts = self.parts();
        let Parts { caps, hosts, queues, .. } = &mut *parts;
        let queue = shared(queues, queue, caps.queues.get(queue).copied());
        let host = shared(hosts, host, caps.hosts.get(host).copied());
        Lane::new([queue, host], [Arc::clone(&self.fetch), Arc::clone(&self.node)])
    }

    /// What a second copy that comes from another node has to pass: it takes nothing of a host, of a queue, or of what the
    /// cluster may take from hosts.
    pub fn copies(&self) -> Lane {
        Lane::new([], [Arc::clone(&self.node)])
    }

    /// What a download has to pass.
    pub fn restores(&self) -> Lane {
        Lane::new([], [Arc::clone(&self.restore)])
    }

    /// What passes to another node that makes a copy.
    pub fn peers(&self) -> Lane {
        Lane::new([], [Arc::clone(&self.peers)])
    }

    /// All transfers' own limit, for who measures them.
    pub fn node(&self) -> &Bucket {
        &self.node
    }

    /// The node's share of what the cluster may take from hosts.
    pub fn fetch(&self) -> &Bucket {
        &self.fetch
    }

    /// All downloads' own limit.
    pub fn restore(&self) -> &Bucket {
        &self.restore
    }

    async fn proxy(&self) -> io::Result<&Proxy> {
        self.proxy.get_or_try_init(Proxy::start).await
    }

    /// Whether all transfers of this transport go through the proxy, limits or not.
    fn is_hidden(&self, transport: Transport) -> bool {
        self.parts().hidden.contains(&transport)
    }

    /// This system does not let us look at the sockets of such children: only through the proxy can they be counted.
    pub fn hide_sockets(&self, transport: Transport, error: &io::Error) {
        if self.parts().hidden.insert(transport) {
            tracing::warn!(?transport, %error, "children's sockets can't be looked at here; such transfers go through the proxy");
        }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lower(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

/// The bucket of `name`, one for all who hold it; those that nobody holds any more are forgotten.
fn shared<K: Eq + Hash + Clone>(known: &mut HashMap<K, Weak<Bucket>>, name: &K, rate: Option<u64>) -> Arc<Bucket> {
    if let Some(bucket) = known.get(name).and_then(Weak::upgrade) {
        return bucket;
    }
    known.retain(|_, bucket| bucket.strong_count() > 0);
    let bucket = Arc::new(Bucket::new(rate));
    known.insert(name.clone(), Arc::downgrade(&bucket));
    bucket
}

/// The limits that one transfer has to pass. Its clones are the same transfer.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The narrowest group first.
    limits: Arc<[(Arc<Bucket>, Taker)]>,
    /// How many of them are of a narrower group than all transfers; the rest is shared with all.
    narrow: usize,
}

impl Lane {
    fn new<const N: usize, const W: usize>(narrow: [Arc<Bucket>; N], wide: [Arc<Bucket>; W]) -> Self {
        let limits = narrow.into_iter().chain(wide).map(|bucket| (bucket, Taker::default())).collect();
        Self { limits, narrow: N }
    }

    /// Waits until `bytes` more may pass all limits.
    pub async fn pass(&self, bytes: usize) {
        // One after the other, so that whoever waits for a narrow limit takes no turn of a wide one.
        for (bucket, taker) in &*self.limits {
            bucket.pass(taker, bytes as u64).await;
        }
    }

    /// The lowest limit, in bytes a second.
    pub fn rate(&self) -> Option<u64> {
        lowest(&self.limits)
    }

    /// What is left of the limits for this transfer among those that wait now, in bytes a second.
    pub fn part(&self) -> Option<u64> {
        let part = |bucket: &Bucket| Some(bucket.rate()? / (bucket.waiting() as u64 + 1));
        self.limits.iter().filter_map(|(bucket, _)| part(bucket)).min()
    }

    /// Bytes to pass at once.
    pub fn quantum(&self) -> usize {
        bucket::quantum(lowest(&self.limits[self.narrow..]), self.rate())
    }

    /// Returns when there is a limit, at once when there is one.
    pub async fn limited(&self) {
        let waits = self.limits.iter().map(|(bucket, _)| Box::pin(bucket.limited()));
        futures_util::future::select_all(waits).await;
    }
}

fn lowest(limits: &[(Arc<Bucket>, Taker)]) -> Option<u64> {
    limits.iter().filter_map(|(bucket, _)| bucket.rate()).min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use tokio::time::{Instant, timeout};

    use super::*;

    fn names() -> (ServerId, ServerId, QueueName) {
        ("1".parse().unwrap(), "2".parse().unwrap(), "level1".parse().unwrap())
    }

    async fn seconds_for(lane: &Lane, bytes: u64) -> f64 {
        let started = Instant::now();
        for _ in 0..bytes / 50_000 {
            lane.pass(50_000).await;
        }
        started.elapsed().as_secs_f64()
    }

    #[tokio::test]
    async fn the_lowest_limit_of_a_lane_holds_and_others_are_not_held_by_it() {
        let bandwidth = Bandwidth::default();
        let (slow, fast, queue) = names();
        let (slow_lane, fast_lane) = (bandwidth.lane(&slow, &queue), bandwidth.lane(&fast, &queue));
        let hosts = BTreeMap::from([(slow.clone(), 1_000_000)]);
        bandwidth.set_caps(Caps { node: Some(100_000_000), hosts, ..Caps::default() });
        assert_eq!((slow_lane.rate(), fast_lane.rate()), (Some(1_000_000), Some(100_000_000)));
        let (slow, fast) = tokio::join!(seconds_for(&slow_lane, 2_000_000), seconds_for(&fast_lane, 20_000_000));
        assert!(slow > 1.8 && fast < slow / 2.0, "{slow} {fast}");
    }

    /// What each of `lanes` passes while all of them pass what they can.
    async fn passed_together(lanes: &[Lane], within: Duration) -> Vec<u64> {
        let started = Instant::now();
        let takes = lanes.iter().map(async |lane| {
            let mut passed = 0;
            while started.elapsed() < within {
                let bytes = lane.quantum();
                lane.pass(bytes).await;
                passed += bytes as u64;
                // As a transfer does, it comes back a moment later.
                tokio::task::yield_now().await;
            }
            passed
        });
        futures_util::future::join_all(takes).await
    }

    #[tokio::test]
    async fn a_limit_of_its_own_that_does_not_bind_costs_a_transfer_nothing_and_one_that_binds_holds() {
        let bandwidth = Bandwidth::default();
        let (one, two, queue) = names();
        let narrow: QueueName = "level2".parse().unwrap();
        let mut lanes: Vec<Lane> = (0..4).map(|_| bandwidth.lane(&two, &queue)).collect();
        lanes.push(bandwidth.lane(&one, &queue));
        lanes.push(bandwidth.lane(&two, &narrow));
        for (host_limit, queue_limit, fair) in [(20, 30, [10.0; 6]), (5, 3, [13.0, 13.0, 13.0, 13.0, 5.0, 3.0])] {
            let hosts = BTreeMap::from([(one.clone(), host_limit * 1_000_000)]);
            let queues = BTreeMap::from([(narrow.clone(), queue_limit * 1_000_000)]);
            bandwidth.set_caps(Caps { node: Some(60_000_000), hosts, queues, ..Caps::default() });
            let passed = passed_together(&lanes, Duration::from_secs(2)).await;
            let sum = passed.iter().sum::<u64>() as f64;
            // What a limit that binds lets pass has what it saved before in it, and the piece that it owes.
            let is_fair = |(&passed, fair): (&u64, f64)| {
                (passed as f64 / sum * 60.0 / fair - 1.0).abs() < if fair < 10.0 { 0.1 } else { 0.05 }
            };
            assert!(passed.iter().zip(fair).all(is_fair), "{passed:?}");
            assert!(sum < 60e6 * 2.2, "{passed:?}");
        }
    }

    #[tokio::test]
    async fn a_copy_takes_of_the_nodes_cap_and_nothing_of_the_clusters() {
        let bandwidth = Bandwidth::default();
        bandwidth.set_caps(Caps { node: Some(6), cluster: Some(9), restore: Some(3), ..Caps::default() });
        assert_eq!((bandwidth.copies().rate(), bandwidth.peers().rate()), (Some(6), None));
        bandwidth.set_caps(Caps { cluster: Some(9), restore: Some(3), ..Caps::default() });
        bandwidth.copies().pass(100_000).await;
        bandwidth.peers().pass(100_000).await;
        let passed = [bandwidth.node(), bandwidth.fetch(), bandwidth.restore()].map(Bucket::passed);
        assert_eq!(passed, [100_000, 0, 0]);
    }

    #[tokio::test]
    async fn the_nodes_share_of_the_cluster_and_its_own_cap_hold_both() {
        let bandwidth = Bandwidth::default();
        let (host, _, queue) = names();
        let lane = bandwidth.lane(&host, &queue);
        assert!(timeout(Duration::from_millis(50), lane.limited()).await.is_err());
        bandwidth.set_share(Budget::Fetch, Some(5));
        timeout(Duration::from_secs(20), lane.limited()).await.unwrap();
        bandwidth.set_caps(Caps { node: Some(6), cluster: Some(9), cluster_restore: Some(9), ..Caps::default() });
        assert_eq!((lane.rate(), bandwidth.restores().rate()), (Some(5), Some(0)), "a share not known yet is none");
        bandwidth.set_share(Budget::Restore, Some(7));
        assert_eq!((lane.rate(), bandwidth.restores().rate()), (Some(5), Some(7)));
        bandwidth.set_caps(Caps { node: Some(6), restore: Some(8), ..Caps::default() });
        assert_eq!((lane.rate(), bandwidth.restores().rate()), (Some(6), Some(8)));
    }

    #[test]
    fn limits_that_nobody_passes_any_more_are_forgotten() {
        let bandwidth = Bandwidth::default();
        let (_, other, queue) = names();
        for number in 0..1000 {
            bandwidth.lane(&number.to_string().parse().unwrap(), &queue);
        }
        let held = bandwidth.lane(&other, &queue);
        assert!(bandwidth.parts().hosts.len() <= 2);
        drop(held);
    }
}
