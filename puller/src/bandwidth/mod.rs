//! One bandwidth: what all transfers of a node share, and how each of them is held to it.
//!
//! A transfer's bytes pass a [`Lane`]: the limit of its queue, that of its host, and the node's own, which is the node's cap
//! or its share of the cluster's, whichever is lower. Restores have a lane of their own, so neither takes from the other.

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
use tokio::sync::{Notify, OnceCell};

use self::proxy::Proxy;
pub use self::{bucket::Bucket, route::Route};

/// What is allowed now, in bytes a second; what is not named has no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caps {
    /// All transfers of this node together.
    pub node: Option<u64>,
    /// All downloads from this node together.
    pub restore: Option<u64>,
    /// All transfers of the cluster together.
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
    restore: Arc<Bucket>,
    parts: Mutex<Parts>,
    caps_changed: Notify,
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
            restore: unlimited(),
            parts: Mutex::default(),
            caps_changed: Notify::new(),
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
        self.caps_changed.notify_one();
    }

    /// What is in force.
    pub fn caps(&self) -> Caps {
        self.parts().caps.clone()
    }

    /// Returns when caps were put into force since this was last awaited.
    pub async fn caps_changed(&self) {
        self.caps_changed.notified().await;
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
        self.node.set(lower(caps.node, *fetch_share));
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
        Lane(vec![queue, host, Arc::clone(&self.node)])
    }

    /// What a second copy that comes from another node has to pass: it takes nothing of a host or of a queue.
    pub fn copies(&self) -> Lane {
        Lane(vec![Arc::clone(&self.node)])
    }

    /// What a download has to pass.
    pub fn restores(&self) -> Lane {
        Lane(vec![Arc::clone(&self.restore)])
    }

    /// All transfers' own limit, for who measures them.
    pub fn node(&self) -> &Bucket {
        &self.node
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

/// The limits that one transfer has to pass, the narrowest group first.
#[derive(Debug, Clone)]
pub struct Lane(Vec<Arc<Bucket>>);

impl Lane {
    /// Waits until `bytes` more may pass all limits.
    pub async fn pass(&self, bytes: usize) {
        // One after the other, so that whoever waits for a narrow limit takes no turn of a wide one.
        for bucket in &self.0 {
            bucket.pass(bytes as u64).await;
        }
    }

    /// The lowest limit, in bytes a second.
    pub fn rate(&self) -> Option<u64> {
        self.0.iter().filter_map(|bucket| bucket.rate()).min()
    }

    /// Bytes to pass at once.
    pub fn quantum(&self) -> usize {
        bucket::quantum(self.rate())
    }

    /// Returns when there is a limit, at once when there is one.
    pub async fn limited(&self) {
        let waits = self.0.iter().map(|bucket| Box::pin(bucket.limited()));
        futures_util::future::select_all(waits).await;
    }
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
