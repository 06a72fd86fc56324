//! The configuration files of the seed system, byte for byte: every value is shown, and agent and puller work on them with
//! nothing but addresses, paths, queue and reserve given by the environment.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use longshore_tests::{Redis, Rsyncd, binary, free_port};
use redis::Commands;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/fixtures").join(name)
}

fn run(program: &str, arguments: &[&str], file: &Path, variables: &[(&str, String)]) -> Output {
    let mut command = Command::new(binary(program));
    command.args(arguments).arg("-c").arg(file).env_clear().env("PATH", "/usr/bin:/bin");
    command.envs(variables.iter().map(|(name, value)| (name, value))).output().unwrap()
}

#[test]
fn the_seeds_files_show_every_value_with_and_without_trailing_comments() {
    let client = [
        "server_id = \"111111\"",
        "business_id = \"31\"",
        "op_id = \"1\"",
        "interval = \"1h\"",
        "address = \"0.0.0.0:6379\"",
        "queue = \"uuzuback\"",
        "address = \"127.0.0.0.1\"",
        "file = \"/var/log/uuzu_back.log\"",
        "error_file = \"/var/log/uuzu_back.error\"",
        "[instance.mysql3306]",
        "type = \"mysql\"",
        "instance = \"3306\"",
        "rsync_module = \"backup/database_3306\"",
        "back_dir = \"/data/backup/database_3306/\"",
        "back_log = \"/var/log/mysql_3306.log\"",
        "last_all_log = \"/var/log/last_3306.log\"",
        "script = \"sh /usr/local/uuzuback/mysql_backup.sh /etc/my.cnf\"",
        "[instance.redis6379]",
        "back_log = \"/var/log/redis_6379.log\"",
        "script = \"sh /usr/local/uuzuback/redis_backup.sh /data/conf/redis_conf\"",
    ];
    let server = [
        "slots = 4",
        "bwlimit = \"62000KiB\"",
        "path = \"/backup/uuzubackup/\"",
        "reserve = \"1000GiB\"",
        "rest = \"0s\"",
        "address = \"127.0.0.1:6379\"",
        "\"level1\"",
        "\"uuzuback_f\"",
        "file = \"/var/log/uuzuback.log\"",
        "error_file = \"/var/log/uuzuback.error\"",
        "address = \"127.0.0.1\"",
        "retry = 3",
        "node_id = \"5\"",
    ];
    for (program, name, values) in [
        ("longshore-agent", "seed-client.conf", &client[..]),
        ("longshore-agent", "seed-client-plain.conf", &client[..]),
        ("longshore-puller", "seed-server.conf", &server[..]),
        ("longshore-puller", "seed-server-plain.conf", &server[..]),
    ] {
        let output = run(program, &["config", "show"], &fixture(name), &[]);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        for value in values {
            assert!(shown.contains(value), "{name} does not show {value}:\n{shown}");
        }
    }
}

#[test]
fn agent_and_puller_work_on_the_seeds_files_with_places_given_by_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for name in ["backup/database_3306", "backup/redisbase_6379", "store"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    // As a user of the seed wrote them: they know their places by themselves.
    let script = |name: &str, file: &str, full: bool| {
        let last = if full { format!("printf 'ok\\n{file}\\n' > {}\n", path("last_3306.log")) } else { String::new() };
        let (place, log) = (path(&format!("backup/{name}")), path(&format!("{name}.log")));
        let text = format!("head -c 100000 /dev/urandom > {place}/{file}\n{last}printf 'ok\\n{file}\\n' > {log}\n");
        fs::write(folder.path().join(format!("{name}.sh")), text).unwrap();
        format!("sh {}", path(&format!("{name}.sh")))
    };
    let redis = Redis::start();
    let rsyncd = Rsyncd::start(&[("backup", &folder.path().join("backup"))]);

    let agent = [
        ("LONGSHORE__REDIS__ADDRESS", redis.address()),
        ("LONGSHORE__ADDRESS", "127.0.0.1".to_owned()),
        ("LONGSHORE__RSYNCD__PORT", rsyncd.port().to_string()),
        ("LONGSHORE__QUEUE", "level1".to_owned()),
        ("LONGSHORE__STATE_DIR", path("state")),
        ("LONGSHORE__LOG__FILE", path("agent.log")),
        ("LONGSHORE__LOG__ERROR_FILE", path("agent.error")),
        ("LONGSHORE__INSTANCE__MYSQL3306__BACK_DIR", path("backup/database_3306")),
        ("LONGSHORE__INSTANCE__MYSQL3306__BACK_LOG", path("database_3306.log")),
        ("LONGSHORE__INSTANCE__MYSQL3306__LAST_ALL_LOG", path("last_3306.log")),
        ("LONGSHORE__INSTANCE__MYSQL3306__SCRIPT", script("database_3306", "full.xb", true)),
        ("LONGSHORE__INSTANCE__REDIS6379__BACK_DIR", path("backup/redisbase_6379")),
        ("LONGSHORE__INSTANCE__REDIS6379__BACK_LOG", path("redisbase_6379.log")),
        ("LONGSHORE__INSTANCE__REDIS6379__SCRIPT", script("redisbase_6379", "dump.rdb", false)),
    ];
    let output = run("longshore-agent", &["run"], &fixture("seed-client.conf"), &agent);
    let log = fs::read_to_string(path("agent.log")).unwrap_or_default();
    assert!(output.status.success(), "{}{log}", String::from_utf8_lossy(&output.stderr));
    let last: Vec<String> = fs::read_to_string(path("last_3306.log")).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(last.len(), 3, "the run's time is the third line of last_all_log: {last:?}");

    let puller = [
        ("LONGSHORE__REDIS__ADDRESS", redis.address()),
        ("LONGSHORE__STORE__PATH", path("store")),
        ("LONGSHORE__STORE__RESERVE", "1MiB".to_owned()),
        ("LONGSHORE__SERVE__LISTEN", format!("127.0.0.1:{}", free_port())),
        ("LONGSHORE__STATUS__LISTEN", format!("127.0.0.1:{}", free_port())),
        ("LONGSHORE__LOG__FILE", path("puller.log")),
        ("LONGSHORE__LOG__ERROR_FILE", path("puller.error")),
    ];
    let output = run("longshore-puller", &["once"], &fixture("seed-server.conf"), &puller);
    let log = fs::read_to_string(path("puller.log")).unwrap_or_default();
    assert!(output.status.success(), "{}{log}", String::from_utf8_lossy(&output.stderr));

    for (place, made) in
        [("mysql/111111/3306", "database_3306/full.xb"), ("redis/111111/6379", "redisbase_6379/dump.rdb")]
    {
        let find =
            Command::new("find").arg(folder.path().join("store").join(place)).args(["-type", "f"]).output().unwrap();
        let found = String::from_utf8(find.stdout).unwrap();
        let name = Path::new(made).file_name().unwrap();
        let stored = found.lines().find(|line| Path::new(line).file_name() == Some(name));
        let stored = stored.unwrap_or_else(|| panic!("{made} is stored below {place}: {found:?}\n{log}"));
        assert!(fs::read(stored).unwrap() == fs::read(folder.path().join("backup").join(made)).unwrap());
    }
    let reports: usize = redis.connection().xlen("longshore:reports").unwrap();
    assert!(reports >= 2, "each has its report");
}
