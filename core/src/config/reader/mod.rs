//! The value tree as a serde source. It knows which keys a struct has, so an unknown one is found with its origin and the
//! nearest known key, and a wrong type is told with the origin of the value.
//!
//! Reading stops at a wrong or missing value, so [`read`] puts a stand-in there and reads again until nothing new is wrong:
//! that is how all problems are told at once.
//!
//! For configuration structs: `#[serde(flatten)]`, `tag` and `untagged` make serde buffer values, which loses origins. Use
//! plain structs and enums.

mod access;
mod fault;

use std::{borrow::Cow, cell::RefCell};

use serde::{
    de::{self, DeserializeOwned, IntoDeserializer, Unexpected, Visitor},
    forward_to_deserialize_any,
};

use self::{
    access::{Entries, Items, Variant},
    fault::{Fault, Trail},
};
use super::{
    error::{Origin, Problem},
    secret::{self, Inline},
    value::{Node, Table, Value},
};

/// Says that a key without a default was not given.
pub(super) const MISSING: &str = "missing";

/// Where looking for more problems ends.
const MOST_READINGS: usize = 500;

/// What is noticed on the way.
#[derive(Default)]
struct Notes {
    /// Keys that no struct has.
    unknown: RefCell<Vec<Problem>>,
    secrets: RefCell<Vec<Inline>>,
}

/// Deserializes `root` and tells where secrets were given as text, or says everything that is wrong with it.
pub(super) fn read<T: DeserializeOwned>(root: &Node) -> Result<(T, Vec<Inline>), Vec<Problem>> {
    let mut root = Cow::Borrowed(root);
    let mut wrong: Vec<Problem> = Vec::new();
    let mut told: Vec<Vec<String>> = Vec::new();
    for _ in 0..MOST_READINGS {
        let notes = Notes::default();
        let result = T::deserialize(Reader { node: &root, trail: Trail::Root, notes: &notes, of_file: false });
        for problem in notes.unknown.into_inner() {
            if !wrong.contains(&problem) {
                wrong.push(problem);
            }
        }
        let fault = match result {
            Ok(value) if wrong.is_empty() => return Ok((value, notes.secrets.into_inner())),
            Ok(_) => break,
            Err(fault) => *fault.0,
        };
        let mut path = fault.path.unwrap_or_default();
        let origin = fault.origin.unwrap_or_else(|| root.origin.clone());
        let is_told = told.iter().any(|told| path.starts_with(told));
        let Some(node) = root.to_mut().at_mut(&path) else { break };
        match fault.missing {
            // No stand-in is good enough for the type: reading can't go on.
            None if is_told => break,
            None => node.value = Value::StandIn,
            Some(field) => {
                node.put(&[field], Node::new(Value::StandIn, origin.clone()));
                path.push(field.to_owned());
            }
        }
        if !is_told {
            wrong.push(Problem::new(origin, path.join("."), fault.what));
            told.push(path);
        }
    }
    Err(wrong)
}

struct Reader<'a> {
    node: &'a Node,
    trail: Trail<'a>,
    notes: &'a Notes,
    /// The value is under `x_file` and stands for `x`: the path of a file that holds it.
    of_file: bool,
}

impl<'a> Reader<'a> {
    fn unexpected(&self) -> Unexpected<'a> {
        match &self.node.value {
            Value::Text(text) | Value::Word(text) => Unexpected::Str(text),
            Value::Integer(integer) => Unexpected::Signed(*integer),
            Value::Float(float) => Unexpected::Float(*float),
            Value::Boolean(boolean) => Unexpected::Bool(*boolean),
            Value::List(_) => Unexpected::Seq,
            Value::Table(_) => Unexpected::Other("a table"),
            Value::StandIn => Unexpected::Unit,
        }
    }

    fn refuse<'de, V: Visitor<'de>>(&self, visitor: &V) -> Fault {
        de::Error::invalid_type(self.unexpected(), visitor)
    }

    fn wrapped<T>(self, read: impl FnOnce(&Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let result = if self.of_file {
            Err(Fault::new("unknown key; only a secret can be given by a file"))
        } else {
            read(&self)
        };
        result.map_err(|error| error.at(&self.trail, self.node))
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.wrapped(|reader| match &reader.node.value {
            Value::Integer(integer) => visitor.visit_i64(*integer),
            Value::Float(float) => visitor.visit_f64(*float),
            Value::StandIn => visitor.visit_i64(1),
            Value::Word(text) => {
                let text = text.trim();
                if let Ok(integer) = text.parse::<i64>() {
                    visitor.visit_i64(integer)
                } else if let Ok(integer) = text.parse::<u64>() {
                    visitor.visit_u64(integer)
                } else if let Ok(float) = text.parse::<f64>() {
                    visitor.visit_f64(float)
                } else {
                    Err(reader.refuse(&visitor))
                }
            }
            _ => Err(reader.refuse(&visitor)),
        })
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.wrapped(|reader| match &reader.node.value {
            Value::Text(text) | Value::Word(text) => visitor.visit_str(text),
            // Good for names, paths, sizes and durations.
            Value::StandIn => visitor.visit_str("1"),
            _ => Err(reader.refuse(&visitor)),
        })
    }

    fn table<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        fields: Option<&'static [&'static str]>,
    ) -> Result<V::Value, Fault> {
        self.wrapped(|reader| match &reader.node.value {
            Value::Table(table) => visitor.visit_map(Entries::new(reader, table, fields)?),
            Value::StandIn => visitor.visit_map(Entries::new(reader, &Table::new(), fields)?),
            _ => Err(reader.refuse(&visitor)),
        })
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.number(visitor)
        })*
    };
}

macro_rules! texts {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.text(visitor)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    numbers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
    deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 }
    texts! { deserialize_str deserialize_string deserialize_char deserialize_identifier deserialize_bytes
    deserialize_byte_buf }
    forward_to_deserialize_any! { unit unit_struct }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Table(_) => self.deserialize_map(visitor),
            Value::Boolean(_) => self.deserialize_bool(visitor),
            Value::Integer(_) | Value::Float(_) => self.number(visitor),
            Value::Word(word) if matches!(word.as_str(), "true" | "false") => self.deserialize_bool(visitor),
            Value::Word(word) if word.parse::<i64>().is_ok_and(|integer| integer.to_string() == *word) => {
                self.number(visitor)
            }
            Value::Text(_) | Value::Word(_) | Value::StandIn => self.text(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.wrapped(|reader| match &reader.node.value {
            Value::Boolean(boolean) => visitor.visit_bool(*boolean),
            Value::StandIn => visitor.visit_bool(false),
            Value::Word(word) => match word.to_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => visitor.visit_bool(true),
                "false" | "no" | "off" | "0" => visitor.visit_bool(false),
                _ => Err(reader.refuse(&visitor)),
            },
            _ => Err(reader.refuse(&visitor)),
        })
    }

    /// An empty variable or flag takes an optional value away.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Word(word) if word.is_empty() => visitor.visit_none(),
            Value::StandIn => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// A secret is read here: from its file, or as text; what was found instead is not told.
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name != secret::MARK {
            return visitor.visit_newtype_struct(self);
        }
        let of_file = std::mem::take(&mut self.of_file);
        self.wrapped(|reader| match &reader.node.value {
            Value::StandIn => visitor.visit_str("1"),
            Value::Text(path) | Value::Word(path) if of_file => {
                let secret = secret::Secret::from_file(std::path::Path::new(path)).map_err(Fault::new)?;
                visitor.visit_str(secret.expose())
            }
            Value::Text(text) | Value::Word(text) if text == secret::HIDDEN => {
                Err(Fault::new("holds what `config show` prints for a secret; write the secret itself"))
            }
            Value::Text(text) | Value::Word(text) => {
                let secret = Inline { key: reader.trail.path().join("."), origin: reader.node.origin.clone() };
                reader.notes.secrets.borrow_mut().push(secret);
                visitor.visit_str(text)
            }
            _ => Err(Fault::new("expected a text; write it in quotes")),
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.wrapped(|reader| match &reader.node.value {
            Value::List(list) => visitor.visit_seq(Items { reader, items: list.iter(), at: 0 }),
            Value::StandIn => visitor.visit_seq(Items { reader, items: [].iter(), at: 0 }),
            Value::Word(word) => {
                let list = words(word, &reader.node.origin)?;
                visitor.visit_seq(Items { reader, items: list.iter(), at: 0 })
            }
            _ => Err(reader.refuse(&visitor)),
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.table(visitor, None)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.table(visitor, Some(fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.wrapped(|reader| match &reader.node.value {
            Value::StandIn => visitor.visit_enum(variants.first().copied().unwrap_or_default().into_deserializer()),
            Value::Text(text) | Value::Word(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Table(table) if table.len() == 1 => match table.iter().next() {
                Some((variant, node)) => visitor.visit_enum(Variant { reader, variant, node }),
                None => Err(reader.refuse(&visitor)),
            },
            _ => Err(reader.refuse(&visitor)),
        })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}

/// A list in a variable or flag: `["a b", "c"]` as in TOML, or words split by blanks or commas.
fn words(word: &str, origin: &Origin) -> Result<Vec<Node>, Fault> {
    if word.trim_start().starts_with('[') {
        let text = format!("list = {word}");
        let list = toml::from_str::<std::collections::BTreeMap<String, Vec<String>>>(&text)
            .map_err(|error| Fault::new(format!("not a list: {}", error.message())))?;
        return Ok(list.into_values().flatten().map(|item| Node::word(item, origin.clone())).collect());
    }
    let items = word.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty());
    Ok(items.map(|item| Node::word(item, origin.clone())).collect())
}
