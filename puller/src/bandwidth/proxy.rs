//! The proxy on this machine's own loopback that transfers with a limit go through: rsync asks it by CONNECT for its host.
//!
//! Who may use it is decided by a [`Pass`]: one for each run of rsync, with a random token that only that child's environment
//! holds, good for that job's host and port and nothing else, and for as long as the pass lives. Other users of the machine
//! can reach the port, and get nothing.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use subtle::ConstantTimeEq;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, lookup_host},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Lane,
    connect::{self, Head},
    tunnel::{self, Flow},
};

/// To send a head, and to be told of a host that does not answer.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(14);
/// Requests whose login is not known yet.
const MOST_STRANGERS: usize = 256;
/// After an accept that failed, which is for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The listening proxy; it ends with its value.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    grants: Arc<Mutex<Grants>>,
    _ends: DropGuard,
}

#[derive(Debug, Default)]
struct Grants {
    last: u64,
    by_user: HashMap<String, Grant>,
}

/// What a pass allows.
#[derive(Debug, Clone)]
struct Grant {
    token: String,
    host: String,
    port: u16,
    lane: Lane,
    flow: Arc<Flow>,
    ends: CancellationToken,
}

/// One run's permission; its connections end with it.
#[derive(Debug)]
pub struct Pass {
    address: String,
    login: String,
    user: String,
    flow: Arc<Flow>,
    grants: Arc<Mutex<Grants>>,
    _ends: DropGuard,
}

impl Proxy {
    /// Listens on a free port of the loopback.
    ///
    /// # Errors
    /// When it can't.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (grants, ends) = (Arc::default(), CancellationToken::new());
        let accepting = accept(listener, Arc::clone(&grants));
        let ended = ends.clone();
        tokio::spawn(async move { ended.run_until_cancelled_owned(accepting).await });
        Ok(Self { port, grants, _ends: ends.drop_guard() })
    }

    /// Allows one run to reach `host` at `port`, through `lane`.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn grant(&self, host: &str, port: u16, lane: Lane) -> io::Result<Pass> {
        let mut token = [0u8; 16];
        getrandom::fill(&mut token).map_err(io::Error::other)?;
        let token = format!("{:032x}", u128::from_ne_bytes(token));
        let (flow, ends) = (Arc::<Flow>::default(), CancellationToken::new());
        let mut grants = locked(&self.grants);
        grants.last += 1;
        let user = grants.last.to_string();
        let login = format!("{user}:{token}");
        let (host, ended) = (host.to_owned(), ends.clone());
        grants.by_user.insert(user.clone(), Grant { token, host, port, lane, flow: Arc::clone(&flow), ends: ended });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).to_string();
        Ok(Pass { address, login, user, flow, grants: Arc::clone(&self.grants), _ends: ends.drop_guard() })
    }
}

impl Pass {
    /// `USER:TOKEN@127.0.0.1:PORT`, as rsync and our relay take it: from the environment.
    pub fn url(&self) -> String {
        format!("{}@{}", self.login, self.address)
    }

    /// What came through so far.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        locked(&self.grants).by_user.remove(&self.user);
    }
}

async fn accept(listener: TcpListener, grants: Arc<Mutex<Grants>>) {
    let strangers = Arc::new(Semaphore::new(MOST_STRANGERS));
    loop {
        let Ok(place) = Arc::clone(&strangers).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let grants = Arc::clone(&grants);
                tokio::spawn(async move {
                    let (client, admitted) = admit(client, &grants).await;
                    drop(place);
                    match admitted {
                        Ok(grant) => _ = grant.ends.run_until_cancelled(serve(client, &grant)).await,
                        Err(answer) => refuse(client, answer).await,
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the proxy can't take a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Reads the request and finds what it is allowed, or what it is answered.
async fn admit(mut client: TcpStream, grants: &Mutex<Grants>) -> (TcpStream, Result<Grant, &'static str>) {
    let Ok(Ok(Some(head))) = timeout(HEAD_WITHIN, read_head(&mut client)).await else {
        return (client, Err("400 not a CONNECT with a login"));
    };
    let grant = locked(grants).by_user.get(&head.user).cloned();
    let granted = grant.filter(|grant| bool::from(grant.token.as_bytes().ct_eq(head.token.as_bytes())));
    let admitted = match granted {
        None => Err("407 no such login"),
        Some(grant) if !grant.host.eq_ignore_ascii_case(&head.host) || grant.port != head.port => {
            tracing::warn!(asked = %head.host, port = head.port, allowed = %grant.host, "a transfer asked for another host");
            Err("403 this transfer may reach its own host only")
        }
        Some(grant) => Ok(grant),
    };
    (client, admitted)
}

async fn read_head(client: &mut TcpStream) -> io::Result<Option<Head>> {
    let mut bytes = Vec::with_capacity(connect::MOST_BYTES);
    loop {
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        match connect::length(&bytes) {
            // What follows a head before it is answered is no client of ours.
            Some(length) => return Ok(if length == bytes.len() { connect::parse(&bytes) } else { None }),
            None if bytes.len() >= connect::MOST_BYTES => return Ok(None),
            None => {}
        }
    }
}

async fn serve(mut client: TcpStream, grant: &Grant) {
    let host = match timeout(CONNECT_WITHIN, reach(&grant.host, grant.port)).await {
        Ok(Ok(host)) => host,
        Ok(Err(error)) => return refuse(client, &format!("502 {error}")).await,
        Err(_) => return refuse(client, "504 the host does not answer").await,
    };
    let joined = async {
        client.set_nodelay(true)?;
        client.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await?;
        tunnel::join(host, client, &grant.lane, &grant.flow).await
    };
    if let Err(error) = joined.await {
        // The transfer's own exit code is what counts.
        tracing::debug!(host = %grant.host, %error, "a proxied connection broke");
    }
}

async fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host's name has no address");
    for address in lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// rsync shows the first line of the answer.
async fn refuse(mut client: TcpStream, answer: &str) {
    let _ = timeout(HEAD_WITHIN, client.write_all(format!("HTTP/1.0 {answer}\r\n\r\n").as_bytes())).await;
}

fn locked(grants: &Mutex<Grants>) -> MutexGuard<'_, Grants> {
    grants.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longshore_tests::wait_until;

    use super::*;
    use crate::bandwidth::{Bandwidth, Caps};

    fn lane(bandwidth: &Bandwidth) -> Lane {
        bandwidth.lane(&"1".parse().unwrap(), &"level1".parse().unwrap())
    }

    /// A host that sends `bytes` to whoever comes, then what it was sent.
    async fn host(bytes: usize) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    stream.write_all(&vec![7; bytes]).await.unwrap();
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                });
            }
        });
        port
    }

    async fn ask(pass: &Pass, login: &str, host: &str, port: u16) -> (TcpStream, String) {
        let mut client = TcpStream::connect(&pass.address).await.unwrap();
        client.write_all(connect::write(host, port, login).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while connect::length(&answer).is_none() && client.read_buf(&mut answer).await.unwrap() > 0 {
            assert!(answer.len() <= connect::MOST_BYTES);
        }
        let length = connect::length(&answer).unwrap_or(answer.len()).min(19);
        (client, String::from_utf8_lossy(&answer[..length]).trim_end().to_owned())
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_are_counted() {
        let port = host(3_000_000).await;
        let (proxy, bandwidth) = (Proxy::start().await.unwrap(), Bandwidth::default());
        bandwidth.set_caps(Caps { node: Some(100_000_000), ..Caps::default() });
        let pass = proxy.grant("127.0.0.1", port, lane(&bandwidth)).unwrap();
        let mut client = TcpStream::connect(&pass.address).await.unwrap();
        client.write_all(connect::write("127.0.0.1", port, &pass.login).as_bytes()).await.unwrap();
        let mut answer = [0; 19];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.0 200 OK\r\n\r\n");
        client.write_all(b"words").await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!((received.len(), received.ends_with(b"words")), (3_000_005, true));
        assert_eq!((pass.flow().received(), bandwidth.node().passed()), (3_000_005, 3_000_005));
    }

    #[tokio::test]
    async fn nobody_else_gets_through_and_nowhere_else() {
        let (port, proxy, bandwidth) = (host(1).await, Proxy::start().await.unwrap(), Bandwidth::default());
        let pass = proxy.grant("127.0.0.1", port, lane(&bandwidth)).unwrap();
        let other = proxy.grant("127.0.0.1", port, lane(&bandwidth)).unwrap();
        let (_, token) = other.login.split_once(':').unwrap();
        for login in [format!("{}:{token}", pass.user), format!("{}:", pass.user), "9:x".to_owned(), ":".to_owned()] {
            assert_eq!(ask(&pass, &login, "127.0.0.1", port).await.1, "HTTP/1.0 407 no suc");
        }
        assert_eq!(ask(&pass, &pass.login, "127.0.0.2", port).await.1, "HTTP/1.0 403 this t");
        assert_eq!(ask(&pass, &pass.login, "127.0.0.1", port ^ 1).await.1, "HTTP/1.0 403 this t");
        let ended = other.login.clone();
        drop(other);
        assert_eq!(ask(&pass, &ended, "127.0.0.1", port).await.1, "HTTP/1.0 407 no suc");
        let (_client, answer) = ask(&pass, &pass.login, "127.0.0.1", port).await;
        assert_eq!(answer, "HTTP/1.0 200 OK");
        wait_until("the host's byte is here", HEAD_WITHIN, async || pass.flow().received() == 1).await;
    }

    #[tokio::test]
    async fn endless_heads_and_early_words_are_refused() {
        let (proxy, bandwidth) = (Proxy::start().await.unwrap(), Bandwidth::default());
        let pass = proxy.grant("127.0.0.1", 1, lane(&bandwidth)).unwrap();
        let early = connect::write("127.0.0.1", 1, &pass.login) + "early";
        for bytes in [vec![b'x'; connect::MOST_BYTES], early.into_bytes(), b"\r\n\r\n".to_vec()] {
            let mut client = TcpStream::connect(&pass.address).await.unwrap();
            client.write_all(&bytes).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.0 400"));
        }
        assert_eq!(ask(&pass, &pass.login, "127.0.0.1", 1).await.1, "HTTP/1.0 502 Connec");
    }

    #[tokio::test]
    async fn a_connection_ends_with_its_pass() {
        let (port, proxy, bandwidth) = (host(1).await, Proxy::start().await.unwrap(), Bandwidth::default());
        let pass = proxy.grant("127.0.0.1", port, lane(&bandwidth)).unwrap();
        let (mut client, answer) = ask(&pass, &pass.login, "127.0.0.1", port).await;
        assert_eq!(answer, "HTTP/1.0 200 OK");
        drop(pass);
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(20), client.read_to_end(&mut rest)).await;
        assert!(ended.is_ok() && rest.len() <= 1);
    }
}
