//! `longshore queue cancel|hold|release|move|requeue`, and the way of asking that dead letters share: show first, then ask, then do,
//! and only to what was there to be shown.

use std::{collections::BTreeMap, io::IsTerminal as _};

use console::Term;
use longshore_core::{QueueName, exit::Exit};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::jobs::{Job, table};
use crate::{
    arguments::Change,
    client,
    commands::Context,
    failure::Failure,
    show::{self, text},
};

/// Of those that were left alone so many are shown.
const SHOWN_LEFT: usize = 20;

/// What one request of a change did, or would do.
#[derive(Debug, Deserialize)]
struct Changed {
    matched: u64,
    #[serde(default)]
    bytes: u64,
    changed: u64,
    more: bool,
    #[serde(default)]
    others: BTreeMap<String, u64>,
    left: Vec<Left>,
}

#[derive(Debug, Deserialize)]
struct Left {
    job: String,
    why: String,
}

/// What the requests of one change did, so far.
#[derive(Debug, Default)]
struct Done {
    changed: u64,
    /// Why each was left alone, by id: what one request left alone, the next one finds again.
    left: BTreeMap<String, String>,
    /// Whether some were not reached.
    more: bool,
}

pub(super) async fn run(
    context: &Context,
    action: &str,
    change: &Change,
    to: Option<&QueueName>,
) -> Result<Exit, Failure> {
    let preview = |value: &Value| {
        let items: Vec<Job> = client::read(value["items"].clone())?;
        show::table(&table(&items))
    };
    let doing = Doing { context, kind: "jobs", what: "job", action, change, to };
    doing.run(preview).await
}

/// One change, from its preview to its end.
pub(super) struct Doing<'a> {
    pub(super) context: &'a Context,
    /// In the address.
    pub(super) kind: &'a str,
    /// In sentences: `job`.
    pub(super) what: &'a str,
    pub(super) action: &'a str,
    pub(super) change: &'a Change,
    pub(super) to: Option<&'a QueueName>,
}

impl Doing<'_> {
    /// Exit code 1 when nothing was there to change, or something was left alone or not reached.
    pub(super) async fn run(&self, preview: impl Fn(&Value) -> Result<(), Failure>) -> Result<Exit, Failure> {
        let Change { filter, all, why, dry_run, yes } = self.change;
        filter.check()?;
        if filter.query().iter().all(|(name, _)| *name == "cluster") && !all {
            let (action, what) = (self.action, self.what);
            return Err(Failure::usage(format!("{action} which {what}s? give ids, a filter such as --host, or --all")));
        }
        // An empty variable in a script must not become every job.
        if filter.jobs.iter().any(|id| id.trim().is_empty()) {
            return Err(Failure::usage(format!("an empty id is no {}; leave it out, or name one", self.what)));
        }
        let mut body = json!({"filter": filter.body(), "all": all, "why": why, "to": self.to, "preview": true});
        let seen = self.send(&body).await?;
        let plan: Changed = client::read(seen.clone())?;
        if *dry_run && self.context.json {
            show::json(&seen)?;
            return Ok(if plan.matched == 0 { Exit::FoundWrong } else { Exit::Done });
        }
        if plan.matched == 0 {
            return self.nothing(&seen, &plan);
        }
        if !self.context.json {
            preview(&seen)?;
            show::lines(&self.summary(&plan))?;
        }
        if *dry_run {
            return Ok(Exit::Done);
        }
        if !yes && !self.confirmed()? {
            show::lines("nothing was changed")?;
            return Ok(Exit::FoundWrong);
        }
        body["preview"] = false.into();
        body["admitted_until"] = seen["admitted_until"].clone();
        let mut done = Done::default();
        let ended = self.perform(&body, &mut done).await;
        // What was done is told also when the rest failed.
        let told = if ended.is_ok() || done.changed > 0 || !done.left.is_empty() { self.tell(&done) } else { Ok(()) };
        ended.map_err(|failure| {
            failure.note("the request that failed may have changed some; the same command goes on")
        })?;
        told?;
        Ok(if done.left.is_empty() && !done.more { Exit::Done } else { Exit::FoundWrong })
    }

    /// Asks until all are changed, or nothing more is.
    async fn perform(&self, body: &Value, done: &mut Done) -> Result<(), Failure> {
        loop {
            let answer: Changed = client::read(self.send(body).await?)?;
            done.changed += answer.changed;
            done.left.extend(answer.left.into_iter().map(|left| (left.job, left.why)));
            done.more = answer.more;
            // What is left alone would be found again and again.
            if !answer.more || answer.changed == 0 {
                return Ok(());
            }
        }
    }

    async fn send(&self, body: &Value) -> Result<Value, Failure> {
        self.context.client.send_json(Method::POST, &["api", "v1", self.kind, self.action], body).await
    }

    /// `move 37 jobs, 1.2 GiB, to level1`.
    fn summary(&self, plan: &Changed) -> String {
        let mut text = format!("{} {}", self.action, text::count(plan.matched, self.what));
        if plan.bytes > 0 {
            text.push_str(&format!(", {}", text::size(plan.bytes)));
        }
        if let Some(to) = self.to {
            text.push_str(&format!(", to {to}"));
        }
        if !plan.others.is_empty() {
            text.push_str(&format!(" (left alone: {})", others(plan)));
        }
        text
    }

    fn nothing(&self, seen: &Value, plan: &Changed) -> Result<Exit, Failure> {
        if self.context.json {
            show::json(seen)?;
        } else if plan.others.is_empty() {
            show::lines(&format!("no {} to {} passes these filters", self.what, self.action))?;
        } else {
            show::lines(&format!("nothing to {}: {}", self.action, others(plan)))?;
        }
        Ok(Exit::FoundWrong)
    }

    fn confirmed(&self) -> Result<bool, Failure> {
        let is_shown = !self.context.json && Term::stdout().is_term();
        if !is_shown || !std::io::stdin().is_terminal() || !Term::stderr().is_term() {
            let message = format!("there is no terminal to show and ask on; --yes says to {} them", self.action);
            return Err(Failure::usage(message));
        }
        let term = Term::stderr();
        term.write_str("go on? [y/N] ")?;
        let answer = term.read_line()?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    fn tell(&self, Done { changed, left, more }: &Done) -> Result<(), Failure> {
        if self.context.json {
            let left: Vec<Value> = left.iter().map(|(job, why)| json!({"job": job, "why": why})).collect();
            return show::json(&json!({"changed": changed, "left": left, "more": more}));
        }
        show::lines(&format!("{}: {}", self.action, text::count(*changed, self.what)))?;
        for (job, why) in left.iter().take(SHOWN_LEFT) {
            show::lines(&format!("left alone: {job}: {why}"))?;
        }
        if left.len() > SHOWN_LEFT {
            show::lines(&format!("and {} more left alone; --json lists them", left.len() - SHOWN_LEFT))?;
        }
        if *more {
            show::lines("more pass the filter and were not reached")?;
        }
        Ok(())
    }
}

/// `3 leased, 1 held`.
fn others(plan: &Changed) -> String {
    let parts: Vec<String> = plan.others.iter().map(|(state, count)| format!("{count} {state}")).collect();
    parts.join(", ")
}
