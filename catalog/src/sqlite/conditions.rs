//! From a filter to a WHERE clause with its values; nothing of a filter ever becomes SQL text.

use longshore_core::{BackupType, BusinessId, InstanceName, NodeId, Outcome, ReasonCode, ServerId};
use rusqlite::types::Value;

use crate::{Filter, FreshnessQuery, TimeSpan, words};

/// The parts of a WHERE clause and their values, in order.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    parts: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    /// For the entries that pass `filter`.
    pub(super) fn of_filter(filter: &Filter) -> Self {
        let mut conditions = Self::default();
        conditions.equal("server_id", filter.server_id.as_ref().map(ServerId::as_str));
        conditions.equal("type", filter.backup_type.as_ref().map(BackupType::as_str));
        conditions.equal("instance", filter.instance.as_ref().map(InstanceName::as_str));
        conditions.equal("business_id", filter.business_id.as_ref().map(BusinessId::as_str));
        conditions.equal("node_id", filter.node_id.as_ref().map(NodeId::as_str));
        conditions.equal("reason", filter.reason.as_ref().map(ReasonCode::as_str));
        conditions.outcomes(&filter.outcomes);
        conditions.span("made_at", filter.made);
        conditions.span("stored_at", filter.stored);
        if let Some(text) = &filter.text {
            conditions.phrase(text);
        }
        conditions
    }

    /// For the instances that `query` asks for.
    pub(super) fn of_freshness(query: &FreshnessQuery) -> Self {
        let mut conditions = Self::default();
        conditions.equal("freshness.server_id", query.server_id.as_ref().map(ServerId::as_str));
        conditions.equal("type", query.backup_type.as_ref().map(BackupType::as_str));
        conditions.equal("business_id", query.business_id.as_ref().map(BusinessId::as_str));
        if let Some(before) = query.due_before {
            conditions.add("(due_at IS NULL OR due_at < ?)", [before.0.into()]);
        }
        conditions
    }

    /// One more part, with a `?` for each of its values.
    pub(super) fn add(&mut self, part: impl Into<String>, values: impl IntoIterator<Item = Value>) {
        self.parts.push(part.into());
        self.values.extend(values);
    }

    /// The clause: ` WHERE ...`, or nothing.
    pub(super) fn clause(&self) -> String {
        if self.parts.is_empty() { String::new() } else { format!(" WHERE {}", self.parts.join(" AND ")) }
    }

    /// The values, for the statement's parameters.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.values.iter()
    }

    fn equal(&mut self, column: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(format!("{column} = ?"), [value.to_owned().into()]);
        }
    }

    fn outcomes(&mut self, outcomes: &[Outcome]) {
        if !outcomes.is_empty() {
            let marks = vec!["?"; outcomes.len()].join(", ");
            self.add(format!("outcome IN ({marks})"), outcomes.iter().map(|o| o.as_str().to_owned().into()));
        }
    }

    fn span(&mut self, column: &str, span: TimeSpan) {
        if let Some(from) = span.from {
            self.add(format!("{column} >= ?"), [from.0.into()]);
        }
        if let Some(until) = span.until {
            self.add(format!("{column} < ?"), [until.0.into()]);
        }
    }

    /// A text without any word is in no entry.
    fn phrase(&mut self, text: &str) {
        let words = words::spaced(text);
        if words.is_empty() {
            self.add("FALSE", []);
        } else {
            let phrase = format!("\"{words}\"");
            self.add("entry IN (SELECT rowid FROM reason_words WHERE reason_words MATCH ?)", [phrase.into()]);
        }
    }
}
