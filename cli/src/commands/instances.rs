//! `longshore instances`.

use std::time::Duration;

use longshore_core::{InstanceKey, Millis, exit::Exit};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use crate::{
    arguments::{InstancesAdd, InstancesList},
    client,
    failure::Failure,
    show::{
        self,
        table::{Cell, Room, Table, Tone},
        text,
    },
};

#[derive(Debug, Deserialize)]
struct Instance {
    server_id: String,
    #[serde(rename = "type")]
    backup_type: String,
    instance: String,
    business_id: Option<String>,
    name: String,
    registered: bool,
    standing: String,
    interval_seconds: Option<u64>,
    due_at: Option<Millis>,
    last_good: Option<Good>,
    last_report: Option<LastReport>,
    host_seen: Option<Millis>,
}

#[derive(Debug, Deserialize)]
struct Good {
    job: String,
    point: Millis,
    size_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct LastReport {
    job: String,
    outcome: String,
    reason: Option<Reason>,
    at: Millis,
}

#[derive(Debug, Deserialize)]
struct Reason {
    code: String,
    text: String,
}

impl Instance {
    fn key(&self) -> String {
        format!("{}/{}/{}", self.server_id, self.backup_type, self.instance)
    }

    fn tone(&self) -> Tone {
        if self.standing == "fresh" { Tone::Good } else { Tone::Bad }
    }
}

pub(super) async fn list(context: &Context, list: InstancesList) -> Result<Exit, Failure> {
    let mut query: Vec<(&str, String)> = vec![("limit", "1000".to_owned())];
    let mut add = |name, value: Option<String>| query.extend(value.map(|value| (name, value)));
    add("server_id", list.server_id);
    add("type", list.backup_type);
    add("business_id", list.business);
    add("standing", list.late.then(|| "late".to_owned()));
    let mut items: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = query.clone();
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let mut page = context.client.get(&["api", "v1", "instances"], &query).await?;
        items.extend(page["items"].as_array_mut().map(std::mem::take).unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    let exit = if list.late && !items.is_empty() { Exit::FoundWrong } else { Exit::Done };
    if context.json {
        show::json(&json!({"items": items}))?;
        return Ok(exit);
    }
    let instances: Vec<Instance> = client::read(Value::Array(items))?;
    if instances.is_empty() {
        show::lines(if list.late { "no instance is late" } else { "no instance is known" })?;
        return Ok(exit);
    }
    let mut table = Table::new()
        .column("INSTANCE", Room::Needed)
        .column("STATE", Room::Needed)
        .column("LAST GOOD", Room::Needed)
        .number("EVERY", Room::Needed)
        .column("LAST END", Room::Cut)
        .column("BUSINESS", Room::Spare)
        .column("NAME", Room::Spare);
    for instance in instances {
        let end = instance.last_report.as_ref().map_or_else(String::new, |report| match &report.reason {
            Some(reason) => format!("{}: {}", report.outcome, reason.text),
            None => report.outcome.clone(),
        });
        table.row([
            instance.key().into(),
            Cell::toned(&*instance.standing, instance.tone()),
            instance.last_good.as_ref().map_or_else(|| "never".to_owned(), |good| text::ago(good.point)).into(),
            instance.interval_seconds.map_or_else(String::new, |s| text::span(Duration::from_secs(s))).into(),
            end.into(),
            instance.business_id.unwrap_or_default().into(),
            instance.name.into(),
        ]);
    }
    show::table(&table)?;
    Ok(exit)
}

pub(super) async fn show(context: &Context, key: &InstanceKey) -> Result<Exit, Failure> {
    let value = context.client.get(&segments(key), &[]).await?;
    if context.json {
        show::json(&value)?;
        return Ok(Exit::Done);
    }
    let instance: Instance = client::read(value)?;
    let when = |at: Millis| format!("{} ({})", text::moment(at), text::ago(at));
    let mut lines = vec![
        ("instance", instance.key()),
        ("name", instance.name.clone()),
        ("business", instance.business_id.clone().unwrap_or_default()),
        ("registered", if instance.registered { "yes" } else { "no" }.to_owned()),
        ("state", instance.standing.clone()),
        ("every", instance.interval_seconds.map_or_else(String::new, |s| text::span(Duration::from_secs(s)))),
        ("due", instance.due_at.map(when).unwrap_or_default()),
    ];
    match &instance.last_good {
        Some(good) => {
            lines.push(("last good", format!("{}, {}", when(good.point), text::size(good.size_bytes))));
            lines.push(("", format!("backup {}", good.job)));
        }
        None => lines.push(("last good", "never".to_owned())),
    }
    if let Some(report) = &instance.last_report {
        lines.push(("last end", format!("{}, {}", report.outcome, when(report.at))));
        lines.push(("", format!("backup {}", report.job)));
        lines.extend(report.reason.as_ref().map(|reason| ("reason", format!("{}: {}", reason.code, reason.text))));
    }
    lines.push(("host heard", instance.host_seen.map(when).unwrap_or_default()));
    lines.retain(|(_, value)| !value.is_empty());
    show::fields(&lines)?;
    Ok(Exit::Done)
}

fn segments(key: &InstanceKey) -> [&str; 6] {
    ["api", "v1", "instances", key.server_id.as_str(), key.backup_type.as_str(), key.instance.as_str()]
}

pub(super) async fn add(context: &Context, add: InstancesAdd) -> Result<Exit, Failure> {
    let mut body = json!({
        "server_id": add.instance.server_id,
        "type": add.instance.backup_type,
        "instance": add.instance.instance,
        "business_id": add.business,
        "name": add.name,
    });
    if let Some(address) = add.address {
        body["address"] = address.into();
    }
    if let Some(interval) = add.interval {
        body["interval_seconds"] = interval.duration().as_secs().into();
    }
    let added = context.client.send_json(Method::POST, &["api", "v1", "instances"], &body).await?;
    if context.json {
        show::json(&added)?;
    } else {
        show::lines(&format!("{} is expected to be backed up now", add.instance))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn remove(context: &Context, key: &InstanceKey) -> Result<Exit, Failure> {
    context.client.send_json(Method::DELETE, &segments(key), &Value::Null).await?;
    if context.json {
        show::json(&json!({"removed": key.to_string()}))?;
    } else {
        show::lines(&format!("{key} is expected no more; its backups stay"))?;
    }
    Ok(Exit::Done)
}
