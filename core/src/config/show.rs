//! The effective configuration as TOML, each value with its origin beside it. The TOML is written by its own library from
//! the values in use, defaults included; then each line is looked up in the tree of what was given.

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::{
    error::Origin,
    value::{Node, Value},
};

/// The TOML of `value`; with `origin`, `# where` behind each value, its words taken from `given`.
pub(super) fn show<T: Serialize>(value: &T, given: &Node, origin: bool) -> Result<String, String> {
    let text = toml::to_string(value).map_err(|error| error.to_string())?;
    if !origin {
        return Ok(text);
    }
    let document = DeTable::parse(&text).map_err(|error| error.to_string())?;
    let mut notes: Vec<(usize, String)> = Vec::new();
    note(document.get_ref(), &mut Vec::new(), given, &mut notes);
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

fn note<'a>(table: &'a DeTable<'_>, path: &mut Vec<&'a str>, given: &Node, notes: &mut Vec<(usize, String)>) {
    for (key, value) in table {
        path.push(key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => note(inner, path, given, notes),
            // Tables in a list: all of them come from where the list comes from.
            DeValue::Array(list) if list.iter().any(|item| item.get_ref().is_table()) => {
                let origin = origin_of(path, given);
                for item in list {
                    if let DeValue::Table(inner) = item.get_ref() {
                        notes.extend(inner.values().map(|value| (value.span().end, origin.clone())));
                    }
                }
            }
            _ => notes.push((value.span().end, origin_of(path, given))),
        }
        path.pop();
    }
}

fn origin_of(path: &[&str], given: &Node) -> String {
    if let Some(node) = given.at(path.iter().copied()) {
        return match &node.origin {
            Origin::File { seed_key: Some(key), .. } => format!("{} {key}", node.origin),
            origin => origin.to_string(),
        };
    }
    let file = path.split_last().and_then(|(last, table)| {
        let last = format!("{last}_file");
        given.at(table.iter().copied().chain([last.as_str()]))
    });
    match file {
        Some(Node { value: Value::Text(file) | Value::Word(file), origin }) => format!("in {file}, by {origin}"),
        _ => Origin::Default.to_string(),
    }
}
