//! The seed's own files, and files like them.

use super::*;

#[test]
fn the_seeds_client_file_shows_every_value_with_its_line() {
    let case = Case::new(&[("uuzuback.conf", CLIENT)]);
    insta::assert_snapshot!(case.shown::<Host>(&HOST, "uuzuback.conf"), @r#"
    server_id = "111111"  # uuzuback.conf:2 server_id
    interval = "1h"  # uuzuback.conf:5 interval
    queue = "uuzuback"  # uuzuback.conf:8 redis_queue

    [redis]
    address = "0.0.0.0:6379"  # uuzuback.conf:6 redis_host
    db = 0  # default
    tls = false  # default

    [log]
    format = "auto"  # default
    file = "/var/log/uuzu_back.log"  # uuzuback.conf:10 log
    error_file = "/var/log/uuzu_back.error"  # uuzuback.conf:11 error_log

    [instance.mysql3306]
    type = "mysql"  # uuzuback.conf:14 back_type
    instance = "3306"  # uuzuback.conf:15 instance
    back_log = "/var/log/mysql_3306.log"  # uuzuback.conf:18 back_log
    last_all_log = "/var/log/last_3306.log"  # uuzuback.conf:19 last_all_log
    script = "sh /usr/local/uuzuback/mysql_backup.sh /etc/my.cnf"  # uuzuback.conf:20 script

    [instance.redis6379]
    type = "redis"  # uuzuback.conf:23 back_type
    instance = "6379"  # uuzuback.conf:24 instance
    back_log = "/var/log/redis_6379.log"  # uuzuback.conf:27 back_log
    script = "sh /usr/local/uuzuback/redis_backup.sh /data/conf/redis_conf"  # uuzuback.conf:28 script

    # Known from UBackup, and not used:
    # game_id = 31 (uuzuback.conf:3): not needed by this test
    # op_id = 1 (uuzuback.conf:4): reserved
    # my_ip = 127.0.0.0.1 (uuzuback.conf:9): not needed by this test
    # rsync_model = backup/database_3306 (uuzuback.conf:16): not needed by this test
    # back_dir = /data/backup/database_3306/ (uuzuback.conf:17): not needed by this test
    # rsync_model = backup/redisbase_6379 (uuzuback.conf:25): not needed by this test
    # back_dir = /data/backup/redisbase_6379/ (uuzuback.conf:26): not needed by this test
    "#);
}

#[test]
fn the_seeds_server_file_shows_every_value_with_its_line() {
    let case = Case::new(&[("uuzuback.conf", SERVER)]);
    insta::assert_snapshot!(case.shown::<Node>(&NODE, "uuzuback.conf"), @r#"
    node_id = "5"  # uuzuback.conf:19 node_id
    queues = ["level1", "uuzuback_f"]  # uuzuback.conf:9 redis_queue
    slots = 4  # uuzuback.conf:2 work_thread
    ratio = 1.0  # default
    verify = "received"  # default
    reserve = "1000GiB"  # uuzuback.conf:5 reserve
    rate = "62000KiB"  # uuzuback.conf:3 rsync_bwlimit
    rest = "0s"  # uuzuback.conf:6 interval
    serve = false  # default

    [redis]
    address = "127.0.0.1:6379"  # uuzuback.conf:7 redis_host
    db = 0  # default
    tls = false  # default

    [import]
    redis = "127.0.0.1:6379"  # uuzuback.conf:14 message_redis_host
    queue = "message"  # uuzuback.conf:16 message_queue

    # Known from UBackup, and not used:
    # server_root_path = /backup/uuzubackup/ (uuzuback.conf:4): not needed by this test
    # log = /var/log/uuzuback.log (uuzuback.conf:10): not needed by this test
    # error_log = /var/log/uuzuback.error (uuzuback.conf:11): not needed by this test
    # myip = 127.0.0.1 (uuzuback.conf:12): not needed by this test
    # retry = 3 (uuzuback.conf:13): not needed by this test
    # mysqlkeeptime = 15 (uuzuback.conf:17): reserved
    # rediskeeptime = 15 (uuzuback.conf:18): reserved
    "#);
}

#[test]
fn trailing_comments_line_ends_and_a_byte_order_mark_change_nothing() {
    let windows = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let shown = |text: &str| {
        let client = Case::new(&[("x.conf", text)]).load::<Host>(&HOST, "x.conf");
        let server = Case::new(&[("x.conf", text)]).load::<Node>(&NODE, "x.conf");
        let loaded = client.map(|loaded| loaded.show(false)).or(server.map(|loaded| loaded.show(false)));
        loaded.unwrap_or_else(|error| panic!("{error}")).expect("shown")
    };
    for (commented, plain) in [(CLIENT, CLIENT_PLAIN), (SERVER, SERVER_PLAIN)] {
        assert_eq!(shown(commented), shown(plain));
        assert_eq!(shown(commented), shown(&windows(commented)));
    }
}

#[test]
fn everything_wrong_with_a_seed_file_is_told_at_once_with_the_seeds_names() {
    let case = Case::new(&[(
        "x.conf",
        "[global]\nserver_id = 1\nredis_hots = 1.2.3.4\nredis_port = many\n\n[mysql]\nback_typ = mysql\n",
    )]);
    insta::assert_snapshot!(case.wrong::<Host>(&HOST, "x.conf"), @r#"
    x.conf:3: redis_hots: unknown key; did you mean `redis_host`?
    x.conf:4: redis_port: "many" is not a port
    x.conf:7: back_typ: unknown key; did you mean `back_type`?
    "#);
}

#[test]
fn a_wrong_or_missing_value_of_a_seed_file_is_told_with_the_seeds_names() {
    let case = Case::new(&[("x.conf", "[global]\ninterval = often\n[mysql]\nback_type = mysql\ninstance = a/b\n")]);
    insta::assert_snapshot!(case.wrong::<Host>(&HOST, "x.conf"), @r#"
    x.conf: server_id: missing
    x.conf:2: interval: "often" is not a duration; write it like 90s, 5m, 6h, 1d, or a number of seconds
    x.conf:3: instance.mysql.back_log: missing
    x.conf:3: instance.mysql.script: missing
    x.conf:5: instance: instance "a/b" has '/' at byte 1; letters, digits and ._-:@+ are allowed, the first not . or -
    "#);
}

#[test]
fn a_key_that_a_section_lacks_is_told_with_the_line_of_the_section() {
    let case =
        Case::new(&[("x.conf", "[global]\nserver_id = 1\n\n[mysql]\ninstance = 3306\nscript = x\nback_log = /x\n")]);
    insta::assert_snapshot!(case.wrong::<Host>(&HOST, "x.conf"), @"x.conf:4: instance.mysql.type: missing; in this file it is called `back_type`");
}

#[test]
fn a_program_without_sections_refuses_one() {
    let case = Case::new(&[("x.conf", "[global]\nwork_thread = 2\n[mysql3306]\nscript = x\n")]);
    insta::assert_snapshot!(case.wrong::<Node>(&NODE, "x.conf"), @"x.conf:3: unknown section [mysql3306]; this program reads [global] only");
}

#[test]
fn what_is_shown_of_a_seed_file_is_the_same_in_toml() {
    for (text, program) in [(CLIENT, &HOST), (SERVER, &NODE)] {
        let case = Case::new(&[("x.conf", text)]);
        let show = |name: &str| match program.name {
            "longshore-agent" => case.load::<Host>(program, name).map(|loaded| loaded.show(false)),
            _ => case.load::<Node>(program, name).map(|loaded| loaded.show(false)),
        };
        let shown = show("x.conf").expect("loaded").expect("shown");
        std::fs::write(case.path("again.toml"), &shown).expect("written");
        let (values, unused) = shown.split_once("\n# Known from UBackup").expect("some are not used");
        assert!(unused.lines().count() > 1);
        assert_eq!(show("again.toml").expect("loaded").expect("shown"), values);
    }
}

#[test]
fn a_section_may_have_dots_in_its_name() {
    let text =
        "[global]\nserver_id = 1\n[mysql.3306]\nback_type = mysql\ninstance = 3306\nback_log = /l\nscript = true\n";
    let case = Case::new(&[("x.conf", text)]).set("instance.mysql.3306.script=false");
    let loaded = case.load::<Host>(&HOST, "x.conf").expect("loaded");
    assert_eq!(loaded.value.instance["mysql.3306"].script, "false");
    let back_log = loaded.problem("instance.mysql.3306.back_log", "is not there").to_string();
    assert!(back_log.ends_with("x.conf:6: back_log: is not there"), "{back_log}");
}
