//! A time as people give it: RFC 3339, local date and time, `now`, or how long ago.

use std::str::FromStr;

use jiff::{Timestamp, civil, tz::TimeZone};
use longshore_core::Millis;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At(pub Millis);

impl FromStr for At {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, Timestamp::now(), &TimeZone::system()).map(|at| Self(Millis(at.as_millisecond())))
    }
}

/// `text` as of `now`, in `zone` where it names none. A local time that a clock change skips is the one after the change; one
/// that comes twice is the earlier.
fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "{text:?} is not a time; write it like '2026-11-20 03:00' (local), 2026-11-20T03:00:00+08:00, now, or '2h ago'"
        )
    };
    if text.eq_ignore_ascii_case("now") {
        return Ok(now);
    }
    let ago = text.strip_suffix("ago").map(str::trim_end);
    if let Some(span) = ago.or((!text.contains(['-', ':', 'T'])).then_some(text)).filter(|span| !span.is_empty()) {
        // A number alone would be taken for seconds, and may have been meant as anything.
        if span.parse::<u64>().is_ok() {
            return Err(wrong());
        }
        let span: longshore_core::config::Span = span.parse().map_err(|_| wrong())?;
        return now.checked_sub(span.duration()).map_err(|_| wrong());
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let local = text.replacen(' ', "T", 1);
    let moment: civil::DateTime = local.parse().map_err(|_| wrong())?;
    zone.to_ambiguous_timestamp(moment).compatible().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<String, String> {
        let now: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        parse(text, now, &TimeZone::get("Asia/Shanghai").unwrap()).map(|at| at.to_string())
    }

    #[test]
    fn every_way_to_write_a_time() {
        for (text, wanted) in [
            ("now", "2026-11-21T02:00:00Z"),
            ("2h ago", "2026-11-21T00:00:00Z"),
            ("1h 30m ago", "2026-11-21T00:30:00Z"),
            ("2d", "2026-11-19T02:00:00Z"),
            ("2026-11-20T03:00:00Z", "2026-11-20T03:00:00Z"),
            ("2026-11-20T03:00:00+08:00", "2026-11-19T19:00:00Z"),
            ("2026-11-20 03:00:00+08:00", "2026-11-19T19:00:00Z"),
            ("2026-11-20 03:00", "2026-11-19T19:00:00Z"),
            ("2026-11-20 03:00:30", "2026-11-19T19:00:30Z"),
            ("2026-11-20T03:00", "2026-11-19T19:00:00Z"),
            ("2026-11-20", "2026-11-19T16:00:00Z"),
        ] {
            assert_eq!(at(text).as_deref(), Ok(wanted), "{text}");
        }
        for text in ["", "yesterday", "7", "2026-13-01", "25:00", "ago", "tomorrow 03:00"] {
            assert!(at(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_local_time_that_a_clock_change_skips_or_doubles_is_still_one_moment() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(parse("2026-03-29 02:30", now, &zone).unwrap().to_string(), "2026-03-29T01:30:00Z");
        assert_eq!(parse("2026-10-25 02:30", now, &zone).unwrap().to_string(), "2026-10-25T00:30:00Z");
    }
}
