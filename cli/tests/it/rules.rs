//! What operators set by command, obeyed by running pullers.

use longshore_core::{NodeBeat, config::RedisConfig};
use longshore_dashboard_api::settings::ClusterSettings;
use longshore_tests::wait_until;

use crate::site::{SOON, Site};

impl Site {
    async fn beat(&self, node: &str) -> NodeBeat {
        let nodes = self.queue.nodes().await.unwrap();
        nodes.into_iter().map(|(beat, _)| beat).find(|beat| beat.node_id.as_str() == node).unwrap()
    }

    /// Offers a job of a new small file.
    async fn offer(&self, name: &str) {
        self.write(name, 1000, 1);
        self.queue.offer(&self.job(&format!("1/folder/{name}"), name)).await.unwrap();
    }

    async fn node_has_stored(&self, node: &str, count: u64) {
        let what = format!("node {node} has stored {count}");
        wait_until(&what, SOON, async || self.beat(node).await.totals.stored == count).await;
    }

    async fn node_is_paused(&self, node: &str, why: &str) {
        let what = format!("node {node} is paused: {why}");
        wait_until(&what, SOON, async || self.beat(node).await.paused.is_some_and(|paused| paused.contains(why))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_obeys_its_bandwidth_at_once_and_a_second_one_takes_over_while_it_drains() {
    let site = Site::start().await;
    site.puller("n1").await;
    let set = site.run(&["nodes", "set", "n1", "--bandwidth", "40MB/s"]).await.ended(0);
    assert!(set.out.contains("40MB/s") && set.out.contains("registry"), "{}", set.out);
    assert!(set.out.contains(", obeyed") && set.out.contains("the node's own file"), "{}", set.out);
    assert_eq!(site.beat("n1").await.bandwidth, Some(40_000_000));
    site.run(&["nodes", "set", "n1", "--bandwidth", "08:00-09:00 1MB/s, else unlimited"]).await.ended(0);
    let shown = site.run(&["nodes", "set", "n1", "--unset", "bandwidth"]).await.ended(0);
    assert!(shown.out.contains("unlimited"), "{}", shown.out);
    assert_eq!(site.beat("n1").await.bandwidth, None);
    let misspelt = site.run(&["nodes", "set", "n11", "--weight", "1"]).await.ended(0);
    assert!(misspelt.out.contains("node n11 was never heard of"), "{}", misspelt.out);
    assert!(!set.out.contains("never heard of"), "{}", set.out);
    site.offer("before").await;
    site.node_has_stored("n1", 1).await;

    // A node is added by starting it, and taken out by weight 0.
    site.puller("n2").await;
    let drained = site.run(&["nodes", "set", "n1", "--weight", "0", "--json"]).await.ended(0).json();
    assert_eq!((&drained["rule"]["weight"], &drained["nodes"]["n1"]), (&0.into(), &drained["versions"]["default"]));
    site.node_is_paused("n1", "drains").await;
    for name in ["after 1", "after 2", "after 3"] {
        site.offer(&name.replace(' ', "-")).await;
    }
    site.node_has_stored("n2", 3).await;
    assert_eq!(site.beat("n1").await.totals.stored, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_hours_of_a_level_a_node_and_a_host_hold_their_jobs_back() {
    let site = Site::start().await;
    site.puller("n1").await;
    let mut stored = 0;
    for (closed, open, why) in [
        (["queue", "set", "level1"], ["queue", "set", "level1"], Some("the level's window never is never open")),
        (["nodes", "set", "n1"], ["nodes", "set", "n1"], Some("the node's window never is never open")),
        (["hosts", "set", "1"], ["hosts", "set", "1"], None),
    ] {
        let shut = site.run(&[&closed[..], &["--window", "never"]].concat()).await.ended(0);
        assert!(shut.out.contains("closed now, for ever") && shut.out.contains("obeyed"), "{}", shut.out);
        match why {
            Some(why) => site.node_is_paused("n1", why).await,
            None => {
                let ruled = async || {
                    let mut get = redis::cmd("HGET");
                    let get = get.arg("longshore:host:1").arg("closed_until");
                    get.query::<Option<u64>>(&mut site.redis.connection()).unwrap().is_some()
                };
                wait_until("the host is closed", SOON, ruled).await;
            }
        }
        site.offer(&format!("file-{stored}")).await;
        let waits = async || site.queue.depths(&["level1".parse().unwrap()]).await.unwrap()[0].ready == 1;
        wait_until("the job is admitted and waits", SOON, waits).await;
        assert_eq!(site.beat("n1").await.totals.stored, stored);
        site.run(&[&open[..], &["--unset", "window"]].concat()).await.ended(0);
        stored += 1;
        site.node_has_stored("n1", stored).await;
    }
    // Urgent levels heed neither the node's nor the host's hours.
    site.run(&["nodes", "set", "n1", "--window", "never"]).await.ended(0);
    site.run(&["hosts", "set", "1", "--window", "never"]).await.ended(0);
    site.offer("urgent").await;
    site.run(&["queue", "set", "level1", "--urgent", "true"]).await.ended(0);
    site.node_has_stored("n1", stored + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_shown_changed_field_by_field_and_refused_with_the_place() {
    let site = Site::start().await;
    let set = ["hosts", "set", "111111", "--transfers", "1", "--starts-per-second", "5", "--module", "mysql=1"];
    let out = site.run(&set).await.ended(0).out;
    assert!(out.contains("mysql=1"), "{out}");
    let out = site.run(&["hosts", "set", "111111", "--module", "redis=2", "--unset", "transfers"]).await.ended(0).out;
    assert!(out.contains("mysql=1 redis=2") && out.contains("the nodes' own files"), "{out}");
    let out = site.run(&["hosts", "set", "111111", "--module", "mysql=0", "--module", "redis=0"]).await.ended(0).out;
    assert!(!out.contains("mysql") && !out.contains("redis"), "{out}");
    let list = site.run(&["hosts"]).await.ended(0).out;
    assert!(list.contains("111111") && list.lines().all(|line| line.chars().count() <= 80), "{list}");
    let queue = ["queue", "set", "level1", "--max-wait", "2h", "--order", "deadline", "--copies", "2"];
    let out = site.run(&queue).await.ended(0).out;
    assert!(out.contains("2h") && out.contains("deadline"), "{out}");
    assert_eq!(site.run(&["queue", "set", "level1"]).await.ended(0).out, out, "without a change it shows the same");
    let out = site.run(&["types", "set", "mysql", "--verify", "reread"]).await.ended(0).out;
    assert!(out.contains("reread"), "{out}");
    let out = site.run(&["cluster", "set", "--bandwidth", "1GB/s"]).await.ended(0).out;
    assert!(out.contains("1GB/s"), "{out}");
    site.run(&["cluster", "set", "west", "--bandwidth", "1GB/s"]).await.ended(1);
    for (args, wanted) in [
        (["nodes", "set", "n", "--bandwidth", "40MB"], "ends with /s"),
        (["nodes", "set", "n", "--window", "22:00-06:00 Mom"], "\"Mom\", character 13"),
        (["nodes", "set", "n", "--unset", "wieght"], "weight"),
        (["queue", "set", "q", "--copies", "3"], "1 or 2"),
        (["hosts", "set", "h", "--transfers", "0"], "transfers"),
        (["hosts", "set", "h", "--module", "mysql"], "mysql=1"),
    ] {
        let refused = site.run(&args).await.ended(64);
        assert!(refused.err.contains(wanted), "{args:?}: {}", refused.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_away_keeps_only_what_is_for_it_from_being_obeyed() {
    let site = Site::start_with(|settings| {
        let away = RedisConfig { address: "127.0.0.1:1".to_owned(), ..RedisConfig::default() };
        settings.cluster = [("default", settings.redis.clone()), ("other", away)]
            .map(|(name, redis)| ClusterSettings { name: name.parse().unwrap(), queues: Vec::new(), redis })
            .into();
    })
    .await;
    site.puller("n1").await;
    for args in [
        &["nodes", "set", "n1", "--weight", "5"][..],
        &["cluster", "set", "default", "--bandwidth", "1GB/s"],
        // Where nothing is changed, nobody has to obey.
        &["nodes", "set", "n1"],
        &["queue", "set", "level1"],
        &["hosts", "set", "1"],
        &["types", "set", "mysql"],
        &["cluster", "set", "other"],
    ] {
        site.run(args).await.ended(0);
    }
    let set = site.run(&["nodes", "set", "n1", "--weight", "6"]).await.ended(0);
    assert!(set.out.contains("cluster default: ") && !set.out.contains("cluster other"), "{}", set.out);
    for args in
        [&["queue", "set", "level1", "--max-wait", "2h"][..], &["cluster", "set", "other", "--bandwidth", "1GB/s"]]
    {
        let kept = site.run(args).await.ended(75);
        assert!(kept.out.contains("kept; the Redis of cluster other is away since"), "{}", kept.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_name_is_noted_and_what_unsets_makes_no_rule() {
    let site = Site::start().await;
    site.puller("n1").await;
    site.store(&[{
        site.write("a", 10, 1);
        site.job("1/mysql/3306", "a")
    }])
    .await;
    for (right, misspelt, note) in [
        (["queue", "set", "level1"], ["queue", "set", "levle1"], "no node has a level levle1 now"),
        (["hosts", "set", "1"], ["hosts", "set", "11"], "no instance of host 11 is known"),
        (["types", "set", "mysql"], ["types", "set", "msyql"], "no instance of type msyql is known"),
    ] {
        for (args, noted) in [(right, false), (misspelt, true)] {
            let field = if args[0] == "hosts" { ["--transfers", "2"] } else { ["--copies", "1"] };
            let unset = ["--unset", field[0].trim_start_matches('-')];
            for more in [unset, field, unset] {
                let ran = site.run(&[&args[..], &more].concat()).await.ended(0);
                assert_eq!(ran.out.contains(note), noted, "{args:?} {more:?}: {}", ran.out);
            }
        }
    }
    for unset in [&["hosts", "set", "typo", "--unset", "window"][..], &["hosts", "set", "typo", "--module", "mysql=0"]]
    {
        site.run(unset).await.ended(0);
    }
    let hosts = site.run(&["hosts", "--json"]).await.ended(0).json();
    let hosts: Vec<&str> =
        hosts["items"].as_array().unwrap().iter().map(|host| host["server_id"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["1", "11"]);
}
