//! Where a value came from, and what is wrong with it. A problem is one line: origin, key, what, and the nearest known
//! key; all that could be found in one go are told at once.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A line of a file.
    File {
        /// As it was named or found.
        path: Arc<Path>,
        /// Counted from 1; 0 is the file as a whole.
        line: usize,
        /// The seed's name of the key, where the file is one of the seed's.
        seed_key: Option<Arc<str>>,
    },
    /// An environment variable, by name.
    Variable(String),
    /// A command-line flag, as a user writes it.
    Flag(String),
}

impl Origin {
    pub(super) fn file(path: &Arc<Path>, line: usize) -> Self {
        Self::File { path: Arc::clone(path), line, seed_key: None }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, .. } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// Dotted key; empty for a file as a whole.
    pub key: String,
    /// What, and what to do.
    pub what: String,
}

impl Problem {
    /// A problem with `key` as `origin` gives it.
    pub fn new(origin: Origin, key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { origin, key: key.into(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        match &self.origin {
            Origin::File { seed_key: Some(seed_key), .. } => write!(f, "{seed_key}: ")?,
            _ if self.key.is_empty() => {}
            _ => write!(f, "{}: ", self.key)?,
        }
        f.write_str(&self.what)
    }
}

/// Everything found wrong with a configuration, one line each. Ends a program with [`crate::exit::Exit::Configuration`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

/// Sorted by file and line, so that a person walks down each file once; what is no file's comes last.
impl From<Vec<Problem>> for ConfigError {
    fn from(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| match &problem.origin {
            Origin::File { path, line, .. } => (0, path.to_path_buf(), *line),
            _ => (1, PathBuf::new(), 0),
        });
        Self { problems }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The end of an "unknown key" message: the nearest of `known`, or all of them when none is near.
pub(super) fn suggestion<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let lower = wrong.to_lowercase();
    let nearest = known
        .iter()
        .map(|key| (strsim::normalized_damerau_levenshtein(&lower, key), *key))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    match nearest {
        Some((likeness, key)) if likeness >= 0.5 => format!("; did you mean `{key}`?"),
        Some(_) => format!("; known here: {}", known.join(", ")),
        None => String::new(),
    }
}
