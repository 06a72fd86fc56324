//! The TCP connection of a child that goes direct: what it received, from the kernel's own count.
//!
//! The child's socket is duplicated, never read. The duplicate must go before the child's end is told to the other side,
//! so it is held only while the child runs.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::{
    net::{AddressFamily, SocketType, getpeername, sockopt},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

/// Bytes of `tcp_info` up to and with `tcpi_bytes_received`, a `u64`: there since Linux 4.1, and its layout only grows.
const TCP_INFO_BYTES: usize = 136;

/// A duplicate of a child's connection.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl Connection {
    /// The connection of the process `id` or of one of its children; `None` when there is none (yet).
    ///
    /// # Errors
    /// When the system does not let us look at our own children's sockets.
    pub fn of(id: u32) -> io::Result<Option<Self>> {
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
        for process in std::iter::once(id).chain(children) {
            let found = of_process(process);
            match found {
                // Ended meanwhile.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT | libc::EBADF)) => {}
                Ok(None) => {}
                found => return found,
            }
        }
        Ok(None)
    }

    /// Bytes of payload that arrived so far.
    ///
    /// # Errors
    /// The kernel's.
    pub fn received(&self) -> io::Result<u64> {
        let info = tcp_info(&self.0)?;
        let mut count = [0; 8];
        count.copy_from_slice(&info[TCP_INFO_BYTES - 8..]);
        Ok(u64::from_ne_bytes(count))
    }
}

fn of_process(id: u32) -> io::Result<Option<Connection>> {
    let mut process = None;
    for entry in fs::read_dir(format!("/proc/{id}/fd"))? {
        let entry = entry?;
        let is_socket = fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()).filter(|_| is_socket) else {
            continue;
        };
        if process.is_none() {
            let id = Pid::from_raw(id.cast_signed()).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
            process = Some(pidfd_open(id, PidfdFlags::empty())?);
        }
        let Some(process) = &process else { continue };
        let socket = pidfd_getfd(process, number, PidfdGetfdFlags::empty())?;
        if is_connection(&socket) {
            return Ok(Some(Connection(socket)));
        }
    }
    Ok(None)
}

/// rsync's processes have pairs of local sockets between them, too.
fn is_connection(socket: &OwnedFd) -> bool {
    let family = sockopt::socket_domain(socket);
    matches!(family, Ok(AddressFamily::INET | AddressFamily::INET6))
        && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
        && getpeername(socket).is_ok()
}

#[allow(unsafe_code)] // No safe library has this option.
fn tcp_info(socket: &OwnedFd) -> io::Result<[u8; TCP_INFO_BYTES]> {
    let mut info = [0u8; TCP_INFO_BYTES];
    let mut length = TCP_INFO_BYTES as libc::socklen_t;
    // SAFETY: `info` is writable for `length` bytes, the kernel writes no more than that, and any bytes are valid in it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match result {
        0 if length as usize == TCP_INFO_BYTES => Ok(info),
        0 => Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel does not count received bytes")),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        process::{Command, Stdio},
        time::Duration,
    };

    use longshore_tests::wait_until_blocking;

    use super::*;

    const ROLE: &str = "LONGSHORE_TEST_CONNECTION_PORT";

    /// Not a test of its own: the child that the test below counts. It reads what comes, and stays.
    #[test]
    #[ignore = "a process for the test beside it"]
    fn the_child_that_receives() {
        let Some(port) = std::env::var(ROLE).ok().and_then(|port| port.parse::<u16>().ok()) else { return };
        let (_one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        std::thread::park();
    }

    #[test]
    fn what_a_child_received_is_counted_exactly() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "bandwidth::connection::tests::the_child_that_receives"])
            .env(ROLE, listener.local_addr().unwrap().port().to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let connection = Connection::of(child.id()).unwrap().unwrap();
        assert_eq!(connection.received().unwrap(), 0);
        stream.write_all(&vec![1; 1_234_567]).unwrap();
        let arrived = || connection.received().unwrap() == 1_234_567;
        wait_until_blocking("all has arrived", Duration::from_secs(20), arrived);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(Connection::of(child.id()), Ok(None)), "a child that has ended has none");
    }
}
