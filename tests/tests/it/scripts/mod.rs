//! The shipped backup and restore scripts, by themselves, against the real databases and tools: what they announce can be
//! restored to the same content, and what fails or is killed announces nothing.

mod databases;
mod files;
mod rules;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// A script of deploy/scripts.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/scripts").join(name)
}

/// A host's folders for one instance, with the environment that the agent gives to its script.
struct Instance {
    folder: TempDir,
    variables: BTreeMap<String, String>,
}

/// What a log said: its first word, and the lines after it.
#[derive(Debug, Clone, PartialEq)]
struct Log {
    word: String,
    lines: Vec<String>,
}

impl Log {
    fn value(&self, key: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
    }
}

impl Instance {
    fn new(backup_type: &str, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("back")).unwrap();
        let text = |path: &str| folder.path().join(path).display().to_string();
        let variables = [
            ("LONGSHORE_SERVER_ID", "111111".to_owned()),
            ("LONGSHORE_TYPE", backup_type.to_owned()),
            ("LONGSHORE_INSTANCE", name.to_owned()),
            ("LONGSHORE_BACK_DIR", text("back")),
            ("LONGSHORE_BACK_LOG", text("back_log")),
            // The scripts run as they do from cron: with little else.
            ("PATH", "/usr/bin:/bin".to_owned()),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { folder, variables }
    }

    fn with_last_all_log(self) -> Self {
        let path = self.folder.path().join("last_all_log").display().to_string();
        self.with("LONGSHORE_LAST_ALL_LOG", &path)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn back_dir(&self) -> PathBuf {
        self.folder.path().join("back")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, name: &str, arguments: &[&Path]) -> Command {
        let mut command = Command::new(script(name));
        command.args(arguments).env_clear().envs(&self.variables).stdin(Stdio::null());
        command
    }

    fn backup(&self, name: &str, arguments: &[&Path]) -> (Output, Log) {
        let output = self.command(name, arguments).output().unwrap();
        (output, self.log())
    }

    /// A backup that must be announced; its path.
    fn good(&self, name: &str, arguments: &[&Path]) -> PathBuf {
        let (output, log) = self.backup(name, arguments);
        assert_eq!(output.status.code(), Some(0), "{log:?} {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(log.word, "ok");
        let path = self.back_dir().join(&log.lines[0]);
        assert!(path.exists(), "{} was announced", path.display());
        path
    }

    /// A backup that must fail; the text that the log gives.
    fn wrong(&self, name: &str, arguments: &[&Path]) -> String {
        let (output, log) = self.backup(name, arguments);
        assert_eq!(log.word, "wrong");
        assert_ne!(output.status.code(), Some(0), "a failure shows in the exit status too");
        log.lines.join("\n")
    }

    fn log(&self) -> Log {
        self.read_log("back_log").unwrap()
    }

    fn read_log(&self, name: &str) -> Option<Log> {
        let text = fs::read_to_string(self.path(name)).ok()?;
        let mut lines = text.lines().map(str::to_owned);
        Some(Log { word: lines.next().unwrap_or_default(), lines: lines.collect() })
    }

    fn restore(&self, name: &str, target: &Path, files: &[PathBuf]) -> Output {
        let mut command = Command::new(script(name));
        command.arg("--target").arg(target).args(files).env_clear().envs(&self.variables).output().unwrap()
    }

    fn restored(&self, name: &str, target: &Path, files: &[PathBuf]) {
        let output = self.restore(name, target, files);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Names in back_dir, without the scripts' own folder.
    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.back_dir()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".longshore");
        names.sort();
        names
    }
}

/// Fails unless both folders hold the same names with the same content, modes and link targets.
fn assert_same_tree(one: &Path, other: &Path) {
    let listing = |folder: &Path| {
        let output = Command::new("sh")
            .args([
                "-c",
                "find . -printf '%P %y %m %l\\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum",
            ])
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(listing(one), listing(other));
}

fn owner_of(path: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap())
}

/// A folder with files, a link and names that need care.
fn make_tree(folder: &Path) {
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    for (name, content) in
        [("a", "one"), ("with space", "two"), ("deep/er/汉字", "three"), ("-dash", "four"), ("empty", "")]
    {
        fs::write(folder.join(name), content).unwrap();
    }
    std::os::unix::fs::symlink("a", folder.join("link")).unwrap();
}
