//! The token that nodes want: asked for before the first file, and again before it ends.

use std::time::Duration;

use longshore_core::Millis;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::plan::Plan;
use crate::{
    client::{self, Client},
    failure::Failure,
};

/// Renewed when it has less than this left: a node's clock may be ahead of the dashboard's.
const LEAST_LEFT: Duration = Duration::from_secs(3 * 60);

/// The permission to fetch one plan's backups.
pub(crate) struct Permission<'a> {
    client: &'a Client,
    request: Value,
    token: Mutex<Option<Token>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Token {
    token: String,
    expires_at: Millis,
    /// By our own clock, so that only the token's life counts, not whether the two clocks agree.
    #[serde(skip)]
    renew_at: Option<tokio::time::Instant>,
}

impl<'a> Permission<'a> {
    pub(crate) fn new(client: &'a Client, plan: &Plan) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "?".to_owned());
        let jobs: Vec<_> = plan.steps.iter().map(|step| step.job).collect();
        Self { client, request: json!({"backups": jobs, "subject": format!("{user}@{host}")}), token: Mutex::default() }
    }

    /// A token that is good for a while; `fresh` asks for another one whatever it says.
    pub(crate) async fn token(&self, fresh: bool) -> Result<String, Failure> {
        let mut kept = self.token.lock().await;
        let good = kept.as_ref().filter(|token| token.renew_at.is_some_and(|at| tokio::time::Instant::now() < at));
        if let Some(token) = good
            && !fresh
        {
            return Ok(token.token.clone());
        }
        let given = self.client.send_json(Method::POST, &["api", "v1", "restores"], &self.request).await?;
        let mut given: Token = client::read(given)?;
        let life = longshore_core::token::TOKEN_LIFE.min(given.expires_at.since(Millis(0)));
        given.renew_at = Some(tokio::time::Instant::now() + life.saturating_sub(LEAST_LEFT));
        Ok(kept.insert(given).token.clone())
    }
}
