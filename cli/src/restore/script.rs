//! The user's restore script: called with the files in order, its exit status decides.

use std::{
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use super::plan::Plan;
use crate::failure::Failure;

/// Where Longshore's own scripts are installed.
const SCRIPTS: &str = "/usr/local/lib/longshore";

/// A script that can be run.
#[derive(Debug)]
pub(crate) struct Script {
    path: PathBuf,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct End {
    /// Its exit status; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// The same as the rest of a sentence.
    pub(crate) told: String,
}

impl Script {
    /// `given` as a path, or a name alone as one on the PATH or of Longshore's own. Looked for before anything is fetched.
    pub(crate) fn find(given: PathBuf) -> Result<Self, Failure> {
        let alone = given.components().count() == 1 && !given.exists();
        let path = if alone {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::env::split_paths(&folders).chain([PathBuf::from(SCRIPTS)]).collect::<Vec<_>>();
            folders.into_iter().map(|folder| folder.join(&given)).find(|path| path.is_file())
        } else {
            Some(given.clone()).filter(|path| path.exists())
        };
        let Some(path) = path else {
            return Err(Failure::usage(format!("there is no script {}", given.display()))
                .note(format!("a name alone is looked for here, on the PATH, and in {SCRIPTS}")));
        };
        let wrong = |why: &dyn std::fmt::Display| Failure::usage(format!("{}: {why}", path.display()));
        let path = std::path::absolute(&path).map_err(|error| wrong(&error))?;
        let found = path.metadata().map_err(|error| wrong(&error))?;
        if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
            return Err(wrong(&"not an executable file; chmod +x makes it one"));
        }
        Ok(Self { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it to its end. With `quiet_output`, what it prints goes to standard error, since a program reads ours.
    pub(crate) async fn run(
        &self,
        plan: &Plan,
        folder: &Path,
        files: &[PathBuf],
        quiet_output: bool,
    ) -> Result<End, Failure> {
        let list: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let mut command = tokio::process::Command::new(&self.path);
        command
            .args(files)
            .env("LONGSHORE_SERVER_ID", &plan.server_id)
            .env("LONGSHORE_TYPE", &plan.backup_type)
            .env("LONGSHORE_INSTANCE", &plan.instance)
            .env("LONGSHORE_RESTORE_DIR", folder)
            .env("LONGSHORE_RESTORE_FILES", list.join("\n"))
            .env("LONGSHORE_RESTORE_AT", plan.point.to_string())
            // The script needs no access to the cluster.
            .env_remove("LONGSHORE_TOKEN")
            .stdin(Stdio::null());
        if quiet_output {
            command.stdout(std::io::stderr());
        }
        let wrong = |error| Failure::usage(format!("{} can't be started: {error}", self.path.display()));
        let status = command.status().await.map_err(wrong)?;
        let told = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit status {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended without a status".to_owned(),
        };
        Ok(End { code: status.code(), told })
    }
}
