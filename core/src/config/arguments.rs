//! The command-line part of configuration, the same in every program.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    str::FromStr,
};

use serde::Serialize;

use super::Loaded;

/// `-c FILE` and `--set KEY=VALUE`; flatten it into a program's arguments.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file, a NAME.toml; agent and puller read UBackup's INI under any other name
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    pub file: Option<PathBuf>,
    /// Set one key over everything else, such as redis.address=10.0.2.1:6379; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub set: Vec<Setting>,
}

/// One key set by a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The flag as a user writes it, for messages.
    pub flag: String,
    /// Dotted native key.
    pub key: String,
    /// Its text; numbers and truth values are read as the key wants them.
    pub value: String,
}

impl Setting {
    /// What the program's own `flag` (such as `--queue`) says of `key`.
    pub fn flag(flag: &str, key: &str, value: impl fmt::Display) -> Self {
        Self { flag: flag.to_owned(), key: key.to_owned(), value: value.to_string() }
    }
}

impl FromStr for Setting {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok(Self::flag("--set", key.trim(), value)),
            _ => Err(format!("{text:?} is not KEY=VALUE")),
        }
    }
}

/// The `config` command of every program.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum ConfigCommand {
    /// Print the configuration in use as TOML, defaults included; secrets are not shown
    Show {
        /// Say beside each value where it came from: file and line, variable, flag or default
        #[arg(long)]
        origin: bool,
    },
}

impl ConfigCommand {
    /// Performs the command: prints to standard output, warnings to standard error. A reader that has gone, such as `head`, is no error.
    ///
    /// # Errors
    /// When a value can't be written as TOML, or standard output can't be written.
    pub fn run<T: Serialize>(&self, loaded: &Loaded<T>) -> anyhow::Result<()> {
        let Self::Show { origin } = self;
        let shown = loaded.show(*origin)?;
        for warning in &loaded.warnings {
            eprintln!("warning: {warning}");
        }
        match io::stdout().write_all(shown.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
}
