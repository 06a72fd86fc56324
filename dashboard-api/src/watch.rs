//! Whether a service that we ask is there, and since when not: learnt from the answers to real questions, never asked twice.

use std::{
    fmt::Display,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use longshore_core::Millis;
use serde::Serialize;
use utoipa::ToSchema;

/// No question to another service holds a request longer than this.
const MOST_PATIENCE: Duration = Duration::from_secs(10);

/// A service that does not answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Away {
    /// The first failed question since the last good one, UTC milliseconds.
    #[schema(value_type = i64)]
    pub since: Millis,
    /// What it said last.
    pub why: String,
}

/// What the questions to one service have shown; clones watch the same service.
#[derive(Debug, Clone)]
pub struct Watch {
    what: Arc<str>,
    patience: Duration,
    away: Arc<Mutex<Option<Away>>>,
}

impl Watch {
    /// `what` begins a sentence: "The catalog".
    pub fn of(what: &str) -> Self {
        Self { what: what.into(), patience: MOST_PATIENCE, away: Arc::default() }
    }

    /// The same watch, for a question that takes longer than most.
    pub fn patient(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    /// What is watched.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// `None` while it answers, or was not asked yet.
    pub fn away(&self) -> Option<Away> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for one answer, and notes whether it came. `is_absence` tells an error of the service from one of the question.
    ///
    /// # Errors
    /// [`Silence`]: the service's own error, or that it took too long.
    pub async fn ask<T, E: Display>(
        &self,
        question: impl Future<Output = Result<T, E>>,
        is_absence: impl FnOnce(&E) -> bool,
    ) -> Result<T, Silence<E>> {
        let answer = tokio::time::timeout(self.patience, question).await;
        match answer {
            Ok(Ok(value)) => {
                self.note(None);
                Ok(value)
            }
            Ok(Err(error)) => {
                self.note(is_absence(&error).then(|| error.to_string()));
                Err(Silence::Error(error))
            }
            Err(_) => {
                let why = format!("no answer within {:?}", self.patience);
                self.note(Some(why.clone()));
                Err(Silence::Slow(why))
            }
        }
    }

    fn note(&self, why: Option<String>) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match (why, away.as_mut()) {
            (Some(why), Some(known)) => known.why = why,
            (Some(why), None) => {
                tracing::warn!(what = %self.what, why, "a service is away");
                *away = Some(Away { since: Millis::now(), why });
            }
            (None, Some(known)) => {
                tracing::info!(what = %self.what, away_seconds = Millis::now().since(known.since).as_secs(), "it answers again");
                *away = None;
            }
            (None, None) => {}
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Silence<E> {
    /// It answered with an error.
    Error(E),
    /// It did not answer in time.
    Slow(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_absence_begins_with_the_first_failure_and_ends_with_an_answer() {
        let watch = Watch { patience: Duration::from_millis(20), ..Watch::of("It") };
        assert_eq!(watch.away(), None);
        assert!(watch.ask(async { Err::<(), _>("refused") }, |_| true).await.is_err());
        let first = watch.away().unwrap();
        assert!(watch.ask(std::future::pending::<Result<(), &str>>(), |_| true).await.is_err());
        let later = watch.away().unwrap();
        assert_eq!((first.since, first.why.as_str()), (later.since, "refused"));
        assert!(later.why.contains("20ms"), "{}", later.why);
        assert!(watch.ask(async { Err::<(), _>("a bad question") }, |_| false).await.is_err());
        assert_eq!(watch.away(), None, "it answered, though with a refusal");
        assert!(watch.ask(async { Ok::<_, &str>(()) }, |_| true).await.is_ok());
        assert_eq!(watch.away(), None);
    }
}
