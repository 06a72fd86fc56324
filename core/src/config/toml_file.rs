//! TOML into the value tree, each value with its line.

use std::{path::Path, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::{
    error::{Origin, Problem},
    value::{Node, Table, Value},
};

/// Reads `text` as the content of `path`; every syntax error is reported with its line.
pub(super) fn parse(text: &str, path: &Arc<Path>) -> Result<Node, Vec<Problem>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or_default();
            // A duplicate is told with its key; of other lines nothing is shown, they may hold a secret.
            let key = if error.message() == "duplicate key" { text.get(span.clone()).unwrap_or_default() } else { "" };
            Problem::new(Origin::file(path, lines.of(span.start)), key, error.message().replace('\n', ", "))
        })
        .collect();
    problems.dedup();
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut problems = Vec::new();
    let value = table(&lines, path, document.into_inner(), &mut problems);
    if problems.is_empty() { Ok(Node::new(value, Origin::file(path, 0))) } else { Err(problems) }
}

fn table(lines: &Lines, path: &Arc<Path>, entries: DeTable<'_>, problems: &mut Vec<Problem>) -> Value {
    let mut table = Table::new();
    for (key, value) in entries {
        let line = lines.of(key.span().start);
        let node = node(lines, path, line, value.into_inner(), problems);
        table.insert(key.into_inner().into_owned(), node);
    }
    Value::Table(table)
}

fn node(lines: &Lines, path: &Arc<Path>, line: usize, value: DeValue<'_>, problems: &mut Vec<Problem>) -> Node {
    let origin = Origin::file(path, line);
    let value = match value {
        DeValue::String(string) => Value::Text(string.into_owned()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => {
                problems.push(Problem::new(origin.clone(), "", format!("{} is too large a number", integer.as_str())));
                Value::Integer(0)
            }
        },
        DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(boolean) => Value::Boolean(boolean),
        DeValue::Datetime(datetime) => Value::Text(datetime.to_string()),
        DeValue::Array(array) => Value::List(
            array
                .into_iter()
                .map(|item| {
                    let line = lines.of(item.span().start);
                    node(lines, path, line, item.into_inner(), problems)
                })
                .collect(),
        ),
        DeValue::Table(entries) => table(lines, path, entries, problems),
    };
    Node::new(value, origin)
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self([0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The line, counted from 1, of byte `at`.
    fn of(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at)
    }
}
