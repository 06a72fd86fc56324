//! The environment and the flags as layers: `LONGSHORE__SECTION__KEY` sets `section.key`.

use std::ffi::OsString;

use super::{
    error::{Origin, Problem},
    value::{Node, Table, Value},
};

const PREFIX: &str = "LONGSHORE__";

/// Lays the `LONGSHORE__...` variables over `root`. A part of a name means the key that the layers below have there, whatever
/// its case (`-` and `.` are written `_`), or else itself in lower case.
pub(super) fn lay_variables(
    root: &mut Node,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut layer = Node::new(Value::Table(Table::new()), Origin::Default);
    let mut ours: Vec<(String, OsString)> = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    ours.sort();
    for (name, value) in ours {
        let origin = Origin::Variable(name.clone());
        let Ok(value) = value.into_string() else {
            problems.push(Problem::new(origin, "", "not UTF-8"));
            continue;
        };
        let parts: Vec<&str> = name[PREFIX.len()..].split("__").collect();
        if parts.iter().any(|part| part.is_empty()) {
            problems.push(Problem::new(origin, "", "write it LONGSHORE__SECTION__KEY"));
            continue;
        }
        let path = as_written_below(root, &parts);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        layer.put(&path, Node::word(value, origin));
    }
    root.lay_over(layer);
    problems
}

/// Lays one flag over `root`: `key` is dotted.
pub(super) fn lay_flag(root: &mut Node, flag: &str, key: &str, value: &str) {
    let origin = Origin::Flag(flag.to_owned());
    let mut layer = Node::new(Value::Table(Table::new()), origin.clone());
    let path = root.path_of(key);
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    layer.put(&path, Node::word(value, origin));
    root.lay_over(layer);
}

/// The parts of a variable's name as the keys that `below` has.
fn as_written_below(below: &Node, parts: &[&str]) -> Vec<String> {
    let mut level = Some(below);
    let mut path = Vec::with_capacity(parts.len());
    for part in parts {
        let table = level.and_then(|node| match &node.value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        let same = table.and_then(|table| table.iter().find(|(key, _)| folded(key) == folded(part)));
        path.push(same.map_or_else(|| part.to_lowercase(), |(key, _)| key.clone()));
        level = same.map(|(_, node)| node);
    }
    path
}

fn folded(key: &str) -> String {
    key.to_lowercase().replace(['-', '.'], "_")
}
