//! What operators set, on its way from the registry to the nodes: a version that is cheap to look at, and the body.

use super::{Queue, key, script};
use crate::{Policy, redis_link::LinkError};

/// What became of a policy that was to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is there.
    There,
    /// Another one is there and stays: a later one, or one of the same version. A greater version than this replaces it.
    Outrun {
        /// Of the other one.
        version: u64,
    },
}

impl Queue {
    /// Publishes a policy, unless a later one is there.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn publish_policy(&self, policy: &Policy) -> Result<Published, LinkError> {
        let body = self.json(policy, "policy")?;
        let mut call = script::POLICY.prepare_invoke();
        call.arg(policy.version).arg(body);
        let kept: String = self.run(&call).await?;
        if kept.is_empty() {
            return Ok(Published::There);
        }
        let version = kept.parse().map_err(|_| self.damaged(key("policy"), format!("version {kept:?}")))?;
        Ok(Published::Outrun { version })
    }

    /// The version that is there; `None` when none is.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn policy_version(&self) -> Result<Option<u64>, LinkError> {
        let mut command = redis::cmd("HGET");
        command.arg(key("policy")).arg("version");
        self.query(&command).await
    }

    /// The policy that is there, as text; `None` when none is. What can't be read as a [`Policy`] is the reader's to tell.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn policy(&self) -> Result<Option<String>, LinkError> {
        let mut command = redis::cmd("HGET");
        command.arg(key("policy")).arg("body");
        self.query(&command).await
    }
}
