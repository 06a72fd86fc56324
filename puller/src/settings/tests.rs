#![allow(clippy::unwrap_used)]
use std::path::Path;

use super::*;

fn settings(name: &str, text: &str) -> Result<Loaded<Settings>, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    read(&ConfigArgs { file: Some(file), ..ConfigArgs::default() }, &[])
}

#[test]
fn the_seeds_server_file_loads_unchanged() {
    let loaded = settings("uuzuback.conf", include_str!("../../fixtures/seed-server.conf")).unwrap();
    let settings = &loaded.value;
    assert_eq!((settings.slots, settings.retry, settings.node_id.as_str()), (4, 3, "5"));
    assert_eq!(settings.rsync.bwlimit, ByteSize::kib(62000));
    assert_eq!(settings.store.path, Path::new("/backup/uuzubackup/"));
    assert_eq!(settings.store.reserve, Reserve::Bytes(ByteSize::gib(1000)));
    assert_eq!(settings.queues.iter().map(QueueName::as_str).collect::<Vec<_>>(), ["level1", "uuzuback_f"]);
    assert_eq!(settings.redis.address, "127.0.0.1:6379");
    assert_eq!(settings.log.file.as_deref(), Some(Path::new("/var/log/uuzuback.log")));
}

#[test]
fn every_problem_names_its_key() {
    let text = "node_id = \"1\"\nqueues = []\nslots = 0\n[store]\npath = \"relative\"\nreserve = \"120%\"\n";
    let error = settings("puller.toml", text).unwrap_err().to_string();
    assert!(error.contains("store.reserve") && error.contains("120%"), "{error}");
    let text = "node_id = \"1\"\nqueues = []\nslots = 0\n[store]\npath = \"relative\"\n[ssh]\nkey = \"/a b\"\n";
    let error = settings("puller.toml", text).unwrap_err().to_string();
    for key in ["queues", "slots", "store.path", "ssh.key"] {
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn what_the_registry_may_say_too_is_read_as_rules_and_a_typo_is_found() {
    let text = "node_id = 1\nqueues = [\"a\"]\nweight = 7\nbandwidth = \"40MB/s\"\nwindow = \"22:00-06:00\"\n[store]\npath = \
        \"/s\"\n[levels.a]\nmax_wait = \"2h\"\norder = \"deadline\"\n[types.mysql]\ncopies = 2\n[hosts.111111]\ntransfers = \
        1\n[hosts.111111.modules]\nmysql = 1\n[cluster]\nrestore_bandwidth = \"1MB/s\"\n";
    let loaded = settings("puller.toml", text).unwrap();
    let wanted = "{\"cluster\":{\"restore_bandwidth\":\"1MB/s\"},\"queues\":{\"a\":{\"max_wait\":\"2h\",\"order\":\"deadline\"}},\
        \"types\":{\"mysql\":{\"copies\":2}},\"nodes\":{\"1\":{\"weight\":7,\"bandwidth\":\"40MB/s\",\
        \"window\":\"22:00-06:00 UTC\"}},\"hosts\":{\"111111\":{\"transfers\":1,\"modules\":{\"mysql\":1}}}}";
    assert_eq!(serde_json::to_string(&loaded.value.rules()).unwrap(), wanted);
    let shown = loaded.show(true).unwrap();
    assert!(shown.contains("puller.toml:4") && shown.contains("max_wait = \"2h\""), "{shown}");
    for (from, to, wanted) in [
        ("max_wait", "max_wiat", ":9: levels.a.max_wiat: unknown key; did you mean `max_wait`"),
        ("levels.a", "levels.b", "levels.b: is not one of queues"),
        ("\"22:00", "\"25:00", "from 00:00 to 24:00"),
        ("transfers = 1", "transfers = 0", "hosts.111111.transfers"),
        ("copies = 2", "copies = 9", "1 or 2"),
    ] {
        let error = settings("puller.toml", &text.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{to}: {error}");
    }
}

#[test]
fn the_first_secret_that_fits_is_used() {
    let text = "node_id = 1\nqueues = [\"a\"]\n[store]\npath = \"/s\"\n[[rsync.secrets]]\nhost = \"10.0.0.1\"\nuser = \
        \"one\"\npassword = \"x\"\n[[rsync.secrets]]\nhost = \"*\"\nmodule = \"backup\"\nuser = \"all\"\npassword = \"y\"\n";
    let loaded = settings("puller.toml", text).unwrap();
    let user = |host: &str, module: &str| {
        let (host, module) = (HostAddress::new(host).unwrap(), ModuleName::new(module).unwrap());
        loaded.value.rsync.secret_of(&host, &module).map(|secret| secret.user.clone())
    };
    assert_eq!(user("10.0.0.1", "other").as_deref(), Some("one"));
    assert_eq!(user("10.0.0.2", "backup").as_deref(), Some("all"));
    assert_eq!(user("10.0.0.2", "other"), None);
    assert!(!loaded.show(true).unwrap().contains("\"x\""));
}
