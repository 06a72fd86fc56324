//! `longshore registry`.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use longshore_core::exit::Exit;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::Context;
use crate::{
    arguments::{RegistryCommand, Table as Kind},
    failure::Failure,
    show::{
        self,
        table::{Room, Table},
    },
};

impl Kind {
    /// In addresses and sentences.
    fn name(self) -> &'static str {
        match self {
            Self::Businesses => "businesses",
            Self::Types => "types",
            Self::Instances => "instances",
            Self::Clusters => "clusters",
            Self::Nodes => "nodes",
            Self::Queues => "queues",
            Self::Hosts => "hosts",
        }
    }

    fn path(self) -> Vec<&'static str> {
        match self {
            Self::Queues | Self::Hosts => vec!["api", "v1", "policy", self.name()],
            _ => vec!["api", "v1", self.name()],
        }
    }

    /// The fields that make the key, in order.
    fn key_fields(self) -> &'static [&'static str] {
        match self {
            Self::Businesses => &["business_id"],
            Self::Types => &["name"],
            Self::Instances => &["server_id", "type", "instance"],
            Self::Clusters => &["cluster_id"],
            Self::Nodes => &["node_id"],
            Self::Queues => &["queue"],
            Self::Hosts => &["server_id"],
        }
    }

    fn numbers(self) -> &'static [&'static str] {
        &["id", "interval_seconds", "queue_size", "weight", "size_bytes", "used_bytes", "reported_at"]
    }

    /// By the name of a file, ours or the seed's.
    fn of_file(file: &Path) -> Option<Self> {
        match file.file_stem()?.to_str()? {
            "businesses" | "business" => Some(Self::Businesses),
            "types" | "type" | "backup_type" => Some(Self::Types),
            "instances" | "instance" | "backup_instance" => Some(Self::Instances),
            "clusters" | "cluster" => Some(Self::Clusters),
            "nodes" | "node" => Some(Self::Nodes),
            "queues" => Some(Self::Queues),
            "hosts" => Some(Self::Hosts),
            _ => None,
        }
    }
}

pub(super) async fn run(context: &Context, command: RegistryCommand) -> Result<Exit, Failure> {
    match command {
        RegistryCommand::Import { rows, table } => import(context, &rows, table).await,
        RegistryCommand::List { table } => list(context, table).await,
        RegistryCommand::Set { table, fields } => set(context, table, &fields).await,
        RegistryCommand::Remove { table, key } => remove(context, table, &key).await,
    }
}

async fn import(context: &Context, file: &Path, table: Option<Kind>) -> Result<Exit, Failure> {
    let table = table.or_else(|| Kind::of_file(file)).ok_or_else(|| {
        Failure::usage(format!("{} may be any table; say which with --as, such as --as instances", file.display()))
    })?;
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(file).map(|all| text = all)
    };
    read.map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    let done = context.client.send_text(Method::POST, &["api", "v1", "import", table.name()], text).await;
    let done =
        done.map_err(|failure| Failure { message: format!("{}: {}", file.display(), failure.message), ..failure })?;
    if context.json {
        show::json(&done)?;
    } else {
        let count = |name: &str| done[name].as_u64().unwrap_or(0);
        let (rows, added, changed) = (count("rows"), count("added"), count("changed"));
        show::lines(&format!("{}: {rows} rows, {added} added, {changed} changed", table.name()))?;
    }
    Ok(Exit::Done)
}

async fn list(context: &Context, table: Kind) -> Result<Exit, Failure> {
    let value = context.client.get(&table.path(), &[]).await?;
    let registered = |item: &Value| match table {
        // These two lists have more than the registry.
        Kind::Nodes => item["registered"].clone(),
        _ => item.clone(),
    };
    let items: Vec<Value> = value["items"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .filter(|item| table != Kind::Instances || item["registered"] == true)
        .map(registered)
        .filter(|item| !item.is_null())
        .collect();
    if context.json {
        show::json(&json!({"items": items}))?;
        return Ok(Exit::Done);
    }
    if items.is_empty() {
        show::lines(&format!("no {} are registered", table.name()))?;
        return Ok(Exit::Done);
    }
    let more: &[&str] = match table {
        Kind::Businesses => &["name", "id"],
        Kind::Types => &["id"],
        Kind::Instances => &["business_id", "name", "address", "interval_seconds"],
        Kind::Clusters => &["name", "queue_address", "queue_size"],
        Kind::Nodes => &["cluster_id", "name", "address", "weight", "bandwidth", "window"],
        Kind::Queues => &["max_wait", "order", "window", "urgent", "bandwidth", "copies", "verify"],
        Kind::Hosts => &["transfers", "starts_per_second", "modules", "bandwidth", "window"],
    };
    let columns: Vec<&str> = table.key_fields().iter().chain(more).copied().collect();
    let mut shown = Table::new();
    for column in &columns {
        let room = if table.key_fields().contains(column) { Room::Needed } else { Room::Cut };
        shown = shown.column(column.to_uppercase(), room);
    }
    for item in &items {
        let text = |column: &&str| match &item[*column] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        shown.cells(columns.iter().map(text).map(Into::into).collect());
    }
    show::table(&shown)?;
    Ok(Exit::Done)
}

/// Changes the entry when it is there, else adds it.
async fn set(context: &Context, table: Kind, fields: &[String]) -> Result<Exit, Failure> {
    let mut given: BTreeMap<&str, &str> = BTreeMap::new();
    for field in fields {
        let (name, value) =
            field.split_once('=').ok_or_else(|| Failure::usage(format!("{field:?} is not FIELD=VALUE")))?;
        given.insert(name.trim(), value.trim());
    }
    let (mut path, all) = (table.path(), table.path());
    for field in table.key_fields() {
        let part = given.get(field).ok_or_else(|| Failure::usage(format!("{field}=... is missing: it is the key")))?;
        path.push(part);
    }
    let mut body = Map::new();
    for (name, value) in &given {
        let value = match *value {
            "" => Value::Null,
            text if table.numbers().contains(name) => {
                let number = text.parse::<u64>();
                number.map(Value::from).map_err(|_| Failure::usage(format!("{name}: {text:?} is not a number")))?
            }
            text => text.into(),
        };
        body.insert((*name).to_owned(), value);
    }
    let changed = context.client.send_json(Method::PATCH, &path, &Value::Object(body.clone())).await;
    let (done, word) = match changed {
        Err(failure) if failure.exit == Exit::FoundWrong => {
            body.retain(|_, value| !value.is_null());
            let added = context.client.send_json(Method::POST, &all, &Value::Object(body)).await?;
            (added, "added")
        }
        other => (other?, "changed"),
    };
    if context.json {
        show::json(&done)?;
    } else {
        show::lines(&format!("{} {}: {word}", table.name(), path[all.len()..].join("/")))?;
    }
    Ok(Exit::Done)
}

async fn remove(context: &Context, table: Kind, key: &str) -> Result<Exit, Failure> {
    let mut path = table.path();
    match table {
        Kind::Instances => path.extend(key.split('/')),
        _ => path.push(key),
    }
    context.client.send_json(Method::DELETE, &path, &Value::Null).await?;
    if context.json {
        show::json(&json!({"removed": key}))?;
    } else {
        show::lines(&format!("{} {key}: removed", table.name()))?;
    }
    Ok(Exit::Done)
}
