//! `longshore queue jobs`: the jobs themselves.

use std::time::Duration;

use longshore_core::{config::Span, exit::Exit};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    arguments::JobFilter,
    client,
    commands::Context,
    failure::Failure,
    show::{
        self,
        table::{Cell, Room, Table, Tone},
        text,
    },
};

#[derive(Debug, Deserialize)]
struct Jobs {
    total: u64,
    bytes: u64,
    items: Vec<Job>,
}

/// The API lists no more.
const MOST_LISTED: u32 = 10_000;

/// A job in a queue.
#[derive(Debug, Deserialize)]
pub(super) struct Job {
    cluster: String,
    id: String,
    state: String,
    queue: String,
    instance: Option<String>,
    size_bytes: u64,
    age_seconds: u64,
    attempts: u32,
    node_id: Option<String>,
}

impl JobFilter {
    /// # Errors
    /// When an instance is named in a form that can't be meant.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.instance.as_deref() {
            Some(text) if text.contains('/') && parts(text).is_none() => {
                Err(Failure::usage(format!("--instance {text:?}: write its name alone, or SERVER/TYPE/INSTANCE")))
            }
            _ => Ok(()),
        }
    }

    /// As the API takes it.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        let mut add = |name, value: Option<String>| query.extend(value.map(|value| (name, value)));
        let (mut host, mut backup_type, mut instance) =
            (self.host.clone(), self.backup_type.clone(), self.instance.clone());
        if let Some([server_id, kind, name]) = self.instance.as_deref().and_then(parts) {
            (host, backup_type, instance) = (Some(server_id.into()), Some(kind.into()), Some(name.into()));
        }
        add("jobs", Some(self.jobs.join(",")).filter(|jobs| !jobs.is_empty()));
        add("cluster", self.cluster.clone());
        add("queue", self.queue.clone());
        add("server_id", host);
        add("type", backup_type);
        add("instance", instance);
        add("module", self.module.clone());
        add("older_than_seconds", self.older_than.map(|Span(span)| span.as_secs().to_string()));
        add("larger_than_bytes", self.larger_than.map(|size| size.bytes().to_string()));
        add("state", self.state.clone());
        query
    }

    /// As a body.
    pub(super) fn body(&self) -> Value {
        Value::Object(
            self.query().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect::<Map<_, _>>(),
        )
    }
}

/// `SERVER/TYPE/INSTANCE`.
fn parts(text: &str) -> Option<[&str; 3]> {
    text.split('/').collect::<Vec<_>>().try_into().ok()
}

pub(super) async fn list(context: &Context, filter: &JobFilter, limit: u32) -> Result<Exit, Failure> {
    filter.check()?;
    let mut query = filter.query();
    query.push(("limit", limit.to_string()));
    let value = context.client.get(&["api", "v1", "jobs"], &query).await?;
    if context.json {
        show::json(&value)?;
        return Ok(Exit::Done);
    }
    let jobs: Jobs = client::read(value)?;
    if jobs.total == 0 {
        show::lines("no job in the queues passes these filters")?;
        return Ok(Exit::Done);
    }
    if !jobs.items.is_empty() {
        show::table(&table(&jobs.items))?;
    }
    let (shown, total) = (jobs.items.len() as u64, text::count(jobs.total, "job"));
    let more = if shown < jobs.total { format!(", the oldest {shown} shown") } else { String::new() };
    let hint = if shown < jobs.total && limit < MOST_LISTED { "; --limit shows more" } else { "" };
    show::lines(&format!("{total}, {}{more}{hint}", text::size(jobs.bytes)))?;
    Ok(Exit::Done)
}

/// Jobs in a table.
pub(super) fn table(jobs: &[Job]) -> Table {
    let mut table = Table::new()
        .column("INSTANCE", Room::Middle)
        .column("STATE", Room::Needed)
        .number("WAITS", Room::Needed)
        .column("ID", Room::Needed)
        .number("SIZE", Room::Spare)
        .column("LEVEL", Room::Spare)
        .number("TRIES", Room::Spare)
        .column("NODE", Room::Spare)
        .column("CLUSTER", Room::Spare);
    for job in jobs {
        let tone = match job.state.as_str() {
            "held" | "delayed" => Tone::Warn,
            "dead" => Tone::Bad,
            _ => Tone::Plain,
        };
        table.row([
            job.instance.as_deref().unwrap_or("(not readable)").into(),
            Cell::toned(&*job.state, tone),
            text::span(Duration::from_secs(job.age_seconds)).into(),
            (&*job.id).into(),
            text::size(job.size_bytes).into(),
            (&*job.queue).into(),
            job.attempts.to_string().into(),
            job.node_id.clone().unwrap_or_default().into(),
            (&*job.cluster).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use console::measure_text_width;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_id_that_a_change_needs_is_whole_at_80_columns() {
        let id = "01a1f6e5-8780-7a3c-8f21-3f0e6b1c9d77";
        let job = json!({"cluster": "frankfurt-1", "id": id, "state": "delayed", "queue": "level1", "age_seconds": 86_340,
            "instance": "backup-source-17.frankfurt.example/postgres/main-16", "size_bytes": 1023_u64 << 30, "attempts": 25,
            "node_id": "store1"});
        let text = table(&[client::read(job).unwrap()]).render(Some(80));
        assert!(text.lines().all(|line| measure_text_width(line) <= 80), "{text}");
        for needed in [id, "delayed", "23h 59m", "backup-s", "main-16"] {
            assert!(text.contains(needed), "{needed} in {text}");
        }
    }
}
