//! `longshore restore`: the plan is computed by the dashboard; the files come from the nodes, are checked here, and are handed
//! to the user's script in order. What was fetched stays, so that a try that was cut goes on where it ended.

pub mod at;
mod fetch;
mod folder;
mod node;
mod permission;
mod plan;
mod progress;
mod script;

use std::{path::PathBuf, time::Instant};

use longshore_core::{InstanceKey, Millis, exit::Exit};
use serde_json::{Value, json};

use self::{at::At, folder::Folder, plan::Plan, progress::Progress, script::Script};
use crate::{
    arguments::{RestoreCommand, RestoreFetch},
    client,
    commands::Context,
    failure::Failure,
    show::{self, text},
};

pub(crate) async fn run(context: &Context, command: RestoreCommand) -> Result<Exit, Failure> {
    match command {
        RestoreCommand::Plan(what) => show_plan(context, &what.instance, what.at).await,
        RestoreCommand::Fetch(args) => {
            let began = Instant::now();
            let (plan, folder, fetched) = fetch_all(context, &args).await?;
            tell(context, result(&plan, &folder, &fetched, began), &plan, &folder)?;
            Ok(Exit::Done)
        }
        RestoreCommand::Run(args) if args.dry_run => {
            show_plan(context, &args.fetch.what.instance, args.fetch.what.at).await
        }
        RestoreCommand::Run(args) => {
            let began = Instant::now();
            let script = Script::find(args.script.unwrap_or_default())?;
            let (plan, folder, fetched) = fetch_all(context, &args.fetch).await?;
            let end = script.run(&plan, folder.path(), &fetched.files, context.json).await?;
            let mut done = result(&plan, &folder, &fetched, began);
            done["script"] = json!({"exit": end.code});
            if context.json {
                show::json(&done)?;
            }
            match end.code {
                Some(0) => {
                    if !context.json {
                        let (key, point) = (plan.key(), text::moment(plan.point));
                        show::lines(&format!(
                            "{key} is restored as of {point}; the files are still in {}",
                            folder.path().display()
                        ))?;
                    }
                    Ok(Exit::Done)
                }
                _ => Err(Failure::wrong(format!("{} {}", script.path().display(), end.told)).note(format!(
                    "the files are whole, in {}; run the same command again when it is mended",
                    folder.path().display()
                ))),
            }
        }
    }
}

async fn get_plan(context: &Context, key: &InstanceKey, at: Option<Millis>) -> Result<Value, Failure> {
    let (server_id, backup_type, instance) = (key.server_id.as_str(), key.backup_type.as_str(), key.instance.as_str());
    let path = ["api", "v1", "instances", server_id, backup_type, instance, "restore-plan"];
    let query: Vec<(&str, String)> = at.map(|at| ("at", at.0.to_string())).into_iter().collect();
    context.client.get(&path, &query).await
}

/// Exit code 1 when the chain is broken.
async fn show_plan(context: &Context, key: &InstanceKey, at: Option<At>) -> Result<Exit, Failure> {
    let value = get_plan(context, key, at.map(|at| at.0)).await?;
    let plan: Plan = client::read(value.clone())?;
    if context.json {
        show::json(&value)?;
    } else {
        plan.show()?;
    }
    Ok(if plan.broken().is_some() { Exit::FoundWrong } else { Exit::Done })
}

/// Plans and fetches; the files are whole and checked when it returns.
async fn fetch_all(context: &Context, args: &RestoreFetch) -> Result<(Plan, Folder, fetch::Fetched), Failure> {
    let key = &args.what.instance;
    let path = args
        .to
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("restore-{}-{}-{}", key.server_id, key.backup_type, key.instance)));
    let mut folder = Folder::open(&path)?;
    // Without a time, an earlier try is continued as of its own time, not begun anew because time has passed.
    let at = match (args.what.at, folder.at_of(key)) {
        (Some(at), _) => Some(at.0),
        (None, Some(at)) => {
            let path = folder.path().display();
            show::beside(&format!("going on with the restore in {path} as of {}", text::moment(at)));
            Some(at)
        }
        (None, None) => None,
    };
    let plan: Plan = client::read(get_plan(context, key, at).await?)?;
    if let Some(why) = plan.broken()
        && !args.force
    {
        return Err(Failure::wrong(format!("the chain is broken: {why}"))
            .note("an earlier --at may have a whole one; --force fetches what is there"));
    }
    plan.warnings.iter().for_each(|warning| show::beside(&format!("warning: {warning}")));
    folder.begin(&plan)?;
    let progress = Progress::new(plan.bytes_to_move);
    let fetched = fetch::perform(context, &plan, &folder, &progress).await;
    progress.end();
    Ok((plan, folder, fetched?))
}

fn result(plan: &Plan, folder: &Folder, fetched: &fetch::Fetched, began: Instant) -> Value {
    json!({
        "instance": plan.key(),
        "at": plan.at,
        "point": plan.point,
        "chain": plan.chain,
        "dir": folder.path(),
        "files": fetched.files,
        "bytes": plan.bytes_to_move,
        "bytes_moved": fetched.bytes_moved,
        "seconds": began.elapsed().as_secs_f64(),
        "warnings": plan.warnings,
    })
}

fn tell(context: &Context, result: Value, plan: &Plan, folder: &Folder) -> Result<(), Failure> {
    if context.json {
        return show::json(&result);
    }
    let mut lines =
        format!("{} as of {}, whole and checked, in {}", plan.key(), text::moment(plan.point), folder.path().display());
    for file in result["files"].as_array().into_iter().flatten() {
        lines.push('\n');
        lines.push_str(file.as_str().unwrap_or_default());
    }
    show::lines(&lines)
}
