//! `longshore-puller relay HOST PORT`: what ssh runs in place of its own connection when a limit holds the transfer. It
//! joins its standard input and output with HOST through the puller's proxy. Its pass comes by the environment, so that no
//! other user of the machine sees it.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    thread,
};

use super::connect;

const BUFFER_BYTES: usize = 64 << 10;
/// The hidden subcommand.
pub const RELAY: &str = "relay";
/// The variable that holds `USER:TOKEN@ADDRESS`.
pub const RELAY_PROXY: &str = "LONGSHORE_RELAY_PROXY";

/// Joins standard input and output with `host` until both directions have ended.
///
/// # Errors
/// When there is no proxy, it refuses, or the connection breaks.
pub fn run(host: &str, port: u16) -> io::Result<()> {
    let proxy = std::env::var(RELAY_PROXY);
    let proxy =
        proxy.map_err(|_| io::Error::other(format!("{RELAY} is for the puller's own ssh: no {RELAY_PROXY}")))?;
    let (login, address) = proxy.rsplit_once('@').ok_or_else(|| io::Error::other(format!("{RELAY_PROXY} has no @")))?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(connect::write(host, port, login).as_bytes())?;
    let answer = read_answer(&mut stream)?;
    if !answer.starts_with("HTTP/1.0 200") {
        return Err(io::Error::other(answer));
    }
    // The bare descriptors: what the standard library has for them keeps bytes back until a line ends.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut sending = stream.try_clone()?;
    // Ends with the process: ssh closes its end only after it has read ours.
    thread::spawn(move || {
        let _ = carry(&mut input, &mut sending);
        let _ = sending.shutdown(Shutdown::Write);
    });
    carry(&mut stream, &mut output)
}

/// Not the standard library's copy: it splices, and the kernel then keeps a short packet back, waiting for more to send with it.
fn carry(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => to.write_all(&buffer[..bytes])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The first line of the proxy's answer, which is read to the end of its head and not a byte further.
fn read_answer(stream: &mut TcpStream) -> io::Result<String> {
    let mut answer = Vec::new();
    let mut byte = [0];
    while connect::length(&answer).is_none() && answer.len() < connect::MOST_BYTES {
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    let first = answer.split(|&byte| byte == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(first).into_owned())
}
