//! Rules of operators that Redis itself decides by: hosts' limits and windows, and the places of waiting jobs. Every node puts
//! into force what it holds to be right; a record of what is in force keeps that from being done over and over.
//!
//! Nodes are told the same by the registry. Where their own files differ, each puts its own word into force once, not again
//! and again against the others.

use std::collections::BTreeMap;

use super::{HostOverrides, Level, Queue, key};
use crate::{
    Millis, ServerId,
    calendar::Shut,
    policy::{HostRule, PerSecond},
    redis_link::LinkError,
};

/// Stands for a window that never opens; what Lua counts exactly, in microseconds.
const NEVER: Millis = Millis(9_000_000_000_000);

/// What one process holds to be in force.
#[derive(Debug, Default)]
pub struct Ruled {
    hosts: Said,
    levels: Said,
    /// Whether it has looked already: what an earlier process put into force and nobody says any more is taken back then.
    looked: bool,
}

/// By name, the word this process says, and the one it said before: found in Redis again, Redis has lost its last second.
type Said = BTreeMap<String, (String, Option<String>)>;

impl Queue {
    /// Puts hosts' rules into force, and takes back those that are not said any more. `shut` are those whose window is closed.
    ///
    /// # Errors
    /// [`LinkError`]; done again it goes on where it ended.
    pub async fn rule_hosts(
        &self,
        rules: &BTreeMap<ServerId, HostRule>,
        shut: &BTreeMap<ServerId, Shut>,
        done: &mut Ruled,
    ) -> Result<(), LinkError> {
        let there = self.in_force("ruled_hosts").await?;
        for (host, rule) in rules {
            let (name, shut) = (host.as_str(), shut.get(host));
            let word = serde_json::to_string(&(rule, shut)).map_err(|error| self.damaged(name, error))?;
            if is_news(&there, &done.hosts, name, &word) {
                self.limit_host(host, &overrides(rule)).await?;
                match shut {
                    Some(shut) => self.close_host(host, shut.until.unwrap_or(NEVER), &shut.to_string()).await?,
                    None => self.open_host(host).await?,
                }
                self.note("ruled_hosts", name, &word).await?;
            }
            say(&mut done.hosts, name, word);
        }
        for name in there.keys().filter(|name| !done.looked || done.hosts.contains_key(*name)) {
            let Ok(host) = name.parse::<ServerId>() else { continue };
            if !rules.contains_key(&host) {
                self.limit_host(&host, &HostOverrides::default()).await?;
                self.open_host(&host).await?;
                self.query::<()>(redis::cmd("HDEL").arg(key("ruled_hosts")).arg(name)).await?;
            }
        }
        done.hosts.retain(|name, _| rules.keys().any(|host| host.as_str() == name));
        done.looked = true;
        Ok(())
    }

    /// Gives waiting jobs the places that their levels' rules say.
    ///
    /// # Errors
    /// [`LinkError`]; done again it goes on where it ended.
    pub async fn rule_levels(&self, levels: &[Level], done: &mut Ruled) -> Result<(), LinkError> {
        let mut there = self.in_force("ruled_levels").await?;
        for level in levels {
            let name = level.name.as_str();
            // The rule of jobs that nobody has placed anew.
            there.entry(name.to_owned()).or_insert_with(|| Level::new(level.name.clone()).place_text());
            let word = level.place_text();
            if is_news(&there, &done.levels, name, &word) {
                self.relevel(level).await?;
                self.note("ruled_levels", name, &word).await?;
            }
            say(&mut done.levels, name, word);
        }
        Ok(())
    }

    async fn in_force(&self, of: &str) -> Result<BTreeMap<String, String>, LinkError> {
        self.query(redis::cmd("HGETALL").arg(key(of))).await
    }

    async fn note(&self, of: &str, name: &str, word: &str) -> Result<(), LinkError> {
        self.query(redis::cmd("HSET").arg(key(of)).arg(name).arg(word)).await
    }
}

/// Whether `word` is not in force. If this process has said it before, another one has put its own in its place, and is left
/// alone; unless it is what this process itself said before.
fn is_news(there: &BTreeMap<String, String>, said: &Said, name: &str, word: &str) -> bool {
    let Some(other) = there.get(name) else { return true };
    other != word
        && said
            .get(name)
            .is_none_or(|(said, before)| said != word || before.as_ref().is_some_and(|before| before == other))
}

fn say(said: &mut Said, name: &str, word: String) {
    match said.get_mut(name) {
        Some((now, _)) if *now == word => {}
        Some((now, before)) => *before = Some(std::mem::replace(now, word)),
        None => _ = said.insert(name.to_owned(), (word, None)),
    }
}

fn overrides(rule: &HostRule) -> HostOverrides {
    HostOverrides {
        transfers: rule.transfers.map(Into::into),
        starts_per_second: rule.starts_per_second.map(PerSecond::get),
        modules: rule.modules.iter().map(|(module, transfers)| (module.clone(), (*transfers).into())).collect(),
    }
}
