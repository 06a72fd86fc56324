//! Where the dashboard is, and its token. Later wins: the configuration file, the environment, flags.

use std::path::{Path, PathBuf};

use longshore_core::{
    config::{self, ConfigArgs, Program, RedisConfig, Secret},
    exit::Exit,
};
use serde::{Deserialize, Serialize};

use crate::{arguments::ConnectionArgs, failure::Failure};

const SYSTEM_FILE: &str = "/etc/longshore/cli.toml";
const PROGRAM: Program = Program { name: "longshore", default_files: &[SYSTEM_FILE], seed: None };
/// A dashboard on the same machine leaves its token here.
const LOCAL_TOKEN: &str = "/var/lib/longshore/dashboard/token";

/// `~/.config/longshore.toml`, or `/etc/longshore/cli.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CliSettings {
    /// The dashboard.
    pub(crate) server: String,
    /// Its token; `token_file` names a file instead.
    pub(crate) token: Option<Secret>,
    /// For `report queue`.
    pub(crate) redis: RedisConfig,
}

impl Default for CliSettings {
    fn default() -> Self {
        Self { server: "http://127.0.0.1:7400".to_owned(), token: None, redis: RedisConfig::default() }
    }
}

/// The settings in use, and the token where one is known.
pub(crate) fn resolve(args: &ConnectionArgs) -> Result<(CliSettings, Option<String>), Failure> {
    let file = args.config.file.clone().or_else(own_file);
    let config = ConfigArgs { file, set: args.config.set.clone() };
    let mut settings = config::load::<CliSettings>(&PROGRAM, &config, &[])?.value;
    if let Some(server) = &args.server {
        settings.server.clone_from(server);
    }
    let token = if let Some(file) = &args.token_file {
        Some(read(file)?)
    } else if let Some(token) = &args.token {
        Some(token.trim().to_owned())
    } else if let Some(token) = &settings.token {
        Some(token.expose().trim().to_owned())
    } else {
        std::fs::read_to_string(LOCAL_TOKEN).ok().map(|token| token.trim().to_owned())
    };
    Ok((settings, token))
}

fn own_file() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty())?);
    Some(home.join(".config/longshore.toml")).filter(|file| file.exists())
}

fn read(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(Exit::Configuration, format!("token file {}: {error}", file.display())))?;
    Ok(text.trim().to_owned())
}
