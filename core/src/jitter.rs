//! Waits of which no two are alike.

use std::time::Duration;

/// Between 75 % and 125 % of `duration`, so that many who wait don't come back in one instant.
pub fn jittered(duration: Duration) -> Duration {
    let share = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    duration.mul_f64(0.75 + share / 2.0)
}
