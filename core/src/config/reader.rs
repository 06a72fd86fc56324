//! The value tree as a serde source. It knows which keys a struct has, so an unknown one is found with its origin and the
//! nearest known key, and a wrong type is told with the origin of the value.
//!
//! Reading stops at a wrong value, so [`read`] takes that value out and reads again until nothing is wrong or nothing can be
//! taken out: that is how all problems are told at once.
//!
//! For configuration structs: `#[serde(flatten)]`, `tag` and `untagged` make serde buffer values, which loses origins. Use
//! plain structs and enums.

use std::{cell::RefCell, fmt};

use serde::{
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
        VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};

use super::{
    error::{Origin, Problem, suggestion},
    secret,
    value::{Node, Table, Value},
};

/// Says that a key without a default was not given.
pub(super) const MISSING: &str = "missing";

/// Deserializes `root`, or says everything that is wrong with it.
pub(super) fn read<T: DeserializeOwned>(mut root: Node) -> Result<T, Vec<Problem>> {
    let mut wrong: Vec<Problem> = Vec::new();
    let mut taken: Vec<String> = Vec::new();
    loop {
        let unknown = RefCell::new(Vec::new());
        let result = T::deserialize(Reader { node: &root, trail: Trail::Root, unknown: &unknown, of_file: false });
        for problem in unknown.into_inner() {
            if !wrong.contains(&problem) {
                wrong.push(problem);
            }
        }
        let error = match result {
            Ok(value) if wrong.is_empty() => return Ok(value),
            Ok(_) => return Err(sorted(wrong)),
            Err(error) => *error.0,
        };
        let path = error.path.unwrap_or_default();
        let key = path.join(".");
        let origin = error.origin.unwrap_or_else(|| root.origin.clone());
        if let Some(field) = error.missing {
            let key = if key.is_empty() { field.to_owned() } else { format!("{key}.{field}") };
            if !taken.contains(&key) {
                wrong.push(Problem::new(origin, key, MISSING));
            }
        } else {
            taken.push(key.clone());
            wrong.push(Problem::new(origin, key, error.what));
        }
        if !root.remove(&path) {
            return Err(sorted(wrong));
        }
    }
}

/// By file and line, so that a person walks down the file once.
fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| match &problem.origin {
        Origin::File { path, line, .. } => (0, path.to_path_buf(), *line),
        _ => (1, std::path::PathBuf::new(), 0),
    });
    problems
}

/// The keys from the root to a value.
#[derive(Clone, Copy)]
enum Trail<'a> {
    Root,
    Below { above: &'a Trail<'a>, key: &'a str },
}

impl Trail<'_> {
    fn path(&self) -> Vec<String> {
        match self {
            Trail::Root => Vec::new(),
            Trail::Below { above, key } => {
                let mut path = above.path();
                path.push((*key).to_owned());
                path
            }
        }
    }
}

#[derive(Debug)]
struct ReadError(Box<Details>);

#[derive(Debug)]
struct Details {
    path: Option<Vec<String>>,
    origin: Option<Origin>,
    missing: Option<&'static str>,
    what: String,
}

impl ReadError {
    fn at(mut self, trail: &Trail<'_>, node: &Node) -> Self {
        self.0.path.get_or_insert_with(|| trail.path());
        self.0.origin.get_or_insert_with(|| node.origin.clone());
        self
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(Box::new(Details { path: None, origin: None, missing: None, what: what.to_string() }))
    }

    fn missing_field(field: &'static str) -> Self {
        let mut error = Self::custom("missing");
        error.0.missing = Some(field);
        error
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("`{variant}` is not one of {}{}", expected.join(", "), suggestion_of(variant, expected)))
    }
}

fn suggestion_of(variant: &str, expected: &'static [&'static str]) -> String {
    let text = suggestion(variant, expected.iter().copied());
    if text.starts_with("; did") { text } else { String::new() }
}

struct Reader<'a> {
    node: &'a Node,
    trail: Trail<'a>,
    unknown: &'a RefCell<Vec<Problem>>,
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
        }
    }

    fn refuse<'de, V: Visitor<'de>>(&self, visitor: &V) -> ReadError {
        de::Error::invalid_type(self.unexpected(), visitor)
    }

    fn wrapped<T>(self, read: impl FnOnce(&Self) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let result = if self.of_file {
            Err(de::Error::custom("unknown key; only a secret can be given by a file"))
        } else {
            read(&self)
        };
        result.map_err(|error| error.at(&self.trail, self.node))
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.wrapped(|reader| match &reader.node.value {
            Value::Integer(integer) => visitor.visit_i64(*integer),
            Value::Float(float) => visitor.visit_f64(*float),
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

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.wrapped(|reader| match &reader.node.value {
            Value::Text(text) | Value::Word(text) => visitor.visit_str(text),
            _ => Err(reader.refuse(&visitor)),
        })
    }

    fn table<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        fields: Option<&'static [&'static str]>,
    ) -> Result<V::Value, ReadError> {
        self.wrapped(|reader| match &reader.node.value {
            Value::Table(table) => visitor.visit_map(Entries::new(reader, table, fields)?),
            _ => Err(reader.refuse(&visitor)),
        })
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            self.number(visitor)
        })*
    };
}

macro_rules! texts {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            self.text(visitor)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = ReadError;

    numbers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
    deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 }
    texts! { deserialize_str deserialize_string deserialize_char deserialize_identifier deserialize_bytes
    deserialize_byte_buf }
    forward_to_deserialize_any! { unit unit_struct }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Table(_) => self.deserialize_map(visitor),
            Value::Boolean(_) => self.deserialize_bool(visitor),
            Value::Integer(_) | Value::Float(_) => self.number(visitor),
            Value::Word(word) if matches!(word.as_str(), "true" | "false") => self.deserialize_bool(visitor),
            Value::Word(word) if word.parse::<i64>().is_ok_and(|integer| integer.to_string() == *word) => {
                self.number(visitor)
            }
            Value::Text(_) | Value::Word(_) => self.text(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.wrapped(|reader| match &reader.node.value {
            Value::Boolean(boolean) => visitor.visit_bool(*boolean),
            Value::Word(word) => match word.to_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => visitor.visit_bool(true),
                "false" | "no" | "off" | "0" => visitor.visit_bool(false),
                _ => Err(reader.refuse(&visitor)),
            },
            _ => Err(reader.refuse(&visitor)),
        })
    }

    /// An empty variable or flag takes an optional value away.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Word(word) if word.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if name != secret::MARK || !self.of_file {
            return visitor.visit_newtype_struct(self);
        }
        self.of_file = false;
        self.wrapped(|reader| match &reader.node.value {
            Value::Text(path) | Value::Word(path) => {
                let secret = secret::Secret::from_file(std::path::Path::new(path)).map_err(de::Error::custom)?;
                visitor.visit_str(secret.expose())
            }
            _ => Err(reader.refuse(&visitor)),
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.wrapped(|reader| match &reader.node.value {
            Value::List(list) => visitor.visit_seq(Items { reader, items: list.iter(), at: 0 }),
            Value::Word(word) => {
                let list = words(word, &reader.node.origin)?;
                visitor.visit_seq(Items { reader, items: list.iter(), at: 0 })
            }
            _ => Err(reader.refuse(&visitor)),
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.table(visitor, None)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.table(visitor, Some(fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.wrapped(|reader| match &reader.node.value {
            Value::Text(text) | Value::Word(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Table(table) if table.len() == 1 => match table.iter().next() {
                Some((variant, node)) => visitor.visit_enum(Variant { reader, variant, node }),
                None => Err(reader.refuse(&visitor)),
            },
            _ => Err(reader.refuse(&visitor)),
        })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }
}

/// A list in a variable or flag: `["a b", "c"]` as in TOML, or words split by blanks or commas.
fn words(word: &str, origin: &Origin) -> Result<Vec<Node>, ReadError> {
    if word.trim_start().starts_with('[') {
        let text = format!("list = {word}");
        let list = toml::from_str::<std::collections::BTreeMap<String, Vec<String>>>(&text)
            .map_err(|error| <ReadError as de::Error>::custom(format!("not a list: {}", error.message())))?;
        return Ok(list.into_values().flatten().map(|item| Node::word(item, origin.clone())).collect());
    }
    let items = word.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty());
    Ok(items.map(|item| Node::word(item, origin.clone())).collect())
}

/// Ends the name of a key that gives the file of a secret.
const FILE_OF: &str = "_file";

/// A table's entry.
#[derive(Clone, Copy)]
struct Written<'a> {
    /// The name that serde sees.
    name: &'a str,
    /// The name in the table.
    written: &'a str,
    node: &'a Node,
}

struct Entries<'a> {
    reader: &'a Reader<'a>,
    entries: std::vec::IntoIter<Written<'a>>,
    value: Option<Written<'a>>,
}

impl<'a> Entries<'a> {
    fn new(
        reader: &'a Reader<'a>,
        table: &'a Table,
        fields: Option<&'static [&'static str]>,
    ) -> Result<Self, ReadError> {
        let mut entries = Vec::new();
        for (written, node) in table {
            let written = written.as_str();
            let Some(fields) = fields else {
                entries.push(Written { name: written, written, node });
                continue;
            };
            let of_file = written.strip_suffix(FILE_OF).filter(|plain| fields.contains(plain));
            if fields.contains(&written) {
                entries.push(Written { name: written, written, node });
            } else if let Some(plain) = of_file {
                if let Some(other) = table.get(plain) {
                    let what = format!("give either {plain} or {written}, not both; the other is at {}", other.origin);
                    let below = Trail::Below { above: &reader.trail, key: written };
                    return Err(<ReadError as de::Error>::custom(what).at(&below, node));
                }
                entries.push(Written { name: plain, written, node });
            } else {
                let mut path = reader.trail.path();
                path.push(written.to_owned());
                let what = format!("unknown key{}", suggestion(written, fields.iter().copied()));
                reader.unknown.borrow_mut().push(Problem::new(node.origin.clone(), path.join("."), what));
            }
        }
        Ok(Self { reader, entries: entries.into_iter(), value: None })
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some(entry);
        let Written { name, written, node } = entry;
        let below = Trail::Below { above: &self.reader.trail, key: written };
        let key: de::value::StrDeserializer<'_, ReadError> = name.into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.at(&below, node))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let entry = self.value.take().ok_or_else(|| <ReadError as de::Error>::custom("a value without a key"))?;
        let Written { name, written, node } = entry;
        let trail = Trail::Below { above: &self.reader.trail, key: written };
        seed.deserialize(Reader { node, trail, unknown: self.reader.unknown, of_file: name != written })
            .map_err(|error| error.at(&trail, node))
    }
}

struct Items<'a> {
    reader: &'a Reader<'a>,
    items: std::slice::Iter<'a, Node>,
    at: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let key = self.at.to_string();
        self.at += 1;
        let trail = Trail::Below { above: &self.reader.trail, key: &key };
        seed.deserialize(Reader { node, trail, unknown: self.reader.unknown, of_file: false })
            .map(Some)
            .map_err(|error| error.at(&trail, node))
    }
}

/// `{ variant = value }`.
struct Variant<'a> {
    reader: &'a Reader<'a>,
    variant: &'a str,
    node: &'a Node,
}

impl<'a> Variant<'a> {
    fn content(&self) -> Reader<'_> {
        let trail = Trail::Below { above: &self.reader.trail, key: self.variant };
        Reader { node: self.node, trail, unknown: self.reader.unknown, of_file: false }
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ReadError> {
        let name: de::value::StrDeserializer<'_, ReadError> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        seed.deserialize(self.content())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        de::Deserializer::deserialize_seq(self.content(), visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.content().table(visitor, Some(fields))
    }
}
