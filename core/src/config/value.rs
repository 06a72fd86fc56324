//! Configuration as a tree whose every value knows its origin. Layers are trees; a later layer is laid over an earlier one.

use std::collections::BTreeMap;

use super::error::Origin;

/// A table's entries.
pub(super) type Table = BTreeMap<String, Node>;

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// What a layer can say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Text that is text: a TOML string.
    Text(String),
    /// Text whose type the reader of it decides: from INI, the environment or a flag.
    Word(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    /// In place of a value that is wrong or missing and has been told: reads as something of the wanted type, so that
    /// reading goes on to the next problem. Never part of a configuration that loads.
    StandIn,
}

impl Node {
    pub(super) fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin }
    }

    pub(super) fn word(text: impl Into<String>, origin: Origin) -> Self {
        Self::new(Value::Word(text.into()), origin)
    }

    fn is_table(&self) -> bool {
        matches!(self.value, Value::Table(_))
    }

    /// The node below this one at `key`: a key of a table, or the number, from 0, of an item of a list.
    fn child(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Table(table) => table.get(key),
            Value::List(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// The node at a path's parts, if there is one.
    pub(super) fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Self> {
        path.into_iter().try_fold(self, |node, key| node.child(key))
    }

    /// The parts of a dotted key. A key of this tree may have dots itself, as sections of the seed may: such a key is one
    /// part.
    pub(super) fn path_of(&self, dotted: &str) -> Vec<String> {
        let mut path = Vec::new();
        let (mut level, mut rest) = (Some(self), dotted);
        while !rest.is_empty() {
            let table = level.and_then(|node| match &node.value {
                Value::Table(table) => Some(table),
                _ => None,
            });
            let begins =
                |key: &str| rest.strip_prefix(key).is_some_and(|after| after.is_empty() || after.starts_with('.'));
            let known = table.and_then(|table| table.keys().filter(|key| begins(key)).max_by_key(|key| key.len()));
            let part = match known {
                Some(key) => key.as_str(),
                None => rest.split('.').next().unwrap_or(rest),
            };
            path.push(part.to_owned());
            level = level.and_then(|node| node.child(part));
            rest = rest.get(part.len() + 1..).unwrap_or("");
        }
        path
    }

    /// Lays `over` on this: tables are joined key by key, anything else is replaced. `x` and `x_file` are two ways to say
    /// one secret, so a layer that says one of them takes the other of an earlier layer away; of tables they are two names.
    pub(super) fn lay_over(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Table(base), Value::Table(over)) => {
                for (key, _) in over.iter().filter(|(_, node)| !node.is_table()) {
                    let plain = key.strip_suffix("_file").map(str::to_owned);
                    for other in plain.into_iter().chain([format!("{key}_file")]) {
                        if base.get(&other).is_some_and(|node| !node.is_table()) {
                            base.remove(&other);
                        }
                    }
                }
                for (key, node) in over {
                    match base.get_mut(&key) {
                        Some(below) => below.lay_over(node),
                        None => {
                            base.insert(key, node);
                        }
                    }
                }
            }
            (base, over_value) => {
                *base = over_value;
                self.origin = over.origin;
            }
        }
    }

    /// Puts `node` at `path`, making tables on the way; what was there is replaced.
    pub(super) fn put(&mut self, path: &[&str], node: Self) {
        let Some((first, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.value, Value::Table(_)) {
            self.value = Value::Table(Table::new());
        }
        if let Value::Table(table) = &mut self.value {
            let origin = node.origin.clone();
            table
                .entry((*first).to_owned())
                .or_insert_with(|| Self::new(Value::Table(Table::new()), origin))
                .put(rest, node);
        }
    }

    /// The node at `path` to be changed, if there is one.
    pub(super) fn at_mut(&mut self, path: &[String]) -> Option<&mut Self> {
        path.iter().try_fold(self, |node, key| match &mut node.value {
            Value::Table(table) => table.get_mut(key),
            Value::List(items) => items.get_mut(key.parse::<usize>().ok()?),
            _ => None,
        })
    }
}
