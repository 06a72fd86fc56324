//! Configuration: one way for every program. Later wins: built-in defaults, the main file, `conf.d/*.toml` and
//! `NAME.d/*.toml` beside it, the environment, flags. Every problem names where it is, the key, and the nearest known key;
//! all problems are told at once, and none is left for later: nothing starts on a configuration that has one.
//!
//! # A program's part
//! ```
//! use longshore_core::config::{self, ByteSize, ConfigArgs, Program, RedisConfig, SeedMap, SeedTo, Setting, Span, seed_key};
//! use serde::{Deserialize, Serialize};
//!
//! /// Every struct has `#[serde(default)]`, or names the keys that must be given by leaving them without a default.
//! #[derive(Debug, Serialize, Deserialize)]
//! struct Puller {
//!     node_id: String,
//!     #[serde(default)]
//!     redis: RedisConfig,
//!     #[serde(default)]
//!     transfer: Transfer,
//! }
//!
//! #[derive(Debug, Serialize, Deserialize)]
//! #[serde(default)]
//! struct Transfer {
//!     slots: u16,
//!     reserve: ByteSize,
//!     watchdog: Span,
//! }
//!
//! impl Default for Transfer {
//!     fn default() -> Self {
//!         Self { slots: 4, reserve: ByteSize::gib(10), watchdog: Span::seconds(60) }
//!     }
//! }
//!
//! const SEED: SeedMap = SeedMap {
//!     global: &[
//!         seed_key("node_id", SeedTo::Key("node_id")),
//!         seed_key("work_thread", SeedTo::Key("transfer.slots")),
//!         seed_key("reserve", SeedTo::Gib("transfer.reserve")),
//!         seed_key("redis_host", SeedTo::Host("redis.address")),
//!         seed_key("redis_port", SeedTo::Port("redis.address")),
//!         seed_key("mysqlkeeptime", SeedTo::Ignored("the seed never used it")),
//!     ],
//!     sections: None,
//! };
//!
//! const PROGRAM: Program = Program {
//!     name: "longshore-puller",
//!     default_files: &["/etc/longshore/puller.toml", "/etc/uuzuback.conf"],
//!     seed: Some(&SEED),
//! };
//!
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("uuzuback.conf");
//! std::fs::write(&file, "[global]\nnode_id = 5 # of the dashboard\nwork_thread = 8\nredis_host = 10.0.0.5\nredis_port = 6379\n")?;
//! // `ConfigArgs` is flattened into the program's clap struct, so `-c FILE` and `--set KEY=VALUE` are there already.
//! let args = ConfigArgs { file: Some(file), ..ConfigArgs::default() };
//! let loaded = config::load::<Puller>(&PROGRAM, &args, &[Setting::flag("--slots", "transfer.slots", 2)])?;
//! assert_eq!(loaded.value.transfer.slots, 2);
//! assert_eq!(loaded.value.redis.address, "10.0.0.5:6379");
//! assert!(loaded.show(true)?.contains("slots = 2  # flag --slots"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Rules
//! - `*.toml` is TOML; any other file is the seed's INI (see [`SeedMap`]), and environment and flags use the native keys there too.
//! - `LONGSHORE__TRANSFER__SLOTS=8` sets `transfer.slots`; an empty variable takes an optional value away. A list is
//!   `a b c`, `a,b,c` or `["a b", "c"]`.
//! - Beside `/etc/longshore/puller.toml`, `/etc/longshore/conf.d/*.toml` is for every program configured in that folder,
//!   and `/etc/longshore/puller.d/*.toml` for this one; each in the order of names. A seed file has neither.
//! - A [`Secret`] `x` may be given as `x_file`; one that stands in a file that every user can read is a warning.
//! - Paths are taken as written: a relative one is relative to the working directory, wherever it is written.

mod arguments;
mod environment;
mod error;
mod files;
mod ini;
mod reader;
mod redis;
mod secret;
mod seed;
mod show;
mod toml_file;
mod units;
mod value;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    arguments::{ConfigArgs, ConfigCommand, Setting},
    error::{ConfigError, Origin, Problem},
    redis::{RedisConfig, SentinelConfig},
    secret::Secret,
    seed::{SeedKey, SeedMap, SeedSections, SeedTo, seed_key},
    units::{ByteSize, Span, UnitError},
};
use self::{
    seed::Unused,
    value::{Node, Table, Value},
};

/// What the loader must know of a program.
#[derive(Debug)]
pub struct Program {
    /// As it is called on the command line.
    pub name: &'static str,
    /// Without `-c`, the first of these that exists is the main file.
    pub default_files: &'static [&'static str],
    /// How it reads a file of the seed; without it, a main file must be TOML.
    pub seed: Option<&'static SeedMap>,
}

/// A configuration that was read without a problem.
pub struct Loaded<T> {
    /// The values.
    pub value: T,
    /// The files read, the main one first.
    pub files: Vec<PathBuf>,
    /// What is not wrong but should not be so: secrets in files that every user can read. For `check` to tell.
    pub warnings: Vec<Problem>,
    given: Node,
    unused: Vec<Unused>,
}

/// Without the tree that was read: it holds secrets as text.
impl<T: fmt::Debug> fmt::Debug for Loaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("value", &self.value).field("files", &self.files).finish_non_exhaustive()
    }
}

impl<T> Loaded<T> {
    /// Where the value of the dotted `key` came from; items of a list are counted from 0: `cluster.1.name`.
    pub fn origin(&self, key: &str) -> Origin {
        let path = self.given.path_of(key);
        self.given.at(path.iter().map(String::as_str)).map_or(Origin::Default, |node| node.origin.clone())
    }

    /// A problem with the value of `key` that only the program can see, told as the loader tells its own.
    pub fn problem(&self, key: &str, what: impl Into<String>) -> Problem {
        Problem::new(self.origin(key), key, what)
    }
}

impl<T: Serialize> Loaded<T> {
    /// The values in use as TOML, defaults included, secrets as `(secret)`; with `origin`, where each came from. What a seed
    /// file says and nothing uses follows as comments.
    ///
    /// # Errors
    /// When a value can't be written as TOML.
    pub fn show(&self, origin: bool) -> Result<String, anyhow::Error> {
        show::show(&self.value, &self.given, &self.unused, origin).map_err(anyhow::Error::msg)
    }
}

/// Loads the configuration of `program`; `settings` are the program's own flags, and win over everything.
///
/// # Errors
/// [`ConfigError`] with every problem found.
pub fn load<T: DeserializeOwned>(
    program: &Program,
    args: &ConfigArgs,
    settings: &[Setting],
) -> Result<Loaded<T>, ConfigError> {
    load_with(program, args, settings, std::env::vars_os())
}

/// [`load`] with a given environment.
///
/// # Errors
/// [`ConfigError`] with every problem found.
pub fn load_with<T: DeserializeOwned>(
    program: &Program,
    args: &ConfigArgs,
    settings: &[Setting],
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded<T>, ConfigError> {
    let main = match &args.file {
        Some(file) => Some(file.clone()),
        None => program.default_files.iter().map(PathBuf::from).find(|file| file.exists()),
    };
    let nothing = || -> Arc<Path> { Path::new("no configuration file").into() };
    let mut given = Node::new(Value::Table(Table::new()), Origin::file(&nothing(), 0));
    let mut files = Vec::new();
    let mut problems = Vec::new();
    let mut seed = None;
    let mut unused = Vec::new();
    if let Some(main) = main {
        let is_toml = main.extension().is_some_and(|extension| extension == "toml");
        if !is_toml {
            seed = program.seed;
        }
        match files::read_main(program, &main, is_toml) {
            Ok(read) => (given, unused) = read,
            Err(wrong) => problems.extend(wrong),
        }
        let beside = if is_toml { files::beside(&main) } else { Ok(Vec::new()) };
        files.push(main);
        match beside {
            Ok(beside) => {
                for file in beside {
                    match files::read_toml(&file) {
                        Ok(node) => given.lay_over(node),
                        Err(wrong) => problems.extend(wrong),
                    }
                    files.push(file);
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(environment::lay_variables(&mut given, environment));
    for setting in args.set.iter().chain(settings) {
        environment::lay_flag(&mut given, &setting.flag, &setting.key, &setting.value);
    }
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let (value, secrets) = reader::read(&given).map_err(|mut problems| {
        problems.iter_mut().filter(|problem| problem.what == reader::MISSING).for_each(|problem| {
            let seed_name = seed.and_then(|seed| seed.seed_name(&problem.key));
            if let Some(name) = seed_name.filter(|name| problem.key.rsplit('.').next() != Some(name)) {
                problem.what = format!("missing; in this file it is called `{name}`");
            } else if files.is_empty() {
                problem.what = format!("missing; give -c FILE, or write one of {}", program.default_files.join(", "));
            }
        });
        ConfigError::from(problems)
    })?;
    let warnings = secret::open_to_all(&secrets);
    Ok(Loaded { value, files, warnings, given, unused })
}

#[cfg(test)]
mod tests;
