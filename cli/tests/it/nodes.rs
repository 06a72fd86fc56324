//! `nodes`: a node that is silent, one that has stopped, and one that is forgotten.

use longshore_tests::wait_until;
use serde_json::json;

use crate::site::{SOON, Site, beat};

/// Nodes beat, and were last heard of long ago.
async fn lost(site: &Site, nodes: &[&str]) {
    for node in nodes {
        site.queue.beat(&beat(node, None)).await.unwrap();
        let mut heard = redis::cmd("ZADD");
        let () = heard.arg("longshore:nodes_seen").arg(1).arg(node).query(&mut site.redis.connection()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_forgotten_once_it_is_silent() {
    let site = Site::start().await;
    lost(&site, &["5", "6"]).await;
    site.queue.beat(&beat("7", None)).await.unwrap();
    site.run(&["registry", "set", "nodes", "node_id=5", "weight=0"]).await.ended(0);
    let nodes = site.run(&["nodes"]).await.ended(0);
    let words = nodes.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("node 5 is silent since 1970-01-01 08:00:00 CST, "), "{}", nodes.out);
    assert!(words.contains(" ago: is longshore-puller running there? node 6"), "{}", nodes.out);
    assert!(nodes.out.lines().all(|line| console::measure_text_width(line) <= 80), "{}", nodes.out);

    assert_eq!(site.run(&["nodes", "forget", "5"]).await.ended(0).out, "node 5: forgotten\n");
    let json = site.run(&["nodes", "forget", "6", "--json"]).await.ended(0).json();
    assert_eq!(json, json!({"node_id": "6", "cluster": "default"}));
    let left = site.run(&["nodes", "--json"]).await.ended(0).json();
    assert_eq!(left["items"].as_array().unwrap().len(), 1, "{left}");
    let again = site.run(&["nodes", "forget", "5"]).await.ended(1);
    assert!(again.err.contains("node 5") && again.out.is_empty(), "{}", again.err);
    let living = site.run(&["nodes", "forget", "7"]).await.ended(1);
    assert!(living.err.contains("stop"), "{}", living.err);
    site.run(&["nodes", "forget", "../7"]).await.ended(64);

    site.queue.beat(&beat("5", None)).await.unwrap();
    let back = site.run(&["nodes"]).await.ended(0);
    assert!(back.out.contains("\n5 "), "{}", back.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_puller_that_was_stopped_holds_no_rule_up_and_is_forgotten_at_once() {
    let site = Site::start().await;
    let store1 = site.puller("store1").await;
    site.puller("store2").await;
    site.run(&["nodes", "set", "store1", "--weight", "0"]).await.ended(0);
    store1.request();
    let has_stopped = async || site.queue.nodes().await.unwrap().iter().any(|(beat, _)| beat.has_stopped());
    wait_until("store1 has stopped", SOON, has_stopped).await;
    let set = site.run(&["queue", "set", "level1", "--max-wait", "2h"]).await.ended(0);
    assert!(set.out.contains(", obeyed"), "{}", set.out);
    let nodes = site.run(&["nodes"]).await.ended(0);
    let words = nodes.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("with weight 0: `longshore nodes forget store1` takes it out"), "{}", nodes.out);
    site.run(&["nodes", "forget", "store1"]).await.ended(0);
    let living = site.run(&["nodes", "forget", "store2"]).await.ended(1);
    assert!(living.err.contains("stop its longshore-puller first"), "{}", living.err);
}
