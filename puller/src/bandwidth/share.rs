//! This node's share of what the cluster may take: a lease of rate on the queue's Redis, asked for every second with what
//! the node could use. While Redis is away the lease holds to its end; after that the node falls back on its part by weight
//! of the nodes that were there last.

use std::time::Duration;

use longshore_core::{
    NodeId,
    queue::{Budget, Queue, RateLease, RateRequest},
};
use tokio::time::{Instant, sleep};

use super::{Bandwidth, Bucket};

const LEASE: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_secs(1);
const MEASURE_OVER: Duration = Duration::from_millis(500);
/// A node that was not held back may begin to use more before it asks again.
const HEADROOM: u64 = 2;

/// Keeps the node's shares, for as long as it is polled.
pub async fn keep(bandwidth: &Bandwidth, queue: &Queue, node_id: &NodeId, weight: impl Fn() -> u32) {
    let mut shares = [Share::new(Budget::Fetch), Share::new(Budget::Restore)];
    loop {
        let caps = bandwidth.caps();
        let mut shrank = false;
        for share in &mut shares {
            let (cap, own, bucket) = match share.budget {
                Budget::Fetch => (caps.cluster, caps.node, bandwidth.node()),
                Budget::Restore => (caps.cluster_restore, caps.restore, bandwidth.restore()),
            };
            share.scale(cap);
            // In force before the others hear of it.
            bandwidth.set_share(share.budget, share.rate(Instant::now(), weight()));
            let Some(cap) = cap else { continue };
            let asked = Instant::now();
            let (demand, used) = (share.demand(bucket, cap, asked), share.used(asked));
            let request = RateRequest {
                budget: share.budget,
                node_id,
                weight: weight(),
                demand: own.map_or(demand, |own| own.min(demand)),
                used,
                cap,
                lease: LEASE,
            };
            match queue.lease_rate(&request).await {
                Ok(lease) => {
                    shrank |= lease.rate < used;
                    share.granted(lease, asked);
                }
                Err(error) => share.not_answered(&error.to_string()),
            }
            bandwidth.set_share(share.budget, share.rate(Instant::now(), weight()));
        }
        // What was given back is the others' once we have said that we do without.
        if !shrank {
            tokio::select! {
                () = sleep(ASK_EVERY) => {}
                () = bandwidth.caps_changed() => {}
            }
        }
    }
}

/// One budget as this node knows it.
struct Share {
    budget: Budget,
    cap: Option<u64>,
    lease: Option<(u64, Instant)>,
    /// Of all nodes, when Redis last answered.
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
        if self.lease.is_some_and(|(_, until)| until > now) {
            return Some(self.used(now));
        }
        // Not asked yet: the answer comes in a moment, and others may hold all of it.
        let part = f64::from(weight.max(1)) / (self.weights.max(u64::from(weight.max(1))) as f64);
        Some(if self.asked { (cap as f64 * part) as u64 } else { 0 })
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
    use super::*;

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
        assert_eq!((share.used(start + LEASE / 2), share.used(start + LEASE)), (700, 0));
        share.scale(Some(500));
        assert_eq!(share.rate(start, 100), Some(350), "a new cap scales what is held");
        share.scale(None);
        assert_eq!(share.rate(start, 100), None);
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
        bucket.pass(1000).await;
        assert_eq!(share.demand(&bucket, u64::MAX, start + second), 2000);
        assert_eq!(share.demand(&bucket, u64::MAX, start + second), 2000, "a moment later it is still that");
        bucket.set(Some(1_000_000));
        for _ in 0..100 {
            bucket.pass(1000).await;
        }
        assert_eq!(share.demand(&bucket, 77, start + second), 77);
        assert_eq!(share.demand(&bucket, u64::MAX, start + 2 * second), 0);
    }
}
