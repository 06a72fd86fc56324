//! A wrong value, with the keys that lead to it and its origin, in words for the person who wrote it.

use std::fmt;

use serde::de::{self, Unexpected};

use super::super::{
    error::{Origin, suggestion},
    value::Node,
};

/// The keys from the root to a value.
#[derive(Clone, Copy)]
pub(super) enum Trail<'a> {
    Root,
    Below { above: &'a Trail<'a>, key: &'a str },
}

impl Trail<'_> {
    pub(super) fn path(&self) -> Vec<String> {
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

/// Why a value could not be read; boxed, since it passes through every level of the tree.
#[derive(Debug)]
pub(super) struct Fault(pub(super) Box<Details>);

#[derive(Debug)]
pub(super) struct Details {
    /// Set by the innermost value that it passes.
    pub(super) path: Option<Vec<String>>,
    pub(super) origin: Option<Origin>,
    /// The key of the table at `path` that was not given.
    pub(super) missing: Option<&'static str>,
    pub(super) what: String,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(Box::new(Details { path: None, origin: None, missing: None, what: what.into() }))
    }

    /// Says where, unless a value further in has said so.
    pub(super) fn at(mut self, trail: &Trail<'_>, node: &Node) -> Self {
        self.0.path.get_or_insert_with(|| trail.path());
        self.0.origin.get_or_insert_with(|| node.origin.clone());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::new(what.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {}, found {}", plain(&expected.to_string()), Found(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        let mut fault = Self::new(super::MISSING);
        fault.0.missing = Some(field);
        fault
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("{variant:?} is not known{}", suggestion(variant, expected.iter().copied())))
    }
}

/// Rust's names of types, in words.
fn plain(expected: &str) -> String {
    let whole = |least: i128, most: i128| format!("a whole number from {least} to {most}");
    match expected {
        "u8" => whole(0, u8::MAX.into()),
        "u16" => whole(0, u16::MAX.into()),
        "u32" => whole(0, u32::MAX.into()),
        "i8" => whole(i8::MIN.into(), i8::MAX.into()),
        "i16" => whole(i16::MIN.into(), i16::MAX.into()),
        "i32" => whole(i32::MIN.into(), i32::MAX.into()),
        "u64" | "u128" | "usize" => "a whole number, not negative".to_owned(),
        "i64" | "i128" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "path string" => "a text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        text if text.starts_with("struct ") => "a table".to_owned(),
        text if text.starts_with("a nonzero") => text.replace("nonzero", "whole number other than 0, a"),
        text => text.to_owned(),
    }
}

/// What was found, as it was written.
struct Found<'a>(Unexpected<'a>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Unexpected::Str(text) => write!(f, "{text:?}"),
            Unexpected::Signed(number) => write!(f, "{number}"),
            Unexpected::Unsigned(number) => write!(f, "{number}"),
            Unexpected::Float(number) => write!(f, "{number}"),
            Unexpected::Bool(boolean) => write!(f, "{boolean}"),
            Unexpected::Seq => f.write_str("a list"),
            Unexpected::Map => f.write_str("a table"),
            other => other.fmt(f),
        }
    }
}
