#![allow(clippy::unwrap_used)]
use longshore_core::queue::{Level, Order};

use super::*;
use crate::bandwidth::Caps;

/// 2026-11-20T00:00:00Z, a Friday.
const MIDNIGHT: i64 = 1795132800;

/// At so many hours of that day.
fn effective(rules: &str, hour: i64) -> Effective {
    let rules = Arc::new(serde_json::from_str::<Rules>(rules).unwrap());
    let queues = ["level1", "level2"].map(|name| name.parse().unwrap());
    let at = Millis::from_seconds(MIDNIGHT + hour * 3600);
    Effective::at(at, Some(1), &rules, &"n".parse().unwrap(), &queues)
}

fn names(effective: &Effective) -> (Vec<&str>, Vec<(&str, &str)>) {
    let closed = effective.closed.iter().map(|closed| (closed.queue.as_str(), closed.whose));
    (effective.open.iter().map(|level| level.name.as_str()).collect(), closed.collect())
}

#[test]
fn a_closed_level_is_left_out_and_a_closed_node_takes_only_what_is_urgent() {
    let rules = r#"{"queues":{"level2":{"window":"22:00-06:00"}},"nodes":{"n":{"weight":7}}}"#;
    let (day, night) = (12, 23);
    assert_eq!(names(&effective(rules, day)), (vec!["level1"], vec![("level2", "the level's")]));
    assert_eq!(effective(rules, day).closed_whole(), None);
    assert!(effective(rules, day).is_open);
    assert_eq!(names(&effective(rules, night)), (vec!["level1", "level2"], vec![]));

    let rules = r#"{"queues":{"level1":{"urgent":true}},"nodes":{"n":{"weight":7,"window":"22:00-06:00"}}}"#;
    let urgent = effective(rules, day);
    assert_eq!(names(&urgent), (vec!["level1"], vec![("level2", "the node's")]));
    assert!(!urgent.is_open && effective(rules, night).is_open, "second copies can wait");
    let rules = rules.replace("true", "false");
    let shut = effective(&rules, day);
    assert_eq!(names(&shut).0, Vec::<&str>::new());
    let why = shut.closed_whole().unwrap();
    assert!(why.starts_with("the node's window 22:00-06:00 UTC is closed until 2026-11-20T22:00:00Z"), "{why}");
}

#[test]
fn rates_are_those_of_the_moment() {
    let rules = r#"{"cluster":{"bandwidth":"09:00-18:00 1GB/s, else unlimited","restore_bandwidth":"5MB/s"},
        "nodes":{"n":{"bandwidth":"40MB/s","restore_bandwidth":"unlimited"},"m":{"bandwidth":"1MB/s"}},
        "hosts":{"h":{"bandwidth":"2MB/s"},"i":{}},"queues":{"level2":{"bandwidth":"09:00-18:00 3MB/s, else 6MB/s"}}}"#;
    let (h, level2) = ("h".parse().unwrap(), "level2".parse().unwrap());
    let by_day = Caps {
        node: Some(40_000_000),
        restore: None,
        cluster: Some(1_000_000_000),
        cluster_restore: Some(5_000_000),
        hosts: [(h, 2_000_000)].into(),
        queues: [(level2, 3_000_000)].into(),
    };
    assert_eq!(effective(rules, 12).caps, by_day);
    let by_night = effective(rules, 18).caps;
    assert_eq!((by_night.cluster, by_night.queues.values().copied().collect::<Vec<_>>()), (None, vec![6_000_000]));
}

#[test]
fn a_host_is_closed_until_its_window_opens() {
    let rules = r#"{"hosts":{"h":{"window":"02:00-04:00"},"i":{"window":"always"},"j":{"window":"never"}}}"#;
    let closed = effective(rules, 12).closed_hosts;
    let until = |name: &str| closed.get(&name.parse().unwrap()).map(|shut| shut.until.map(|until| until.to_string()));
    assert_eq!(until("h"), Some(Some("2026-11-21T02:00:00Z".to_owned())));
    assert_eq!((until("i"), until("j")), (None, Some(None)));
}

#[test]
fn a_weight_of_0_says_that_it_drains() {
    let rules = r#"{"nodes":{"n":{"weight":0}}}"#;
    assert!(effective(rules, 12).closed_whole().unwrap().contains("drains"));
}

#[test]
fn a_level_has_its_rule() {
    let rules = r#"{"queues":{"level2":{"max_wait":"2h","order":"deadline","urgent":true}}}"#;
    let levels = effective(rules, 12).levels;
    let wanted = Level {
        name: "level2".parse().unwrap(),
        max_wait: Some(Duration::from_secs(7200)),
        order: Order::Deadline,
        urgent: true,
    };
    assert_eq!(levels, [Level::new("level1".parse().unwrap()), wanted]);
}
