//! Logs: lines for a person at a terminal, JSON for anything else, on standard error; times in UTC, RFC 3339. With a log file
//! (the seed's `log`, `error_log`), the file has them, and standard error only errors, so that cron's mail still tells of
//! those. A log file that was moved away, as logrotate does, is opened again under its name.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt,
};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Plain on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// A line for people.
    Plain,
    /// One JSON object a line.
    Json,
}

/// `--log-format` and `--log-level`; flatten it into a program's arguments. They win over the `[log]` table.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LogArgs {
    /// How log lines look; auto is plain on a terminal and json otherwise
    #[arg(long, value_name = "FORMAT", global = true, value_enum)]
    pub log_format: Option<LogFormat>,
    /// error, warn, info, debug, trace, or a filter such as info,longshore_puller=debug
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log_level: Option<String>,
}

/// The `[log]` table, the same in every program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// As `--log-format`.
    pub format: LogFormat,
    /// As `--log-level`; without it, info.
    pub level: Option<String>,
    /// Append the log to this file instead of standard error.
    pub file: Option<PathBuf>,
    /// Append errors to this file as well.
    pub error_file: Option<PathBuf>,
}

/// Why logging can't start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A log file can't be opened.
    #[error("log file {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The level is not one.
    #[error("log level {level:?}: {why}; write error, warn, info, debug, trace, or info,longshore_puller=debug")]
    Level {
        /// As given.
        level: String,
        /// The parser's words.
        why: String,
    },
    /// Called twice.
    #[error("logging was started already")]
    Started,
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`TelemetryError`], when a log file can't be opened for appending or the level is not one.
pub fn init(args: &LogArgs, config: &LogConfig) -> Result<(), TelemetryError> {
    let level = args.log_level.as_ref().or(config.level.as_ref()).map_or("info", String::as_str);
    let filter = || {
        EnvFilter::builder()
            .parse(level)
            .map_err(|error| TelemetryError::Level { level: level.to_owned(), why: error.to_string() })
    };
    let format = args.log_format.unwrap_or(config.format);
    let terminal = io::stderr().is_terminal();
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
    match &config.file {
        Some(file) => {
            layers.push(lines(format, false, LogFile::open(file)?).with_filter(filter()?).boxed());
            layers.push(lines(format, terminal, io::stderr).with_filter(LevelFilter::ERROR).boxed());
        }
        None => layers.push(lines(format, terminal, io::stderr).with_filter(filter()?).boxed()),
    }
    if let Some(file) = &config.error_file {
        layers.push(lines(format, false, LogFile::open(file)?).with_filter(LevelFilter::ERROR).boxed());
    }
    tracing_subscriber::registry().with(layers).try_init().map_err(|_| TelemetryError::Started)
}

fn lines<W>(format: LogFormat, terminal: bool, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(terminal);
    match (format, terminal) {
        (LogFormat::Plain, _) | (LogFormat::Auto, true) => layer.boxed(),
        (LogFormat::Json, _) | (LogFormat::Auto, false) => layer.json().flatten_event(true).with_ansi(false).boxed(),
    }
}

/// A file that log lines are appended to, each by one write.
struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl LogFile {
    fn open(path: &Path) -> Result<Self, TelemetryError> {
        let file = append(path).map_err(|source| TelemetryError::File { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(file) })
    }
}

impl Write for &LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = file.metadata()?;
        let named = std::fs::metadata(&self.path).ok();
        if named.is_none_or(|named| (named.dev(), named.ino()) != (opened.dev(), opened.ino())) {
            // Where the name can't be opened, the lines go on to the file that is open.
            if let Ok(fresh) = append(&self.path) {
                *file = fresh;
            }
        }
        file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for LogFile {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> &'w Self {
        self
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_that_was_rotated_away_is_opened_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        std::fs::write(&path, "from before\n").expect("written");
        let log = LogFile::open(&path).expect("opened");
        (&log).write_all(b"one\n").expect("written");
        std::fs::rename(&path, folder.path().join("log.1")).expect("renamed");
        (&log).write_all(b"two\n").expect("written");
        let read = |name| std::fs::read_to_string(folder.path().join(name)).expect("read");
        assert_eq!((read("log.1").as_str(), read("log").as_str()), ("from before\none\n", "two\n"));
    }

    const ROLE: &str = "LONGSHORE_TEST_TELEMETRY_ROLE";

    /// Not a test of its own: the process that the tests below start, which logs as its role says.
    #[test]
    #[ignore = "a process for the tests beside it"]
    fn the_process_that_logs() {
        let Some(role) = std::env::var_os(ROLE) else { return };
        let (format, file) = match role.to_str() {
            Some("plain") => (Some(LogFormat::Plain), None),
            Some("auto") => (None, None),
            _ => (None, Some(PathBuf::from(role))),
        };
        let args = LogArgs { log_format: format, log_level: Some("debug,quiet=off".to_owned()) };
        let config = LogConfig { file, ..LogConfig::default() };
        init(&args, &config).expect("started");
        let _span = tracing::info_span!("transfer", job = "j1").entered();
        tracing::info!(bytes = 5, "stored");
        tracing::info!(target: "quiet", "not wanted");
        tracing::error!("disk full");
    }

    fn standard_error(role: &str) -> String {
        let output = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--ignored", "--exact", "telemetry::tests::the_process_that_logs", "--nocapture"])
            .env(ROLE, role)
            .output()
            .expect("ran");
        assert!(output.status.success());
        String::from_utf8(output.stderr).expect("text")
    }

    #[test]
    fn without_a_terminal_a_line_is_json_with_its_span_and_a_time_in_utc() {
        let lines = standard_error("auto");
        let lines: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&lines[0]["level"], &lines[0]["message"], &lines[0]["bytes"], &lines[0]["span"]["job"]),
            (&"INFO".into(), &"stored".into(), &5.into(), &"j1".into())
        );
        let time = lines[0]["timestamp"].as_str().expect("text");
        assert!(time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    }

    #[test]
    fn a_plain_line_has_no_colours_where_no_terminal_is() {
        let lines = standard_error("plain");
        let expected = " INFO transfer{job=\"j1\"}: longshore_core::telemetry::tests: stored bytes=5";
        assert!(lines.lines().next().is_some_and(|line| line.ends_with(expected)), "{lines}");
    }

    #[test]
    fn with_a_log_file_standard_error_has_the_errors_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("log");
        let errors = standard_error(file.to_str().expect("text"));
        let log = std::fs::read_to_string(&file).expect("read");
        assert_eq!((log.lines().count(), errors.lines().count()), (2, 1));
        assert!(errors.contains("disk full"), "{errors}");
    }

    #[test]
    fn a_log_file_that_cannot_be_opened_is_named() {
        let config = LogConfig { file: Some("/nowhere/at/all.log".into()), ..LogConfig::default() };
        let error = init(&LogArgs::default(), &config).expect_err("no such folder");
        assert_eq!(error.to_string(), "log file /nowhere/at/all.log: No such file or directory (os error 2)");
    }

    #[test]
    fn a_level_that_is_none_is_refused_with_examples() {
        let args = LogArgs { log_level: Some("longshore_puller=loud".into()), ..LogArgs::default() };
        let error = init(&args, &LogConfig::default()).expect_err("no level");
        assert!(error.to_string().contains("longshore_puller=debug"), "{error}");
    }
}
