//! The site that goes through it: one Redis, two hosts, three nodes on small disks, one indexer; between any two of them a
//! line that faults can cut. When a test fails its logs are kept, and where they are is said.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use longshore_tests::{Passage, Program, Proxy, Redis, ShiftedClock, SmallDisk, free_port};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    host::Host,
    plan::{Fault, HOSTS, Line, NODES, Planned, SHIFTED},
};
use crate::evidence::{names_in, published};

const MIB: u64 = 1 << 20;
/// To be kept free on each node.
const RESERVE_BYTES: u64 = 4 * MIB;
/// On the average a job has less.
const JOB_KIB: u64 = 96;
const SLOTS: u32 = 4;

/// One storage node.
pub(super) struct Node {
    pub(super) program: Program,
    pub(super) disk: SmallDisk,
    redis_line: Proxy,
    clock: Option<ShiftedClock>,
    /// Somebody else fills the disk just now.
    is_filled: AtomicBool,
    /// The least that was free above the reserve whenever it was looked.
    lowest_spare_bytes: Mutex<i64>,
}

/// The whole of it.
pub(super) struct Site {
    pub(super) redis: Redis,
    pub(super) hosts: Vec<Host>,
    pub(super) nodes: Vec<Node>,
    pub(super) indexer: Program,
    indexer_line: Proxy,
    /// One fault of a thing at a time.
    turns: Turns,
    over: AtomicBool,
    pub(super) agent_kills: AtomicU64,
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
            turns: Turns::default(),
            over: AtomicBool::new(false),
            agent_kills: AtomicU64::new(0),
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
                self.agent_kills.fetch_add(1, Ordering::Relaxed);
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
            Fault::RestartRedis | Fault::KillRedis => {
                let _turn = self.turns.redis.lock().unwrap();
                match planned.fault {
                    Fault::KillRedis => self.redis.kill(),
                    _ => self.redis.stop(),
                }
                lasts();
                self.redis.start_again();
            }
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
                node.is_filled.store(true, Ordering::SeqCst);
                node.disk.fill(0);
                lasts();
                node.disk.empty();
                node.is_filled.store(false, Ordering::SeqCst);
            }
            Fault::ShiftClocks(seconds) => {
                let _turn = self.turns.clocks.lock().unwrap();
                self.shift_clocks(seconds);
                lasts();
                self.shift_clocks(0);
            }
        }
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
        self.nodes.iter().filter_map(|node| node.clock.as_ref()).for_each(|clock| clock.shift(seconds).unwrap());
        self.hosts.iter().for_each(|host| host.shift_clock(seconds));
    }
}

impl Node {
    fn new(folder: &Path, number: usize, disk: SmallDisk, redis_port: u16, clock: Option<ShiftedClock>) -> Self {
        let (redis_line, status_port) = (Proxy::to(redis_port), free_port());
        let config = folder.join(format!("node-{number}.toml"));
        // Attempts count the kills of this test too, so there are many; leases are short, so that they end in it.
        let text = format!(
            "node_id = \"node-{number}\"\nqueues = [\"level1\", \"level2\"]\nslots = {SLOTS}\nretry = 100\n\
             retry_delay = \"200ms\"\nlease = \"6s\"\n[redis]\naddress = \"{}\"\n[store]\npath = \"{}\"\n\
             reserve = \"{RESERVE_BYTES}\"\nstale_after = \"1s\"\n[rsync]\nstall = \"10s\"\nhost_limit = 6\n[status]\nlisten = \"127.0.0.1:{status_port}\"\n",
            redis_line.address(),
            disk.path().display()
        );
        fs::write(&config, text).unwrap();
        Self {
            program: Program::new("longshore-puller", config, status_port),
            disk,
            redis_line,
            clock,
            is_filled: AtomicBool::new(false),
            lowest_spare_bytes: Mutex::new(i64::MAX),
        }
    }

    /// Starts it, and waits for nothing: Redis may be away.
    fn start(&self) {
        let variables = self.clock.as_ref().map(ShiftedClock::variables).unwrap_or_default();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.program.start_with(&variables);
    }

    fn look(&self) {
        let spare = self.disk.free_bytes().cast_signed() - RESERVE_BYTES.cast_signed();
        // Looked at afterwards: while somebody else fills the disk, it says nothing about the node.
        if !self.is_filled.load(Ordering::SeqCst) {
            let mut lowest = self.lowest_spare_bytes.lock().unwrap();
            *lowest = spare.min(*lowest);
        }
    }

    /// Stops it in order and starts it again, which sweeps away the partials that nobody came back for: those of jobs that
    /// another node has stored meanwhile.
    pub(super) fn restart(&self) {
        let status = self.program.stop().unwrap();
        assert!(status.success(), "{:?} ended with {status} when it was told to", self.program);
        self.start();
    }

    /// The least that was free above the reserve.
    pub(super) fn lowest_spare_bytes(&self) -> i64 {
        *self.lowest_spare_bytes.lock().unwrap()
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
            for name in names_in(&store.join(".incoming")) {
                text += &format!("{}/.incoming/{name}\n", store.display());
            }
            let _ = fs::write(store.with_extension("list"), text);
        }
        println!("logs, spools and lists of the stores are kept in {}", folder.display());
    }
}
