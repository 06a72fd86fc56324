//! Publishing what operators set: the registry's rules go into each cluster's Redis, at once after a write, and again when
//! Redis has lost them.
//!
//! The version grows with every other text of the rules, whatever was there before: nodes take what is new by its version.

use std::time::Duration;

use longshore_core::{
    Policy,
    policy::{POLICY_VERSION, Rules},
    queue::{Published, Queue},
    redis_link::LinkError,
    shutdown::Shutdown,
};

use crate::{api::problem::Problem, app::App, clusters::Cluster};

/// How often it is looked whether Redis still has it.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Keeps the policy of a cluster published, until `stop`.
pub async fn keep_published(app: &App, cluster: &Cluster, stop: &Shutdown) {
    let mut writes = app.registry().writes();
    let mut last = None;
    loop {
        writes.mark_unchanged();
        match publish(app, cluster, last.as_ref()).await {
            Ok(published) => {
                if last.as_ref().map(|last: &Policy| last.version) != Some(published.version) {
                    tracing::info!(cluster = %cluster.name(), version = published.version, "the policy is published");
                }
                last = Some(published);
            }
            // Told by who watches the service, once.
            Err(problem) => tracing::debug!(cluster = %cluster.name(), why = %problem.detail, "the policy waits"),
        }
        tokio::select! {
            () = stop.requested() => return,
            _ = writes.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Publishes what the registry says now, unless it is there; what is there then.
async fn publish(app: &App, cluster: &Cluster, last: Option<&Policy>) -> Result<Policy, Problem> {
    let (registry_version, rules) = app.registry().rules(cluster.name().clone()).await?;
    cluster
        .ask(async {
            let there = cluster.queue().policy_version().await?;
            let before = there.max(last.map(|last| last.version));
            let last = last.filter(|last| last.rules == rules);
            if let Some(last) = last
                && there == Some(last.version)
            {
                return Ok(last.clone());
            }
            if let Some(policy) = in_redis(cluster.queue()).await?
                && policy.rules == rules
            {
                return Ok(policy);
            }
            let version = match last {
                // Lost there: nodes that know it need not look at it again.
                Some(last) if there < Some(last.version) => last.version,
                _ => registry_version.max(before.map_or(0, |version| version + 1)),
            };
            write(cluster.queue(), Policy { v: POLICY_VERSION, version, rules }).await
        })
        .await
}

async fn write(queue: &Queue, mut policy: Policy) -> Result<Policy, LinkError> {
    while let Published::Outrun { version } = queue.publish_policy(&policy).await? {
        policy.version = version + 1;
    }
    Ok(policy)
}

/// What nodes read there; `None` also when it is nothing that they could read.
async fn in_redis(queue: &Queue) -> Result<Option<Policy>, LinkError> {
    Ok(queue.policy().await?.and_then(|body| Policy::read(&body).ok()))
}

/// The version in Redis, when what it says is what the registry says now.
///
/// # Errors
/// When the cluster's Redis is away, or the registry fails.
pub async fn published(app: &App, cluster: &Cluster) -> Result<(Option<u64>, Rules), Problem> {
    let (_, rules) = app.registry().rules(cluster.name().clone()).await?;
    let there = cluster.ask(in_redis(cluster.queue())).await?;
    Ok((there.filter(|policy| policy.rules == rules).map(|policy| policy.version), rules))
}
