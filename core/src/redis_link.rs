//! The connection to a queue Redis: one multiplexed connection, opened at first use, shared by all clones.
//!
//! A connection is thrown away, and the address (or the sentinels) asked again at the next use, when it breaks, when an answer
//! takes too long, and when the server turns out to be a replica: after a failover the old master answers `READONLY` for as
//! long as it lives. A command is sent once; whether to repeat it is its sender's decision, who knows whether it is safe.

mod error;
mod subscription;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, ScriptInvocation, TlsMode,
    aio::MultiplexedConnection,
    io::tcp::TcpSettings,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use tokio::sync::Mutex;

use crate::config::{RedisConfig, Secret, SentinelConfig};

pub use self::{error::LinkError, subscription::Subscription};

/// The library's own are 1 s and 500 ms; a Redis that rewrites its file on a busy disk can be slower than that.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// To find the master through sentinels, some of which may be gone.
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26379;

/// A lazy, self-healing connection to one Redis. Clones share it.
#[derive(Clone)]
pub struct RedisLink {
    shared: Arc<Shared>,
}

struct Shared {
    config: RedisConfig,
    /// How errors name the Redis.
    name: String,
    state: Mutex<State>,
    /// Counts failed attempts to connect, so that those who waited during one share its error instead of each waiting for
    /// one of their own.
    failures: AtomicU64,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a late error of an old one doesn't end its successor.
    generation: u64,
    last_failure: Option<LinkError>,
}

impl fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisLink({})", self.shared.name)
    }
}

impl RedisLink {
    /// Remembers where Redis is; connects at first use.
    pub fn new(config: &RedisConfig) -> Self {
        let name = match &config.sentinel {
            Some(sentinel) => format!("{} (sentinels {})", sentinel.master, sentinel.addresses.join(", ")),
            None => config.address.clone(),
        };
        let (state, failures) = (Mutex::default(), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { config: config.clone(), name, state, failures }) }
    }

    /// How errors and logs name this Redis: its address, or its master's name and the sentinels.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Sends one command.
    ///
    /// # Errors
    /// [`LinkError`]; when it [is transient](LinkError::is_transient) the command may or may not have been done.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LinkError> {
        let (generation, mut connection) = self.connection().await?;
        let answer = command.query_async(&mut connection).await;
        self.checked(generation, answer).await
    }

    /// Runs a script, which is loaded first where the server doesn't know it.
    ///
    /// # Errors
    /// As [`RedisLink::query`].
    pub async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, LinkError> {
        let (generation, mut connection) = self.connection().await?;
        let answer = script.invoke_async(&mut connection).await;
        self.checked(generation, answer).await
    }

    /// Sends several commands in one go.
    ///
    /// # Errors
    /// As [`RedisLink::query`].
    pub async fn pipe<T: FromRedisValue>(&self, pipe: &Pipeline) -> Result<T, LinkError> {
        let (generation, mut connection) = self.connection().await?;
        let answer = pipe.query_async(&mut connection).await;
        self.checked(generation, answer).await
    }

    /// What is missing for a queue: each a sentence that says what to change. Empty when all is well.
    ///
    /// # Errors
    /// As [`RedisLink::query`].
    pub async fn requirements(&self) -> Result<Vec<String>, LinkError> {
        let info: String = self.query(redis::cmd("INFO").arg("everything")).await?;
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or("");
        let mut missing = Vec::new();
        let version = field("redis_version");
        let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (6, 2) {
            missing.push(format!("redis {} has version {version}; 6.2 or newer is needed", self.name()));
        }
        let policy = field("maxmemory_policy");
        if !policy.is_empty() && policy != "noeviction" {
            missing.push(format!(
                "redis {} has maxmemory-policy {policy}: under memory pressure it would drop waiting jobs; set noeviction",
                self.name()
            ));
        }
        if field("aof_enabled") == "0" {
            missing.push(format!(
                "redis {} keeps no append-only file: a restart loses what waits; set appendonly yes",
                self.name()
            ));
        }
        if field("cluster_enabled") == "1" {
            missing.push(format!(
                "redis {} is in cluster mode, which is not supported; use one master, with sentinels if wanted",
                self.name()
            ));
        }
        Ok(missing)
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), LinkError> {
        let failures = self.shared.failures.load(Ordering::Acquire);
        let mut state = self.shared.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((state.generation, connection.clone()));
        }
        if failures != self.shared.failures.load(Ordering::Acquire)
            && let Some(failure) = &state.last_failure
        {
            return Err(failure.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                state.generation += 1;
                state.connection = Some(connection.clone());
                Ok((state.generation, connection))
            }
            Err(failure) => {
                state.last_failure = Some(failure.clone());
                self.shared.failures.fetch_add(1, Ordering::Release);
                Err(failure)
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, LinkError> {
        let client = self.client().await?;
        let timeouts = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN));
        let connected = client.get_multiplexed_async_connection_with_config(&timeouts).await;
        connected.map_err(|error| LinkError::connecting(self.name(), self.shared.config.username.as_deref(), error))
    }

    /// Where the master is now.
    async fn client(&self) -> Result<Client, LinkError> {
        let Some(sentinel) = &self.shared.config.sentinel else {
            return self.address_client().map_err(|error| LinkError::setting(self.name(), error));
        };
        let resolve = async { self.sentinel_client(sentinel)?.async_get_client().await };
        match tokio::time::timeout(RESOLVE_WITHIN, resolve).await {
            Ok(found) => {
                found.map_err(|error| LinkError::connecting(self.name(), self.shared.config.username.as_deref(), error))
            }
            Err(_) => Err(LinkError::Unreachable {
                name: self.name().to_owned(),
                text: format!("no sentinel named a master within {RESOLVE_WITHIN:?}"),
            }),
        }
    }

    fn address_client(&self) -> Result<Client, RedisError> {
        let config = &self.shared.config;
        let (host, port) = host_and_port(&config.address, DEFAULT_PORT);
        let address = if config.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let mut settings = RedisConnectionInfo::default().set_db(config.db);
        if let Some(username) = &config.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &config.password {
            settings = settings.set_password(password.expose());
        }
        let info: ConnectionInfo = address.into_connection_info()?;
        Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp()))
    }

    fn sentinel_client(&self, sentinel: &SentinelConfig) -> Result<redis::sentinel::SentinelClient, RedisError> {
        let config = &self.shared.config;
        let addresses = sentinel.addresses.iter().map(|address| {
            let (host, port) = host_and_port(address, DEFAULT_SENTINEL_PORT);
            ConnectionAddr::Tcp(host, port)
        });
        let mut builder = SentinelClientBuilder::new(addresses, &sentinel.master, SentinelServerType::Master)?
            .set_client_to_redis_db(config.db)
            .set_client_to_redis_tcp_settings(tcp());
        if config.tls {
            builder =
                builder.set_client_to_redis_tls_mode(TlsMode::Secure).set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        if let Some(username) = &config.username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = &config.password {
            builder = builder.set_client_to_redis_password(password.expose());
        }
        if let Some(password) = sentinel.password.as_ref().map(Secret::expose) {
            builder = builder.set_client_to_sentinel_password(password);
        }
        builder.build()
    }

    /// Classifies an error, and throws the connection away when it must not be used again.
    async fn checked<T>(&self, generation: u64, answer: Result<T, RedisError>) -> Result<T, LinkError> {
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => LinkError::answering(self.name(), self.shared.config.username.as_deref(), error),
        };
        if error.ends_connection() {
            let mut state = self.shared.state.lock().await;
            if state.generation == generation {
                state.connection = None;
            }
        }
        Err(error)
    }
}

/// Without it each small request waits for the delayed acknowledgement of the one before.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// `host`, `host:port`, `address`, `[v6]:port`, or a bare IPv6 address.
fn host_and_port(address: &str, default_port: u16) -> (String, u16) {
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (bare(host), port),
            Err(_) => (bare(address), default_port),
        },
        _ => (bare(address), default_port),
    }
}

#[cfg(test)]
mod tests {
    use super::host_and_port;

    #[test]
    fn an_address_may_leave_its_port_out_and_be_ipv6() {
        let split = |text| host_and_port(text, 6379);
        assert_eq!(split("db.example:7000"), ("db.example".to_owned(), 7000));
        assert_eq!(split("10.0.0.5"), ("10.0.0.5".to_owned(), 6379));
        assert_eq!(split("[::1]:7000"), ("::1".to_owned(), 7000));
        assert_eq!(split("::1"), ("::1".to_owned(), 6379));
        assert_eq!(split("[::1]"), ("::1".to_owned(), 6379));
    }
}
