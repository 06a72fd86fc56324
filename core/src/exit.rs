//! How a program ends: one code a meaning, the same in every program.

use std::{
    fmt,
    process::{ExitCode, Termination},
};

use crate::{config::ConfigError, telemetry::TelemetryError};

/// The meaning of a program's end. As the context of an [`anyhow::Error`] it decides the code:
/// `connect().context(Exit::ServiceRefused)?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// 0: done.
    Done = 0,
    /// 1: it ran, and found something wrong.
    FoundWrong = 1,
    /// 64: the command line can't be understood.
    Usage = 64,
    /// 69: a service refused or is away.
    ServiceRefused = 69,
    /// 70: our bug.
    Bug = 70,
    /// 75: kept, and will be tried again.
    Kept = 75,
    /// 78: the configuration is wrong.
    Configuration = 78,
}

impl Exit {
    /// The number the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The code for `error`: the [`Exit`] it has as context, 78 when a [`ConfigError`] or [`TelemetryError`] is in it, and
    /// else 70.
    pub fn of_error(error: &anyhow::Error) -> Self {
        let configuration =
            |cause: &(dyn std::error::Error + 'static)| cause.is::<ConfigError>() || cause.is::<TelemetryError>();
        match error.downcast_ref::<Self>() {
            Some(exit) => *exit,
            None if error.chain().any(configuration) => Self::Configuration,
            None => Self::Bug,
        }
    }

    /// The end of `main`: an error is told once, here, and gives its code.
    pub fn of(result: anyhow::Result<Self>) -> Self {
        result.unwrap_or_else(|error| {
            let exit = Self::of_error(&error);
            if tracing::dispatcher::has_been_set() {
                tracing::error!(code = exit.code(), "{error:#}");
            } else {
                eprintln!("{error:#}");
            }
            exit
        })
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Done => "done",
            Self::FoundWrong => "something is wrong",
            Self::Usage => "wrong usage",
            Self::ServiceRefused => "a service refused or is away",
            Self::Bug => "a bug of Longshore",
            Self::Kept => "kept, and will be tried again",
            Self::Configuration => "the configuration is wrong",
        })
    }
}

impl std::error::Error for Exit {}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::config::{Origin, Problem};

    #[test]
    fn an_error_ends_with_the_exit_it_was_given() {
        let refused = Err::<(), _>(std::io::Error::other("connection refused"))
            .context("redis 127.0.0.1:6379")
            .context(Exit::ServiceRefused)
            .context("pushing a job")
            .unwrap_err();
        assert_eq!(Exit::of_error(&refused), Exit::ServiceRefused);
        assert_eq!(
            format!("{refused:#}"),
            "pushing a job: a service refused or is away: redis 127.0.0.1:6379: connection refused"
        );
    }

    #[test]
    fn a_configuration_error_ends_with_78_and_an_unclassified_one_with_70() {
        let wrong = ConfigError::from(Problem::new(Origin::Default, "a", "wrong"));
        assert_eq!(Exit::of_error(&anyhow::Error::new(wrong).context("starting")).code(), 78);
        assert_eq!(Exit::of_error(&anyhow::anyhow!("no idea")).code(), 70);
    }
}
