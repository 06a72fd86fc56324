//! The way of a proxied transfer's bytes: from the host's connection to rsync's through a pipe, without a copy in this
//! process, each quantum counted when it has arrived and held until its lane lets it pass.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use rustix::{
    net::sockopt,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::{TcpStream, tcp},
};

use super::{Lane, bucket};

/// Of all receive buffers together: what hosts may have sent ahead under a limit is what passes in this time ...
const AHEAD_SECONDS: f64 = 0.1;
/// ... but for this: a smaller buffer would stop and go. The kernel itself offers twice as much when it connects, and never
/// takes back what it offered: below that, for each connection, nothing can be held.
const LEAST_BUFFER_BYTES: usize = 32 << 10;
/// Once set, a size is never the kernel's to choose again: this is for a transfer whose limit was lifted.
const UNLIMITED_BUFFER_BYTES: usize = 8 << 20;

/// Counts what a transfer received.
#[derive(Debug, Default)]
pub struct Flow {
    received: AtomicU64,
}

impl Flow {
    /// Bytes from the host so far.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }
}

/// Joins the two until both are at their end.
///
/// # Errors
/// When one of them breaks.
pub async fn join(mut host: TcpStream, mut rsync: TcpStream, lane: &Lane, flow: &Flow) -> io::Result<()> {
    let (from_host, mut to_host) = host.split();
    let (mut from_rsync, to_rsync) = rsync.split();
    let requests = async {
        tokio::io::copy(&mut from_rsync, &mut to_host).await?;
        to_host.shutdown().await
    };
    tokio::try_join!(received(from_host, to_rsync, lane, flow), requests)?;
    Ok(())
}

async fn received(from: tcp::ReadHalf<'_>, mut to: tcp::WriteHalf<'_>, lane: &Lane, flow: &Flow) -> io::Result<()> {
    let (mut pipe, mut ahead) = (Pipe::new()?, Ahead::default());
    loop {
        ahead.follow(lane.part(), from.as_ref());
        let quantum = lane.quantum();
        let arrived = pipe.fill(from.as_ref(), quantum).await?;
        if arrived == 0 {
            return to.shutdown().await;
        }
        flow.received.fetch_add(arrived as u64, Relaxed);
        if arrived < quantum {
            // The host may wait for this acknowledgement before it sends more; the kernel would delay it.
            let _ = sockopt::set_tcp_quickack(from.as_ref(), true);
        }
        lane.pass(arrived).await;
        pipe.drain(to.as_ref(), arrived).await?;
    }
}

/// What a host may send ahead: under a limit not what would fill the line in one burst, together with all who wait there.
#[derive(Debug, Default)]
struct Ahead {
    /// Of the receive buffer; `None` while the kernel chooses it.
    buffer_bytes: Option<usize>,
}

impl Ahead {
    /// Sets the buffer for a transfer whose part of the limits is `part`.
    fn follow(&mut self, part: Option<u64>, host: &TcpStream) {
        let wanted = match (part, self.buffer_bytes) {
            (None, None) => return,
            (None, Some(_)) => UNLIMITED_BUFFER_BYTES,
            (Some(part), now) => {
                let bytes = (part as f64 * AHEAD_SECONDS) as usize;
                // It grows step by step: with many that are new at once, none has waited yet to be counted.
                let most = now.map_or(LEAST_BUFFER_BYTES, |now| now.saturating_mul(2));
                bytes.min(most).clamp(LEAST_BUFFER_BYTES, UNLIMITED_BUFFER_BYTES)
            }
        };
        // How many wait changes all the time, by one or two.
        if self.buffer_bytes.is_some_and(|now| wanted.abs_diff(now) <= now / 4) {
            return;
        }
        self.buffer_bytes = Some(wanted);
        // The kernel doubles it, for its own bookkeeping. Where it has less than we ask for, less it is.
        if let Err(error) = sockopt::set_socket_recv_buffer_size(host, wanted / 2) {
            tracing::debug!(%error, "a receive buffer keeps its size");
        }
    }
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user may have only so many large ones; a small one moves the same bytes in more steps.
        let _ = fcntl_setpipe_size(&write, bucket::quantum(None, None));
        Ok(Self { read, write })
    }

    /// Takes at most `most` bytes from `host`; 0 at its end.
    async fn fill(&mut self, host: &TcpStream, most: usize) -> io::Result<usize> {
        moved(host, Interest::READABLE, || spliced(host, &self.write, most)).await
    }

    /// Gives all `bytes` that are in it to `rsync`.
    async fn drain(&mut self, rsync: &TcpStream, mut bytes: usize) -> io::Result<()> {
        while bytes > 0 {
            bytes -= moved(rsync, Interest::WRITABLE, || spliced(&self.read, rsync, bytes)).await?;
        }
        Ok(())
    }
}

async fn moved(
    socket: &TcpStream,
    ready: Interest,
    mut splice: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        socket.ready(ready).await?;
        match socket.try_io(ready, &mut splice) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            moved => return moved,
        }
    }
}

fn spliced(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use longshore_tests::wait_until;
    use tokio::{net::TcpListener, task::JoinSet};

    use super::*;
    use crate::bandwidth::{Bandwidth, Caps};

    const CAP: u64 = 8_000_000;
    const TRANSFERS: usize = 8;
    const SEND_BUFFER_BYTES: usize = 16 << 10;

    /// Sends for ever, counting what its kernel takes, which is little more than what has arrived.
    async fn send(mut to: TcpStream, sent: &AtomicU64) {
        sockopt::set_socket_send_buffer_size(&to, SEND_BUFFER_BYTES / 2).unwrap();
        while let Ok(bytes) = to.write(&[7; 4096]).await {
            sent.fetch_add(bytes as u64, Relaxed);
        }
    }

    #[tokio::test]
    async fn many_that_are_new_have_no_more_sent_ahead_than_one() {
        let (bandwidth, sent) = (Bandwidth::default(), Arc::<AtomicU64>::default());
        bandwidth.set_caps(Caps { node: Some(CAP), ..Caps::default() });
        let (host, rsync) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let mut all = JoinSet::new();
        let started = Instant::now();
        for number in 1..=TRANSFERS {
            let from = TcpStream::connect(host.local_addr().unwrap()).await.unwrap();
            let to = TcpStream::connect(rsync.local_addr().unwrap()).await.unwrap();
            let ((sender, _), (mut receiver, _)) = (host.accept().await.unwrap(), rsync.accept().await.unwrap());
            let sent = Arc::clone(&sent);
            all.spawn(async move { send(sender, &sent).await });
            all.spawn(async move { _ = tokio::io::copy(&mut receiver, &mut tokio::io::sink()).await });
            let lane = bandwidth.lane(&number.to_string().parse().unwrap(), &"level1".parse().unwrap());
            all.spawn(async move { _ = join(from, to, &lane, &Flow::default()).await });
        }
        // For each: what its kernel offers before it is told anything, what ours holds back, and the sender's own.
        let for_each = 2 * LEAST_BUFFER_BYTES + bucket::quantum(Some(CAP), Some(CAP)) + SEND_BUFFER_BYTES;
        let mut most_ahead = 0.0f64;
        wait_until("a second and a half are over", Duration::from_secs(20), async || {
            let sent = sent.load(Relaxed) as f64;
            most_ahead = most_ahead.max(sent - CAP as f64 * started.elapsed().as_secs_f64());
            started.elapsed() > Duration::from_millis(1500)
        })
        .await;
        let most = CAP as f64 * AHEAD_SECONDS + (for_each * TRANSFERS) as f64;
        assert!(most_ahead < most, "{most_ahead} of {most}");
        assert!(sent.load(Relaxed) > CAP, "it flows");
    }
}
