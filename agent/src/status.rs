//! `status`: the last result of every instance that this host knows, and what waits in the spool. Reads files only.

use std::{collections::BTreeMap, io::Write, path::Path};

use longshore_core::{InstanceKey, Job, JobId, Millis, ReasonCode, beat::SpoolBeat, exit::Exit};
use serde::Serialize;

use crate::{
    durable,
    finish::LastResult,
    intent::InstanceFolder,
    settings::Settings,
    spool::{Half, Spool},
};

/// All of it, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Status {
    /// What waits.
    pub spool: SpoolBeat,
    /// Files that could not be understood and were set aside.
    pub damaged: u64,
    /// Sorted by section, then those without one.
    pub instances: Vec<InstanceStatus>,
}

/// One instance.
#[derive(Debug, Serialize)]
pub struct InstanceStatus {
    /// Its section; `None` when no section is configured for it now.
    pub section: Option<String>,
    /// The instance.
    #[serde(flatten)]
    pub key: InstanceKey,
    /// A run of it is under way.
    pub running: bool,
    /// An earlier run is to be finished by the next one.
    pub unfinished: bool,
    /// Its last result; `None` when it never had one.
    pub last: Option<LastStatus>,
}

/// The last result of an instance.
#[derive(Debug, Serialize)]
pub struct LastStatus {
    /// The job.
    pub job: JobId,
    /// When the run started.
    pub made_at: Millis,
    /// The file, when there is one.
    pub file: Option<String>,
    /// Its size.
    pub size_bytes: Option<u64>,
    /// How long the script took.
    pub script_seconds: Option<f64>,
    /// Why there is no file.
    pub reason: Option<ReasonCode>,
    /// The reason's text.
    pub text: Option<String>,
    /// `waiting`, `sent` (its report is not known yet), or `reported`.
    pub on_its_way: &'static str,
}

/// Reads the state folder.
///
/// # Errors
/// When a folder cannot be listed.
pub fn status(settings: &Settings) -> anyhow::Result<Status> {
    let state_dir = &settings.state_dir;
    let spool = Spool::at(state_dir);
    let (waiting, sent) = (spool.ids(Half::Waiting)?, spool.ids(Half::Sent)?);
    let mut found = BTreeMap::new();
    for folder in InstanceFolder::all(state_dir)? {
        if let Some(key) = key_of(state_dir, folder.path()) {
            found.insert(key, folder);
        }
    }
    let mut instances = Vec::new();
    for plan in settings.plans(&[]).unwrap_or_default() {
        let folder = found.remove(&plan.key()).unwrap_or_else(|| InstanceFolder::new(state_dir, &plan.key()));
        instances.push(instance(Some(plan.section.clone()), plan.key(), &folder, &waiting, &sent));
    }
    instances.extend(found.into_iter().map(|(key, folder)| instance(None, key, &folder, &waiting, &sent)));
    let spool_beat = SpoolBeat { waiting: waiting.len() as u64, sent: sent.len() as u64 };
    Ok(Status { spool: spool_beat, damaged: spool.damaged(), instances })
}

fn key_of(state_dir: &Path, folder: &Path) -> Option<InstanceKey> {
    folder.strip_prefix(state_dir.join("instances")).ok()?.to_str()?.parse().ok()
}

fn instance(
    section: Option<String>,
    key: InstanceKey,
    folder: &InstanceFolder,
    waiting: &[JobId],
    sent: &[JobId],
) -> InstanceStatus {
    let running = folder.is_locked();
    let last: Option<LastResult> = durable::read_json(&folder.last_result()).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        None
    });
    let last = last.map(|last| {
        let job: Job = last.spooled.job;
        let (reason, text) = last.spooled.failure.map(|failure| (failure.reason.code, failure.reason.text)).unzip();
        LastStatus {
            job: job.id,
            made_at: job.made_at,
            file: job.source.as_ref().map(|source| source.path.to_string()),
            size_bytes: job.content.as_ref().map(|content| content.size_bytes),
            script_seconds: job.script.as_ref().map(|script| script.seconds),
            reason,
            text,
            on_its_way: match job.id {
                id if waiting.contains(&id) => "waiting",
                id if sent.contains(&id) => "sent",
                _ => "reported",
            },
        }
    });
    InstanceStatus { section, key, running, unfinished: !running && folder.has_intent(), last }
}

impl Status {
    /// [`Exit::FoundWrong`] when an instance's last result is a failure, or a file is damaged.
    pub fn exit(&self) -> Exit {
        let failed = |instance: &InstanceStatus| instance.last.as_ref().is_some_and(|last| last.reason.is_some());
        if self.damaged > 0 || self.instances.iter().any(failed) { Exit::FoundWrong } else { Exit::Done }
    }

    /// Writes it as a table for people.
    ///
    /// # Errors
    /// The writer's.
    pub fn print(&self, mut out: impl Write) -> std::io::Result<()> {
        let mut rows =
            vec![["SECTION", "INSTANCE", "STARTED", "RESULT", "SIZE", "SCRIPT", "REPORT"].map(str::to_owned)];
        rows.extend(self.instances.iter().map(InstanceStatus::row));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 7] = std::array::from_fn(width);
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        for instance in &self.instances {
            if let Some(LastStatus { reason: Some(reason), text: Some(text), .. }) = &instance.last {
                let indented = text.trim_end().replace('\n', "\n    ");
                writeln!(out, "\n{}: {}\n    {indented}", instance.key, reason.as_str())?;
            }
        }
        writeln!(out, "\nspool: {} waiting, {} sent and not yet reported", self.spool.waiting, self.spool.sent)?;
        if self.damaged > 0 {
            writeln!(out, "{} damaged files were set aside in damaged/ of the state folder", self.damaged)?;
        }
        Ok(())
    }
}

impl InstanceStatus {
    fn row(&self) -> [String; 7] {
        let section = self.section.clone().unwrap_or_else(|| "-".to_owned());
        let state = match (self.running, self.unfinished) {
            (true, _) => " (running now)",
            (_, true) => " (a run is to be finished)",
            _ => "",
        };
        let Some(last) = &self.last else {
            let never = format!("never run{state}");
            return [section, self.key.to_string(), "-".into(), never, "-".into(), "-".into(), "-".into()];
        };
        let started = last.made_at.timestamp().to_zoned(jiff::tz::TimeZone::system());
        let result = match (&last.reason, &last.file) {
            (Some(reason), _) => format!("FAILED {}{state}", reason.as_str()),
            (None, file) => format!("{}{state}", file.as_deref().unwrap_or("ok")),
        };
        [
            section,
            self.key.to_string(),
            started.strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
            result,
            last.size_bytes.map_or_else(|| "-".into(), |size| longshore_core::config::ByteSize(size).to_string()),
            last.script_seconds.map_or_else(|| "-".into(), |seconds| format!("{seconds:.1} s")),
            last.on_its_way.to_owned(),
        ]
    }
}
