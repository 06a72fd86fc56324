//! A level: one queue, and the rule by which its jobs wait.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Queue, claim::micros, script};
use crate::{QueueName, redis_link::LinkError};

/// Jobs that one step of [`Queue::relevel`] looks at, about; a few milliseconds of Redis.
const STEP: usize = 200;

/// In which order a level's jobs are given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The longest admitted first.
    #[default]
    Age,
    /// The one first whose instance is soonest without a fresh backup: when it was made (or admitted, if that is earlier), and
    /// its interval.
    Deadline,
}

/// One queue, and the rule by which its jobs wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// The queue.
    pub name: QueueName,
    /// Within this after its admission a job is to start, whatever waits in more important levels. `None`: within its own
    /// interval.
    pub max_wait: Option<Duration>,
    /// The order within the level.
    pub order: Order,
    /// Whether its jobs ignore that a host is closed ([`Queue::close_host`]).
    pub urgent: bool,
}

impl Level {
    /// A level of the usual rule: in order of admission, each job within its interval, not urgent.
    pub fn new(name: QueueName) -> Self {
        Self { name, max_wait: None, order: Order::Age, urgent: false }
    }

    pub(super) fn order_text(&self) -> &'static str {
        match self.order {
            Order::Age => "age",
            Order::Deadline => "deadline",
        }
    }

    /// What decides a job's place, as one word.
    pub(super) fn place_text(&self) -> String {
        format!("{} {}", self.order_text(), self.max_wait_text())
    }

    pub(super) fn max_wait_text(&self) -> String {
        self.max_wait.map_or_else(String::new, |longest| micros(longest).to_string())
    }
}

impl Queue {
    /// Gives every waiting job of a level the place that the level's rule says now. To be called when `max_wait` or `order`
    /// has changed; called again, or by two at once, it ends the same.
    ///
    /// # Errors
    /// [`LinkError`]; some jobs have their new place then, and calling it again places the others.
    pub async fn relevel(&self, level: &Level) -> Result<(), LinkError> {
        let mut cursor = "0".to_owned();
        loop {
            let mut call = script::RELEVEL.prepare_invoke();
            call.arg(self.inbox(&level.name)?).arg(level.order_text()).arg(level.max_wait_text());
            call.arg(&cursor).arg(STEP);
            cursor = self.run(&call).await?;
            if cursor == "0" {
                return Ok(());
            }
        }
    }
}
