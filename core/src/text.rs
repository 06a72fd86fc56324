//! Sizes and spans as people read them, the same in the command, on the pages and in sentences. Programs get numbers.

use std::time::Duration;

use crate::Millis;

/// `70.0 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `3h 20m`: the two largest units that are not zero.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, 0) => format!("{minutes}m"),
        (0, 0, minutes, seconds) if minutes < 10 => format!("{minutes}m {seconds}s"),
        (0, 0, minutes, _) => format!("{minutes}m"),
        (0, hours, 0, _) => format!("{hours}h"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, 0, _, _) => format!("{days}d"),
        (days, hours, _, _) => format!("{days}d {hours}h"),
    }
}

/// `3h 20m ago`, or `in 3h 20m`, by this machine's clock.
pub fn ago(at: Millis) -> String {
    from(at, Millis::now())
}

/// `3h 20m ago`, or `in 3h 20m`, as seen at `now`.
pub fn from(at: Millis, now: Millis) -> String {
    if at > now { format!("in {}", span(at.since(now))) } else { format!("{} ago", span(now.since(at))) }
}

/// `1 job`, `2 jobs`.
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_well() {
        assert_eq!([size(0), size(1536), size(73_400_320), size(1 << 40)], ["0 B", "1.5 KiB", "70.0 MiB", "1.0 TiB"]);
        assert_eq!([size(1023), size(u64::MAX)], ["1023 B", "16384 PiB"]);
        let of = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([of(0), of(125), of(3600), of(12_000), of(200_000)], ["0s", "2m 5s", "1h", "3h 20m", "2d 7h"]);
        let now = Millis(1_000_000_000);
        assert_eq!(from(Millis(now.0 - 60_000), now), "1m ago");
        assert_eq!(from(Millis(now.0 + 60_000), now), "in 1m");
        assert_eq!([count(1, "job"), count(0, "job")], ["1 job", "0 jobs"]);
    }
}
