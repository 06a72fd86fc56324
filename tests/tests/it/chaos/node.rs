//! A storage node of the chaos test: a puller with a small disk of its own, whose free space is looked at all the time, and
//! which gives the others what they are to have a second copy of.

use std::{
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use ed25519_dalek::SigningKey;
use longshore_core::token;
use longshore_tests::{Program, Proxy, ShiftedClock, SmallDisk, free_port};

use super::host::KEPT_TWICE;

/// To be kept free.
const RESERVE_BYTES: u64 = 4 << 20;
const SLOTS: u32 = 4;

/// One storage node.
pub(super) struct Node {
    pub(super) program: Program,
    pub(super) disk: SmallDisk,
    /// It reaches Redis through it.
    pub(super) redis_line: Proxy,
    clock: Option<ShiftedClock>,
    /// Somebody else fills the disk just now.
    is_filled: AtomicBool,
    /// The least that was free above the reserve whenever it was looked.
    lowest_spare_bytes: Mutex<i64>,
}

impl Node {
    /// Node number `number`, with its configuration in `folder`. Not started yet.
    pub(super) fn new(
        folder: &Path,
        number: usize,
        disk: SmallDisk,
        redis_port: u16,
        clock: Option<ShiftedClock>,
    ) -> Self {
        let (redis_line, status_port) = (Proxy::to(redis_port), free_port());
        let config = folder.join(format!("node-{number}.toml"));
        // The dashboard's, which has no part in this.
        let public_key = token::public_key_text(&SigningKey::from_bytes(&[7; 32]).verifying_key());
        // An attempt that a kill, a cut or a full disk ends counts like any other, and no job is to be given up for these: so there
        // are many. Leases are short, so that they end in the test. What is left of transfers stays as long as by default: only
        // that it is over may end it.
        let text = format!(
            "node_id = \"node-{number}\"\nqueues = [\"level1\", \"level2\"]\nslots = {SLOTS}\nretry = 100\n\
             retry_delay = \"200ms\"\nlease = \"6s\"\n[redis]\naddress = \"{}\"\n[store]\npath = \"{}\"\n\
             reserve = \"{RESERVE_BYTES}\"\n[rsync]\nstall = \"10s\"\nhost_limit = 6\n[types.{KEPT_TWICE}]\ncopies = 2\n\
             [serve]\nlisten = \"127.0.0.1:{}\"\npublic_key = \"{public_key}\"\n\
             [status]\nlisten = \"127.0.0.1:{status_port}\"\n",
            redis_line.address(),
            disk.path().display(),
            free_port()
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
    pub(super) fn start(&self) {
        let variables = self.clock.as_ref().map(ShiftedClock::variables).unwrap_or_default();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.program.start_with(&variables);
    }

    /// Looks at the free space.
    pub(super) fn look(&self) {
        let spare = self.disk.free_bytes().cast_signed() - RESERVE_BYTES.cast_signed();
        // Looked at afterwards: while somebody else fills the disk, it says nothing about the node.
        if !self.is_filled.load(Ordering::SeqCst) {
            let mut lowest = self.lowest_spare_bytes.lock().unwrap();
            *lowest = spare.min(*lowest);
        }
    }

    /// Stops it in order.
    pub(super) fn stop(&self) {
        let status = self.program.stop().unwrap();
        assert!(status.success(), "{:?} ended with {status} when it was told to", self.program);
    }

    /// The least that was free above the reserve.
    pub(super) fn lowest_spare_bytes(&self) -> i64 {
        *self.lowest_spare_bytes.lock().unwrap()
    }

    /// Nothing is left on its disk: somebody else writes there.
    pub(super) fn fill(&self) {
        self.is_filled.store(true, Ordering::SeqCst);
        self.disk.fill(0);
    }

    /// Ends a [`Node::fill`].
    pub(super) fn empty(&self) {
        self.disk.empty();
        self.is_filled.store(false, Ordering::SeqCst);
    }

    /// Makes the node's clock wrong by so much, if it is one whose clock can be.
    pub(super) fn shift_clock(&self, seconds: i64) {
        self.clock.iter().for_each(|clock| clock.shift(seconds).unwrap());
    }
}
