//! How one run of rsync reaches its host: direct while no limit touches it, since a proxy costs a fifth of a loopback's speed;
//! through the proxy when one does. Both count what arrived from the host, for the watchdog and the report alike.

use std::io;

use longshore_core::{Source, Transport};

use super::{Bandwidth, Lane, connection::Connection, proxy::Pass};

const DAEMON_PORT: u16 = 873;
const SSH_PORT: u16 = 22;

/// One run's way.
#[derive(Debug)]
pub enum Route {
    /// The child connects by itself; what it receives is read from its socket, once there is one.
    Direct(Option<Connection>),
    /// Through the proxy.
    Proxied(Pass),
    /// From this machine: nothing comes over a line, no limit holds it.
    Local,
}

impl Bandwidth {
    /// The way for a run that fetches `source` and has to pass `lane`.
    ///
    /// # Errors
    /// When the proxy is needed and can't be started.
    pub async fn route(&self, source: &Source, lane: &Lane) -> io::Result<Route> {
        let port = match source.transport {
            Transport::Local => return Ok(Route::Local),
            Transport::RsyncDaemon => DAEMON_PORT,
            Transport::Ssh => SSH_PORT,
        };
        if lane.rate().is_none() && !self.is_hidden(source.transport) {
            return Ok(Route::Direct(None));
        }
        let pass = self.proxy().await?.grant(source.address.as_str(), source.port.unwrap_or(port), lane.clone())?;
        Ok(Route::Proxied(pass))
    }
}

impl Route {
    /// The pass of a run that goes through the proxy, as the child's environment carries it.
    pub fn proxy(&self) -> Option<String> {
        match self {
            Self::Proxied(pass) => Some(pass.url()),
            Self::Direct(_) | Self::Local => None,
        }
    }

    /// Bytes that arrived so far for the child `id`, over its line.
    ///
    /// # Errors
    /// When the system hides the sockets of our own children.
    pub fn received(&mut self, id: u32) -> io::Result<u64> {
        match self {
            Self::Proxied(pass) => Ok(pass.flow().received()),
            Self::Direct(connection) => {
                if connection.is_none() {
                    *connection = Connection::of(id)?;
                }
                connection.as_ref().map_or(Ok(0), Connection::received)
            }
            Self::Local => Ok(0),
        }
    }

    /// Returns when this way is no longer allowed: a limit of `lane` has come up for a run that goes direct.
    pub async fn must_change(&self, lane: &Lane) {
        match self {
            Self::Direct(_) => lane.limited().await,
            Self::Proxied(_) | Self::Local => std::future::pending().await,
        }
    }
}
