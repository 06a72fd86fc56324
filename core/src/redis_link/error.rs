//! Why Redis did not do what was asked, and whether asking again can help.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// An error of a queue Redis. Every variant names the Redis as [`super::RedisLink::name`] does.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// No connection could be opened.
    #[error("redis {name} is not reachable: {text}")]
    Unreachable {
        /// Which Redis.
        name: String,
        /// What the system said.
        text: String,
    },
    /// The connection broke, or the answer took too long: what was asked may or may not have been done.
    #[error("redis {name}: the connection broke before the answer: {text}")]
    Interrupted {
        /// Which Redis.
        name: String,
        /// What the system said.
        text: String,
    },
    /// No answer in time: what was asked may or may not have been done, now or later.
    #[error("redis {name} does not answer: {text}")]
    Slow {
        /// Which Redis.
        name: String,
        /// What the system said.
        text: String,
    },
    /// The server can't do it now: it is loading, is a replica, is out of memory, or can't write its file.
    #[error("redis {name} can't do this now: {text}")]
    NotNow {
        /// Which Redis.
        name: String,
        /// The server's words.
        text: String,
    },
    /// Wrong password, no password, or a user who may not do this.
    #[error("redis {name} refuses user {user:?}: {text}; check [redis] username and password, and the user's ACL")]
    Login {
        /// Which Redis.
        name: String,
        /// As whom.
        user: String,
        /// The server's words.
        text: String,
    },
    /// Any other answer: a setting that can't work, a key of another type, an old server.
    #[error("redis {name} refuses: {text}")]
    Refused {
        /// Which Redis.
        name: String,
        /// The server's words.
        text: String,
    },
    /// What was stored can't be understood.
    #[error("redis {name}: {key} is damaged: {text}")]
    Damaged {
        /// Which Redis.
        name: String,
        /// The record.
        key: String,
        /// What is wrong with it.
        text: String,
    },
}

impl LinkError {
    /// Whether the same request can succeed later without anyone changing the configuration.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Interrupted { .. } | Self::Slow { .. } | Self::NotNow { .. })
    }

    /// Whether the connection is of no more use. After `READONLY` it is to the wrong server.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Interrupted { .. } | Self::Slow { .. } | Self::Unreachable { .. } | Self::Login { .. } => true,
            Self::NotNow { text, .. } => text.contains("READONLY") || text.contains("MASTERDOWN"),
            Self::Refused { .. } | Self::Damaged { .. } => false,
        }
    }

    /// Whether asking once more, at once, is worthwhile: the connection was found broken.
    pub(crate) fn is_stale_connection(&self) -> bool {
        matches!(self, Self::Interrupted { .. }) || (self.ends_connection() && matches!(self, Self::NotNow { .. }))
    }

    /// An error of the configuration itself.
    pub(super) fn setting(name: &str, error: RedisError) -> Self {
        Self::Refused { name: name.to_owned(), text: words(&error) }
    }

    /// An error while a connection was opened.
    pub(super) fn connecting(name: &str, user: Option<&str>, error: RedisError) -> Self {
        match Self::answering(name, user, error) {
            Self::Interrupted { name, text } | Self::Slow { name, text } => Self::Unreachable { name, text },
            other => other,
        }
    }

    /// An error instead of an answer.
    pub(super) fn answering(name: &str, user: Option<&str>, error: RedisError) -> Self {
        let (name, text) = (name.to_owned(), words(&error));
        // Within a script Redis 6.2 wraps the code into a sentence, so the text counts as well.
        let not_now = ["READONLY", "OOM ", "MISCONF", "NOREPLICAS", "LOADING", "MASTERDOWN", "BUSY "];
        match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => {
                Self::login(name, user, text)
            }
            _ if text.contains("NOAUTH") || text.contains("WRONGPASS") => Self::login(name, user, text),
            ErrorKind::Io if error.is_timeout() => Self::Slow { name, text },
            ErrorKind::Io | ErrorKind::Parse | ErrorKind::ClusterConnectionNotFound => Self::Interrupted { name, text },
            ErrorKind::MasterNameNotFoundBySentinel => Self::Unreachable { name, text },
            _ if not_now.iter().any(|code| text.contains(code)) => Self::NotNow { name, text },
            ErrorKind::Server(ServerErrorKind::TryAgain | ServerErrorKind::BusyLoading) => Self::NotNow { name, text },
            _ => Self::Refused { name, text },
        }
    }

    fn login(name: String, user: Option<&str>, text: String) -> Self {
        Self::Login { name, user: user.unwrap_or("default").to_owned(), text }
    }
}

/// The server's code and words, or the system's.
fn words(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}
