//! Free TCP ports. A port given out stays this process's own until it ends: it is below the range from which the kernel takes
//! ports for outgoing connections, and a locked file keeps other test processes from choosing it.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::MetadataExt,
    sync::Mutex,
};

/// Below the kernel's own range, which begins at 32768.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

struct Given {
    next: u16,
    locks: Vec<File>,
}

static GIVEN: Mutex<Option<Given>> = Mutex::new(None);

/// A port of 127.0.0.1 on which nothing listens, and that no other call gets while this process lives.
///
/// It is tried by a connection, not by listening on it: a child that another thread starts just then would have that listener
/// until it executes its program, and the port would be taken for whoever it was for.
///
/// # Panics
/// When no port is left, or the folder of locks can't be written.
pub fn free_port() -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let given = given.get_or_insert_with(|| Given { next: first(), locks: Vec::new() });
    let uid = fs::metadata("/proc/self").map_or(0, |me| me.uid());
    let folder = std::env::temp_dir().join(format!("longshore-test-ports-{uid}"));
    fs::create_dir_all(&folder).expect("the folder of port locks");
    for _ in PORTS {
        let port = given.next;
        given.next = if port + 1 == PORTS.end { PORTS.start } else { port + 1 };
        let lock = File::create(folder.join(port.to_string())).expect("a port's lock file");
        if lock.try_lock().is_ok() && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            given.locks.push(lock);
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// Where this process begins to look, so that several rarely meet.
fn first() -> u16 {
    let span = u32::from(PORTS.end - PORTS.start);
    let start = std::process::id().wrapping_mul(97) % span;
    PORTS.start + u16::try_from(start).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn no_port_is_given_twice() {
        let ports: BTreeSet<u16> = (0..50).map(|_| super::free_port()).collect();
        assert_eq!(ports.len(), 50);
    }
}
