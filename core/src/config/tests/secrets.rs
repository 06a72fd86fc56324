//! A secret comes as text or from a file, and is shown nowhere.

use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use super::*;

#[test]
fn a_secret_comes_from_a_file_and_is_never_shown() {
    let case = Case::new(&[("password", "hunter2\n")]);
    let password = case.path("password");
    let mode = |mode| std::fs::set_permissions(&password, Permissions::from_mode(mode)).expect("mode set");
    let file = format!("[redis]\npassword_file = {password:?}\n");
    std::fs::write(case.path("x.toml"), file).expect("written");

    mode(0o644);
    insta::assert_snapshot!(case.wrong::<Node>(&NODE, "x.toml"), @"x.toml:2: redis.password_file: password is open to every user (mode 644); run: chmod 600 password");
    mode(0o600);
    let loaded = case.load::<Node>(&NODE, "x.toml").expect("loaded");
    assert_eq!(loaded.value.redis.password.as_ref().expect("a password").expose(), "hunter2");
    let shown = loaded.show(true).expect("shown") + &format!("{loaded:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("password = \"(secret)\"  # in "), "{shown}");

    let number = Case::new(&[("x.toml", "[redis]\npassword = 12345\n")]);
    insta::assert_snapshot!(number.wrong::<Node>(&NODE, "x.toml"), @"x.toml:2: redis.password: expected a text; write it in quotes");
    let inline =
        Case::new(&[("x.toml", "[redis]\npassword = \"hunter2\"\n")]).variable("LONGSHORE__REDIS__USERNAME", "u");
    let loaded = inline.load::<Node>(&NODE, "x.toml").expect("loaded");
    let shown = loaded.show(true).expect("shown") + &format!("{loaded:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_secret_given_twice_in_one_layer_is_an_error_and_over_layers_the_later_wins() {
    let case = Case::new(&[("x.toml", "[redis]\npassword = \"a\"\npassword_file = \"/nowhere\"\n")]);
    insta::assert_snapshot!(case.wrong::<Node>(&NODE, "x.toml"), @"x.toml:3: redis.password_file: give either password or password_file, not both; the other is at x.toml:2");
    let case = case.variable("LONGSHORE__REDIS__PASSWORD", "b");
    let loaded = case.load::<Node>(&NODE, "x.toml").expect("the variable replaces both");
    assert_eq!(loaded.value.redis.password.expect("a password").expose(), "b");
}

#[test]
fn only_a_secret_is_read_from_a_file() {
    let case = Case::new(&[("x.toml", "node_id_file = \"/etc/hostname\"\n")]);
    insta::assert_snapshot!(case.wrong::<Node>(&NODE, "x.toml"), @"x.toml:1: node_id_file: unknown key; only a secret can be given by a file");
}

#[test]
fn a_secret_in_a_file_that_everyone_can_read_is_a_warning() {
    let case = Case::new(&[("x.toml", "[redis]\npassword = \"a\"\n")]);
    let warnings = |mode| {
        std::fs::set_permissions(case.path("x.toml"), Permissions::from_mode(mode)).expect("mode set");
        let loaded = case.load::<Node>(&NODE, "x.toml").expect("loaded");
        loaded
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect::<String>()
            .replace(case.folder.path().to_str().expect("text"), "")
    };
    assert_eq!(
        warnings(0o644),
        "/x.toml:2: redis.password: every user can read this secret; chmod 640 /x.toml, or use redis.password_file"
    );
    assert_eq!(warnings(0o640), "");
}
