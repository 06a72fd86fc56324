//! Hearing what is published on a channel. A hint only: what is published while nobody is connected is never heard.

use std::fmt;

use futures_util::StreamExt;
use redis::{ErrorKind, RedisError, aio::PubSubStream};

use super::{CONNECT_WITHIN, LinkError, RedisLink};

/// A channel, on a connection of its own, which ends with this value.
pub struct Subscription {
    messages: PubSubStream,
}

impl RedisLink {
    /// Hears `channel` from now on.
    ///
    /// # Errors
    /// As [`RedisLink::query`].
    pub async fn subscribe(&self, channel: &str) -> Result<Subscription, LinkError> {
        let client = self.client().await?;
        let subscribe = async {
            let mut connection = client.get_async_pubsub().await?;
            connection.subscribe(channel).await?;
            Ok(connection.into_on_message())
        };
        let late = || Err(RedisError::from((ErrorKind::Io, "no connection in time")));
        let subscribed = tokio::time::timeout(CONNECT_WITHIN, subscribe).await.unwrap_or_else(|_| late());
        let username = self.shared.config.username.as_deref();
        let messages = subscribed.map_err(|error| LinkError::connecting(self.name(), username, error))?;
        Ok(Subscription { messages })
    }
}

impl Subscription {
    /// The next message; `None` when the connection has ended. May be dropped and called again.
    pub async fn next(&mut self) -> Option<String> {
        let message = self.messages.next().await?;
        Some(String::from_utf8_lossy(message.get_payload_bytes()).into_owned())
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}
