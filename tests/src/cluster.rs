//! A whole cluster of one test's own: the real programs, as users run them, on free ports and in one temporary folder, with a
//! real Redis and a real rsync daemon. Everything ends with it.
//!
//! ```no_run
//! use longshore_tests::{Cluster, ClusterOptions, Section};
//!
//! let cluster = Cluster::start(ClusterOptions::default());
//! std::fs::write(cluster.back_dir().join("a"), "content").unwrap();
//! cluster.add_section(&Section::new("site", "folder", "site", "printf 'ok\\na\\n' >\"$LONGSHORE_BACK_LOG\""));
//! assert!(cluster.agent(&["run"]).status.success());
//! cluster.node(0).kill();
//! cluster.node(0).start();
//! println!("{}", String::from_utf8_lossy(&cluster.longshore(&["backups", "list", "--json"]).stdout));
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::{Program, Redis, Rsyncd, binary, free_port};

/// The one host's id.
pub const SERVER_ID: &str = "111111";

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Storage nodes; their weights are all the same.
    pub nodes: usize,
    /// The URL and the index prefix of an Elasticsearch; without it the catalog is SQLite.
    pub elasticsearch: Option<(String, String)>,
    /// Further lines at the end of each `puller.toml`.
    pub puller: String,
    /// Further lines at the beginning of `agent.toml`.
    pub agent: String,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { nodes: 1, elasticsearch: None, puller: String::new(), agent: String::new() }
    }
}

/// A section of the agent's configuration.
#[derive(Debug, Clone)]
pub struct Section {
    name: String,
    backup_type: String,
    instance: String,
    script: String,
    chain: bool,
}

impl Section {
    /// One that makes backups without chains.
    pub fn new(name: &str, backup_type: &str, instance: &str, script: &str) -> Self {
        let owned = str::to_owned;
        let (name, backup_type, instance, script) = (owned(name), owned(backup_type), owned(instance), owned(script));
        Self { name, backup_type, instance, script, chain: false }
    }

    /// The script writes `last_all_log` too.
    #[must_use]
    pub fn with_chain(mut self) -> Self {
        self.chain = true;
        self
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The queue.
    pub redis: Redis,
    /// The host's module `backup`, which is [`Cluster::back_dir`].
    pub rsyncd: Rsyncd,
    nodes: Vec<Program>,
    indexer: Program,
    dashboard: Program,
    dashboard_port: u16,
    /// Last, so that the programs end before their folder goes.
    folder: TempDir,
}

impl Cluster {
    /// Starts everything and waits until each part answers.
    ///
    /// # Panics
    /// When a part can't be started; the message holds its log.
    pub fn start(options: ClusterOptions) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the cluster");
        let path = |name: &str| folder.path().join(name);
        for name in ["host/backup", "host/conf.d", "dashboard", "indexer"] {
            fs::create_dir_all(path(name)).expect("the cluster's folders");
        }
        let redis = Redis::start();
        let rsyncd = Rsyncd::start_with(
            &[("backup", &path("host/backup"))],
            "socket options = TCP_NODELAY",
            "exclude = .longshore/\n",
        );
        let redis_table = format!("[redis]\naddress = \"{}\"\n", redis.address());
        let catalog = match &options.elasticsearch {
            None => format!("[catalog]\nkind = \"sqlite\"\npath = \"{}\"\n", path("indexer/catalog.db").display()),
            Some((url, prefix)) => format!(
                "[catalog]\nkind = \"elasticsearch\"\n[catalog.elasticsearch]\nurls = [\"{url}\"]\nprefix = \"{prefix}\"\n\
                 replicas = 0\n"
            ),
        };
        let write = |name: &str, text: String| fs::write(path(name), text).expect("a configuration");
        write(
            "host/agent.toml",
            format!(
                "server_id = \"{SERVER_ID}\"\nbusiness_id = \"31\"\naddress = \"127.0.0.1\"\nqueue = \"level1\"\n\
                 state_dir = \"{}\"\nstagger = \"0s\"\n{}\n{redis_table}[rsyncd]\nport = {}\n",
                path("host/state").display(),
                options.agent,
                rsyncd.port()
            ),
        );
        let (indexer_port, dashboard_port) = (free_port(), free_port());
        write("indexer.toml", format!("{redis_table}[status]\nlisten = \"127.0.0.1:{indexer_port}\"\n{catalog}"));
        write(
            "dashboard.toml",
            format!(
                "listen = \"127.0.0.1:{dashboard_port}\"\ndata_dir = \"{}\"\n{redis_table}{catalog}",
                path("dashboard").display()
            ),
        );
        let program = |name: &str, config: &str, port| Program::new(name, path(config), port);
        let indexer = program("longshore-indexer", "indexer.toml", indexer_port);
        indexer.start();
        let dashboard = program("longshore-dashboard", "dashboard.toml", dashboard_port);
        dashboard.start();
        let nodes: Vec<Program> = (0..options.nodes)
            .map(|index| {
                let status_port = free_port();
                let name = format!("puller-{index}.toml");
                let store = path(&format!("node-{index}"));
                fs::create_dir(&store).expect("a node's store");
                let text = format!(
                    "node_id = \"node-{index}\"\nqueues = [\"level1\", \"level2\"]\n{redis_table}[store]\npath = \"{}\"\n\
                     reserve = \"1MiB\"\n[serve]\nlisten = \"127.0.0.1:{}\"\npublic_key_file = \"{}\"\n[status]\n\
                     listen = \"127.0.0.1:{status_port}\"\n{}",
                    store.display(),
                    free_port(),
                    path("dashboard/restore.pub").display(),
                    options.puller
                );
                fs::write(path(&name), text).expect("a configuration");
                program("longshore-puller", &name, status_port)
            })
            .collect();
        for node in &nodes {
            node.start();
        }
        Self { redis, rsyncd, nodes, indexer, dashboard, dashboard_port, folder }
    }

    /// Everything is below this folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The host's folder: `agent.toml`, its logs, its state.
    pub fn host_dir(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    /// The folder that every section's script writes to, and that nodes fetch from.
    pub fn back_dir(&self) -> PathBuf {
        self.host_dir().join("backup")
    }

    /// The store of node `index`.
    pub fn store(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("node-{index}"))
    }

    /// Adds a section to the agent's configuration; its logs are `NAME.log` and `NAME.full.log` in [`Cluster::host_dir`].
    ///
    /// # Panics
    /// When it can't be written.
    pub fn add_section(&self, section: &Section) {
        let Section { name, backup_type, instance, script, chain } = section;
        let host = self.host_dir().display().to_string();
        let mut text = format!(
            "[instance.{name}]\ntype = \"{backup_type}\"\ninstance = \"{instance}\"\nscript = '''{script}'''\n\
             back_dir = \"{host}/backup\"\nback_log = \"{host}/{name}.log\"\nrsync_module = \"backup\"\n"
        );
        if *chain {
            text += &format!("last_all_log = \"{host}/{name}.full.log\"\n");
        }
        fs::write(self.host_dir().join("conf.d").join(format!("{name}.toml")), text).expect("a section");
    }

    /// Runs `longshore-agent ARGUMENTS` on the host, as cron does.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn agent(&self, arguments: &[&str]) -> Output {
        self.agent_command(arguments).output().expect("longshore-agent runs")
    }

    /// The same with variables of the environment, such as `LONGSHORE_STOP_AT`.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn agent_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        self.agent_command(arguments).envs(variables.iter().copied()).output().expect("longshore-agent runs")
    }

    fn agent_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("longshore-agent"));
        command.args(arguments).arg("-c").arg(self.host_dir().join("agent.toml"));
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command
    }

    /// Runs `longshore ARGUMENTS` against the cluster's dashboard.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn longshore(&self, arguments: &[&str]) -> Output {
        self.longshore_with(arguments, &[])
    }

    /// The same with variables of the environment, which restore scripts see too.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn longshore_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        Command::new(binary("longshore"))
            .args(arguments)
            .env("LONGSHORE_SERVER", self.dashboard_url())
            .env("LONGSHORE_TOKEN", self.token())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("longshore runs")
    }

    /// What `longshore ARGUMENTS --json` prints.
    ///
    /// # Panics
    /// When it fails, or prints something else than JSON.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.longshore(&[arguments, &["--json"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "longshore {arguments:?} ended with {}: {errors}", output.status);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Storage node `index`, from 0.
    pub fn node(&self, index: usize) -> &Program {
        &self.nodes[index]
    }

    /// The indexer.
    pub fn indexer(&self) -> &Program {
        &self.indexer
    }

    /// The dashboard.
    pub fn dashboard(&self) -> &Program {
        &self.dashboard
    }

    /// `http://127.0.0.1:PORT`.
    pub fn dashboard_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.dashboard_port)
    }

    /// The API's token.
    ///
    /// # Panics
    /// When the dashboard has made none.
    pub fn token(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("dashboard/token")).expect("the dashboard's token");
        text.trim().to_owned()
    }
}
