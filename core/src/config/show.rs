//! The effective configuration as TOML, each value with its origin beside it. The TOML is written by its own library from
//! the values in use, defaults included; then each line is looked up in the tree of what was given.

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::{
    error::Origin,
    seed::Unused,
    value::{Node, Value},
};

/// The TOML of `value`; with `origin`, `# where` behind each value, its words taken from `given`. Then `unused`, as comments.
pub(super) fn show<T: Serialize>(value: &T, given: &Node, unused: &[Unused], origin: bool) -> Result<String, String> {
    let text = toml::to_string(value).map_err(|error| error.to_string())?;
    let mut shown = if origin { with_origins(&text, given)? } else { text };
    if !unused.is_empty() {
        shown.push_str("\n# Known from UBackup, and not used:\n");
    }
    for Unused { value, origin: from, why } in unused {
        let Origin::File { seed_key: Some(key), .. } = from else { continue };
        let from = if origin { format!(" ({from})") } else { String::new() };
        let value = value.replace(char::is_control, " ");
        shown.push_str(&format!("# {key} = {value}{from}: {why}\n"));
    }
    Ok(shown)
}

fn with_origins(text: &str, given: &Node) -> Result<String, String> {
    let document = DeTable::parse(text).map_err(|error| error.to_string())?;
    let mut notes: Vec<(usize, String)> = Vec::new();
    note(document.get_ref(), Some(given), &mut notes);
    notes.sort();
    let mut shown = String::with_capacity(text.len() * 2);
    let mut done = 0;
    for (end, origin) in notes {
        let line_end = text[end..].find('\n').map_or(text.len(), |more| end + more);
        shown.push_str(&text[done..line_end]);
        shown.push_str("  # ");
        shown.push_str(&origin);
        done = line_end;
    }
    shown.push_str(&text[done..]);
    Ok(shown)
}

/// Where each value of `table` ends in the text, and its origin in `given`, the tree at the same place.
fn note(table: &DeTable<'_>, given: Option<&Node>, notes: &mut Vec<(usize, String)>) {
    let entries = given.and_then(|node| match &node.value {
        Value::Table(entries) => Some(entries),
        _ => None,
    });
    for (key, value) in table {
        let given = entries.and_then(|entries| entries.get(key.get_ref().as_ref()));
        match value.get_ref() {
            DeValue::Table(inner) => note(inner, given, notes),
            DeValue::Array(list) if list.iter().any(|item| item.get_ref().is_table()) => {
                for (at, item) in list.iter().enumerate() {
                    let given = given.and_then(|node| match &node.value {
                        Value::List(items) => items.get(at),
                        _ => None,
                    });
                    if let DeValue::Table(inner) = item.get_ref() {
                        note(inner, given, notes);
                    }
                }
            }
            _ => {
                let file = || entries.and_then(|entries| entries.get(&format!("{}_file", key.get_ref())));
                let origin = match given {
                    Some(node) => origin_of(node),
                    None => file().map_or_else(|| Origin::Default.to_string(), origin_of_file),
                };
                notes.push((value.span().end, origin));
            }
        }
    }
}

fn origin_of(node: &Node) -> String {
    match &node.origin {
        Origin::File { seed_key: Some(key), .. } => format!("{} {key}", node.origin),
        origin => origin.to_string(),
    }
}

/// The origin of a secret that `node` names the file of.
fn origin_of_file(node: &Node) -> String {
    match &node.value {
        Value::Text(file) | Value::Word(file) => format!("in {file}, by {}", node.origin),
        _ => node.origin.to_string(),
    }
}
