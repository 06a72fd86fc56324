//! `submit FILE`: hands over a file that no script of ours has made. Nodes fetch it through rsync, so it must lie where they
//! can: below the `back_dir` of an instance (of the same type and instance, if one is configured), or below `[submit]`'s.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::{Context, bail};
use longshore_core::{
    BackupType, InstanceName, Job, JobId, Millis, QueueName, RelativePath, exit::Exit, job::JOB_VERSION,
};

use crate::{
    examine::{ExamineError, examine},
    plan::{Place, agent_stamp},
    settings::Settings,
    spool::{SPOOL_VERSION, Spooled},
};

/// What is handed over.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The file or directory.
    pub file: PathBuf,
    /// Of which type.
    pub backup_type: BackupType,
    /// Of which instance.
    pub instance: InstanceName,
    /// Into which level, instead of the configured one.
    pub queue: Option<QueueName>,
}

/// A folder of this host that nodes can fetch from.
struct Folder {
    back_dir: PathBuf,
    place: Place,
    is_own: bool,
}

/// The job of a submission.
///
/// # Errors
/// With [`Exit::FoundWrong`] as context, when the file cannot be used or lies where nodes cannot fetch it.
pub fn job(settings: &Settings, submission: &Submission) -> anyhow::Result<Spooled> {
    prepare(settings, submission).context(Exit::FoundWrong)
}

fn prepare(settings: &Settings, submission: &Submission) -> anyhow::Result<Spooled> {
    let made_at = Millis::now();
    let shown = submission.file.display();
    // The folder above may be reached through links; the file itself must be none.
    let parent = submission.file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = fs::canonicalize(parent.unwrap_or_else(|| Path::new("."))).with_context(|| format!("{shown}"))?;
    let file = parent.join(submission.file.file_name().with_context(|| format!("{shown} names no file"))?);
    let (folder, name) = place(settings, submission, &file)?;
    let section = settings.instance.values().find(|instance| is_of(instance, submission));
    let digest = section.and_then(|section| section.digest).unwrap_or(settings.digest);
    let examined = match examine(&folder.back_dir, &name, digest, false, &AtomicBool::new(false)) {
        Ok(examined) => examined,
        Err(ExamineError::Unusable(reason)) => bail!("{reason}"),
        Err(ExamineError::Stopped) => bail!("stopped"),
    };
    let interval = section.and_then(|section| section.interval).unwrap_or(settings.interval);
    let queue = submission.queue.clone().or_else(|| section.and_then(|section| section.queue.clone()));
    let job = Job {
        v: JOB_VERSION,
        id: JobId::fresh(),
        server_id: settings.server_id.clone(),
        backup_type: submission.backup_type.clone(),
        instance: submission.instance.clone(),
        business_id: settings.business_id.clone(),
        made_at,
        interval_seconds: interval.duration().as_secs(),
        queue: queue.unwrap_or_else(|| settings.queue.clone()),
        source: Some(folder.place.source(&name)?),
        content: Some(examined.content),
        chain: None,
        script: None,
        agent: Some(agent_stamp()),
        signature: None,
        extra: serde_json::Map::new(),
    };
    Ok(Spooled { v: SPOOL_VERSION, job, failure: None })
}

fn is_of(instance: &crate::settings::InstanceSettings, submission: &Submission) -> bool {
    instance.backup_type == submission.backup_type && instance.instance == submission.instance
}

/// The folder that `file` lies in (the instance's own before others, the deepest before those above it), and its name there.
fn place(settings: &Settings, submission: &Submission, file: &Path) -> anyhow::Result<(Folder, RelativePath)> {
    let instances = settings.instance.values().map(|instance| Folder {
        back_dir: instance.back_dir.clone(),
        place: settings.place(&instance.rsync_module, instance.transport.unwrap_or(settings.transport)),
        is_own: is_of(instance, submission),
    });
    let others = settings.submit.iter().map(|submit| Folder {
        back_dir: submit.back_dir.clone(),
        place: settings.place(&submit.rsync_module, settings.transport),
        is_own: false,
    });
    let mut best: Option<(Folder, PathBuf)> = None;
    let mut looked_at = Vec::new();
    for folder in instances.chain(others) {
        looked_at.push(folder.back_dir.display().to_string());
        let Ok(real) = fs::canonicalize(&folder.back_dir) else { continue };
        let Ok(below) = file.strip_prefix(&real) else { continue };
        let rank = |own: bool, below: &Path| (own, std::cmp::Reverse(below.components().count()));
        let better = |best: &(Folder, PathBuf)| rank(folder.is_own, below) > rank(best.0.is_own, &best.1);
        if best.as_ref().is_none_or(better) {
            best = Some((folder, below.to_owned()));
        }
    }
    let Some((folder, below)) = best else {
        looked_at.dedup();
        bail!(
            "{} is in no folder that storage nodes can fetch from ({}); move it there, or name its folder as [submit] back_dir with its rsync_module",
            file.display(),
            if looked_at.is_empty() { "none is configured".to_owned() } else { looked_at.join(", ") }
        );
    };
    let name = below.to_str().with_context(|| format!("{} is not UTF-8", file.display()))?;
    Ok((folder, RelativePath::new(name)?))
}
