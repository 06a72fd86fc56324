//! `longshore backups`.

use longshore_core::{Millis, exit::Exit};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use crate::{
    arguments::BackupsList,
    client,
    failure::Failure,
    show::{
        self,
        table::{Cell, Room, Table, Tone},
        text,
    },
};

/// The server gives so many at once.
const PAGE: u32 = 1000;

/// What is shown of a backup.
#[derive(Debug, Deserialize)]
struct Backup {
    id: String,
    server_id: String,
    #[serde(rename = "type")]
    backup_type: String,
    instance: String,
    outcome: String,
    reason_code: Option<String>,
    reason: Option<String>,
    name: Option<String>,
    size_bytes: u64,
    files: u64,
    position: Option<String>,
    sequence: Option<u32>,
    made_at: Millis,
    stored_at: Millis,
    node_id: Option<String>,
    path: Option<String>,
    attempts: u32,
}

impl Backup {
    fn key(&self) -> String {
        format!("{}/{}/{}", self.server_id, self.backup_type, self.instance)
    }

    fn chain(&self) -> String {
        match (self.position.as_deref(), self.sequence) {
            (Some("increment"), Some(number)) => format!("inc {number}"),
            (Some("increment"), None) => "inc".to_owned(),
            (Some("differential"), _) => "diff".to_owned(),
            (Some(position), _) => position.to_owned(),
            (None, _) => String::new(),
        }
    }

    fn state(&self) -> Cell {
        let tone = match self.outcome.as_str() {
            "stored" => Tone::Good,
            "cancelled" => Tone::Warn,
            _ => Tone::Bad,
        };
        Cell::toned(&*self.outcome, tone)
    }
}

pub(super) async fn list(context: &Context, list: BackupsList) -> Result<Exit, Failure> {
    let mut query: Vec<(&str, String)> = Vec::new();
    let mut add = |name, value: Option<String>| query.extend(value.map(|value| (name, value)));
    if let Some(key) = list.instance {
        add("server_id", Some(key.server_id.to_string()));
        add("type", Some(key.backup_type.to_string()));
        add("instance", Some(key.instance.to_string()));
    }
    add("server_id", list.server_id);
    add("type", list.backup_type);
    add("business_id", list.business);
    add("node_id", list.node);
    add("outcome", list.outcome);
    add("text", list.text);
    add("made_from", list.since.map(|at| at.0.0.to_string()));
    add("made_until", list.until.map(|at| at.0.0.to_string()));
    add("sort", list.sort);
    add("order", list.ascending.then(|| "ascending".to_owned()));
    let limit = list.limit.unwrap_or(50);
    let mut items: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    let more = loop {
        let left = limit.saturating_sub(items.len() as u32);
        let mut query = query.clone();
        query.push(("limit", left.clamp(1, PAGE).to_string()));
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let mut page = context.client.get(&["api", "v1", "backups"], &query).await?;
        items.extend(page["items"].as_array_mut().map(std::mem::take).unwrap_or_default());
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() || items.len() as u32 >= limit {
            break cursor;
        }
    };
    if context.json {
        show::json(&json!({"items": items, "next": more}))?;
        return Ok(Exit::Done);
    }
    let backups: Vec<Backup> = client::read(Value::Array(items))?;
    if backups.is_empty() {
        show::lines("no backup passes these filters")?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new()
        .column("INSTANCE", Room::Needed)
        .column("STATE", Room::Needed)
        .column("CHAIN", Room::Needed)
        .number("SIZE", Room::Needed)
        .column(format!("MADE ({})", text::zone()), Room::Needed)
        .column("NAME OR REASON", Room::Middle)
        .column("NODE", Room::Spare)
        .column("ID", Room::Spare);
    for backup in backups {
        let what = match (&backup.reason, &backup.name) {
            (Some(reason), _) => Cell::sentence(reason),
            (None, name) => name.clone().unwrap_or_default().into(),
        };
        table.row([
            backup.key().into(),
            backup.state(),
            backup.chain().into(),
            if backup.size_bytes > 0 { text::size(backup.size_bytes) } else { String::new() }.into(),
            text::local(backup.made_at).into(),
            what,
            backup.node_id.clone().unwrap_or_default().into(),
            backup.id.into(),
        ]);
    }
    show::table(&table)?;
    if more.is_some() {
        show::lines("there are more; --limit shows them")?;
    }
    Ok(Exit::Done)
}

pub(super) async fn show(context: &Context, id: &str) -> Result<Exit, Failure> {
    let value = context.client.get(&["api", "v1", "backups", id], &[]).await?;
    if context.json {
        show::json(&value)?;
        return Ok(Exit::Done);
    }
    let content = value["report"]["job"]["content"].clone();
    let backup: Backup = client::read(value)?;
    let mut lines = vec![
        ("backup", backup.id.clone()),
        ("instance", backup.key()),
        ("state", backup.outcome.clone()),
        ("name", backup.name.clone().unwrap_or_default()),
        ("chain", backup.chain()),
        ("made", format!("{} ({})", text::moment(backup.made_at), text::ago(backup.made_at))),
        ("ended", format!("{} ({})", text::moment(backup.stored_at), text::ago(backup.stored_at))),
        (
            "size",
            format!(
                "{} in {} file{}",
                text::size(backup.size_bytes),
                backup.files,
                if backup.files == 1 { "" } else { "s" }
            ),
        ),
        ("xxh3-128", content["xxh3_128"].as_str().unwrap_or_default().to_owned()),
        ("blake3", content["blake3"].as_str().unwrap_or_default().to_owned()),
        ("node", backup.node_id.unwrap_or_default()),
        ("path", backup.path.unwrap_or_default()),
        ("transfers", backup.attempts.to_string()),
    ];
    if let Some(reason) = backup.reason {
        lines.push(("reason", format!("{}: {reason}", backup.reason_code.unwrap_or_default())));
    }
    lines.retain(|(_, value)| !value.is_empty());
    show::fields(&lines)?;
    Ok(Exit::Done)
}
