//! What operators set, as it reaches this node: the registry's policy over the node's own file, key by key, read off at this
//! moment ([`Effective`]) and shared with a notice of each change.
//!
//! The policy is looked for in Redis twice a second, which is one cheap question. The last good one is kept in the store, so
//! that a node starts with it although Redis or the dashboard is away. One that can't be read changes nothing.

mod effective;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use longshore_core::{
    Millis, NodeId, Policy, QueueName,
    policy::{Over, PolicyError, Rules},
    queue::{Queue, Ruled},
    redis_link::LinkError,
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

pub use self::effective::{BackupRule, Closed, Effective};
use crate::{
    settings::Settings,
    store::{self, Store},
};

/// The last good policy, in the store's root.
const KEPT: &str = ".policy.json";
/// How often Redis, and the calendars, are looked at: a change is in force within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether Redis still has what it decides by. Longer than a change takes to reach every node.
const ENFORCE_EVERY: Duration = Duration::from_secs(2);
/// A look that takes longer is given up, so that the calendars go on.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// The rules of one node, and what holds of them now.
#[derive(Debug)]
pub struct NodePolicy {
    node_id: NodeId,
    queues: Vec<QueueName>,
    /// What the node's own file says.
    file: Rules,
    store: Arc<Store>,
    registry: Mutex<Registry>,
    effective: watch::Sender<Arc<Effective>>,
}

/// What is known of the registry's policy.
#[derive(Debug, Default)]
struct Registry {
    version: Option<u64>,
    /// Its rules over the file's.
    rules: Arc<Rules>,
    /// The version last looked at, readable or not.
    seen: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
enum PolicyFault {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Unreadable(#[from] PolicyError),
}

impl NodePolicy {
    /// Of the file, and of the last good policy when the store has one.
    pub fn open(settings: &Settings, store: Arc<Store>) -> Self {
        let kept = store.root().join(KEPT);
        let (node_id, queues, file) = (settings.node_id.clone(), settings.queues.clone(), settings.rules());
        let registry = match std::fs::read_to_string(&kept) {
            Ok(text) => Policy::read(&text)
                .inspect_err(|error| tracing::warn!(file = %kept.display(), %error, "the kept policy is not used"))
                .ok(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %kept.display(), %error, "the kept policy can't be read");
                None
            }
        };
        let registry = Registry {
            version: registry.as_ref().map(|policy| policy.version),
            rules: Arc::new(registry.map_or_else(Rules::default, |policy| policy.rules).over(file.clone())),
            seen: None,
        };
        let first = Effective::at(Millis::now(), registry.version, &registry.rules, &node_id, &queues);
        let effective = watch::Sender::new(Arc::new(first));
        Self { node_id, queues, file, store, registry: Mutex::new(registry), effective }
    }

    /// What holds now.
    pub fn now(&self) -> Arc<Effective> {
        Arc::clone(&self.effective.borrow())
    }

    /// Tells each change of it.
    pub fn changes(&self) -> watch::Receiver<Arc<Effective>> {
        self.effective.subscribe()
    }

    /// Looks at Redis once; to be done before the first claim. What is wrong with the policy is given to `tell`, once.
    pub async fn look(&self, queue: &Queue, tell: impl Fn(&PolicyError)) {
        match tokio::time::timeout(LOOK_WITHIN, self.take_over(queue)).await {
            Ok(Err(PolicyFault::Unreadable(error))) => tell(&error),
            // That Redis is away is told by those who need it.
            Ok(Ok(()) | Err(PolicyFault::Link(_))) | Err(_) => {}
        }
        self.read_off();
    }

    /// Looks at the clock and at Redis, again and again, until `end`.
    pub async fn follow(&self, queue: &Queue, tell: impl Fn(&PolicyError), end: CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = end.cancelled() => return,
            }
            self.read_off();
            self.look(queue, &tell).await;
        }
    }

    /// Puts into force what Redis itself decides by, at every change and again after Redis lost it, until `end`.
    pub async fn enforce(&self, queue: &Queue, end: CancellationToken) {
        let (mut changes, mut ruled, mut before) = (self.changes(), Ruled::default(), None);
        loop {
            let now = Arc::clone(&changes.borrow_and_update());
            let hosts = queue.rule_hosts(now.hosts(), &now.closed_hosts, &mut ruled).await;
            // Jobs are placed anew once every node admits by the new rule, so that none is left at an old place.
            let levels = match before.replace(now.levels.clone()) {
                Some(levels) if levels == now.levels => queue.rule_levels(&levels, &mut ruled).await,
                _ => Ok(()),
            };
            if let Err(error) = hosts.and(levels) {
                tracing::debug!(%error, "rules wait to be put into force");
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(ENFORCE_EVERY) => {}
                () = end.cancelled() => return,
            }
        }
    }

    /// Takes over what Redis has, when it is another than before. A Redis without any has lost it, and the dashboard will
    /// write it again.
    async fn take_over(&self, queue: &Queue) -> Result<(), PolicyFault> {
        let Some(version) = queue.policy_version().await? else { return Ok(()) };
        if self.registry().seen == Some(version) {
            return Ok(());
        }
        let Some(body) = queue.policy().await? else { return Ok(()) };
        self.registry().seen = Some(version);
        let policy = Policy::read(&body)?;
        // The body may be of a later version than the one that was looked at: then it is looked at once more.
        let version = policy.version;
        let rules = Arc::new(policy.rules.over(self.file.clone()));
        {
            let mut registry = self.registry();
            (registry.version, registry.rules) = (Some(version), rules);
        }
        tracing::info!(version, "a policy of the registry is in force");
        self.keep(body).await;
        Ok(())
    }

    /// Not being kept is no reason not to obey it.
    async fn keep(&self, body: String) {
        let store = Arc::clone(&self.store);
        let written = tokio::task::spawn_blocking(move || {
            store.still_there().map_err(|error| error.to_string())?;
            store::write_whole(&store.root().join(KEPT), body.as_bytes()).map_err(|error| error.to_string())
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, "the policy could not be kept in the store");
        }
    }

    fn read_off(&self) {
        let (version, rules) = {
            let registry = self.registry();
            (registry.version, Arc::clone(&registry.rules))
        };
        let now = Effective::at(Millis::now(), version, &rules, &self.node_id, &self.queues);
        self.effective.send_if_modified(|held| {
            let changed = **held != now;
            if changed {
                *held = Arc::new(now);
            }
            changed
        });
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
