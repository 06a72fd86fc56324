//! A backup with a second copy outlives its first node: rotten, lost or gone, the restore command has the same bytes.

use std::{fs, time::Duration};

use longshore_tests::{Cluster, ClusterOptions, SERVER_ID, Section, wait_until_blocking};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_restore_takes_the_second_copy_when_the_first_is_rotten_lost_or_its_node_dead() {
    let puller = "[types.folder]\ncopies = 2\n".to_owned();
    let cluster = Cluster::start(ClusterOptions { nodes: 2, puller, ..ClusterOptions::default() });
    let content: Vec<u8> = (0..2_000_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(cluster.back_dir().join("site.tar"), &content).unwrap();
    let script = "printf 'ok\\nsite.tar\\n' >\"$LONGSHORE_BACK_LOG\"";
    cluster.add_section(&Section::new("site", "folder", "site", script));
    assert!(cluster.agent(&["run"]).status.success());
    let instance = format!("{SERVER_ID}/folder/site");
    let mut entry = serde_json::Value::Null;
    wait_until_blocking("the catalog knows both copies", SOON, || {
        let found = cluster.json(&["backups", "list", &instance]);
        let items = found["items"].as_array().unwrap();
        assert!(items.len() < 2, "one entry, whatever the copies: {found}");
        entry = items.first().cloned().unwrap_or_default();
        entry["copies"].as_array().is_some_and(|copies| copies.len() == 1)
    });
    let (first, second) = (entry["node_id"].as_str().unwrap(), entry["copies"][0]["node_id"].as_str().unwrap());
    assert_ne!(first, second);
    let plan = cluster.json(&["restore", "plan", &instance]);
    assert_eq!(plan["steps"][0]["places"].as_array().unwrap().len(), 2, "{plan}");

    let index = usize::from(first == "node-1");
    let folder = cluster.store(index).join(entry["path"].as_str().unwrap());
    let restored = |case: &str| {
        let to = cluster.folder().join(case);
        let output = cluster.longshore(&["restore", "fetch", &instance, "--to", to.to_str().unwrap()]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{case}: {told}");
        assert!(told.contains(&format!("from node {second}")), "{case}: {told}");
        let files = String::from_utf8_lossy(&output.stdout);
        let file = files.lines().find(|line| line.ends_with("site.tar")).unwrap().to_owned();
        assert!(fs::read(file).unwrap() == content, "{case}: the same bytes");
    };
    let mut rotten = content.clone();
    rotten[4_000_000] ^= 1;
    fs::write(folder.join("site.tar"), rotten).unwrap();
    restored("rotten");
    fs::remove_dir_all(folder).unwrap();
    restored("lost");
    cluster.node(index).kill();
    restored("dead");
}
