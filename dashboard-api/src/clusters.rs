//! The clusters that are looked at: each a queue Redis, asked for its nodes' heartbeats, its queues and its dead letters.
//! The last good answer about nodes is kept, so that a restore still finds them while Redis is away.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use longshore_core::{
    Millis, NodeBeat, NodeId, QueueName,
    queue::{Forgetting, FoundJobs, JobFilter, Queue, QueueDepth, copied_node},
    redis_link::{LinkError, RedisLink},
};

use crate::{
    api::problem::Problem,
    settings::{ClusterSettings, Settings},
    watch::{Silence, Watch},
};

/// To look at every record of a long queue takes seconds.
const LOOK_WITHIN: Duration = Duration::from_secs(60);

/// One cluster.
#[derive(Debug)]
pub struct Cluster {
    name: QueueName,
    address: String,
    levels: Vec<QueueName>,
    queue: Queue,
    watch: Watch,
    last_nodes: Mutex<Vec<(NodeBeat, Millis)>>,
}

/// A node's last heartbeat.
#[derive(Debug, Clone)]
pub struct HeardNode {
    /// What it said.
    pub beat: NodeBeat,
    /// When that reached Redis, by Redis' clock.
    pub heard_at: Millis,
    /// How long ago that is.
    pub age: Duration,
    /// Whether that is too long.
    pub silent: bool,
    /// Whether it is there: heard of lately, and not that it stopped.
    pub is_there: bool,
}

/// The levels of a cluster, and Redis' own time.
#[derive(Debug)]
pub struct Depths {
    /// Those of the configuration in its order, then others by name.
    pub levels: Vec<QueueDepth>,
    /// By Redis' clock, which the ages are measured by.
    pub now: Millis,
}

impl Cluster {
    /// Connects at first use.
    pub fn new(settings: &ClusterSettings) -> Self {
        let link = RedisLink::new(&settings.redis);
        Self {
            name: settings.name.clone(),
            address: link.name().to_owned(),
            levels: settings.queues.clone(),
            watch: Watch::of(&format!("The Redis of cluster {}", settings.name)),
            queue: Queue::new(link),
            last_nodes: Mutex::default(),
        }
    }

    /// Its id.
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    /// Where its Redis is, for people.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether its Redis answers.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Its queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The answer to a question put to [`Self::queue`].
    ///
    /// # Errors
    /// A [`Problem`] fit to be sent, with since when Redis is away.
    pub async fn ask<T>(&self, question: impl Future<Output = Result<T, LinkError>>) -> Result<T, Problem> {
        self.watch.ask(question, |_| true).await.map_err(|silence| self.problem(silence))
    }

    /// Its nodes, ordered by id; while Redis is away those last heard of, growing older by our own clock.
    pub async fn nodes(&self, settings: &Settings) -> Vec<HeardNode> {
        let fresh = self.ask(async { Ok((self.queue.nodes().await?, self.queue.now_micros().await?)) }).await;
        let (nodes, now) = match fresh {
            Ok((nodes, micros)) => {
                *self.last_nodes.lock().unwrap_or_else(PoisonError::into_inner) = nodes.clone();
                (nodes, millis(micros))
            }
            Err(_) => (self.last_nodes.lock().unwrap_or_else(PoisonError::into_inner).clone(), Millis::now()),
        };
        let mut heard: Vec<HeardNode> = nodes
            .into_iter()
            .map(|(beat, heard_at)| {
                let age = now.since(heard_at);
                let silent = age > settings.silent_after.duration();
                HeardNode { is_there: !silent && !beat.has_stopped(), beat, heard_at, age, silent }
            })
            .collect();
        heard.sort_by(|a, b| a.beat.node_id.cmp(&b.beat.node_id));
        heard
    }

    /// Forgets a node that has stopped or is silent, and that nobody needs.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn forget(&self, node_id: &NodeId, settings: &Settings) -> Result<Forgetting, Problem> {
        let answer = self.ask(self.queue.forget_node(node_id, settings.silent_after.duration())).await?;
        if matches!(answer, Forgetting::Forgotten | Forgetting::Unknown) {
            let mut last = self.last_nodes.lock().unwrap_or_else(PoisonError::into_inner);
            last.retain(|(beat, _)| beat.node_id != *node_id);
        }
        Ok(answer)
    }

    /// Its levels: those of the configuration, then all others that nodes claim from or that were ever used, since something may wait there.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn levels(&self) -> Result<Vec<QueueName>, Problem> {
        let mut levels = self.all_levels().await?;
        levels.retain(|name| copied_node(name).is_none());
        Ok(levels)
    }

    /// The same, then those of second copies.
    async fn all_levels(&self) -> Result<Vec<QueueName>, Problem> {
        let names = self.ask(self.queue.queue_names()).await?;
        let mut further: Vec<_> = names.into_iter().filter(|name| !self.levels.contains(name)).collect();
        further.sort_by_key(|name| copied_node(name).is_some());
        Ok([self.levels.clone(), further].concat())
    }

    /// The time by its Redis' clock, which ages are measured by.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn now(&self) -> Result<Millis, Problem> {
        self.ask(self.queue.now_micros()).await.map(millis)
    }

    /// The jobs that pass a filter, the oldest `most` of them; looks at every record.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn find(&self, filter: &JobFilter, most: usize) -> Result<FoundJobs, Problem> {
        let watch = self.watch.patient(LOOK_WITHIN);
        watch.ask(self.queue.find(filter, most), |_| true).await.map_err(|silence| self.problem(silence))
    }

    /// What waits in its levels, and then in those of second copies.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn depths(&self) -> Result<Depths, Problem> {
        let levels = self.all_levels().await?;
        let levels = self.ask(self.queue.depths(&levels)).await?;
        Ok(Depths { levels, now: self.now().await? })
    }

    fn problem(&self, silence: Silence<LinkError>) -> Problem {
        let why = match silence {
            Silence::Error(error) => error.to_string(),
            Silence::Slow(why) => why,
        };
        Problem::away(self.watch.what(), why, self.watch.away().map(|away| away.since))
    }
}

fn millis(micros: u64) -> Millis {
    Millis(i64::try_from(micros / 1000).unwrap_or(i64::MAX))
}
