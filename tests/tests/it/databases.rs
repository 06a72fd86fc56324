//! Databases, the whole way: the shipped script under the agent, Redis, a puller, the indexer, the catalog, and back through
//! `longshore restore run` into an empty server that then holds the same.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use longshore_tests::{Cluster, ClusterOptions, MariaDb, Postgres, SERVER_ID, Section, wait_until_blocking};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/scripts").join(name).canonicalize().unwrap()
}

fn assert_good(output: &Output) {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
}

/// Waits until the catalog has `count` stored backups of `instance`.
fn wait_for_backups(cluster: &Cluster, instance: &str, count: usize) {
    wait_until_blocking(&format!("{instance} has {count} stored backups"), Duration::from_secs(60), || {
        let found = cluster.json(&["backups", "list", instance]);
        let stored = |entry: &&serde_json::Value| entry["outcome"] == "stored";
        found["items"].as_array().is_some_and(|entries| entries.iter().filter(stored).count() >= count)
    });
}

#[test]
fn a_mariadb_full_and_three_increments_come_back_through_the_cluster() {
    let mut server = MariaDb::start();
    server.sql("create database shop; create table shop.a (id int primary key auto_increment, t text) engine=innodb");
    let cluster = Cluster::start(ClusterOptions { nodes: 2, ..ClusterOptions::default() });
    let defaults = server.defaults_file();
    let command = format!("'{}' '--defaults-file={}'", script("mysql-backup").display(), defaults.display());
    cluster.add_section(&Section::new("shop", "mysql", "3306", &command).with_chain());
    for round in 1..=4 {
        server.sql(&format!("use shop; insert into a (t) select repeat('{round}', 2000) from seq_1_to_2000"));
        server.sql(&format!("use shop; update a set t = '{round} 改' where id % 11 = {round}"));
        assert_good(&cluster.agent(&["run", "shop"]));
    }
    let checksums = server.checksums();
    server.stop();

    let instance = format!("{SERVER_ID}/mysql/3306");
    wait_for_backups(&cluster, &instance, 4);
    let mut restored = MariaDb::stopped();
    let target = restored.data_dir().display().to_string();
    let fetched = cluster.folder().join("fetched").display().to_string();
    let restore = script("mysql-restore").display().to_string();
    assert_good(&cluster.longshore_with(
        &["restore", "run", &instance, "--to", &fetched, "--script", &restore],
        &[("RESTORE_TARGET", &target)],
    ));
    restored.start_again();
    assert_eq!(restored.checksums(), checksums);
}

#[test]
fn a_postgresql_dump_and_a_base_backup_come_back_through_the_cluster() {
    let server = Postgres::start();
    server.sql("postgres", "create role shopkeeper login");
    server.sql("postgres", "create database shop owner shopkeeper");
    server.sql("shop", "create table t as select i, md5(i::text) from generate_series(1, 20000) i");
    let digest = "select count(*), md5(string_agg(t::text, ',' order by i)) from t";
    let expected = server.sql("shop", digest);

    let cluster = Cluster::start(ClusterOptions { nodes: 2, ..ClusterOptions::default() });
    let host = server.socket_dir().display().to_string();
    let port = server.port().to_string();
    for (name, backup_type) in [("dump", "postgresql-dump"), ("base", "postgresql-base")] {
        let program = script(&format!("{backup_type}-backup"));
        let command = format!("PGHOST='{host}' PGPORT={port} PGUSER=postgres '{}'", program.display());
        cluster.add_section(&Section::new(name, backup_type, "main", &command));
    }
    assert_good(&cluster.agent(&["run"]));
    drop(server);

    let mut empty = Postgres::start();
    let (host, port) = (empty.socket_dir().display().to_string(), empty.port().to_string());
    restore(&cluster, "postgresql-dump", &[("PGHOST", &host), ("PGPORT", &port), ("PGUSER", "postgres")]);
    assert_eq!(empty.sql("shop", digest), expected);
    let owner = "select pg_get_userbyid(datdba) from pg_database where datname = 'shop'";
    assert_eq!(empty.sql("postgres", owner), "shopkeeper\n");

    empty.stop();
    let mut restored = Postgres::stopped();
    let target = restored.data_dir().display().to_string();
    restore(&cluster, "postgresql-base", &[("RESTORE_TARGET", &target)]);
    restored.start_again();
    assert_eq!(restored.sql("shop", digest), expected);
}

fn restore(cluster: &Cluster, backup_type: &str, variables: &[(&str, &str)]) {
    let instance = format!("{SERVER_ID}/{backup_type}/main");
    wait_for_backups(cluster, &instance, 1);
    let fetched = cluster.folder().join("fetched").join(backup_type).display().to_string();
    let program = script(&format!("{backup_type}-restore")).display().to_string();
    let arguments = ["restore", "run", &instance, "--to", &fetched, "--script", &program];
    assert_good(&cluster.longshore_with(&arguments, variables));
}
