//! One limit: so many bytes a second, shared by all who pass.
//!
//! Who has to wait stands in line, and first is who has had least (start-time fair queueing): transfers that all have something to
//! send get equal shares, whatever the size of the pieces that each of them sends. Time away saves nothing up, and who is new
//! begins at the end of the line. Only the first of the line looks at the clock; a changed rate wakes all of it, at once. Time
//! that nobody used is saved up to `SAVED`: enough for a late wake-up, too little for a burst.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};

/// Time that may be saved: with one quantum, the largest burst.
const SAVED: Duration = Duration::from_millis(50);
/// A quantum is what passes in this time ...
const QUANTUM: Duration = Duration::from_millis(2);
/// ... but neither so small that it costs more than it moves, nor so large that turns become long.
const QUANTUM_BYTES: (u64, u64) = (4 << 10, 256 << 10);

/// A limit that changes while it is used.
#[derive(Debug)]
pub struct Bucket {
    rate: watch::Sender<Option<u64>>,
    line: Mutex<Line>,
    passed: AtomicU64,
    waited: AtomicBool,
}

/// One of those who share a bucket.
#[derive(Debug, Default)]
pub struct Taker {
    /// What it has had, counted as its bucket's line is; 0 is one who is new.
    had: AtomicU64,
}

/// Those who wait for a bucket.
#[derive(Debug)]
struct Line {
    credit: Credit,
    /// What who passed last had had before: nobody is behind it for having been away.
    level: u64,
    waiting: BTreeMap<Place, Arc<Notify>>,
    arrivals: u64,
}

/// A place in a line: by what its taker has had, then by when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    had: u64,
    arrival: u64,
}

/// Stands in line until it is dropped.
struct Waiting<'a> {
    bucket: &'a Bucket,
    place: Place,
    is_first: Arc<Notify>,
}

impl Bucket {
    /// Lets `rate` bytes a second pass; `None` is no limit.
    pub fn new(rate: Option<u64>) -> Self {
        let credit = Credit::new(Instant::now());
        Self {
            rate: watch::Sender::new(rate),
            line: Mutex::new(Line { credit, level: 0, waiting: BTreeMap::new(), arrivals: 0 }),
            passed: AtomicU64::new(0),
            waited: AtomicBool::new(false),
        }
    }

    /// Bytes a second that may pass; `None` is no limit.
    pub fn rate(&self) -> Option<u64> {
        *self.rate.borrow()
    }

    /// Changes the limit, for those who wait already, too.
    pub fn set(&self, rate: Option<u64>) {
        self.rate.send_if_modified(|now| std::mem::replace(now, rate) != rate);
    }

    /// Returns when there is a limit, at once when there is one.
    pub async fn limited(&self) {
        // It ends with the sender, which is ours.
        let _ = self.rate.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits until `bytes` more may pass for `taker`. Dropped before, nothing has passed.
    pub async fn pass(&self, taker: &Taker, bytes: u64) {
        if self.rate().is_some() {
            self.wait_for_turn(taker, bytes).await;
        }
        self.passed.fetch_add(bytes, Relaxed);
    }

    async fn wait_for_turn(&self, taker: &Taker, bytes: u64) {
        let mut rates = self.rate.subscribe();
        let waiting = self.stand_in_line(taker);
        loop {
            let Some(rate) = *rates.borrow_and_update() else { return };
            let Some(due) = self.line().take(waiting.place, taker, bytes, rate) else { return };
            self.waited.store(true, Relaxed);
            tokio::select! {
                () = time::sleep(due) => {}
                () = waiting.is_first.notified() => {}
                _ = rates.changed() => {}
            }
        }
    }

    fn stand_in_line(&self, taker: &Taker) -> Waiting<'_> {
        let is_first = Arc::<Notify>::default();
        let place = self.line().stand(taker, Arc::clone(&is_first));
        Waiting { bucket: self, place, is_first }
    }

    /// Bytes that have passed so far.
    pub fn passed(&self) -> u64 {
        self.passed.load(Relaxed)
    }

    /// Whether anybody had to wait since this was last asked, or waits now.
    pub fn waited(&self) -> bool {
        self.waited.swap(false, Relaxed) || self.waiting() > 0
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.line().waiting.len()
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn stand(&mut self, taker: &Taker, is_first: Arc<Notify>) -> Place {
        let had = match taker.had.load(Relaxed) {
            // Else those who come and go would pass all who stay.
            0 => self.waiting.last_key_value().map_or(0, |(last, _)| last.had),
            had => had,
        };
        self.arrivals += 1;
        let place = Place { had: had.max(self.level), arrival: self.arrivals };
        self.waiting.insert(place, is_first);
        place
    }

    /// Takes `bytes` at `place`, or tells how long to wait before asking again.
    fn take(&mut self, place: Place, taker: &Taker, bytes: u64, rate: u64) -> Option<Duration> {
        if self.waiting.first_key_value().is_some_and(|(first, _)| *first != place) {
            return Some(Duration::MAX);
        }
        let due = self.credit.due(Instant::now(), rate);
        if due.is_none() {
            self.credit.pay(bytes);
            self.level = place.had;
            taker.had.store(place.had.saturating_add(bytes), Relaxed);
        }
        due
    }

    fn leave(&mut self, place: Place) {
        self.waiting.remove(&place);
        if let Some((first, is_first)) = self.waiting.first_key_value()
            && *first > place
        {
            is_first.notify_one();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.bucket.line().leave(self.place);
    }
}

/// Bytes to pass at once under the limit `shared` with all others, where the lowest one is `lowest`: small beside either.
pub fn quantum(shared: Option<u64>, lowest: Option<u64>) -> usize {
    let (least, most) = QUANTUM_BYTES;
    let passing_in =
        |rate: Option<u64>, time: Duration| rate.map_or(most, |rate| (rate as f64 * time.as_secs_f64()) as u64);
    let bytes = passing_in(shared.or(lowest), QUANTUM).min(passing_in(lowest, SAVED));
    usize::try_from(bytes.clamp(least, most)).unwrap_or(usize::MAX)
}

/// How far a bucket is behind its rate, or ahead of it.
#[derive(Debug, Clone, Copy)]
struct Credit {
    /// Below 0: owed, at the rate of `rate`.
    seconds: f64,
    rate: u64,
    at: Instant,
}

impl Credit {
    fn new(at: Instant) -> Self {
        Self { seconds: 0.0, rate: 0, at }
    }

    /// How long until the next quantum may pass under `rate`; `None` when it may now.
    fn due(&mut self, now: Instant, rate: u64) -> Option<Duration> {
        // What is owed is paid the sooner under a higher rate, and no later under a lower one.
        if rate > self.rate && self.seconds < 0.0 {
            self.seconds *= self.rate as f64 / rate as f64;
        }
        self.rate = rate;
        if rate == 0 {
            self.at = now;
            return Some(Duration::MAX);
        }
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.seconds = (self.seconds + elapsed).min(SAVED.as_secs_f64());
        self.at = now;
        (self.seconds < 0.0).then(|| Duration::from_secs_f64(-self.seconds).max(Duration::from_micros(1)))
    }

    fn pay(&mut self, bytes: u64) {
        self.seconds -= bytes as f64 / self.rate as f64;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use longshore_tests::wait_until;
    use proptest::prelude::*;
    use tokio::task::JoinSet;

    use super::*;

    const MB: u64 = 1_000_000;

    /// Passes quanta through `bucket` for ever, counting them.
    fn sender(bucket: &Arc<Bucket>, quantum: u64, to: &mut JoinSet<()>) -> Arc<AtomicU64> {
        let (bucket, sent) = (Arc::clone(bucket), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&sent);
        to.spawn(async move {
            let taker = Taker::default();
            loop {
                bucket.pass(&taker, quantum).await;
                count.fetch_add(quantum, Relaxed);
            }
        });
        sent
    }

    // Real time: what is said of it are bounds that a busy machine can't break.

    #[tokio::test]
    async fn no_more_passes_than_the_rate_and_shares_are_equal() {
        let (bucket, mut senders) = (Arc::new(Bucket::new(Some(40 * MB))), JoinSet::new());
        let started = Instant::now();
        // Of very unequal pieces, one of which takes seven milliseconds.
        let pieces = [16, 64, 64, 64, 64, 64, 256].map(|kib| kib << 10);
        let sent = pieces.map(|piece| sender(&bucket, piece, &mut senders));
        time::sleep(Duration::from_secs(3)).await;
        let each = sent.map(|sent| sent.load(Relaxed));
        let most = 40e6 * (started.elapsed() + SAVED).as_secs_f64() + f64::from(256 << 10);
        let sum = each.iter().sum::<u64>() as f64;
        assert!(sum <= most && sum > most / 4.0, "{sum} of {most}");
        assert!(each.iter().all(|&each| (each as f64 / (sum / 7.0) - 1.0).abs() < 0.05), "{each:?}");
    }

    #[tokio::test]
    async fn a_changed_rate_holds_at_once_for_those_who_wait() {
        let (bucket, mut senders) = (Arc::new(Bucket::new(Some(1000))), JoinSet::new());
        let sent = sender(&bucket, 64 << 10, &mut senders);
        let reaches = async |what: &str, bytes: u64| {
            wait_until(what, Duration::from_secs(20), async || sent.load(Relaxed) >= bytes).await;
        };
        reaches("the first has passed, and owes a minute", 64 << 10).await;
        bucket.set(Some(100 * MB));
        reaches("the second does not wait for the old rate's end", MB).await;
        bucket.set(Some(0));
        time::sleep(Duration::from_millis(50)).await;
        let before = sent.load(Relaxed);
        time::sleep(Duration::from_millis(300)).await;
        assert_eq!(sent.load(Relaxed), before, "nothing passes at 0");
        bucket.set(Some(MB));
        reaches("a stopped line goes on", before + MB / 4).await;
    }

    #[tokio::test]
    async fn without_a_limit_nobody_waits_and_a_new_one_is_noticed() {
        let bucket = Bucket::new(None);
        bucket.pass(&Taker::default(), u64::MAX / 2).await;
        assert!(!bucket.waited() && bucket.passed() == u64::MAX / 2);
        let waits = time::timeout(Duration::from_millis(50), bucket.limited()).await;
        assert!(waits.is_err());
        tokio::join!(bucket.limited(), async { bucket.set(Some(1)) });
    }

    #[test]
    fn who_is_new_stands_last_and_who_was_away_has_saved_nothing() {
        let bucket = Bucket::new(Some(MB));
        let [first, second, third] = [(); 3].map(|()| Taker::default());
        let take = |taker: &Taker, bytes| {
            let waiting = bucket.stand_in_line(taker);
            // Its level is what is asked for here, not the time that it takes.
            let mut line = bucket.line();
            line.credit = Credit::new(Instant::now());
            assert!(line.take(waiting.place, taker, bytes, MB).is_none());
            drop(line);
            waiting.place.had
        };
        assert_eq!((take(&first, 100), take(&second, 10), take(&first, 100)), (0, 0, 100));
        assert_eq!(take(&second, 10), 100, "what it did not take meanwhile is gone");
        let waits = bucket.stand_in_line(&first);
        assert_eq!((waits.place.had, bucket.waiting()), (200, 1));
        let new = bucket.stand_in_line(&third);
        assert!(new.place > waits.place, "behind those who wait");
        drop((waits, new));
        assert!(!bucket.waited());
    }

    #[test]
    fn a_quantum_is_small_beside_a_burst() {
        assert_eq!(quantum(Some(1), Some(1)), 4 << 10);
        assert_eq!(quantum(Some(40 * MB), Some(40 * MB)), 80_000);
        assert_eq!(quantum(Some(40 * MB), Some(5 * MB)), 80_000, "as large as others' under the limit that all share");
        assert_eq!(quantum(Some(40 * MB), Some(MB)), 50_000, "but for a limit of which that were much");
        assert_eq!(quantum(None, Some(40 * MB)), 80_000);
        assert_eq!(quantum(None, None), 256 << 10);
    }

    proptest! {
        /// Whatever is asked for, and whenever: never more than the rate, what was saved, and the one quantum that is owed.
        #[test]
        fn nothing_passes_above_the_rate(
            rate in 1_000u64..1_000_000_000,
            asks in proptest::collection::vec((0u64..200_000, 1u64..300_000), 1..200),
        ) {
            let start = Instant::now();
            let (mut now, mut credit, mut passed) = (start, Credit::new(start), 0u64);
            for (micros, bytes) in asks {
                now += Duration::from_micros(micros);
                if let Some(due) = credit.due(now, rate) {
                    now += due;
                    now += Duration::from_micros(1);
                    prop_assert!(credit.due(now, rate).is_none(), "due when it was said to be");
                }
                let seconds = (now - start).as_secs_f64();
                let most = rate as f64 * (seconds + SAVED.as_secs_f64());
                prop_assert!(passed as f64 <= most + 1.0, "{passed} after {seconds} s at {rate}");
                credit.pay(bytes);
                passed += bytes;
            }
        }
    }
}
