//! `refused`: what the catalog did not take, for a person to look at and to try again.

use anyhow::Context;
use longshore_core::{
    Report,
    exit::Exit,
    queue::{DeadReport, Queue},
};

/// Lists, puts back, or throws one away.
///
/// # Errors
/// When Redis is away, or no refused report has the id.
pub async fn refused(queue: &Queue, retry: bool, drop: Option<&str>, json: bool) -> anyhow::Result<Exit> {
    let dead = queue.dead_reports().await.context(Exit::ServiceRefused)?;
    if let Some(id) = drop {
        let report = dead.iter().find(|report| report.id == id);
        let report = report.with_context(|| format!("no refused report has the id {id:?}")).context(Exit::Usage)?;
        queue.drop_report(report).await.context(Exit::ServiceRefused)?;
        println!("thrown away: {}", shown(report));
        return Ok(Exit::Done);
    }
    if retry {
        for report in &dead {
            queue.retry_report(report).await.context(Exit::ServiceRefused)?;
        }
        println!("{} put back on the stream", dead.len());
        return Ok(Exit::Done);
    }
    for report in &dead {
        if json {
            let body = serde_json::from_slice::<serde_json::Value>(&report.body).ok();
            let line = serde_json::json!({"id": report.id, "kind": report.kind, "why": report.why, "body": body});
            println!("{line}");
        } else {
            println!("{}", shown(report));
        }
    }
    if dead.is_empty() && !json {
        println!("none is refused");
    }
    Ok(if dead.is_empty() { Exit::Done } else { Exit::FoundWrong })
}

fn shown(report: &DeadReport) -> String {
    let what = match serde_json::from_slice::<Report>(&report.body) {
        Ok(body) => format!("{} {}", body.job.key(), body.job.id),
        Err(_) => format!("{} bytes of {:?}", report.body.len(), report.kind),
    };
    let at = report.written_at().map(|at| at.to_string()).unwrap_or_default();
    format!("{}  {at}  {what}  {}", report.id, report.why)
}
