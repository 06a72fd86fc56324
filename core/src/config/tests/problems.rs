//! What is wrong is told all at once, with file, line, key and the nearest known key.

use super::*;

#[test]
fn everything_wrong_with_a_toml_file_is_told_at_once() {
    let text = "slots = \"many\"\nslotz = 3\nverify = \"recieved\"\nreserve = \"10 bananas\"\nratio = true\n\n\
                [redis]\nadress = \"1.2.3.4\"\ndb = 1.5\nsentinel = { master = \"m\" }\n\n[[redsi]]\n";
    let case = Case::new(&[("x.toml", text)]).variable("LONGSHORE__REST", "soon").set("slot=7");
    insta::assert_snapshot!(case.wrong::<Node>(&NODE, "x.toml"), @r#"
    x.toml:1: slots: expected a whole number from 0 to 65535, found "many"
    x.toml:2: slotz: unknown key; did you mean `slots`?
    x.toml:3: verify: "recieved" is not known; did you mean `received`?
    x.toml:4: reserve: "10 bananas" is not a size; write it like 62MB, 1000GiB, or a number of bytes
    x.toml:5: ratio: expected a number, found true
    x.toml:8: redis.adress: unknown key; did you mean `address`?
    x.toml:9: redis.db: expected a whole number, found 1.5
    x.toml:10: redis.sentinel.addresses: missing
    x.toml:12: redsi: unknown key; did you mean `redis`?
    flag --set: slot: unknown key; did you mean `slots`?
    environment LONGSHORE__REST: rest: "soon" is not a duration; write it like 90s, 5m, 6h, 1d, or a number of seconds
    "#);
}

#[test]
fn toml_that_is_no_toml_is_told_with_its_lines() {
    let case = Case::new(&[("x.toml", "slots = 3\nslots = 4\n\n[redis\naddress = 1.2.3.4\n")]);
    insta::assert_snapshot!(case.wrong::<Node>(&NODE, "x.toml"), @r"
    x.toml:2: slots: duplicate key
    x.toml:4: unclosed table, expected `]`
    ");
    std::fs::write(case.path("x.toml"), b"slots = 3\n# \xd6\xd0\n").expect("written");
    insta::assert_snapshot!(case.wrong::<Node>(&NODE, "x.toml"), @"x.toml:2: not UTF-8; save the file as UTF-8");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let case = Case::new(&[]);
    insta::assert_snapshot!(case.wrong::<Node>(&NODE, "x.toml"), @"x.toml: can't be read: No such file or directory (os error 2)");
    let missing = load_with::<Host>(&HOST, &ConfigArgs::default(), &[], []).expect_err("no server_id");
    insta::assert_snapshot!(missing.to_string(), @"no configuration file: server_id: missing; give -c FILE, or write one of /nowhere/agent.toml, /nowhere/uuzuback.conf");
}

#[test]
fn a_wrong_table_is_one_problem_and_not_a_missing_key_too() {
    let case = Case::new(&[("x.toml", "server_id = [1]\n[instance.a]\ntype = \"x\"\nscript = 5\n")]);
    insta::assert_snapshot!(case.wrong::<Host>(&HOST, "x.toml"), @r"
    x.toml:1: server_id: expected a text or an integer, found a list
    x.toml:2: instance.a.instance: missing
    x.toml:2: instance.a.back_log: missing
    x.toml:4: instance.a.script: expected a text, found 5
    ");
}

#[test]
fn all_that_is_missing_is_told_at_once_and_nothing_below_it() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct All {
        listen: std::net::SocketAddr,
        name: ServerId,
        size: ByteSize,
        wait: Span,
        kind: Verify,
        password: Secret,
        list: Vec<String>,
        one: Two,
        other: Two,
    }
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct Two {
        first: u16,
        second: bool,
    }
    let case = Case::new(&[("x.toml", "other = 5\nlisten = \"127.0.0.1:80\"\n")]);
    insta::assert_snapshot!(case.wrong::<All>(&NODE, "x.toml"), @r"
    x.toml: name: missing
    x.toml: size: missing
    x.toml: wait: missing
    x.toml: kind: missing
    x.toml: password: missing
    x.toml: list: missing
    x.toml: one: missing
    x.toml:1: other: expected a table, found 5
    ");
    // No stand-in is an address and port: the search ends there, and does not run on for ever.
    let case = Case::new(&[("x.toml", "listen = \"here\"\n")]);
    insta::assert_snapshot!(case.wrong::<All>(&NODE, "x.toml"), @"x.toml:1: listen: invalid socket address syntax");
}
