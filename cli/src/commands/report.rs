//! `longshore report`: the figures that UBackup's reporters sent from cron.

use std::path::Path;

use longshore_core::{
    Millis, QueueName,
    config::RedisConfig,
    exit::Exit,
    queue::{Queue, QueueDepth},
    redis_link::{LinkError, RedisLink},
};
use reqwest::Method;
use serde_json::json;

use super::Context;
use crate::{
    arguments::ReportCommand,
    failure::Failure,
    show::{self, text},
};

pub(super) async fn run(context: &Context, command: ReportCommand) -> Result<Exit, Failure> {
    match command {
        ReportCommand::Queue { cluster, redis, queues } => {
            let config = match redis {
                Some(address) => RedisConfig { address, ..context.redis.clone() },
                None => context.redis.clone(),
            };
            queue(context, &cluster, &config, queues).await
        }
        ReportCommand::Disk { node, path } => disk(context, &node, &path).await,
    }
}

async fn queue(
    context: &Context,
    cluster: &str,
    config: &RedisConfig,
    levels: Vec<QueueName>,
) -> Result<Exit, Failure> {
    let waiting = waiting(config, levels).await.map_err(Failure::refused)?;
    let body = json!({"queue_size": waiting, "reported_at": Millis::now()});
    let done = context.client.send_json(Method::PATCH, &["api", "v1", "clusters", cluster], &body).await?;
    if context.json {
        show::json(&done)?;
    } else {
        show::lines(&format!("cluster {cluster}: {waiting} waiting, reported"))?;
    }
    Ok(Exit::Done)
}

/// Jobs in the inboxes and in the index.
async fn waiting(config: &RedisConfig, levels: Vec<QueueName>) -> Result<u64, LinkError> {
    let queue = Queue::new(RedisLink::new(config));
    let levels = if levels.is_empty() { queue.queue_names().await? } else { levels };
    let depths = queue.depths(&levels).await?;
    Ok(depths.iter().map(QueueDepth::waiting).sum())
}

async fn disk(context: &Context, node: &str, path: &Path) -> Result<Exit, Failure> {
    let disk = rustix::fs::statvfs(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let size = disk.f_blocks.saturating_mul(disk.f_frsize);
    let used = size.saturating_sub(disk.f_bfree.saturating_mul(disk.f_frsize));
    let body = json!({"size_bytes": size, "used_bytes": used, "reported_at": Millis::now()});
    let done = context.client.send_json(Method::PATCH, &["api", "v1", "nodes", node], &body).await?;
    if context.json {
        show::json(&done)?;
    } else {
        show::lines(&format!("node {node}: {} of {} used, reported", text::size(used), text::size(size)))?;
    }
    Ok(Exit::Done)
}
