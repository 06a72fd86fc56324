//! The connection itself: what it survives, and what it says.

use std::time::{Duration, Instant};

use longshore_core::{
    config::{RedisConfig, Secret, SentinelConfig},
    redis_link::{LinkError, RedisLink},
};
use longshore_tests::{Process, Redis, free_port, wait_until};

fn config(redis: &Redis) -> RedisConfig {
    RedisConfig { address: redis.address(), ..RedisConfig::default() }
}

async fn ping(link: &RedisLink) -> Result<String, LinkError> {
    link.query(&redis::cmd("PING")).await
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_unreachable_and_later_simply_works() {
    let redis = Redis::start();
    redis.stop();
    let link = RedisLink::new(&config(&redis));
    let error = ping(&link).await.unwrap_err();
    assert!(matches!(error, LinkError::Unreachable { .. }) && error.is_transient(), "{error:?}");
    assert!(error.to_string().contains(&redis.address()), "{error}");
    redis.start_again();
    assert_eq!(ping(&link).await.unwrap(), "PONG");
}

#[tokio::test]
async fn wrong_passwords_and_users_are_named_and_not_worth_a_repetition() {
    let redis = Redis::start_with(&["--requirepass", "right"]);
    let right = RedisConfig { password: Some(Secret::new("right")), ..config(&redis) };
    assert_eq!(ping(&RedisLink::new(&right)).await.unwrap(), "PONG");

    let wrong = RedisConfig { password: Some(Secret::new("wrong")), ..config(&redis) };
    let unknown = RedisConfig { username: Some("nobody".to_owned()), ..wrong.clone() };
    for (config, user) in [(wrong, "default"), (config(&redis), "default"), (unknown, "nobody")] {
        let error = ping(&RedisLink::new(&config)).await.unwrap_err();
        assert!(matches!(error, LinkError::Login { .. }) && !error.is_transient(), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&redis.address()) && text.contains(user) && !text.contains("wrong\""), "{text}");
    }
}

#[tokio::test]
async fn a_user_without_the_right_is_told_so() {
    let redis = Redis::start();
    let acl = "ACL SETUSER agent on >x ~* +ping +info +select".split(' ').collect::<Vec<_>>();
    let () = redis::cmd(acl[0]).arg(&acl[1..]).query(&mut redis.connection()).unwrap();
    let agent =
        RedisConfig { username: Some("agent".to_owned()), password: Some(Secret::new("x")), db: 3, ..config(&redis) };
    let link = RedisLink::new(&agent);
    assert_eq!(ping(&link).await.unwrap(), "PONG");
    let error = link.query::<String>(redis::cmd("GET").arg("a")).await.unwrap_err();
    assert!(matches!(error, LinkError::Login { .. }), "{error:?}");
    assert!(error.to_string().contains("agent") && error.to_string().contains("ACL"), "{error}");
}

#[tokio::test]
async fn a_frozen_redis_is_given_up_in_seconds_and_not_once_for_each_who_waits() {
    let redis = Redis::start();
    let link = RedisLink::new(&config(&redis));
    ping(&link).await.unwrap();
    redis.pause();
    let started = Instant::now();
    let error = ping(&link).await.unwrap_err();
    assert!(matches!(error, LinkError::Slow { .. }) && error.is_transient(), "{error:?}");
    // Now no connection is open, and eight want one.
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let link = link.clone();
            tokio::spawn(async move { ping(&link).await })
        })
        .collect();
    for task in waiting {
        assert!(task.await.unwrap().is_err());
    }
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    redis.resume();
    wait_until("it answers again", Duration::from_secs(10), async || ping(&link).await.is_ok()).await;
}

#[tokio::test]
async fn what_a_queue_needs_is_asked_for_in_sentences() {
    let redis = Redis::start();
    assert_eq!(RedisLink::new(&config(&redis)).requirements().await.unwrap(), Vec::<String>::new());
    let redis = Redis::start_with(&["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]);
    let missing = RedisLink::new(&config(&redis)).requirements().await.unwrap();
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(missing[0].contains("set noeviction") && missing[1].contains("set appendonly yes"), "{missing:?}");
}

#[tokio::test]
async fn a_master_that_became_a_replica_is_left_and_found_again() {
    let redis = Redis::start();
    let link = RedisLink::new(&config(&redis));
    let set = async || link.query::<()>(redis::cmd("SET").arg("a").arg("b")).await;
    set().await.unwrap();
    let role = |words: &[&str]| {
        let () = redis::cmd("REPLICAOF").arg(words).query(&mut redis.connection()).unwrap();
    };
    role(&["127.0.0.1", &free_port().to_string()]);
    let error = set().await.unwrap_err();
    assert!(matches!(error, LinkError::NotNow { .. }) && error.is_transient(), "{error:?}");
    role(&["NO", "ONE"]);
    set().await.unwrap();
}

/// A real sentinel that watches `master` under the name `queue`.
fn sentinel(master: &Redis, folder: &std::path::Path) -> (Process, u16) {
    let port = free_port();
    let file = folder.join(format!("sentinel-{port}.conf"));
    let text = format!(
        "port {port}\nbind 127.0.0.1\nlogfile sentinel.log\nsentinel monitor queue 127.0.0.1 {} 1\n\
         sentinel down-after-milliseconds queue 500\nsentinel failover-timeout queue 5000\n",
        master.port()
    );
    std::fs::write(&file, text).unwrap();
    let mut command = std::process::Command::new("redis-server");
    command.arg(&file).arg("--sentinel").current_dir(folder).stdout(std::process::Stdio::null());
    (Process::spawn(&mut command).unwrap(), port)
}

#[tokio::test(flavor = "multi_thread")]
async fn through_sentinels_the_new_master_is_found_after_a_failover() {
    let (first, second) = (Redis::start(), Redis::start());
    let to_first = ["127.0.0.1", &first.port().to_string()];
    let () = redis::cmd("REPLICAOF").arg(&to_first).query(&mut second.connection()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (_sentinel, port) = sentinel(&first, folder.path());
    let gone = format!("127.0.0.1:{}", free_port());
    let link = RedisLink::new(&RedisConfig {
        sentinel: Some(SentinelConfig {
            master: "queue".to_owned(),
            addresses: vec![gone, format!("127.0.0.1:{port}")],
            password: None,
        }),
        ..RedisConfig::default()
    });
    let port_of_master = async || -> Option<String> {
        let set = link.query::<()>(redis::cmd("SET").arg("a").arg("b")).await;
        let info: String = link.query(redis::cmd("INFO").arg("server")).await.ok()?;
        set.ok()?;
        info.lines().find_map(|line| line.strip_prefix("tcp_port:").map(str::to_owned))
    };
    wait_until("the first master is written to", Duration::from_secs(20), async || {
        port_of_master().await == Some(first.port().to_string())
    })
    .await;
    let mut replicas = first.connection();
    wait_until("the replica is in step", Duration::from_secs(20), async || {
        let info: String = redis::cmd("INFO").arg("replication").query(&mut replicas).unwrap();
        info.contains("state=online")
    })
    .await;
    // The sentinel has to know the replica before it can promote it.
    let mut asked = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap().get_connection().unwrap();
    wait_until("the sentinel knows the replica", Duration::from_secs(30), async || {
        let replicas: Vec<redis::Value> =
            redis::cmd("SENTINEL").arg("REPLICAS").arg("queue").query(&mut asked).unwrap();
        !replicas.is_empty()
    })
    .await;
    first.kill();
    wait_until("the second master is written to", Duration::from_secs(60), async || {
        port_of_master().await == Some(second.port().to_string())
    })
    .await;
    // The old master comes back and is made a replica; nobody writes to it.
    first.start_again();
    assert_eq!(port_of_master().await, Some(second.port().to_string()));
}
