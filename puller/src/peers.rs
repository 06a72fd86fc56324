//! The other nodes of the cluster, as their heartbeats show them: where each serves its files, and the key that its requests
//! are signed with. Looked up a few seconds at most after a beat has changed; while Redis is away, what was known last counts.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ed25519_dalek::VerifyingKey;
use longshore_core::{Millis, NodeBeat, NodeId, queue::Queue, token};
use tokio::sync::Mutex;

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A node that has been silent for longer is no node of the cluster any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Another node.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it serves stored files, such as `http://10.0.1.5:7480`; `None` when it does not.
    pub serve: Option<String>,
    /// What its tokens are signed with; `None` when it has not said so.
    pub key: Option<VerifyingKey>,
}

/// The nodes that beat in this cluster's Redis.
#[derive(Debug)]
pub struct Peers {
    queue: Queue,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    looked: Option<Instant>,
    peers: HashMap<NodeId, Peer>,
}

impl Peers {
    /// Of the cluster of `queue`.
    pub fn new(queue: Queue) -> Self {
        Self { queue, known: Mutex::default() }
    }

    /// The node of that name, when it has beaten lately.
    pub async fn get(&self, node_id: &NodeId) -> Option<Peer> {
        let mut known = self.known.lock().await;
        if known.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            known.looked = Some(Instant::now());
            match (self.queue.nodes().await, self.queue.now_micros().await) {
                (Ok(beats), Ok(now)) => known.peers = peers(beats, Millis((now / 1000).cast_signed())),
                (Err(error), _) | (_, Err(error)) => tracing::warn!(%error, "the other nodes can't be looked up"),
            }
        }
        known.peers.get(node_id).cloned()
    }
}

fn peers(beats: Vec<(NodeBeat, Millis)>, now: Millis) -> HashMap<NodeId, Peer> {
    let lately = beats.into_iter().filter(|(_, seen)| now.since(*seen) < FORGOTTEN_AFTER);
    let peer = |beat: NodeBeat| {
        let key = beat.public_key.and_then(|text| token::parse_public_key(&text).ok());
        (beat.node_id, Peer { serve: beat.serve, key })
    };
    lately.map(|(beat, _)| peer(beat)).collect()
}
