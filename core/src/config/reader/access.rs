//! What a table, a list and an enum give to serde, one by one.

use serde::de::{self, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::{
    super::{
        error::{Problem, suggestion},
        value::{Node, Table},
    },
    Reader,
    fault::{Fault, Trail},
};

/// Ends the name of a key that gives the file of a secret.
const FILE_OF: &str = "_file";

/// A table's entry.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    /// The name that serde sees.
    name: &'a str,
    /// The name in the table.
    written: &'a str,
    node: &'a Node,
}

pub(super) struct Entries<'a> {
    reader: &'a Reader<'a>,
    entries: std::vec::IntoIter<Written<'a>>,
    value: Option<Written<'a>>,
}

impl<'a> Entries<'a> {
    pub(super) fn new(
        reader: &'a Reader<'a>,
        table: &'a Table,
        fields: Option<&'static [&'static str]>,
    ) -> Result<Self, Fault> {
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
                    return Err(Fault::new(what).at(&below, node));
                }
                entries.push(Written { name: plain, written, node });
            } else {
                let mut path = reader.trail.path();
                path.push(written.to_owned());
                let what = format!("unknown key{}", suggestion(written, fields.iter().copied()));
                reader.notes.unknown.borrow_mut().push(Problem::new(node.origin.clone(), path.join("."), what));
            }
        }
        Ok(Self { reader, entries: entries.into_iter(), value: None })
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some(entry);
        let Written { name, written, node } = entry;
        let below = Trail::Below { above: &self.reader.trail, key: written };
        let key: de::value::StrDeserializer<'_, Fault> = name.into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.at(&below, node))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let entry = self.value.take().ok_or_else(|| Fault::new("a value without a key"))?;
        let Written { name, written, node } = entry;
        let trail = Trail::Below { above: &self.reader.trail, key: written };
        seed.deserialize(Reader { node, trail, notes: self.reader.notes, of_file: name != written })
            .map_err(|error| error.at(&trail, node))
    }
}

pub(super) struct Items<'a> {
    pub(super) reader: &'a Reader<'a>,
    pub(super) items: std::slice::Iter<'a, Node>,
    pub(super) at: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let key = self.at.to_string();
        self.at += 1;
        let trail = Trail::Below { above: &self.reader.trail, key: &key };
        seed.deserialize(Reader { node, trail, notes: self.reader.notes, of_file: false })
            .map(Some)
            .map_err(|error| error.at(&trail, node))
    }
}

/// `{ variant = value }`.
pub(super) struct Variant<'a> {
    pub(super) reader: &'a Reader<'a>,
    pub(super) variant: &'a str,
    pub(super) node: &'a Node,
}

impl<'a> Variant<'a> {
    fn content(&self) -> Reader<'_> {
        let trail = Trail::Below { above: &self.reader.trail, key: self.variant };
        Reader { node: self.node, trail, notes: self.reader.notes, of_file: false }
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: de::value::StrDeserializer<'_, Fault> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self.content())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        de::Deserializer::deserialize_seq(self.content(), visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.content().table(visitor, Some(fields))
    }
}
