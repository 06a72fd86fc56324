//! A TCP proxy that misbehaves on demand: the line between two services, to be cut, closed, delayed or held.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    runtime::Runtime,
    sync::watch,
};

use crate::free_port;

/// What a line does with what is sent through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Passes everything.
    Open,
    /// Each piece waits so long before it is passed on.
    Delayed(Duration),
    /// Connections stay open, nothing moves.
    Held,
    /// Connections are refused: reset as soon as they are made.
    Closed,
}

#[derive(Debug, Clone, Copy)]
struct State {
    passage: Passage,
    /// Counts cuts: a connection made before the last one ends.
    cuts: u64,
}

/// A line to a port of 127.0.0.1; gone when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: watch::Sender<State>,
    _runtime: Runtime,
}

impl Proxy {
    /// One to `port`, where nothing needs to listen yet.
    ///
    /// # Panics
    /// When no runtime, or no listener, can be made.
    pub fn to(port: u16) -> Self {
        let own = free_port();
        let (state, watched) = watch::channel(State { passage: Passage::Open, cuts: 0 });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the proxy");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, own))).expect("the proxy's listener");
        runtime.spawn(accept(listener, port, watched));
        Self { port: own, state, _runtime: runtime }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on the line does this; connections that there are stay.
    pub fn set(&self, passage: Passage) {
        self.state.send_modify(|state| state.passage = passage);
    }

    /// Resets every connection that there is; new ones are as before.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

async fn accept(listener: TcpListener, port: u16, state: watch::Receiver<State>) {
    while let Ok((near, _)) = listener.accept().await {
        let _ = near.set_nodelay(true);
        if state.borrow().passage == Passage::Closed {
            let _ = near.set_zero_linger();
            continue;
        }
        tokio::spawn(carry(near, port, state.clone()));
    }
}

async fn carry(mut near: TcpStream, port: u16, state: watch::Receiver<State>) {
    let cuts = state.borrow().cuts;
    let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    let _ = far.set_nodelay(true);
    let is_cut = {
        let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
        let mut watched = state.clone();
        tokio::select! {
            _ = async { tokio::join!(pump(near_in, far_out, state.clone()), pump(far_in, near_out, state.clone())) } => false,
            _ = watched.wait_for(|state| state.cuts != cuts || state.passage == Passage::Closed) => true,
        }
    };
    if is_cut {
        // Without this, what was sent last would still arrive, and then an end in order.
        let _ = near.set_zero_linger();
        let _ = far.set_zero_linger();
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        if state.wait_for(|state| state.passage != Passage::Held).await.is_err() {
            return;
        }
        let passage = state.borrow().passage;
        if let Passage::Delayed(delay) = passage {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Read, Write},
        net::{Ipv4Addr, TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use super::{Passage, Proxy};

    /// A service that answers each byte with the next one, and a line to it.
    fn line() -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&[byte[0] + 1]).is_ok() {}
                });
            }
        });
        Proxy::to(port)
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream
    }

    fn ask(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_all(&[6])?;
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    #[test]
    fn a_line_passes_holds_delays_is_cut_and_is_closed() {
        let proxy = line();
        let mut stream = connect(&proxy);
        assert_eq!(ask(&mut stream).unwrap(), 7);
        proxy.set(Passage::Held);
        let kind = ask(&mut stream).unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{kind}");
        proxy.set(Passage::Open);
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        proxy.set(Passage::Delayed(Duration::from_millis(40)));
        let asked = Instant::now();
        assert_eq!(ask(&mut stream).unwrap(), 7);
        assert!(asked.elapsed() >= Duration::from_millis(80));
        proxy.set(Passage::Open);
        proxy.cut();
        let broken = (0..2).find_map(|_| ask(&mut stream).err()).expect("the connection is gone");
        assert!(!matches!(broken.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{broken}");
        assert_eq!(ask(&mut connect(&proxy)).unwrap(), 7);
        proxy.set(Passage::Closed);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).and_then(|mut one| ask(&mut one)).is_err());
    }
}
