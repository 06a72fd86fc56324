//! The `[redis]` table, the same in every program: where the queue is and how to speak to it.

use serde::{Deserialize, Serialize};

use super::Secret;

/// How to reach the queue Redis. With `sentinel`, `address` is not used: the master is asked for by name.
///
/// ```toml
/// [redis]
/// address = "10.0.0.5:6379"
/// password_file = "/etc/longshore/redis.password"
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RedisConfig {
    /// `host:port`; without a port, 6379.
    pub address: String,
    /// The ACL user; without one, Redis's `default`.
    pub username: Option<String>,
    /// That user's password.
    pub password: Option<Secret>,
    /// The database's number.
    pub db: i64,
    /// Speak TLS, checked against the system's certificate authorities.
    pub tls: bool,
    /// Ask these for the master.
    pub sentinel: Option<SentinelConfig>,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self { address: "127.0.0.1:6379".to_owned(), username: None, password: None, db: 0, tls: false, sentinel: None }
    }
}

/// The sentinels of a queue Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentinelConfig {
    /// The master's name in the sentinels' own configuration.
    pub master: String,
    /// Each `host:port`.
    pub addresses: Vec<String>,
    /// The sentinels' own password, if they have one.
    #[serde(default)]
    pub password: Option<Secret>,
}
