//! `dashboard.toml`: where to listen, where the data folder is, which catalog and which clusters are looked at.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use longshore_catalog::CatalogConfig;
use longshore_core::{
    QueueName,
    config::{Loaded, Problem, Program, RedisConfig, Span},
    telemetry::LogConfig,
};
use serde::{Deserialize, Serialize};

use crate::keys::TOKEN_FILE;

/// For the loader.
pub const PROGRAM: Program =
    Program { name: "longshore-dashboard", default_files: &["/etc/longshore/dashboard.toml"], seed: None };

/// The whole configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Address and port; loopback unless something that speaks TLS stands before it.
    pub listen: SocketAddr,
    /// The registry, the token and the restore key.
    pub data_dir: PathBuf,
    /// A token from elsewhere, in place of `token` in the data folder.
    pub token_file: Option<PathBuf>,
    /// Addresses or networks whose requests to the seed's endpoints need no token.
    pub legacy_clients: Vec<Network>,
    /// A node not heard of for so long is called silent.
    pub silent_after: Span,
    /// An instance is called late when its next good backup is overdue by more than this.
    pub late_grace: Span,
    /// Levels of the one cluster at `[redis]` that are shown first, in this order; all others found there follow.
    pub queues: Vec<QueueName>,
    /// The queue Redis of the one cluster, where no `[[cluster]]` is given.
    pub redis: RedisConfig,
    /// Several clusters; then `[redis]` and `queues` are not used.
    pub cluster: Vec<ClusterSettings>,
    /// The same as the indexer's.
    pub catalog: CatalogConfig,
    /// Logging.
    pub log: LogConfig,
}

/// `[[cluster]]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// Its id, as in the registry.
    pub name: QueueName,
    /// Its levels that are shown first, in this order; all others found there follow.
    #[serde(default)]
    pub queues: Vec<QueueName>,
    /// Its queue Redis.
    #[serde(default)]
    pub redis: RedisConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            data_dir: PathBuf::from("/var/lib/longshore/dashboard"),
            token_file: None,
            legacy_clients: Vec::new(),
            silent_after: Span::seconds(20),
            late_grace: Span::seconds(3000),
            queues: Vec::new(),
            redis: RedisConfig::default(),
            cluster: Vec::new(),
            catalog: CatalogConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Settings {
    /// Where the API's token is.
    pub fn token_file(&self) -> PathBuf {
        self.token_file.clone().unwrap_or_else(|| self.data_dir.join(TOKEN_FILE))
    }

    /// Whether a request from there to the seed's endpoints needs no token.
    pub fn is_legacy_client(&self, address: IpAddr) -> bool {
        self.legacy_clients.iter().any(|network| network.0.contains(&address))
    }

    /// When an instance is late.
    pub fn late_grace(&self) -> Duration {
        self.late_grace.duration()
    }

    /// The clusters to look at: those given, or the one at `[redis]`, called `default`.
    pub fn clusters(&self) -> Vec<ClusterSettings> {
        if !self.cluster.is_empty() {
            return self.cluster.clone();
        }
        let name = QueueName::new("default").ok();
        let one = |name| ClusterSettings { name, queues: self.queues.clone(), redis: self.redis.clone() };
        name.map(one).into_iter().collect()
    }

    /// What the loader can't see.
    pub fn problems(loaded: &Loaded<Self>) -> Vec<Problem> {
        let settings = &loaded.value;
        let mut problems = Vec::new();
        let mut names: Vec<&QueueName> = settings.cluster.iter().map(|cluster| &cluster.name).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            problems.push(loaded.problem("cluster", format!("two clusters are called {}", twice[0])));
        }
        problems
    }
}

/// An address, or a network such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl std::str::FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address
            .or_else(|_| text.parse())
            .map(Self)
            .map_err(|_| format!("{text:?} is neither an address nor a network; write it like 10.0.0.7 or 10.0.0.0/8"))
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use longshore_core::config::{self, ConfigArgs};

    use super::*;

    fn load(text: &str) -> Result<Loaded<Settings>, config::ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dashboard.toml");
        std::fs::write(&file, text).unwrap();
        config::load_with(&PROGRAM, &ConfigArgs { file: Some(file), ..ConfigArgs::default() }, &[], [])
    }

    #[test]
    fn one_cluster_needs_no_table_and_several_have_names() {
        let one = load("queues = [\"level1\"]\n[redis]\naddress = \"10.0.0.9:6380\"\n").unwrap().value.clusters();
        assert_eq!((one.len(), one[0].name.as_str()), (1, "default"));
        assert_eq!(one[0].redis.address, "10.0.0.9:6380");
        let two = "[[cluster]]\nname = \"east\"\n[[cluster]]\nname = \"west\"\nredis = {address = \"w:1\"}\n";
        assert_eq!(load(two).unwrap().value.clusters().len(), 2);
        let twice = load("[[cluster]]\nname = \"east\"\n[[cluster]]\nname = \"east\"\n").unwrap();
        assert_eq!(Settings::problems(&twice).len(), 1);
    }

    #[test]
    fn legacy_clients_are_addresses_and_networks() {
        let settings = load("legacy_clients = [\"10.0.0.7\", \"192.168.0.0/16\", \"::1\"]\n").unwrap().value;
        for (address, wanted) in
            [("10.0.0.7", true), ("10.0.0.8", false), ("192.168.3.4", true), ("::1", true), ("::2", false)]
        {
            assert_eq!(settings.is_legacy_client(address.parse().unwrap()), wanted, "{address}");
        }
        let error = load("legacy_clients = [\"everyone\"]\n").unwrap_err().to_string();
        assert!(error.contains("everyone") && error.contains(":1"), "{error}");
        assert!(!Settings::default().is_legacy_client([127, 0, 0, 1].into()));
    }
}
