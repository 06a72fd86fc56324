//! How a command fails: a message that says what to do, and the exit code that programs read.

use std::fmt;

use longshore_core::{config::ConfigError, exit::Exit};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The program's end.
    pub(crate) exit: Exit,
    /// For people, without a full stop.
    pub(crate) message: String,
    /// More lines below it.
    pub(crate) notes: Vec<String>,
}

impl Failure {
    /// With a message alone.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string(), notes: Vec::new() }
    }

    /// The command line can't be done as it is.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A service is away, or something of this machine failed that may be better later.
    pub(crate) fn refused(message: impl fmt::Display) -> Self {
        Self::new(Exit::ServiceRefused, message)
    }

    /// It ran, and found something wrong.
    pub(crate) fn wrong(message: impl fmt::Display) -> Self {
        Self::new(Exit::FoundWrong, message)
    }

    /// With one more line below.
    pub(crate) fn note(mut self, note: impl fmt::Display) -> Self {
        self.notes.push(note.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.notes.iter().try_for_each(|note| write!(f, "\n  {note}"))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Configuration, error)
    }
}

/// Writing to standard output. Who closed it has seen enough.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::Done } else { Exit::ServiceRefused };
        Self::new(exit, error)
    }
}
