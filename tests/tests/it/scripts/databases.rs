//! Scripts of the databases.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use longshore_tests::{MariaDb, Postgres, Redis, free_port};

use super::{Instance, Log, owner_of};

#[test]
fn a_redis_is_restored_key_for_key_into_a_server_with_an_append_only_file() {
    let redis = Redis::start_with(&["--requirepass", "secret phrase", "--repl-diskless-sync-delay", "0"]);
    let port = redis.port().to_string();
    let ask = |port: &str, arguments: &[&str]| {
        let output = Command::new("redis-cli")
            .args(["-p", port, "--no-auth-warning", "-a", "secret phrase"])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    ask(&port, &["eval", "for i=1,2000 do redis.call('set','k'..i,i*i) end redis.call('rpush','l','a','b')", "0"]);
    ask(&port, &["set", "gone-soon", "1", "ex", "100000"]);
    let digest = ask(&port, &["debug", "digest"]);

    let instance = Instance::new("redis", &port).with("REDISCLI_AUTH", "secret phrase");
    let file = instance.good("redis-backup", &[]);
    let target = instance.path("restored");
    instance.restored("redis-restore", &target, &[file]);
    let target = target.display().to_string();
    let restored = Redis::start_with(&["--dir", &target, "--requirepass", "secret phrase"]);
    let digest_again = ask(&restored.port().to_string(), &["debug", "digest"]);
    assert_eq!(ask(&restored.port().to_string(), &["dbsize"]), "2002\n");
    assert_eq!(digest, digest_again);

    // The seed's way: the script is given the server's configuration file.
    let configuration = instance.path("redis.conf");
    fs::write(&configuration, format!("bind 127.0.0.1\nport {port}\nrequirepass \"secret phrase\"\n")).unwrap();
    let of_another_name = Instance::new("redis", "cache");
    of_another_name.good("redis-backup", &[&configuration]);
}

#[test]
fn a_server_that_is_away_makes_the_log_say_wrong_with_the_tools_own_words() {
    let port = free_port().to_string();
    for (name, arguments, expected) in [
        ("redis-backup", vec![], "Connection refused"),
        ("postgresql-dump-backup", vec![], "refused"),
        ("postgresql-base-backup", vec![], "refused"),
        ("mysql-backup", vec!["--host=127.0.0.1".into(), format!("--port={port}")], "connect"),
        ("folder-backup", vec!["/nowhere/at/all".into()], "/nowhere/at/all is not a folder"),
        ("git-bundle-backup", vec!["/proc".into()], "Need a repository"),
        ("sqlite-backup", vec!["/etc/passwd".into()], "not a database"),
    ] {
        let instance = Instance::new("x", &port).with("PGHOST", "127.0.0.1").with("PGUSER", "postgres");
        let arguments: Vec<&Path> = arguments.iter().map(Path::new).collect();
        let text = instance.wrong(name, &arguments);
        assert!(text.contains(expected), "{name}: {text}");
        assert!(instance.kept().is_empty(), "{name} leaves nothing behind: {:?}", instance.kept());
    }
}

#[test]
fn a_tool_that_is_not_installed_is_named_in_the_log() {
    let bin = tempfile::tempdir().unwrap();
    let instance = Instance::new("mysql", "3306").with("MYSQL_BACKUP_TOOL", "/opt/none/xtrabackup");
    let text = instance.wrong("mysql-backup", &[bin.path()]);
    assert!(text.contains("/opt/none/xtrabackup"), "{text}");
}

#[test]
fn a_mariadb_full_and_its_increments_are_restored_with_equal_checksums() {
    let mut server = MariaDb::start();
    let defaults = PathBuf::from(format!("--defaults-file={}", server.defaults_file().display()));
    let instance = Instance::new("mysql", "3306").with_last_all_log();
    server.sql("create database shop; create table shop.a (id int primary key auto_increment, t text) engine=innodb");
    server.sql("create table shop.m (id int, t text) engine=aria");
    let mut files = Vec::new();
    let mut previous: Option<Log> = None;
    for round in 1..=4 {
        server.sql(&format!("use shop; insert into a (t) select repeat('{round}', 3000) from seq_1_to_500"));
        server.sql(&format!("insert into shop.m values ({round}, '汉字'); delete from shop.a where id % 7 = {round}"));
        server.sql(&format!("create table shop.n{round} (id int) engine=innodb; insert into shop.n{round} values (1)"));
        // So that each backup ends at a place of its own, and leaving one out is a gap.
        server.sql("set global innodb_log_checkpoint_now = on");
        files.push(instance.good("mysql-backup", &[&defaults]));
        let log = instance.log();
        let named = instance.read_log("last_all_log").unwrap();
        assert_eq!(named.word, "ok");
        assert_eq!(named.lines[0], files[0].file_name().unwrap().to_str().unwrap(), "the full stays named");
        if let Some(previous) = previous {
            assert_eq!(log.value("from"), previous.value("to"), "each increment starts where the one before ends");
            assert_ne!(log.value("to"), previous.value("to"), "the test needs an end of its own for each");
        }
        assert!(log.value("to").is_some());
        previous = Some(log);
    }
    let checksums = server.checksums();
    server.stop();

    let mut restored = MariaDb::stopped();
    // An increment left out is seen, and nothing is put in place.
    let gap = [files[0].clone(), files[2].clone()];
    let output = instance.restore("mysql-restore", &restored.data_dir(), &gap);
    assert!(!output.status.success());
    assert!(!restored.data_dir().exists());

    instance.restored("mysql-restore", &restored.data_dir(), &files);
    restored.start_again();
    assert_eq!(restored.checksums(), checksums);

    let output = instance.restore("mysql-restore", &restored.data_dir(), &files);
    assert_eq!(output.status.code(), Some(73), "a data folder in use is left alone");
}

#[test]
fn a_mariadb_that_was_replaced_or_set_back_gets_a_new_full() {
    let mut server = MariaDb::start();
    server.sql("create database shop; use shop; create table a (t text) engine=innodb");
    server.sql("use shop; insert into a select repeat('x', 3000) from seq_1_to_2000");
    // A backup ends at the last checkpoint, which may lag far behind; an ordered stop makes one at the very end of the log.
    server.stop();
    server.start_again();
    let option = |server: &MariaDb| PathBuf::from(format!("--defaults-file={}", server.defaults_file().display()));
    let instance = Instance::new("mysql", "3306").with_last_all_log();
    instance.good("mysql-backup", &[&option(&server)]);
    instance.good("mysql-backup", &[&option(&server)]);

    // Another server under the same name, whose log is not as far.
    let replaced = MariaDb::start();
    let text = instance.wrong("mysql-backup", &[&option(&replaced)]);
    assert!(!text.is_empty());
    assert_eq!(instance.kept().len(), 2, "the chain that was whole is still there");
    for _ in 0..2 {
        let (output, log) = instance.backup("mysql-backup", &[&option(&replaced)]);
        if output.status.success() {
            assert!(log.lines[0].contains("-full"), "{log:?}");
            return;
        }
    }
    panic!("the runs after it made no full: {:?}", instance.log());
}

#[test]
fn a_postgresql_dump_is_restored_with_roles_and_odd_database_names() {
    let server = Postgres::start();
    server.sql("postgres", "create role shopkeeper login password 'x'");
    server.sql("postgres", "create database \"odd 'name\" owner shopkeeper");
    server.sql("odd 'name", "create table t as select i, md5(i::text) from generate_series(1, 3000) i");
    let digest = "select count(*), md5(string_agg(t::text, ',' order by i)) from t";
    let port = server.port().to_string();
    let host = server.socket_dir().display().to_string();
    let instance = Instance::new("postgresql", &port).with("PGHOST", &host).with("PGUSER", "postgres");
    let folder = instance.good("postgresql-dump-backup", &[]);
    let expected = server.sql("odd 'name", digest);

    let other = Postgres::start();
    let there = Instance::new("postgresql", "x")
        .with("PGHOST", &other.socket_dir().display().to_string())
        .with("PGPORT", &other.port().to_string())
        .with("PGUSER", "postgres");
    there.restored("postgresql-dump-restore", Path::new("/unused"), std::slice::from_ref(&folder));
    assert_eq!(other.sql("odd 'name", digest), expected);
    let owner = "select pg_get_userbyid(datdba) from pg_database where datname like 'odd%'";
    assert_eq!(other.sql("postgres", owner), "shopkeeper\n");

    // A second time it is in use; with force the old one is kept under another name.
    let output = there.restore("postgresql-dump-restore", Path::new("/unused"), std::slice::from_ref(&folder));
    assert_eq!(output.status.code(), Some(73));
    let forced = there.with("RESTORE_FORCE", "yes");
    forced.restored("postgresql-dump-restore", Path::new("/unused"), &[folder]);
    assert_eq!(other.sql("postgres", "select count(*) from pg_database where datname like 'odd%'"), "2\n");
}

#[test]
fn a_postgresql_base_backup_is_verified_and_restored_with_its_tablespaces() {
    let server = Postgres::start();
    let space = server.socket_dir().join("space");
    fs::create_dir(&space).unwrap();
    std::os::unix::fs::chown(&space, Some(owner_of(server.socket_dir())), None).unwrap();
    server.sql("postgres", &format!("create tablespace space location '{}'", space.display()));
    server.sql("postgres", "create table t as select i, md5(i::text) from generate_series(1, 5000) i");
    server.sql("postgres", "create table elsewhere tablespace space as select 42 as answer");
    let port = server.port().to_string();
    let host = server.socket_dir().display().to_string();
    let instance = Instance::new("postgresql", &port).with("PGHOST", &host).with("PGUSER", "postgres");
    let folder = instance.good("postgresql-base-backup", &[]);
    let digest = "select count(*), md5(string_agg(t::text, ',' order by i)) from t";
    let expected = server.sql("postgres", digest);

    let mut restored = Postgres::stopped();
    let spaces = restored.socket_dir().join("spaces").display().to_string();
    let files = [folder];
    let output = instance.restore("postgresql-base-restore", &restored.data_dir(), &files);
    assert!(!output.status.success(), "tablespaces have no place yet");
    let instance = instance.with("TABLESPACE_DIR", &spaces);
    instance.restored("postgresql-base-restore", &restored.data_dir(), &files);
    drop(server);
    restored.start_again();
    assert_eq!(restored.sql("postgres", digest), expected);
    assert_eq!(restored.sql("postgres", "select answer from elsewhere"), "42\n");

    // One byte that is not what the server wrote is found.
    let base = files[0].join("base.tar.gz");
    let unpacked = instance.path("damaged");
    fs::create_dir(&unpacked).unwrap();
    let damage = format!(
        "tar -xzf {base} -C {to} && printf X | dd of={to}/global/pg_control bs=1 seek=100 conv=notrunc status=none && \
         tar -czf {base} -C {to} .",
        base = base.display(),
        to = unpacked.display()
    );
    assert!(Command::new("sh").args(["-c", &damage]).status().unwrap().success());
    let elsewhere = Postgres::stopped();
    let instance = instance.with("TABLESPACE_DIR", &elsewhere.socket_dir().join("spaces").display().to_string());
    let output = instance.restore("postgresql-base-restore", &elsewhere.data_dir(), &files);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("does not match its own manifest"), "{text}");
    assert!(!elsewhere.data_dir().exists());
}
