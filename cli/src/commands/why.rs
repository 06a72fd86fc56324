//! `longshore why`.

use longshore_core::{Millis, exit::Exit};
use serde::Deserialize;

use super::Context;
use crate::{
    client,
    failure::Failure,
    show::{self, text},
};

/// Of a job, or of an instance with its jobs.
#[derive(Debug, Deserialize)]
struct Why {
    job: Option<String>,
    answer: String,
    facts: Vec<Fact>,
    #[serde(default)]
    nodes: Vec<Node>,
    #[serde(default)]
    queued: u64,
    #[serde(default)]
    jobs: Vec<Why>,
}

#[derive(Debug, Deserialize)]
struct Fact {
    name: String,
    text: String,
    at: Option<Millis>,
}

#[derive(Debug, Deserialize)]
struct Node {
    node_id: String,
    text: String,
}

pub(super) async fn run(context: &Context, what: &str) -> Result<Exit, Failure> {
    let path: Vec<&str> = ["api", "v1", "why"].into_iter().chain(what.split('/')).collect();
    if !matches!(path.len(), 4 | 6) {
        return Err(Failure::usage(format!("{what:?} is neither a job's id nor SERVER/TYPE/INSTANCE")));
    }
    let value = context.client.get(&path, &[]).await?;
    if context.json {
        show::json(&value)?;
        return Ok(Exit::Done);
    }
    let why: Why = client::read(value)?;
    tell(&why)?;
    for job in &why.jobs {
        show::lines(&format!("\njob {}", job.job.as_deref().unwrap_or_default()))?;
        tell(job)?;
    }
    let explained = why.jobs.len();
    if explained > 0 && why.queued > explained as u64 {
        let text = format!(
            "{explained} of {} jobs are explained; `longshore queue jobs --instance {what}` lists them",
            why.queued
        );
        show::lines(&format!("\n{}", show::note(&text)))?;
    }
    Ok(Exit::Done)
}

fn tell(why: &Why) -> Result<(), Failure> {
    show::lines(&show::note(&why.answer))?;
    let value = |fact: &Fact| match fact.at {
        Some(at) => format!("{} ({})", fact.text, text::moment(at)),
        None => fact.text.clone(),
    };
    let facts: Vec<(&str, String)> = why.facts.iter().map(|fact| (fact.name.as_str(), value(fact))).collect();
    show::fields(&facts)?;
    if !why.nodes.is_empty() {
        show::lines("why no node has it yet:")?;
        let nodes: Vec<_> = why.nodes.iter().map(|node| (format!("  {}", node.node_id), node.text.clone())).collect();
        let nodes: Vec<_> = nodes.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
        show::fields(&nodes)?;
    }
    Ok(())
}
