//! `longshore queue dead`: what is kept for a person, retried or dropped.

use longshore_core::{Millis, exit::Exit};
use serde::Deserialize;

use super::change::Doing;
use crate::{
    arguments::{Change, DeadList},
    client,
    commands::Context,
    failure::Failure,
    show::{
        self,
        table::{Room, Table},
        text,
    },
};

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
pub(super) async fn list(context: &Context, list: DeadList) -> Result<Exit, Failure> {
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
    let shown = letters.items.len() as u64;
    show::table(&table(letters.items))?;
    if shown < letters.total {
        show::lines(&format!("{shown} of {}; --limit shows more", letters.total))?;
    }
    Ok(exit)
}

fn table(letters: Vec<Letter>) -> Table {
    let mut table = Table::new()
        .column("WHAT", Room::Cut)
        .column("LEVEL", Room::Needed)
        .column("SINCE", Room::Needed)
        .number("TRIES", Room::Needed)
        .column("WHY", Room::Cut)
        .column("CLUSTER", Room::Spare)
        .column("ID", Room::Middle);
    for letter in letters {
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
    table
}

/// `retry` and `drop`.
pub(super) async fn change(context: &Context, action: &str, change: &Change) -> Result<Exit, Failure> {
    let doing = Doing { context, kind: "dead-letters", what: "dead letter", action, change, to: None };
    doing.run(|seen| show::table(&table(client::read(seen["items"].clone())?))).await
}
