//! `longshore queue`.

use std::time::Duration;

use longshore_core::{Millis, exit::Exit};
use serde::Deserialize;

use super::{Context, nodes::Away};
use crate::{
    arguments::DeadList,
    client,
    failure::Failure,
    show::{
        self,
        table::{Room, Table},
        text,
    },
};

#[derive(Debug, Deserialize)]
struct Queues {
    clusters: Vec<Cluster>,
}

#[derive(Debug, Deserialize)]
struct Cluster {
    cluster: String,
    away: Option<Away>,
    levels: Vec<Level>,
    reported_size: Option<u64>,
    reported_at: Option<Millis>,
}

#[derive(Debug, Deserialize)]
struct Level {
    queue: String,
    waiting: u64,
    inbox: u64,
    delayed: u64,
    leased: u64,
    bytes: u64,
    oldest_age_seconds: Option<u64>,
}

pub(super) async fn list(context: &Context) -> Result<Exit, Failure> {
    let value = context.client.get(&["api", "v1", "queues"], &[]).await?;
    if context.json {
        show::json(&value)?;
        return Ok(Exit::Done);
    }
    let queues: Queues = client::read(value)?;
    let mut table = Table::new()
        .column("CLUSTER", Room::Needed)
        .column("LEVEL", Room::Needed)
        .number("WAITING", Room::Needed)
        .number("IN TRANSFER", Room::Needed)
        .number("BYTES", Room::Needed)
        .number("OLDEST", Room::Needed)
        .number("INBOX", Room::Spare)
        .number("TO RETRY", Room::Spare);
    let mut notes = Vec::new();
    for cluster in &queues.clusters {
        if let Some(away) = &cluster.away {
            notes.push(format!(
                "the Redis of cluster {} is away since {}: {}",
                cluster.cluster,
                text::moment(away.since),
                away.why
            ));
        }
        if let Some(size) = cluster.reported_size {
            let when = cluster.reported_at.map_or_else(String::new, |at| format!(", {}", text::ago(at)));
            notes.push(format!("a reporter counted {size} waiting in cluster {}{when}", cluster.cluster));
        }
        for level in &cluster.levels {
            let oldest = level.oldest_age_seconds.map_or_else(String::new, |age| text::span(Duration::from_secs(age)));
            table.row([
                (&*cluster.cluster).into(),
                (&*level.queue).into(),
                level.waiting.to_string().into(),
                level.leased.to_string().into(),
                text::size(level.bytes).into(),
                oldest.into(),
                level.inbox.to_string().into(),
                level.delayed.to_string().into(),
            ]);
        }
    }
    if table.is_empty() {
        show::lines("no job was ever queued here")?;
    } else {
        show::table(&table)?;
    }
    notes.iter().try_for_each(|note| show::lines(note))?;
    Ok(Exit::Done)
}

#[derive(Debug, Deserialize)]
struct Letters {
    total: u64,
    items: Vec<Letter>,
}

#[derive(Debug, Deserialize)]
struct Letter {
    cluster: String,
    id: String,
    queue: Option<String>,
    at: Millis,
    reason_code: String,
    reason: String,
    instance: Option<String>,
    attempts: Option<u32>,
    beginning: Option<String>,
}

/// Dead letters; exit code 1 when there are any.
pub(super) async fn dead(context: &Context, list: DeadList) -> Result<Exit, Failure> {
    let mut query = vec![("limit", list.limit.to_string())];
    query.extend(list.cluster.map(|cluster| ("cluster", cluster)));
    let value = context.client.get(&["api", "v1", "dead-letters"], &query).await?;
    let exit = if value["total"].as_u64().unwrap_or(0) > 0 { Exit::FoundWrong } else { Exit::Done };
    if context.json {
        show::json(&value)?;
        return Ok(exit);
    }
    let letters: Letters = client::read(value)?;
    if letters.items.is_empty() {
        show::lines("nothing is kept for a person")?;
        return Ok(exit);
    }
    let mut table = Table::new()
        .column("WHAT", Room::Cut)
        .column("LEVEL", Room::Needed)
        .column("SINCE", Room::Needed)
        .number("TRIES", Room::Needed)
        .column("WHY", Room::Cut)
        .column("CLUSTER", Room::Spare)
        .column("ID", Room::Spare);
    let shown = letters.items.len() as u64;
    for letter in letters.items {
        table.row([
            letter.instance.or(letter.beginning).unwrap_or_default().into(),
            letter.queue.unwrap_or_default().into(),
            text::ago(letter.at).into(),
            letter.attempts.map_or_else(String::new, |attempts| attempts.to_string()).into(),
            format!("{}: {}", letter.reason_code, letter.reason).into(),
            letter.cluster.into(),
            letter.id.into(),
        ]);
    }
    show::table(&table)?;
    if shown < letters.total {
        show::lines(&format!("{shown} of {}; --limit shows more", letters.total))?;
    }
    Ok(exit)
}
