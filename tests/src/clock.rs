//! A process's own wall clock, wrong by as much as a test says and changed while it runs: libfaketime, which reads the shift
//! from a file. The clock that only goes forward (monotonic) stays right, as it does when an administrator sets the time.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// A clock that processes started with [`ShiftedClock::variables`] see.
#[derive(Debug)]
pub struct ShiftedClock {
    file: PathBuf,
}

impl ShiftedClock {
    /// One that is right until it is shifted; `file` keeps the shift.
    ///
    /// # Panics
    /// When libfaketime is not installed, or the file can't be written.
    pub fn new(file: &Path) -> Self {
        assert!(Path::new(LIBRARY).exists(), "{LIBRARY} is missing (package libfaketime)");
        let clock = Self { file: file.to_owned() };
        clock.shift(0).expect("the clock's file");
        clock
    }

    /// From now on the clock is wrong by `seconds`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn shift(&self, seconds: i64) -> io::Result<()> {
        let new = self.file.with_extension("new");
        // Replaced whole: a process reads it at any moment.
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(new, &self.file)
    }

    /// The environment of a process that shall have this clock.
    pub fn variables(&self) -> Vec<(String, String)> {
        let file = self.file.display().to_string();
        [
            ("LD_PRELOAD", LIBRARY),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::SystemTime};

    use super::ShiftedClock;

    #[test]
    fn a_process_sees_the_shift() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ShiftedClock::new(&folder.path().join("clock"));
        let ahead_seconds = || {
            let output = Command::new("date").arg("+%s").envs(clock.variables()).output().unwrap();
            let seen: i64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
            seen - i64::try_from(now).unwrap()
        };
        for shift in [0, 7200, -7200] {
            clock.shift(shift).unwrap();
            assert!((ahead_seconds() - shift).abs() <= 5, "{shift}");
        }
    }
}
