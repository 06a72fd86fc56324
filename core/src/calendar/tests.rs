#![allow(clippy::unwrap_used)]
use jiff::{Timestamp, civil, tz::TimeZone};
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Millis {
    Millis(text.parse::<Timestamp>().unwrap().as_millisecond())
}

fn berlin(hour: i8, minute: i8, year: i16, month: i8, day: i8) -> Millis {
    let local = civil::date(year, month, day).at(hour, minute, 0, 0);
    Millis(TimeZone::get("Europe/Berlin").unwrap().to_timestamp(local).unwrap().as_millisecond())
}

fn window(text: &str) -> Window {
    text.parse().unwrap()
}

#[test]
fn hours_over_midnight_belong_to_the_day_on_which_they_begin() {
    let window = window("22:00-06:00 Mon-Fri Europe/Berlin");
    // 2026-11-20 is a Friday.
    for (hour, minute, day, open) in [
        (21, 59, 20, false),
        (22, 0, 20, true),
        (5, 59, 21, true),
        (6, 0, 21, false),
        (23, 0, 21, false),
        (3, 0, 22, false),
        (22, 0, 23, true),
        (3, 0, 23, false),
    ] {
        assert_eq!(window.is_open(berlin(hour, minute, 2026, 11, day)), open, "{hour}:{minute} on the {day}th");
    }
    assert_eq!(window.next_change(berlin(12, 0, 2026, 11, 21)), Some(berlin(22, 0, 2026, 11, 23)));
}

#[test]
fn in_spring_the_hour_that_is_skipped_is_not_there() {
    // On 2026-03-29 Berlin's clocks go from 02:00 to 03:00, at 01:00 UTC.
    let night = window("22:00-06:00 Europe/Berlin");
    assert_eq!(night.next_change(at("2026-03-28T21:00:00Z")), Some(at("2026-03-29T04:00:00Z")), "an hour less");
    let ends_in_it = window("00:00-02:30 Europe/Berlin");
    assert_eq!(ends_in_it.next_change(at("2026-03-28T23:00:00Z")), Some(at("2026-03-29T01:00:00Z")));
    let begins_in_it = window("02:30-05:00 Europe/Berlin");
    assert_eq!(begins_in_it.next_change(at("2026-03-29T00:00:00Z")), Some(at("2026-03-29T01:00:00Z")));
    assert!(begins_in_it.is_open(at("2026-03-29T01:00:00Z")) && !begins_in_it.is_open(at("2026-03-29T00:59:59Z")));
    let within = window("02:10-02:50 Europe/Berlin");
    assert_eq!(within.next_change(at("2026-03-28T12:00:00Z")), Some(at("2026-03-30T00:10:00Z")), "not that night");
}

#[test]
fn in_autumn_the_hour_that_comes_twice_counts_twice() {
    // On 2026-10-25 Berlin's clocks go from 03:00 back to 02:00, at 01:00 UTC.
    let night = window("22:00-06:00 Europe/Berlin");
    assert_eq!(night.next_change(at("2026-10-24T20:00:00Z")), Some(at("2026-10-25T05:00:00Z")), "an hour more");
    let within = window("02:10-02:50 Europe/Berlin");
    let mut changes = vec![at("2026-10-24T12:00:00Z")];
    while changes.len() < 6 {
        changes.push(within.next_change(*changes.last().unwrap()).unwrap());
    }
    let wanted = ["T00:10", "T00:50", "T01:10", "T01:50"].map(|time| at(&format!("2026-10-25{time}:00Z")));
    assert_eq!(changes[1..5], wanted);
    assert_eq!(changes[5], at("2026-10-26T01:10:00Z"));
    let until_it = window("00:00-02:30 Europe/Berlin");
    assert!(until_it.is_open(at("2026-10-25T01:15:00Z")), "the wall shows 02:15 again");
}

#[test]
fn a_zone_without_daylight_saving_is_a_shift() {
    let window = window("09:00-18:00 Mon-Fri Asia/Shanghai");
    assert!(window.is_open(at("2026-07-20T01:00:00Z")) && !window.is_open(at("2026-07-20T00:59:59.999Z")));
    assert_eq!(window.next_change(at("2026-07-24T10:00:00Z")), Some(at("2026-07-27T01:00:00Z")), "over the weekend");
}

#[test]
fn without_a_zone_hours_are_utc_and_said_so() {
    let window = window("08:00-9:30 Sat,Sun");
    assert!(window.is_open(at("2026-11-21T08:00:00Z")));
    assert_eq!(window.to_string(), "08:00-09:30 Sat-Sun UTC");
}

#[test]
fn always_and_never_never_change() {
    let now = Millis::now();
    for (text, open) in [("always", true), (" never ", false), ("00:00-24:00", true)] {
        assert_eq!((window(text).is_open(now), window(text).next_change(now)), (open, None), "{text}");
    }
    let closed = window("08:00-18:00 Mon-Fri never, else always");
    assert!(!closed.is_open(at("2026-11-20T09:00:00Z")) && closed.is_open(at("2026-11-21T09:00:00Z")));
}

#[test]
fn a_rate_follows_its_hours() {
    let plan: RatePlan =
        "09:00-18:00 Mon-Fri 20MB/s Europe/Berlin, 12:00-13:00 5MiB/s, else unlimited".parse().unwrap();
    for (time, rate) in [
        ("2026-11-20T07:59:59Z", None),
        ("2026-11-20T08:00:00Z", Some(20_000_000)),
        ("2026-11-20T11:30:00Z", Some(20_000_000)),
        ("2026-11-21T11:30:00Z", Some(5 << 20)),
        ("2026-11-20T17:00:00Z", None),
    ] {
        assert_eq!(plan.rate(at(time)), rate, "{time}");
    }
    assert_eq!(plan.next_change(at("2026-11-20T08:00:00Z")), Some(at("2026-11-20T17:00:00Z")), "the first counts");
    let fixed: RatePlan = "40MB/s".parse().unwrap();
    assert_eq!((&fixed, fixed.next_change(Millis::now())), (&RatePlan::constant(Some(40_000_000)), None));
    assert_eq!("unlimited".parse::<RatePlan>().unwrap(), RatePlan::constant(None));
}

#[test]
fn errors_show_the_place_and_an_example() {
    for (text, wanted) in [
        ("", "hours are missing"),
        ("22:00-06:00,", "hours are missing"),
        ("22:00-6", "\"22:00-6\", character 1"),
        ("22:00-25:00", "from 00:00 to 24:00"),
        ("22:00-23:60", "from 00:00 to 24:00"),
        ("08:00-08:00", "empty"),
        ("24:00-08:00", "empty"),
        ("08:00-09:00 Mon, 10:00-11:00 Tues", "\"Tues\", character 30"),
        ("08:00-09:00 Europe/Berlim", "\"Europe/Berlim\", character 13"),
        ("08:00-09:00 Europe/Berlin, 10:00-11:00 Asia/Shanghai", "one zone"),
        ("Mon-Fri", "hours are expected"),
        ("08:00-09:00, night", "hours or days"),
        ("else always", "no hours before"),
        ("always, 08:00-09:00", "nothing can follow"),
        ("+1:00-+2:00", "from 00:00"),
    ] {
        let error = text.parse::<Window>().unwrap_err().to_string();
        assert!(error.contains(wanted) && error.ends_with("00:00-24:00 Sat-Sun"), "{text:?}: {error}");
    }
    for (text, wanted) in [
        ("40MB", "ends with /s"),
        ("40", "ends with /s"),
        ("-1MB/s", "not a size"),
        ("0/s", "least rate"),
        ("ten/s", "hours are expected"),
        ("09:00-18:00 20MB/s", "at other times"),
        ("09:00-18:00, else unlimited", "without a value"),
        ("09:00-18:00 Mon 20MB/s, Fri 10MB/s, else unlimited", "second value"),
    ] {
        let error = text.parse::<RatePlan>().unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("write it like 40MB/s"), "{text:?}: {error}");
    }
}

fn a_zone() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec!["Europe/Berlin", "Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "UTC"])
}

prop_compose! {
    fn hours()(from in 0u16..1440, length in 1u16..1440, days in 1u8..128) -> String {
        let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let named = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].iter().enumerate();
        let named: Vec<&str> = named.filter(|(day, _)| days >> day & 1 == 1).map(|(_, name)| *name).collect();
        format!("{}-{} {}", clock(from), clock((from + length) % 1440), named.join(","))
    }
}

proptest! {
    /// Also over the changes of the clocks of 2026: the times are spread over the year.
    #[test]
    fn a_change_is_one_and_nothing_changes_before_it(
        parts in proptest::collection::vec(hours(), 1..4),
        zone in a_zone(),
        start in 1_767_225_600i64..1_798_761_600,
        looks in proptest::collection::vec(0.0f64..1.0, 50),
    ) {
        let window: Window = parts.join(", ").replacen(' ', &format!(" {zone} "), 1).parse().unwrap();
        let start = Millis::from_seconds(start);
        let open = window.is_open(start);
        let change = window.next_change(start);
        let end = change.unwrap_or(start.plus(std::time::Duration::from_secs(20 * 86_400)));
        prop_assert!(end > start);
        if let Some(change) = change {
            prop_assert_ne!(window.is_open(change), open);
            prop_assert_eq!(window.is_open(Millis(change.0 - 1)), open);
        }
        for look in looks {
            let look = Millis(start.0 + ((end.0 - start.0) as f64 * look) as i64);
            prop_assert!(look >= end || window.is_open(look) == open, "{look} within {start} to {end}");
        }
    }

    #[test]
    fn what_is_shown_reads_as_the_same(
        parts in proptest::collection::vec((hours(), 1000u64..100_000_000_000), 0..4),
        zone in a_zone(),
        other in proptest::option::of(1000u64..1_000_000_000_000),
    ) {
        let rate = |bytes: u64| format!("{}/s", ByteSize(bytes));
        let parts: Vec<String> = parts.into_iter().map(|(hours, bytes)| format!("{hours} {} {zone}", rate(bytes))).collect();
        let other = other.map_or_else(|| "unlimited".to_owned(), rate);
        let text = if parts.is_empty() { other } else { format!("{}, else {other}", parts.join(", ")) };
        let plan: RatePlan = text.parse().unwrap();
        prop_assert_eq!(plan.to_string().parse::<RatePlan>().unwrap(), plan);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9:,\\- a-zA-Z/年]{0,40}") {
        let _ = (text.parse::<Window>(), text.parse::<RatePlan>());
    }
}
