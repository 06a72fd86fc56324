//! The site that goes through it: one Redis, two hosts, three nodes on small disks, one indexer; between any two of them a
//! line that faults can cut. When a test fails its logs are kept, and where they are is said.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use longshore_core::{Policy, config::RedisConfig, policy::POLICY_VERSION, queue::Queue, redis_link::RedisLink};
use longshore_tests::{Passage, Program, Proxy, Redis, ShiftedClock, SmallDisk, free_port, wait_until};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    host::Host,
    node::Node,
    plan::{Fault, HOSTS, Line, NODES, Planned, SHIFTED},
    witness::Witness,
};
use crate::evidence::{names_in, published};

/// On the average a job has less.
const JOB_KIB: u64 = 96;

/// The whole of it.
pub(super) struct Site {
    pub(super) redis: Redis,
    pub(super) hosts: Vec<Host>,
    pub(super) nodes: Vec<Node>,
    pub(super) indexer: Program,
    indexer_line: Proxy,
    pub(super) witness: Witness,
    /// One fault of a thing at a time.
    turns: Turns,
    over: AtomicBool,
    /// What the registry says.
    policy: Mutex<Policy>,
    /// Last, so that everything ends before it goes.
    folder: TempDir,
}

#[derive(Default)]
struct Turns {
    redis: Mutex<()>,
    indexer: Mutex<()>,
    nodes: [Mutex<()>; NODES],
    agents: [Mutex<()>; HOSTS],
    daemons: [Mutex<()>; HOSTS],
    disks: [Mutex<()>; NODES],
    clocks: Mutex<()>,
    lines: Mutex<()>,
}

impl Site {
    /// Starts everything, with disks for `jobs` jobs.
    pub(super) fn start(jobs: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("indexer")).unwrap();
        let clock = |name: &str| ShiftedClock::new(&path(name));
        let hosts = (0..HOSTS)
            .map(|number| {
                let clock = (number == SHIFTED.1).then(|| clock("host-clock"));
                Host::new(path(&format!("host-{number}")), number, redis.port(), clock)
            })
            .collect();
        let nodes: Vec<Node> = (0..NODES)
            .map(|number| {
                let clock = (number == SHIFTED.0).then(|| clock("node-clock"));
                // The first has room for a tenth: it is full for most of the time.
                let share = if number == 0 { 10 } else { 1 };
                let disk = SmallDisk::mount(&path(&format!("node-{number}")), 16 + jobs * JOB_KIB / 1024 / share);
                Node::new(folder.path(), number, disk, redis.port(), clock)
            })
            .collect();
        let (indexer_line, status_port) = (Proxy::to(redis.port()), free_port());
        let text = format!(
            "[redis]\naddress = \"{}\"\n[status]\nlisten = \"127.0.0.1:{status_port}\"\n[catalog]\nkind = \"sqlite\"\n\
             path = \"{}\"\n",
            indexer_line.address(),
            path("indexer/catalog.db").display()
        );
        fs::write(path("indexer.toml"), text).unwrap();
        let indexer = Program::new("longshore-indexer", path("indexer.toml"), status_port);
        let site = Self {
            redis,
            hosts,
            nodes,
            indexer,
            indexer_line,
            witness: Witness::default(),
            turns: Turns::default(),
            over: AtomicBool::new(false),
            policy: Mutex::new(Policy { v: POLICY_VERSION, ..Policy::default() }),
            folder,
        };
        site.indexer.start();
        site.nodes.iter().for_each(Node::start);
        site
    }

    /// The indexer's catalog.
    pub(super) fn catalog(&self) -> PathBuf {
        self.folder.path().join("indexer/catalog.db")
    }

    /// Looks at the nodes' free space again and again, until the site is over.
    pub(super) fn watch_reserves(&self) {
        while !self.is_over() {
            self.nodes.iter().for_each(Node::look);
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Lets the witness look, until the site is over.
    pub(super) fn watch_reports(&self) {
        self.witness.watch(&self.redis.url(), &|| self.is_over());
    }

    /// Ends [`Site::watch_reserves`] and whatever asks [`Site::is_over`].
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether the test has come to its end, good or bad.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Lets a fault happen, and puts right what it did.
    pub(super) fn suffer(&self, planned: &Planned) {
        let lasts = || self.pass(planned.lasts);
        match planned.fault {
            Fault::KillNode(number) => {
                let _turn = self.turns.nodes[number].lock().unwrap();
                self.nodes[number].program.kill();
                lasts();
                self.nodes[number].start();
            }
            Fault::FreezeNode(number) => {
                let _turn = self.turns.nodes[number].lock().unwrap();
                self.nodes[number].program.pause();
                lasts();
                self.nodes[number].program.resume();
            }
            Fault::KillAgent(number) => {
                let _turn = self.turns.agents[number].lock().unwrap();
                self.hosts[number].signal_agent(Signal::KILL);
            }
            Fault::FreezeAgent(number) => {
                let _turn = self.turns.agents[number].lock().unwrap();
                self.hosts[number].signal_agent(Signal::STOP);
                lasts();
                self.hosts[number].signal_agent(Signal::CONT);
            }
            Fault::KillIndexer => {
                let _turn = self.turns.indexer.lock().unwrap();
                self.indexer.kill();
                lasts();
                self.indexer.start_with(&[]);
            }
            Fault::FreezeIndexer => {
                let _turn = self.turns.indexer.lock().unwrap();
                self.indexer.pause();
                lasts();
                self.indexer.resume();
            }
            Fault::RestartRedis => self.restart_redis(planned.lasts, Redis::stop),
            Fault::KillRedis => self.restart_redis(planned.lasts, |redis| {
                redis.kill();
                self.witness.note_kill(Duration::ZERO);
            }),
            Fault::CrashRedis(forgets) => self.restart_redis(planned.lasts, |redis| {
                let (written, since) = (redis.written(), Instant::now());
                self.pass(forgets);
                redis.kill();
                redis.forget_since(&written);
                self.witness.note_kill(since.elapsed());
            }),
            Fault::FreezeRedis => {
                let _turn = self.turns.redis.lock().unwrap();
                self.redis.pause();
                lasts();
                self.redis.resume();
            }
            Fault::KillDaemon(number) => {
                let _turn = self.turns.daemons[number].lock().unwrap();
                self.hosts[number].rsyncd.kill();
                lasts();
                self.hosts[number].rsyncd.start_again();
            }
            Fault::FreezeDaemon(number) => {
                let _turn = self.turns.daemons[number].lock().unwrap();
                self.hosts[number].rsyncd.pause();
                lasts();
                self.hosts[number].rsyncd.resume();
            }
            Fault::Cut(line) => self.line(line).cut(),
            Fault::Close(line) => self.disturb(line, Passage::Closed, planned.lasts),
            Fault::Hold(line) => self.disturb(line, Passage::Held, planned.lasts),
            Fault::Delay(line) => self.disturb(line, Passage::Delayed(Duration::from_millis(20)), planned.lasts),
            Fault::FillDisk(number) => {
                let _turn = self.turns.disks[number].lock().unwrap();
                let node = &self.nodes[number];
                node.fill();
                lasts();
                node.empty();
            }
            Fault::Weigh(number, weight) => {
                self.publish_weight(number, Some(weight));
                lasts();
                self.publish_weight(number, None);
            }
            Fault::ShiftClocks(seconds) => {
                let _turn = self.turns.clocks.lock().unwrap();
                self.shift_clocks(seconds);
                lasts();
                self.shift_clocks(0);
            }
        }
    }

    /// Lets Redis be away for this time, by its `end`.
    fn restart_redis(&self, lasts: Duration, end: impl FnOnce(&Redis)) {
        let _turn = self.turns.redis.lock().unwrap();
        end(&self.redis);
        self.pass(lasts);
        self.redis.start_again();
        // The dashboard sees when Redis has lost the policy.
        self.publish(&self.policy.lock().unwrap());
    }

    /// Gives a node a weight, as the registry does; `None` is the one of its own file.
    fn publish_weight(&self, number: usize, weight: Option<u32>) {
        let mut policy = self.policy.lock().unwrap();
        policy.version += 1;
        let node = format!("node-{number}").parse().unwrap();
        policy.rules.nodes.entry(node).or_default().weight = weight;
        self.publish(&policy);
    }

    /// Publishes what the registry says.
    fn publish(&self, policy: &Policy) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = RedisConfig { address: self.redis.address(), ..RedisConfig::default() };
        runtime.block_on(async {
            let queue = Queue::new(RedisLink::new(&config));
            // Redis may be away just now.
            let published = async || queue.publish_policy(policy).await.is_ok() || self.is_over();
            wait_until("the rules are published", Duration::from_secs(300), published).await;
        });
    }

    /// Lets time pass; no more than there is left.
    fn pass(&self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time && !self.is_over() {
            thread::park_timeout(Duration::from_millis(20).min(time));
        }
    }

    fn line(&self, line: Line) -> &Proxy {
        match line {
            Line::Node(number) => &self.nodes[number].redis_line,
            Line::Agent(number) => &self.hosts[number].redis_line,
            Line::Indexer => &self.indexer_line,
            Line::Daemon(number) => &self.hosts[number].daemon_line,
        }
    }

    fn disturb(&self, line: Line, passage: Passage, lasts: Duration) {
        let _turn = self.turns.lines.lock().unwrap();
        self.line(line).set(passage);
        self.pass(lasts);
        self.line(line).set(Passage::Open);
    }

    fn shift_clocks(&self, seconds: i64) {
        self.nodes.iter().for_each(|node| node.shift_clock(seconds));
        self.hosts.iter().for_each(|host| host.shift_clock(seconds));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let folder = self.folder.path().to_owned();
        self.folder.disable_cleanup(true);
        for node in &self.nodes {
            let store = node.disk.path();
            let mut text = String::new();
            for folder in published(store) {
                text += &format!("{}\n", folder.display());
            }
            for corner in [".incoming", ".superseded", ".corrupt"] {
                for name in names_in(&store.join(corner)) {
                    text += &format!("{}/{corner}/{name}\n", store.display());
                }
            }
            let _ = fs::write(store.with_extension("list"), text);
        }
        println!("logs, spools and lists of the stores are kept in {}", folder.display());
    }
}
