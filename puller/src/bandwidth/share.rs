//! This node's share of what the cluster may take: a lease of rate on the queue's Redis, asked for every second with what
//! the node could use. While Redis is away the lease holds to its end, though nobody answers; after that the node falls back on
//! its part by weight of the nodes that were there last: those that had a lease, or, while there was no limit, those that beat.

use std::{pin::pin, time::Duration};

use longshore_core::{
    Millis, NodeId,
    queue::{Budget, Queue, RateLease, RateRequest},
    redis_link::LinkError,
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Bandwidth, Bucket};

const LEASE: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A node whose part is more than it had leased waits for the ends of the leases of those who have less then: they last asked
/// a second later than it, or a slow answer more.
const OTHERS_END_WITHIN: Duration = Duration::from_secs(2);
const MEASURE_OVER: Duration = Duration::from_millis(500);
/// A node that was not held back may begin to use more before it asks again.
const HEADROOM: u64 = 2;
/// How often it is looked who shares a limit that is yet to come.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Beats come every few seconds; who has not beaten for so long is away.
const SILENT_AFTER: Duration = Duration::from_secs(30);

/// Keeps the node's shares, for as long as it is polled.
pub async fn keep(bandwidth: &Bandwidth, queue: &Queue, node_id: &NodeId, weight: impl Fn() -> u32) {
    let keeper = |budget| Keeper { bandwidth, queue, node_id, weight: &weight, share: Share::new(budget) };
    tokio::join!(Box::pin(keeper(Budget::Fetch).run()), Box::pin(keeper(Budget::Restore).run()));
}

/// Who keeps one share.
struct Keeper<'a, W> {
    bandwidth: &'a Bandwidth,
    queue: &'a Queue,
    node_id: &'a NodeId,
    weight: &'a W,
    share: Share,
}

impl<W: Fn() -> u32> Keeper<'_, W> {
    async fn run(mut self) {
        let mut changes = self.bandwidth.changes();
        loop {
            changes.mark_unchanged();
            tokio::select! {
                () = self.step() => {}
                // A question that is not answered yet was of another limit; an answer that is lost harms nobody.
                _ = changes.changed() => {}
            }
        }
    }

    /// One question, and the rest until the next.
    async fn step(&mut self) {
        let caps = self.bandwidth.caps();
        let (cap, own, bucket) = match self.share.budget {
            Budget::Fetch => (caps.cluster, caps.node, self.bandwidth.fetch()),
            Budget::Restore => (caps.cluster_restore, caps.restore, self.bandwidth.restore()),
        };
        self.share.scale(cap);
        // In force before the others hear of it.
        self.apply();
        let Some(cap) = cap else {
            if let Ok(weights) = self.weights_of_others().await {
                self.share.weights = weights + u64::from((self.weight)().max(1));
            }
            return sleep(LOOK_EVERY).await;
        };
        let asked = Instant::now();
        let (demand, used) = (self.share.demand(bucket, cap, asked), self.share.used(asked));
        let request = RateRequest {
            budget: self.share.budget,
            node_id: self.node_id,
            weight: (self.weight)(),
            demand: own.map_or(demand, |own| own.min(demand)),
            used,
            cap,
            lease: LEASE,
        };
        let answer = self.while_time_goes_by(self.queue.lease_rate(&request)).await;
        let shrank = answer.as_ref().is_ok_and(|lease| lease.rate < used);
        match answer {
            Ok(lease) => self.share.granted(lease, asked),
            Err(error) => self.share.not_answered(&error.to_string()),
        }
        self.apply();
        // What was given back is the others' once we have said that we do without.
        if !shrank {
            self.while_time_goes_by(sleep(ASK_EVERY)).await;
        }
    }

    fn apply(&self) {
        self.bandwidth.set_share(self.share.budget, self.share.rate(Instant::now(), (self.weight)()));
    }

    /// Awaits `what`, and meanwhile lets the lease end when it does.
    async fn while_time_goes_by<T>(&self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        loop {
            let turn = self.share.next_turn(Instant::now());
            tokio::select! {
                done = &mut what => return done,
                () = sleep_until(turn.unwrap_or_else(Instant::now)), if turn.is_some() => self.apply(),
            }
        }
    }

    /// Of the nodes that beat, but for this one.
    async fn weights_of_others(&self) -> Result<u64, LinkError> {
        let (beats, now) = (self.queue.nodes().await?, self.queue.now_micros().await?);
        let now = Millis((now / 1000).cast_signed());
        let others = beats.iter().filter(|(beat, _)| beat.node_id != *self.node_id);
        let there = others.filter(|(_, seen)| now.since(*seen) < SILENT_AFTER);
        Ok(there.map(|(beat, _)| u64::from(beat.weight.max(1))).sum())
    }
}

/// One budget as this node knows it.
struct Share {
    budget: Budget,
    cap: Option<u64>,
    lease: Option<(u64, Instant)>,
    /// Of all nodes, when Redis last told.
    weights: u64,
    /// Whether it has answered, or failed to, since there is a cap.
    asked: bool,
    away: bool,
    demand: u64,
    /// Bytes that had passed when demand was last measured, and when that was.
    measured: (u64, Instant),
}

impl Share {
    fn new(budget: Budget) -> Self {
        Self {
            budget,
            cap: None,
            lease: None,
            weights: 0,
            asked: false,
            away: false,
            demand: 0,
            measured: (0, Instant::now()),
        }
    }

    /// To a new cap: every node does so as soon as it hears of it, so that the sum holds before they ask again.
    fn scale(&mut self, cap: Option<u64>) {
        match (self.cap, cap, &mut self.lease) {
            (Some(before), Some(now), Some((rate, _))) if before > 0 => {
                *rate = (*rate as f64 * now as f64 / before as f64) as u64;
            }
            (Some(_), Some(_), _) => {}
            _ => (self.lease, self.asked) = (None, false),
        }
        self.cap = cap;
    }

    /// What the lease allows, while it lasts.
    fn used(&self, now: Instant) -> u64 {
        self.lease.filter(|&(_, until)| until > now).map_or(0, |(rate, _)| rate)
    }

    /// What is allowed now; `None` is no limit.
    fn rate(&self, now: Instant, weight: u32) -> Option<u64> {
        let cap = self.cap?;
        let part = f64::from(weight.max(1)) / (self.weights.max(u64::from(weight.max(1))) as f64);
        let part = (cap as f64 * part) as u64;
        Some(match self.lease {
            Some((rate, until)) if now < until => rate,
            Some((rate, until)) if now < until + OTHERS_END_WITHIN => part.min(rate),
            _ if self.asked => part,
            // The answer comes in a moment, and others may hold all of it.
            _ => 0,
        })
    }

    /// When what is allowed changes next by time alone.
    fn next_turn(&self, now: Instant) -> Option<Instant> {
        let (_, until) = self.lease?;
        [until, until + OTHERS_END_WITHIN].into_iter().find(|turn| *turn > now)
    }

    /// What the node could use: all there is, when it was held back.
    fn demand(&mut self, bucket: &Bucket, cap: u64, now: Instant) -> u64 {
        let passed = bucket.passed();
        let seconds = now.saturating_duration_since(self.measured.1).as_secs_f64();
        if bucket.waited() {
            self.demand = u64::MAX;
        } else if seconds > MEASURE_OVER.as_secs_f64() {
            let used = passed.saturating_sub(self.measured.0) as f64 / seconds;
            self.demand = (used as u64).saturating_mul(HEADROOM);
        } else {
            // Too short to tell anything.
            return self.demand.min(cap);
        }
        self.measured = (passed, now);
        self.demand.min(cap)
    }

    fn granted(&mut self, lease: RateLease, asked: Instant) {
        if self.away {
            tracing::info!(budget = ?self.budget, rate = lease.rate, "the cluster's bandwidth is shared again");
        }
        self.lease = Some((lease.rate, asked + LEASE));
        (self.weights, self.asked, self.away) = (lease.weights, true, false);
    }

    fn not_answered(&mut self, error: &str) {
        if !self.away {
            tracing::warn!(budget = ?self.budget, %error, "no share of the cluster's bandwidth could be asked for");
        }
        (self.asked, self.away) = (true, true);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longshore_core::{config::RedisConfig, redis_link::RedisLink};
    use longshore_tests::wait_until;

    use super::{super::bucket::Taker, *};

    #[test]
    fn without_answers_the_lease_holds_and_then_the_part_by_the_last_known_weights() {
        let start = Instant::now();
        let mut share = Share::new(Budget::Fetch);
        assert_eq!(share.rate(start, 100), None, "no cap, no share");
        share.scale(Some(1000));
        assert_eq!(share.rate(start, 100), Some(0), "not before it was asked for");
        share.granted(RateLease { rate: 700, weights: 400 }, start);
        share.not_answered("away");
        assert_eq!(share.rate(start + LEASE / 2, 100), Some(700));
        assert_eq!(share.rate(start + LEASE, 100), Some(250));
        assert_eq!(share.rate(start + LEASE, 399), Some(700), "others have not ended yet");
        assert_eq!(share.rate(start + LEASE + OTHERS_END_WITHIN, 399), Some(997));
        let turns = [start, start + LEASE, start + LEASE + OTHERS_END_WITHIN].map(|now| share.next_turn(now));
        assert_eq!(turns, [Some(start + LEASE), Some(start + LEASE + OTHERS_END_WITHIN), None]);
        assert_eq!((share.used(start + LEASE / 2), share.used(start + LEASE)), (700, 0));
        share.scale(Some(500));
        assert_eq!(share.rate(start, 100), Some(350), "a new cap scales what is held");
        share.scale(None);
        assert_eq!(share.rate(start, 100), None);
    }

    #[tokio::test]
    async fn a_lease_ends_while_its_question_waits_for_an_answer() {
        let (bandwidth, node_id) = (Bandwidth::default(), "1".parse().unwrap());
        let queue = Queue::new(RedisLink::new(&RedisConfig::default()));
        let mut share = Share::new(Budget::Fetch);
        share.scale(Some(1000));
        let almost_over = Instant::now().checked_sub(LEASE).unwrap() + Duration::from_millis(300);
        share.granted(RateLease { rate: 700, weights: 400 }, almost_over);
        let keeper = Keeper { bandwidth: &bandwidth, queue: &queue, node_id: &node_id, weight: &|| 100, share };
        keeper.apply();
        assert_eq!(bandwidth.fetch().rate(), Some(700));
        let ends = wait_until("it has its part", LEASE, async || bandwidth.fetch().rate() == Some(250));
        tokio::select! {
            () = keeper.while_time_goes_by(std::future::pending()) => {}
            () = ends => {}
        }
    }

    #[test]
    fn a_node_that_never_got_an_answer_takes_itself_for_alone() {
        let mut share = Share::new(Budget::Restore);
        share.scale(Some(1000));
        share.not_answered("away");
        assert_eq!(share.rate(Instant::now(), 0), Some(1000));
    }

    #[tokio::test]
    async fn who_was_held_back_wants_all() {
        let (mut share, bucket) = (Share::new(Budget::Fetch), Bucket::new(None));
        let (start, second) = (share.measured.1, Duration::from_secs(1));
        let taker = Taker::default();
        bucket.pass(&taker, 1000).await;
        assert_eq!(share.demand(&bucket, u64::MAX, start + second), 2000);
        assert_eq!(share.demand(&bucket, u64::MAX, start + second), 2000, "a moment later it is still that");
        bucket.set(Some(1_000_000));
        for _ in 0..100 {
            bucket.pass(&taker, 1000).await;
        }
        assert_eq!(share.demand(&bucket, 77, start + second), 77);
        assert_eq!(share.demand(&bucket, u64::MAX, start + 2 * second), 0);
    }
}
