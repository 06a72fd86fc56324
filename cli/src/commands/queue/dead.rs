//! `longshore queue dead`: what is kept for a person, retried or dropped.

use longshore_core::{Millis, exit::Exit};
use serde::Deserialize;
use serde_json::{Value, json};

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

/// The API gives no more of a cluster at once.
const PAGE: u32 = 500;

#[derive(Debug, Deserialize)]
struct Letters {
    total: u64,
    items: Vec<Value>,
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
    let letters = letters(context, &list).await?;
    let exit = if letters.total > 0 { Exit::FoundWrong } else { Exit::Done };
    if context.json {
        show::json(&json!({"total": letters.total, "items": letters.items}))?;
        return Ok(exit);
    }
    let shown = letters.items.len() as u64;
    if letters.total == 0 {
        show::lines("nothing is kept for a person")?;
    } else if shown > 0 {
        show::table(&table(client::read(letters.items.into())?))?;
    }
    if shown < letters.total {
        show::lines(&format!("{shown} of {}; --limit shows more", letters.total))?;
    }
    Ok(exit)
}

/// As many as are wanted, page by page.
async fn letters(context: &Context, list: &DeadList) -> Result<Letters, Failure> {
    let mut letters = Letters { total: 0, items: Vec::new() };
    let mut skip = 0;
    loop {
        let limit = PAGE.min(list.limit - skip);
        let mut query = vec![("limit", limit.to_string()), ("skip", skip.to_string())];
        query.extend(list.cluster.clone().map(|cluster| ("cluster", cluster)));
        let page: Letters = client::read(context.client.get(&["api", "v1", "dead-letters"], &query).await?)?;
        letters.total = page.total;
        skip += limit;
        let is_last = page.items.is_empty() || skip >= list.limit;
        letters.items.extend(page.items);
        if is_last || letters.items.len() as u64 >= letters.total {
            return Ok(letters);
        }
    }
}

fn table(letters: Vec<Letter>) -> Table {
    let mut table = Table::new()
        .column("WHAT", Room::Middle)
        .number("KEPT", Room::Needed)
        .column("ID", Room::Needed)
        .column("WHY", Room::Cut)
        .column("LEVEL", Room::Spare)
        .number("TRIES", Room::Spare)
        .column("CLUSTER", Room::Spare);
    for letter in letters {
        table.row([
            letter.instance.or(letter.beginning).unwrap_or_default().into(),
            text::span(Millis::now().since(letter.at)).into(),
            letter.id.into(),
            format!("{}: {}", letter.reason_code, letter.reason).into(),
            letter.queue.unwrap_or_default().into(),
            letter.attempts.map_or_else(String::new, |attempts| attempts.to_string()).into(),
            letter.cluster.into(),
        ]);
    }
    table
}

/// `retry` and `drop`.
pub(super) async fn change(context: &Context, action: &str, change: &Change) -> Result<Exit, Failure> {
    let doing = Doing { context, kind: "dead-letters", what: "dead letter", action, change, to: None };
    doing.run(|seen| show::table(&table(client::read(seen["items"].clone())?))).await
}

#[cfg(test)]
mod tests {
    use console::measure_text_width;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_id_that_retry_needs_is_whole_at_80_columns() {
        let (job, at) = ("01a1f6e5-8780-7a3c-8f21-3f0e6b1c9d77", Millis::now().0 - 86_340_000);
        let letters = client::read(json!([
            {"cluster": "frankfurt-1", "id": job, "queue": "level1", "at": at,
             "reason_code": "script_wrong", "reason": "连接失败，请检查数据库的用户名和密码，然后再试一次",
             "instance": "10.20.30.40/postgres/main-16", "attempts": 25, "beginning": null},
            {"cluster": "frankfurt-1", "id": "raw:1234567", "queue": "level3", "at": at, "reason_code": "malformed",
             "reason": "no JSON", "instance": null, "attempts": null, "beginning": "{no json".repeat(20)},
        ]));
        let text = table(letters.unwrap()).render(Some(80));
        assert!(text.lines().all(|line| measure_text_width(line) <= 80), "{text}");
        for needed in [job, "raw:1234567", "23h 59m", "script_w", "n-16"] {
            assert!(text.contains(needed), "{needed} in {text}");
        }
    }
}
