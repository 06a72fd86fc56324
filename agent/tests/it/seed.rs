//! The seed's own client configuration, byte for byte: it loads, shows every value, and runs with nothing but addresses,
//! paths and the queue given by the environment.

use std::{fs, path::Path, process::Command};

use longshore_tests::Redis;

use crate::host::said;

const SEED_FILES: [&str; 2] = ["seed-client.conf", "seed-client-plain.conf"];

fn seed_file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/fixtures").join(name)
}

fn agent(file: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore-agent"));
    command.env_clear().env("PATH", "/usr/bin:/bin").args(arguments).arg("-c").arg(seed_file(file));
    command
}

#[test]
fn every_value_of_the_seed_s_file_is_shown() {
    for file in SEED_FILES {
        let output = agent(file, &["config", "show", "--origin"]).output().unwrap();
        let shown = said(&output);
        assert!(output.status.success(), "{shown}");
        for value in [
            "111111",
            "31",
            "1h",
            "0.0.0.0:6379",
            "uuzuback",
            "127.0.0.0.1",
            "/var/log/uuzu_back.log",
            "/var/log/uuzu_back.error",
            "mysql",
            "3306",
            "backup/database_3306",
            "/data/backup/database_3306/",
            "/var/log/mysql_3306.log",
            "/var/log/last_3306.log",
            "sh /usr/local/uuzuback/mysql_backup.sh /etc/my.cnf",
            "redis",
            "6379",
            "backup/redisbase_6379",
            "/data/backup/redisbase_6379/",
            "/var/log/redis_6379.log",
            "sh /usr/local/uuzuback/redis_backup.sh /data/conf/redis_conf",
            "op_id = \"1\"",
        ] {
            assert!(shown.contains(value), "{file}: {value} is not in\n{shown}");
        }
        assert!(shown.contains(&format!("{file}:")), "{shown}");
    }
}

#[test]
fn it_runs_with_addresses_paths_and_queue_given_by_the_environment() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let script = |body: &str| {
        let path = at(&format!("{body}.sh"));
        let lines = format!(
            "echo {body} > $LONGSHORE_BACK_DIR/{body}.bak\nprintf 'ok\\n{body}.bak\\n' > $LONGSHORE_BACK_LOG\n\
             [ -z \"$LONGSHORE_LAST_ALL_LOG\" ] || cp $LONGSHORE_BACK_LOG $LONGSHORE_LAST_ALL_LOG\n"
        );
        fs::write(&path, lines).unwrap();
        format!("sh {path}")
    };
    let mut command = agent(SEED_FILES[0], &["run", "-q", "level1"]);
    command
        .env("LONGSHORE__REDIS__ADDRESS", redis.address())
        .env("LONGSHORE__ADDRESS", "127.0.0.1")
        .env("LONGSHORE__STATE_DIR", at("state"))
        .env("LONGSHORE__STAGGER", "0")
        .env("LONGSHORE__LOG__FILE", at("agent.log"))
        .env("LONGSHORE__LOG__ERROR_FILE", at("agent.error"));
    for (section, body) in [("MYSQL3306", "mysql"), ("REDIS6379", "redis")] {
        command
            .env(format!("LONGSHORE__INSTANCE__{section}__BACK_DIR"), at(""))
            .env(format!("LONGSHORE__INSTANCE__{section}__BACK_LOG"), at(&format!("{body}.log")))
            .env(format!("LONGSHORE__INSTANCE__{section}__SCRIPT"), script(body));
    }
    command.env("LONGSHORE__INSTANCE__MYSQL3306__LAST_ALL_LOG", at("last.log"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}{}", said(&output), fs::read_to_string(at("agent.log")).unwrap_or_default());
    assert!(fs::read_to_string(at("agent.log")).unwrap().contains("backup made"));

    let jobs: Vec<String> = redis::cmd("LRANGE").arg("level1").arg(0).arg(-1).query(&mut redis.connection()).unwrap();
    let mut jobs: Vec<longshore_core::Job> = jobs.iter().map(|job| serde_json::from_str(job).unwrap()).collect();
    jobs.sort_by_key(|job| job.backup_type.clone());
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[0].key().to_string(), "111111/mysql/3306");
    assert_eq!(jobs[0].source.as_ref().unwrap().path.as_str(), "database_3306/mysql.bak");
    assert!(jobs[0].chain.is_some() && jobs[1].chain.is_none());
    let third = fs::read_to_string(at("last.log")).unwrap();
    assert_eq!(third.lines().nth(2).unwrap(), jobs[0].made_at.seconds().to_string());
}
