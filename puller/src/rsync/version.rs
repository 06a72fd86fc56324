//! Which rsync this is. Older than the floor, a hostile host can write outside its folder or crash the client, so the puller
//! refuses to start with it unless told otherwise (a distribution may have patched an older one).

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
    time::Duration,
};

/// The first release without the known flaws that a pull from a hostile host meets.
pub const FLOOR: Version = Version { major: 3, minor: 5, patch: 0 };

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A release number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 3 of 3.5.0.
    pub major: u32,
    /// 5 of 3.5.0.
    pub minor: u32,
    /// 0 of 3.5.0.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}.{}", self.major, self.minor, self.patch))
    }
}

impl FromStr for Version {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        // "3.5.0", "v3.4.1pre1", "3.2.7-rc1"
        let text = text.trim().trim_start_matches('v');
        let mut parts = text.split('.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse::<u32>().map_err(|_| ())
        });
        let mut next = || parts.next().unwrap_or(Err(()));
        Ok(Self { major: next()?, minor: next()?, patch: next().unwrap_or(0) })
    }
}

/// Why this rsync is not used.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// It could not be run.
    #[error("{program} cannot be run: {error}; install rsync, or name it in [rsync] program")]
    NotRun {
        /// The program asked.
        program: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// It did not answer in time, or not with a version.
    #[error("{0} does not say its version")]
    Silent(PathBuf),
    /// Older than the floor.
    #[error(
        "{program} is {found}; a pull from a host that is not trusted needs {FLOOR} or newer. If your distribution has \
         patched it, set [rsync] allow_unpatched = true"
    )]
    TooOld {
        /// The program asked.
        program: PathBuf,
        /// What it said.
        found: Version,
    },
}

/// Asks `program` for its version and compares it with [`FLOOR`].
///
/// # Errors
/// [`VersionError`]; too old is none when `allow_unpatched`.
pub async fn check(program: &Path, allow_unpatched: bool) -> Result<Version, VersionError> {
    let asked = tokio::process::Command::new(program)
        .arg("--version")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let answer = tokio::time::timeout(ANSWER_WITHIN, asked).await;
    let silent = || VersionError::Silent(program.to_owned());
    let output =
        answer.map_err(|_| silent())?.map_err(|error| VersionError::NotRun { program: program.to_owned(), error })?;
    let found = read(&String::from_utf8_lossy(&output.stdout)).ok_or_else(silent)?;
    if found < FLOOR && !allow_unpatched {
        return Err(VersionError::TooOld { program: program.to_owned(), found });
    }
    Ok(found)
}

/// "rsync  version 3.5.0  protocol version 32": the same in every release there is.
fn read(text: &str) -> Option<Version> {
    let mut words = text.lines().next()?.split_ascii_whitespace();
    (words.next() == Some("rsync") && words.next() == Some("version")).then(|| words.next())??.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn releases_of_many_years_are_read_and_ordered() {
        let new = read("rsync  version 3.5.0  protocol version 32\nCopyright").unwrap();
        let old = read("rsync  version v3.2.7  protocol version 31").unwrap();
        let candidate = read("rsync version 3.4.1pre1 protocol version 32").unwrap();
        assert!(old < candidate && candidate < FLOOR && new == FLOOR);
        assert_eq!(read("openrsync: protocol version 29"), None);
    }

    #[tokio::test]
    async fn a_missing_program_says_what_to_do() {
        let error = check(Path::new("/nonexistent/rsync"), false).await.unwrap_err();
        assert!(error.to_string().contains("[rsync] program"), "{error}");
    }
}
