//! A host: an agent with ten sections, its spool, and the rsync daemon that nodes fetch from. Its scripts write small files,
//! one in ten larger, one in ten a folder, two in ten with fulls and increments, two in ten of a type that is kept on two nodes
//! (small files and folders), and then leave the name in `made/`.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use longshore_tests::{Process, Proxy, Rsyncd, ShiftedClock, binary, wait_until_blocking};
use rustix::process::Signal;

use crate::evidence::names_in;

const SECTIONS: usize = 10;
/// What is made of this type is kept on two nodes.
pub(super) const KEPT_TWICE: &str = "twice";
/// The sections of that type.
const TWICE: [usize; 2] = [7, 9];
/// A run waits for a Redis that does not answer, and may be frozen besides.
const RUN_ENDS_WITHIN: Duration = Duration::from_secs(180);
/// When nothing is to be made any more.
const BETWEEN_RUNS: Duration = Duration::from_millis(300);
const KILL: i32 = 9;

/// `$1` is the folder of what was made. The name is left there last: what is there must never be lost.
const MAKE_BACKUP: &str = r#"#!/bin/bash
set -e
name=$LONGSHORE_INSTANCE-${EPOCHREALTIME//[^0-9]/}-$$
path=$LONGSHORE_BACK_DIR/$name
case $LONGSHORE_INSTANCE in
  i8) head -c $((262144 + RANDOM * 16)) /dev/urandom >"$path" ;;
  i9)
    mkdir -p "$path/below"
    for part in a b below/c; do head -c $((RANDOM / 4 + 1)) /dev/urandom >"$path/$part"; done ;;
  *) head -c $((RANDOM * 2 + 1)) /dev/urandom >"$path" ;;
esac
if [ -n "${LONGSHORE_LAST_ALL_LOG:-}" ] && { [ ! -s "$LONGSHORE_LAST_ALL_LOG" ] || [ $((RANDOM % 5)) = 0 ]; }; then
  printf 'ok\n%s\n' "$name" >"$LONGSHORE_LAST_ALL_LOG"
fi
printf 'ok\n%s\n' "$name" >"$LONGSHORE_BACK_LOG"
: >"$1/$name"
"#;

/// One of the hosts.
pub(super) struct Host {
    folder: PathBuf,
    pub(super) rsyncd: Rsyncd,
    /// Nodes reach the daemon through it.
    pub(super) daemon_line: Proxy,
    /// The agent reaches Redis through it.
    pub(super) redis_line: Proxy,
    clock: Option<ShiftedClock>,
    running: Mutex<Option<Process>>,
    /// No run that makes something is under way, or will be.
    is_made: AtomicBool,
}

impl Host {
    /// Host number `number` with its things in `folder`.
    pub(super) fn new(folder: PathBuf, number: usize, redis_port: u16, clock: Option<ShiftedClock>) -> Self {
        for name in ["backup", "made", "conf.d"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let rsyncd = Rsyncd::start_with(
            &[("backup", &folder.join("backup"))],
            "socket options = TCP_NODELAY\nmax connections = 0",
            "exclude = .longshore/\n",
        );
        let (daemon_line, redis_line) = (Proxy::to(rsyncd.port()), Proxy::to(redis_port));
        let host = Self {
            folder,
            rsyncd,
            daemon_line,
            redis_line,
            clock,
            running: Mutex::new(None),
            is_made: AtomicBool::new(false),
        };
        host.configure(number);
        host
    }

    fn configure(&self, number: usize) {
        let shown = self.folder.display();
        let mut text = format!(
            "server_id = \"host-{number}\"\nbusiness_id = \"31\"\naddress = \"127.0.0.1\"\nstate_dir = \"{shown}/state\"\n\
             stagger = \"0s\"\n[redis]\naddress = \"{}\"\n[rsyncd]\nport = {}\n",
            self.redis_line.address(),
            self.daemon_line.port()
        );
        let script = self.folder.join("make-backup");
        fs::write(&script, MAKE_BACKUP).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        for section in 0..SECTIONS {
            let backup_type = if TWICE.contains(&section) { KEPT_TWICE } else { "files" };
            text += &format!(
                "[instance.s{section}]\ntype = \"{backup_type}\"\ninstance = \"i{section}\"\nscript = \"{} {shown}/made\"\n\
                 back_dir = \"{shown}/backup\"\nback_log = \"{shown}/s{section}.log\"\nrsync_module = \"backup\"\n\
                 queue = \"level{}\"\n",
                script.display(),
                1 + section % 2
            );
            if section < 2 {
                text += &format!("last_all_log = \"{shown}/s{section}.full.log\"\n");
            }
        }
        fs::write(self.folder.join("agent.toml"), text).unwrap();
    }

    /// Runs the agent again and again, as cron does, until `jobs` were made and no killed run is left to be finished by the next, and
    /// lets it hand over what is left until the test `is_over`.
    pub(super) fn live(&self, jobs: u64, is_over: &dyn Fn() -> bool) {
        while !is_over() {
            let is_made = self.made().len() as u64 >= jobs && !self.has_intents();
            self.is_made.store(is_made, Ordering::Relaxed);
            let status = self.run_agent(if is_made { "flush" } else { "run" });
            // 1: the agent was killed before a script began, or in a way that its end is not known.
            let is_fine = matches!(status.code(), Some(0 | 1 | 75)) || status.signal() == Some(KILL);
            assert!(is_fine, "longshore-agent ended with {status}; see {}", self.log_file().display());
            if is_made {
                std::thread::park_timeout(BETWEEN_RUNS);
            }
        }
    }

    /// Whether nothing is made any more, and everything that the spool held has its report.
    pub(super) fn is_settled(&self) -> bool {
        // What a killed agent was just writing stays for a day; its intent is what counts.
        let is_result = |name: &String| name.ends_with(".json");
        let is_empty = |half| !names_in(&self.folder.join("state").join(half)).iter().any(is_result);
        self.is_made.load(Ordering::Relaxed) && is_empty("spool") && is_empty("sent")
    }

    /// Whether an agent was killed while a script ran: what that made becomes a job in the next run.
    fn has_intents(&self) -> bool {
        let below = |folders: Vec<PathBuf>| -> Vec<PathBuf> {
            let inside =
                |folder: &PathBuf| names_in(folder).into_iter().map(|name| folder.join(name)).collect::<Vec<_>>();
            folders.iter().flat_map(inside).collect()
        };
        // HOST/TYPE/INSTANCE. What was cleared begins with the end of a line (agent/src/slot.rs).
        let instances = (0..3).fold(vec![self.folder.join("state/instances")], |folders, _| below(folders));
        let is_there =
            |instance: &PathBuf| fs::read(instance.join("intent")).is_ok_and(|record| !record.starts_with(b"\n"));
        instances.iter().any(is_there)
    }

    /// Runs `longshore-agent COMMAND` to its end.
    fn run_agent(&self, command: &str) -> ExitStatus {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let mut agent = Command::new(binary("longshore-agent"));
        agent.arg(command).arg("-c").arg(self.folder.join("agent.toml")).args(["--log-format", "plain"]);
        agent.env_clear().env("PATH", "/usr/bin:/bin").envs(self.clock.iter().flat_map(ShiftedClock::variables));
        agent.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        *self.running() = Some(Process::spawn(&mut agent).unwrap());
        let mut status = None;
        wait_until_blocking("the agent's run ends", RUN_ENDS_WITHIN, || {
            status = self.running().as_mut().unwrap().ended().unwrap();
            status.is_some()
        });
        *self.running() = None;
        status.unwrap()
    }

    /// Sends `signal` to the agent, when one runs.
    pub(super) fn signal_agent(&self, signal: Signal) {
        if let Some(process) = self.running().as_ref() {
            process.signal(signal);
        }
    }

    /// Makes the host's clock wrong by so much, if it is one whose clock can be.
    pub(super) fn shift_clock(&self, seconds: i64) {
        self.clock.iter().for_each(|clock| clock.shift(seconds).unwrap());
    }

    /// Names of all that scripts have finished.
    pub(super) fn made(&self) -> BTreeSet<String> {
        names_in(&self.folder.join("made"))
    }

    /// What the script made under this name.
    pub(super) fn source(&self, name: &str) -> PathBuf {
        self.folder.join("backup").join(name)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two files, or two folders with everything below them, are the same.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    if !one.is_dir() {
        return fs::read(one).is_ok_and(|bytes| fs::read(other).is_ok_and(|others| bytes == others));
    }
    let names = names_in(one);
    names == names_in(other) && names.iter().all(|name| is_same(&one.join(name), &other.join(name)))
}
