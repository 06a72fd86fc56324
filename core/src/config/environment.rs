//! The environment and the flags as layers: `LONGSHORE__SECTION__KEY` sets `section.key`.

use std::ffi::OsString;

use super::{
    error::{Origin, Problem},
    value::{Node, Table, Value},
};

const PREFIX: &str = "LONGSHORE__";

/// Lays each `LONGSHORE__...` variable over `root`, in the order of their names. A part of the name means the key that the
/// layers below have there, whatever its case (`-` and `.` are written `_`), or else itself in lower case.
pub(super) fn lay_variables(
    root: &mut Node,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
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
        root.lay_over(nested(root, &parts, Node::word(value, origin)));
    }
    problems
}

/// Lays one flag over `root`: `key` is dotted.
pub(super) fn lay_flag(root: &mut Node, flag: &str, key: &str, value: &str) {
    let parts: Vec<&str> = key.split('.').collect();
    root.lay_over(nested(root, &parts, Node::word(value, Origin::Flag(flag.to_owned()))));
}

/// A tree with nothing but `leaf` at `parts`, its keys written as in `below`.
fn nested(below: &Node, parts: &[&str], leaf: Node) -> Node {
    let Some((first, rest)) = parts.split_first() else { return leaf };
    let table = match &below.value {
        Value::Table(table) => Some(table),
        _ => None,
    };
    let same = table.and_then(|table| {
        let exact = table.get_key_value(*first);
        exact.or_else(|| table.iter().find(|(key, _)| folded(key) == folded(first)))
    });
    let empty = Node::new(Value::Table(Table::new()), leaf.origin.clone());
    let (key, below) = same.map_or_else(|| (first.to_lowercase(), &empty), |(key, node)| (key.clone(), node));
    let origin = leaf.origin.clone();
    let inner = nested(below, rest, leaf);
    Node::new(Value::Table(Table::from([(key, inner)])), origin)
}

fn folded(key: &str) -> String {
    key.to_lowercase().replace(['-', '.'], "_")
}
