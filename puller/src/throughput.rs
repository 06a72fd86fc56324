//! What a node stored in the last hour, by level: its share of the stream, and what an estimate of the rest of a level's work is
//! made from.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use longshore_core::QueueName;

/// The hour is kept in so many parts, each as long as [`PART`].
const PARTS: usize = 60;
const PART: Duration = Duration::from_secs(60);

/// Bytes stored in the last hour, in minutes.
#[derive(Debug)]
pub struct LastHour {
    since: Instant,
    /// The newest last; its minute counted from `since`.
    parts: VecDeque<(u64, BTreeMap<QueueName, u64>)>,
}

impl LastHour {
    /// Empty, from `since` on.
    pub fn new(since: Instant) -> Self {
        Self { since, parts: VecDeque::new() }
    }

    /// Counts a backup of `queue` stored at `at`.
    pub fn stored(&mut self, at: Instant, queue: &QueueName, bytes: u64) {
        let minute = self.minute(at);
        if self.parts.back().is_none_or(|(last, _)| *last < minute) {
            self.parts.push_back((minute, BTreeMap::new()));
            if self.parts.len() > PARTS {
                self.parts.pop_front();
            }
        }
        if let Some((_, bytes_by_queue)) = self.parts.back_mut() {
            let sum = bytes_by_queue.entry(queue.clone()).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }

    /// Bytes stored in the hour before `at`, and bytes a second by level, over that hour or the time since the start.
    pub fn told(&self, at: Instant) -> (u64, BTreeMap<QueueName, u64>) {
        let oldest = (self.minute(at) + 1).saturating_sub(PARTS as u64);
        let mut by_queue = BTreeMap::<QueueName, u64>::new();
        for (_, bytes_by_queue) in self.parts.iter().filter(|(minute, _)| *minute >= oldest) {
            for (queue, bytes) in bytes_by_queue {
                let sum = by_queue.entry(queue.clone()).or_default();
                *sum = sum.saturating_add(*bytes);
            }
        }
        let stored = by_queue.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
        let seconds = at.duration_since(self.since).min(PART * PARTS as u32).as_secs().max(1);
        by_queue.values_mut().for_each(|bytes| *bytes /= seconds);
        (stored, by_queue)
    }

    fn minute(&self, at: Instant) -> u64 {
        at.duration_since(self.since).as_secs() / PART.as_secs()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let (start, queue) = (Instant::now(), |name: &str| name.parse::<QueueName>().unwrap());
        let mut hour = LastHour::new(start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(hour.told(start), (0, BTreeMap::new()));
        hour.stored(after(1), &queue("level1"), 600);
        hour.stored(after(2), &queue("level2"), 1200);
        hour.stored(after(70), &queue("level1"), 600);
        let speeds = BTreeMap::from([(queue("level1"), 10), (queue("level2"), 10)]);
        assert_eq!(hour.told(after(120)), (2400, speeds), "over the time since the start");
        hour.stored(after(3600), &queue("level1"), 3600);
        assert_eq!(hour.told(after(3659)), (4200, BTreeMap::from([(queue("level1"), 1)])), "the first minute is over");
        assert_eq!(hour.told(after(8000)).0, 0, "without a newer backup, too");
        for minute in 0..500 {
            hour.stored(after(9000 + minute * 60), &queue("level1"), 1);
        }
        assert_eq!((hour.parts.len(), hour.told(after(9000 + 499 * 60)).0), (60, 60));
    }
}
