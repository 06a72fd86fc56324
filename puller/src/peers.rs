//! The other nodes of the cluster, as their heartbeats show them: where each serves its files, and the key that its requests
//! are signed with; and the levels in which backups wait to be copied from them. Looked up a few seconds at most after a beat
//! has changed; while Redis is away, what was known last counts.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ed25519_dalek::VerifyingKey;
use longshore_core::{
    Millis, NodeBeat, NodeId,
    queue::{Level, Queue},
    redis_link::LinkError,
    token,
};
use tokio::sync::{Mutex, MutexGuard};

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For a node that is not known yet, such as one that has just started.
const LOOK_SOONER: Duration = Duration::from_millis(200);
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
    node_id: NodeId,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    looked: Option<Instant>,
    peers: HashMap<NodeId, Peer>,
    copies: Vec<Level>,
}

impl Peers {
    /// Of the cluster of `queue`, but for `node_id` itself.
    pub fn new(queue: Queue, node_id: NodeId) -> Self {
        Self { queue, node_id, known: Mutex::default() }
    }

    /// The node of that name, when it has beaten lately.
    pub async fn get(&self, node_id: &NodeId) -> Option<Peer> {
        let peer = self.known(LOOK_EVERY).await.peers.get(node_id).cloned();
        match peer {
            Some(peer) => Some(peer),
            None => self.known(LOOK_SOONER).await.peers.get(node_id).cloned(),
        }
    }

    /// The levels of second copies that this node may make.
    pub async fn copy_levels(&self) -> Vec<Level> {
        self.known(LOOK_EVERY).await.copies.clone()
    }

    /// As it was at most `ago`.
    async fn known(&self, ago: Duration) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().await;
        if known.looked.is_none_or(|looked| looked.elapsed() >= ago) {
            known.looked = Some(Instant::now());
            match self.look().await {
                Ok((peers, copies)) => (known.peers, known.copies) = (peers, copies),
                Err(error) => tracing::warn!(%error, "the other nodes can't be looked up"),
            }
        }
        known
    }

    async fn look(&self) -> Result<(HashMap<NodeId, Peer>, Vec<Level>), LinkError> {
        let (beats, now) = (self.queue.nodes().await?, self.queue.now_micros().await?);
        let copies = self.queue.copy_levels(&self.node_id).await?;
        Ok((peers(beats, Millis((now / 1000).cast_signed())), copies))
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
