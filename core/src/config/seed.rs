//! From the seed's keys to ours. Each program declares the keys that it knows, the ones that it knows and does not need
//! included; any other is an error with the nearest of them.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    error::{Origin, Problem, suggestion},
    ini::{Entry, Section},
    value::{Node, Table, Value},
};

/// The seed's section whose keys are the program's own.
const GLOBAL: &str = "global";

/// What a program makes of a seed file.
#[derive(Debug)]
pub struct SeedMap {
    /// Keys of `[global]`; they go to dotted native keys.
    pub global: &'static [SeedKey],
    /// What other sections are; without it they are errors.
    pub sections: Option<SeedSections>,
}

/// Sections other than `[global]`: entries of a native table, by the section's name.
#[derive(Debug)]
pub struct SeedSections {
    /// The native table, such as `instance` for `[instance.NAME]`.
    pub table: &'static str,
    /// Keys of a section; they go to keys of the entry.
    pub keys: &'static [SeedKey],
}

/// One key of the seed, in lower case, and what becomes of it.
#[derive(Debug)]
pub struct SeedKey {
    /// The seed's name.
    pub seed: &'static str,
    /// Where its value goes, and how it is changed.
    pub to: SeedTo,
}

/// A seed key's way to a native one (dotted, relative to the root or to the section's entry).
#[derive(Debug, Clone, Copy)]
pub enum SeedTo {
    /// As it is; numbers and truth values are read as the native key wants them.
    Key(&'static str),
    /// A count of KiB, to a size in bytes.
    Kib(&'static str),
    /// A count of GiB, to a size in bytes.
    Gib(&'static str),
    /// Names split by blanks, to a list.
    Words(&'static str),
    /// The host part of a `host:port`.
    Host(&'static str),
    /// The port part of a `host:port`.
    Port(&'static str),
    /// Known, and not used; the text says why, and `config show` shows it.
    Ignored(&'static str),
}

impl SeedTo {
    /// The native key, unless ignored.
    pub fn native(self) -> Option<&'static str> {
        match self {
            Self::Key(key) | Self::Kib(key) | Self::Gib(key) | Self::Words(key) => Some(key),
            Self::Host(key) | Self::Port(key) => Some(key),
            Self::Ignored(_) => None,
        }
    }
}

/// A value of a seed file that nothing uses.
#[derive(Debug)]
pub(super) struct Unused {
    pub(super) value: String,
    /// With the seed's key.
    pub(super) origin: Origin,
    pub(super) why: &'static str,
}

/// Shorthand for a [`SeedKey`].
pub const fn seed_key(seed: &'static str, to: SeedTo) -> SeedKey {
    SeedKey { seed, to }
}

impl SeedMap {
    /// The seed's name of the native key `path`.
    pub(super) fn seed_name(&self, path: &str) -> Option<&'static str> {
        let inside = self.sections.as_ref().and_then(|sections| {
            let entry = path.strip_prefix(sections.table)?.strip_prefix('.')?;
            let is_of = |native: &str| entry.strip_suffix(native).is_some_and(|name| name.ends_with('.'));
            sections.keys.iter().find(|known| known.to.native().is_some_and(is_of))
        });
        let known = inside.or_else(|| self.global.iter().find(|known| known.to.native() == Some(path)));
        known.map(|known| known.seed)
    }

    /// The native tree of a seed file's sections, and what in them nothing uses.
    pub(super) fn apply(
        &self,
        sections: BTreeMap<String, Section>,
        path: &Arc<Path>,
    ) -> Result<(Node, Vec<Unused>), Vec<Problem>> {
        let mut root = Node::new(Value::Table(Table::new()), Origin::file(path, 0));
        let mut conversion = Conversion { path, problems: Vec::new(), unused: Vec::new() };
        for (name, section) in sections {
            if name == GLOBAL {
                conversion.convert(&mut root, self.global, section.entries);
            } else if let Some(known) = &self.sections {
                let mut entry = Node::new(Value::Table(Table::new()), Origin::file(path, section.line));
                conversion.convert(&mut entry, known.keys, section.entries);
                root.put(&[known.table, &name], entry);
            } else {
                let what = format!("unknown section [{name}]; this program reads [{GLOBAL}] only");
                conversion.problems.push(Problem::new(Origin::file(path, section.line), "", what));
            }
        }
        let Conversion { problems, unused, .. } = conversion;
        if problems.is_empty() { Ok((root, unused)) } else { Err(problems) }
    }
}

/// The sections of one file on their way.
struct Conversion<'a> {
    path: &'a Arc<Path>,
    problems: Vec<Problem>,
    unused: Vec<Unused>,
}

impl Conversion<'_> {
    /// Puts `entries` into the table `into`, as `keys` say.
    fn convert(&mut self, into: &mut Node, keys: &[SeedKey], mut entries: BTreeMap<String, Entry>) {
        let mut ports = Vec::new();
        for known in keys {
            let Some(Entry { value, line }) = entries.remove(known.seed) else { continue };
            let origin = Origin::File { path: Arc::clone(self.path), line, seed_key: Some(known.seed.into()) };
            let mut wrong = |what: &str| {
                self.problems.push(Problem::new(origin.clone(), known.seed, format!("{value:?} is not {what}")));
            };
            match known.to {
                SeedTo::Key(native) | SeedTo::Host(native) => into.put(&parts(native), Node::word(value, origin)),
                SeedTo::Words(native) => {
                    let words = value.split_ascii_whitespace().map(|word| Node::word(word, origin.clone())).collect();
                    into.put(&parts(native), Node::new(Value::List(words), origin));
                }
                SeedTo::Kib(native) | SeedTo::Gib(native) => match value.parse::<u64>() {
                    Ok(count) => {
                        let unit = if matches!(known.to, SeedTo::Kib(_)) { "KiB" } else { "GiB" };
                        into.put(&parts(native), Node::word(format!("{count}{unit}"), origin));
                    }
                    Err(_) => wrong("a whole number"),
                },
                SeedTo::Port(native) => match value.parse::<u16>() {
                    Ok(port) => ports.push((native, port, origin)),
                    Err(_) => wrong("a port"),
                },
                SeedTo::Ignored(why) => self.unused.push(Unused { value, origin, why }),
            }
        }
        for (native, port, origin) in ports {
            match into.at(parts(native)) {
                Some(Node { value: Value::Word(host), origin }) => {
                    let is_bare_ipv6 = host.parse::<std::net::Ipv6Addr>().is_ok();
                    let joined = if is_bare_ipv6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                    let origin = origin.clone();
                    into.put(&parts(native), Node::word(joined, origin));
                }
                _ => self.problems.push(Problem::new(origin, "", "a port without its host")),
            }
        }
        for (key, entry) in entries {
            let what = format!("unknown key{}", suggestion(&key, keys.iter().map(|known| known.seed)));
            self.problems.push(Problem::new(Origin::file(self.path, entry.line), key, what));
        }
    }
}

fn parts(native: &'static str) -> Vec<&'static str> {
    native.split('.').collect()
}
