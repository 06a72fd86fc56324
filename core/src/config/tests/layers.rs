//! File, folders beside it, environment, flags: the later wins, and says so.

use std::os::unix::ffi::OsStringExt;

use super::*;

#[test]
fn later_layers_win_and_say_so() {
    let case = Case::new(&[
        (
            "puller.toml",
            "node_id = \"5\"\nslots = 1\nratio = 2\nqueues = [\"a\"]\n[redis]\naddress = \"main:1\"\ndb = 3\n",
        ),
        ("conf.d/10-all.toml", "[redis]\naddress = \"ten:1\"\nusername = \"all\"\n"),
        ("conf.d/20-all.toml", "[redis]\naddress = \"twenty:1\"\n"),
        ("conf.d/ignored.txt", "not toml at all"),
        ("puller.d/own.toml", "slots = 2\n"),
        ("indexer.d/other.toml", "slots = 99\n"),
    ])
    .variable("LONGSHORE__REDIS__DB", "7")
    .variable("LONGSHORE__QUEUES", "level1, level2 level3")
    .variable("LONGSHORE__SERVE", "yes")
    .variable("LONGSHORE_STOP_AT", "not configuration")
    .set("redis.db=9");
    insta::assert_snapshot!(case.shown::<Node>(&NODE, "puller.toml"), @r#"
    node_id = "5"  # puller.toml:1
    queues = ["level1", "level2", "level3"]  # environment LONGSHORE__QUEUES
    slots = 2  # puller.d/own.toml:1
    ratio = 2.0  # puller.toml:3
    verify = "received"  # default
    reserve = "10GiB"  # default
    rest = "0s"  # default
    serve = true  # environment LONGSHORE__SERVE

    [redis]
    address = "twenty:1"  # conf.d/20-all.toml:2
    username = "all"  # conf.d/10-all.toml:3
    db = 9  # flag --set
    tls = false  # default

    [import]
    "#);
    let files = case.load::<Node>(&NODE, "puller.toml").expect("loaded").files;
    let names: Vec<_> = files.iter().map(|file| file.strip_prefix(case.folder.path()).expect("inside")).collect();
    assert_eq!(
        names.iter().map(|name| name.to_str().expect("text")).collect::<Vec<_>>(),
        ["puller.toml", "conf.d/10-all.toml", "conf.d/20-all.toml", "puller.d/own.toml"]
    );
}

#[test]
fn a_variable_finds_the_instance_that_a_file_named() {
    let case = Case::new(&[("uuzuback.conf", CLIENT)])
        .variable("LONGSHORE__INSTANCE__MYSQL3306__SCRIPT", "true")
        .variable("LONGSHORE__REDIS__ADDRESS", "127.0.0.1:7000");
    let loaded = case.load::<Host>(&HOST, "uuzuback.conf").expect("loaded");
    assert_eq!(loaded.value.instance["mysql3306"].script, "true");
    assert_eq!(loaded.value.redis.address, "127.0.0.1:7000");
    assert_eq!(loaded.origin("redis.address").to_string(), "environment LONGSHORE__REDIS__ADDRESS");
}

#[test]
fn a_table_is_not_taken_for_the_file_of_a_secret_of_its_name() {
    let section = |name: &str| {
        format!("[instance.{name}]\ntype = \"t\"\ninstance = \"{name}\"\nback_log = \"/l\"\nscript = \"s\"\n")
    };
    let main = format!("server_id = \"1\"\n{}{}", section("db"), section("web_file"));
    let more = section("db_file") + &section("web");
    let case = Case::new(&[("x.toml", &main), ("conf.d/more.toml", &more)]);
    let loaded = case.load::<Host>(&HOST, "x.toml").expect("loaded");
    assert_eq!(loaded.value.instance.keys().collect::<Vec<_>>(), ["db", "db_file", "web", "web_file"]);
}

#[test]
fn an_empty_variable_takes_an_optional_value_away() {
    let case = Case::new(&[("x.toml", "rate = \"1MB\"\n")]).variable("LONGSHORE__RATE", "");
    assert_eq!(case.load::<Node>(&NODE, "x.toml").expect("loaded").value.rate, None);
}

#[test]
fn a_variable_that_is_wrong_is_named() {
    let case = Case::new(&[("x.toml", "")])
        .variable("LONGSHORE__SLOTS", "many")
        .variable("LONGSHORE__REDSI__DB", "1")
        .variable("LONGSHORE__REDIS__PORT", "1");
    insta::assert_snapshot!(case.wrong::<Node>(&NODE, "x.toml"), @r#"
    environment LONGSHORE__REDSI__DB: redsi: unknown key; did you mean `redis`?
    environment LONGSHORE__REDIS__PORT: redis.port: unknown key; known here: address, username, password, db, tls, sentinel
    environment LONGSHORE__SLOTS: slots: expected a whole number from 0 to 65535, found "many"
    "#);
    let case = Case::new(&[("x.toml", "")])
        .variable("LONGSHORE__", "x")
        .variable("LONGSHORE__NODE_ID", OsString::from_vec(vec![0xff]));
    insta::assert_snapshot!(case.wrong::<Node>(&NODE, "x.toml"), @r"
    environment LONGSHORE__: write it LONGSHORE__SECTION__KEY
    environment LONGSHORE__NODE_ID: not UTF-8
    ");
}

#[test]
fn each_of_several_tables_has_its_own_origin() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Clusters {
        cluster: Vec<Cluster>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Cluster {
        name: String,
        #[serde(default)]
        redis: RedisConfig,
    }
    let case =
        Case::new(&[("x.toml", "[[cluster]]\nname = \"a\"\n[cluster.redis]\ndb = 1\n[[cluster]]\nname = \"b\"\n")]);
    let loaded = case.load::<Clusters>(&NODE, "x.toml").expect("loaded");
    assert_eq!(loaded.origin("cluster.1.name"), Origin::file(&case.path("x.toml").as_path().into(), 6));
    insta::assert_snapshot!(case.shown::<Clusters>(&NODE, "x.toml"), @r#"
    [[cluster]]
    name = "a"  # x.toml:2

    [cluster.redis]
    address = "127.0.0.1:6379"  # default
    db = 1  # x.toml:4
    tls = false  # default

    [[cluster]]
    name = "b"  # x.toml:6

    [cluster.redis]
    address = "127.0.0.1:6379"  # default
    db = 0  # default
    tls = false  # default
    "#);
}
