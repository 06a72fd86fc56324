//! The shipped backup and restore scripts, by themselves, against the real databases and tools: what they announce can be
//! restored to the same content, and what fails or is killed announces nothing.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use longshore_tests::{MariaDb, Postgres, Process, Redis, free_port, wait_until_blocking};
use tempfile::TempDir;

/// A script of deploy/scripts.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/scripts").join(name)
}

/// A host's folders for one instance, with the environment that the agent gives to its script.
struct Instance {
    folder: TempDir,
    variables: BTreeMap<String, String>,
}

/// What a log said: its first word, and the lines after it.
#[derive(Debug, Clone, PartialEq)]
struct Log {
    word: String,
    lines: Vec<String>,
}

impl Log {
    fn value(&self, key: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
    }
}

impl Instance {
    fn new(backup_type: &str, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("back")).unwrap();
        let text = |path: &str| folder.path().join(path).display().to_string();
        let variables = [
            ("LONGSHORE_SERVER_ID", "111111".to_owned()),
            ("LONGSHORE_TYPE", backup_type.to_owned()),
            ("LONGSHORE_INSTANCE", name.to_owned()),
            ("LONGSHORE_BACK_DIR", text("back")),
            ("LONGSHORE_BACK_LOG", text("back_log")),
            // The scripts run as they do from cron: with little else.
            ("PATH", "/usr/bin:/bin".to_owned()),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { folder, variables }
    }

    fn with_last_all_log(self) -> Self {
        let path = self.folder.path().join("last_all_log").display().to_string();
        self.with("LONGSHORE_LAST_ALL_LOG", &path)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn back_dir(&self) -> PathBuf {
        self.folder.path().join("back")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, name: &str, arguments: &[&Path]) -> Command {
        let mut command = Command::new(script(name));
        command.args(arguments).env_clear().envs(&self.variables).stdin(Stdio::null());
        command
    }

    fn backup(&self, name: &str, arguments: &[&Path]) -> (Output, Log) {
        let output = self.command(name, arguments).output().unwrap();
        (output, self.log())
    }

    /// A backup that must be announced; its path.
    fn good(&self, name: &str, arguments: &[&Path]) -> PathBuf {
        let (output, log) = self.backup(name, arguments);
        assert_eq!(output.status.code(), Some(0), "{log:?} {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(log.word, "ok");
        let path = self.back_dir().join(&log.lines[0]);
        assert!(path.exists(), "{} was announced", path.display());
        path
    }

    /// A backup that must fail; the text that the log gives.
    fn wrong(&self, name: &str, arguments: &[&Path]) -> String {
        let (output, log) = self.backup(name, arguments);
        assert_eq!(log.word, "wrong");
        assert_ne!(output.status.code(), Some(0), "a failure shows in the exit status too");
        log.lines.join("\n")
    }

    fn log(&self) -> Log {
        self.read_log("back_log").unwrap()
    }

    fn read_log(&self, name: &str) -> Option<Log> {
        let text = fs::read_to_string(self.path(name)).ok()?;
        let mut lines = text.lines().map(str::to_owned);
        Some(Log { word: lines.next().unwrap_or_default(), lines: lines.collect() })
    }

    fn restore(&self, name: &str, target: &Path, files: &[PathBuf]) -> Output {
        let mut command = Command::new(script(name));
        command.arg("--target").arg(target).args(files).env_clear().envs(&self.variables).output().unwrap()
    }

    fn restored(&self, name: &str, target: &Path, files: &[PathBuf]) {
        let output = self.restore(name, target, files);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Names in back_dir, without the scripts' own folder.
    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.back_dir()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".longshore");
        names.sort();
        names
    }
}

/// Fails unless both folders hold the same names with the same content, modes and link targets.
fn assert_same_tree(one: &Path, other: &Path) {
    let listing = |folder: &Path| {
        let output = Command::new("sh")
            .args([
                "-c",
                "find . -printf '%P %y %m %l\\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum",
            ])
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(listing(one), listing(other));
}

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

fn owner_of(path: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap())
}

/// A folder with files, a link and names that need care.
fn make_tree(folder: &Path) {
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    for (name, content) in
        [("a", "one"), ("with space", "two"), ("deep/er/汉字", "three"), ("-dash", "four"), ("empty", "")]
    {
        fs::write(folder.join(name), content).unwrap();
    }
    std::os::unix::fs::symlink("a", folder.join("link")).unwrap();
}

#[test]
fn a_folder_and_its_increments_are_restored_as_it_was_at_each() {
    let instance = Instance::new("folder", "site").with_last_all_log();
    let source = instance.path("source");
    make_tree(&source);
    let mut files = vec![instance.good("folder-backup", &[&source])];
    assert!(files[0].to_str().unwrap().contains(".000-full."));

    fs::remove_file(source.join("a")).unwrap();
    fs::write(source.join("deep/new"), "five").unwrap();
    files.push(instance.good("folder-backup", &[&source]));
    let first = instance.path("first");
    instance.restored("folder-restore", &first, &files);
    assert_same_tree(&source, &first);

    fs::remove_dir_all(source.join("deep/er")).unwrap();
    fs::rename(source.join("with space"), source.join("moved")).unwrap();
    files.push(instance.good("folder-backup", &[&source]));
    let second = instance.path("second");
    instance.restored("folder-restore", &second, &files);
    assert_same_tree(&source, &second);

    let output = instance.restore("folder-restore", &first, &files);
    assert_eq!(output.status.code(), Some(73), "a folder in use is left alone");
    let forced = instance.with("RESTORE_FORCE", "yes");
    forced.restored("folder-restore", &first, &files);
    assert_same_tree(&first, &second);
}

#[test]
fn a_git_repository_is_restored_with_every_ref() {
    let instance = Instance::new("git", "site");
    let repository = instance.path("repository");
    let git = |folder: &Path, arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=trunk"])
            .args(arguments)
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    git(instance.folder.path(), &["init", "-q", "repository"]);
    assert!(instance.wrong("git-bundle-backup", &[&repository]).contains("empty bundle"));
    for message in ["one", "two"] {
        fs::write(repository.join("file"), message).unwrap();
        git(&repository, &["add", "file"]);
        git(&repository, &["commit", "-q", "-m", message]);
    }
    git(&repository, &["tag", "-a", "v1", "-m", "first"]);
    git(&repository, &["branch", "side", "HEAD~1"]);
    git(&repository, &["notes", "add", "-m", "seen"]);
    let file = instance.good("git-bundle-backup", &[&repository]);
    let target = instance.path("restored");
    instance.restored("git-bundle-restore", &target, &[file]);
    let refs = ["for-each-ref", "--format=%(objectname) %(refname)"];
    assert_eq!(git(&target, &refs), git(&repository, &refs));
    assert_eq!(git(&target, &["symbolic-ref", "HEAD"]), "refs/heads/trunk\n");
}

#[test]
fn an_sqlite_database_is_restored_from_a_backup_made_while_it_is_written() {
    let instance = Instance::new("sqlite", "app");
    let database = instance.path("app.db");
    let sql = |path: &Path, statement: &str| {
        let output = Command::new("sqlite3").arg(path).arg(statement).output().expect("package sqlite3");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    sql(&database, "pragma journal_mode=wal; create table t (a); insert into t values ('one'), ('two')");
    let mut writer = Command::new("sqlite3").arg(&database).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(
        writer.stdin.as_mut().unwrap(),
        b"begin immediate; insert into t values ('unfinished');\n",
    )
    .unwrap();
    let file = instance.good("sqlite-backup", &[&database]);
    let target = instance.path("restored.db");
    instance.restored("sqlite-restore", &target, std::slice::from_ref(&file));
    assert_eq!(sql(&target, "select group_concat(a) from t"), "one,two\n");
    let output = instance.restore("sqlite-restore", &target, &[file]);
    assert_eq!(output.status.code(), Some(73));
    drop(writer.stdin.take());
    writer.wait().unwrap();
}

#[test]
fn fulls_come_when_they_are_due_and_old_chains_go() {
    let instance =
        Instance::new("folder", "site").with_last_all_log().with("INCREMENTS_PER_FULL", "2").with("KEEP_CHAINS", "2");
    let source = instance.path("source");
    make_tree(&source);
    fs::write(instance.back_dir().join("folder-site.notes"), "not the script's").unwrap();
    fs::write(instance.back_dir().join("folder-site2.20200101-000000.000-full.tar"), "another instance's").unwrap();
    let made: Vec<String> = (0..7)
        .map(|_| instance.good("folder-backup", &[&source]).file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let fulls: Vec<bool> = made.iter().map(|name| name.contains("-full")).collect();
    assert_eq!(fulls, [true, false, false, true, false, false, true]);
    let mut expected = made[3..].to_vec();
    expected.push("folder-site.notes".to_owned());
    expected.push("folder-site2.20200101-000000.000-full.tar".to_owned());
    expected.sort();
    assert_eq!(instance.kept(), expected);

    // One that is asked for, and one after the logs were lost.
    let asked = instance.command("folder-backup", &[&source]).env("FULL", "yes").status().unwrap();
    assert!(asked.success() && instance.log().lines[0].contains("-full"));
    instance.good("folder-backup", &[&source]);
    fs::remove_file(instance.path("last_all_log")).unwrap();
    let again = instance.good("folder-backup", &[&source]);
    assert!(again.to_str().unwrap().contains("-full"));
}

#[test]
fn without_a_last_all_log_every_backup_is_a_full() {
    let instance = Instance::new("folder", "site");
    let source = instance.path("source");
    make_tree(&source);
    for _ in 0..2 {
        assert!(instance.good("folder-backup", &[&source]).to_str().unwrap().contains("-full"));
        assert_eq!(instance.log().value("from"), None);
    }
}

#[test]
fn a_second_run_beside_a_running_one_leaves_its_logs_alone() {
    let instance = Instance::new("folder", "site").with_last_all_log();
    let source = instance.path("source");
    make_tree(&source);
    instance.good("folder-backup", &[&source]);
    let before = fs::read(instance.path("back_log")).unwrap();
    let lock = fs::File::open(instance.back_dir().join(".longshore/folder-site/lock")).unwrap();
    lock.lock().unwrap();
    let (output, _) = instance.backup("folder-backup", &[&source]);
    assert_eq!(output.status.code(), Some(75));
    assert_eq!(fs::read(instance.path("back_log")).unwrap(), before);
}

#[test]
fn a_full_disk_is_told_and_the_half_file_goes_away() {
    let instance = Instance::new("folder", "site").with_last_all_log().with("COMPRESS", "none");
    let source = instance.path("source");
    make_tree(&source);
    fs::write(source.join("large"), vec![7; 3 << 20]).unwrap();
    // A file system of 2 MiB in a mount name space of this command's own.
    let inside = "mount -t tmpfs -o size=2m tmpfs \"$LONGSHORE_BACK_DIR\" || exit 99
        \"$0\" \"$1\"; echo status $?; cd \"$LONGSHORE_BACK_DIR\"; find . -type f | sort
        rm \"$1/large\"; \"$0\" \"$1\"; echo status $?";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", inside])
        .arg(script("folder-backup"))
        .arg(&source)
        .env_clear()
        .envs(&instance.variables)
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_ne!(output.status.code(), Some(99), "this test needs user name spaces: {errors}");
    assert!(errors.contains("No space left on device"), "{errors}");
    assert_eq!(text.trim(), "status 1\n./.longshore/folder-site/failures\n./.longshore/folder-site/lock\nstatus 0");
    assert_eq!(instance.log().word, "ok");
}

#[test]
fn a_term_in_the_middle_is_told_and_leaves_nothing_behind() {
    let instance = Instance::new("folder", "site").with_last_all_log();
    let source = instance.path("source");
    make_tree(&source);
    // Tar waits for ever at the pipe that it is told to read its exclusions from.
    let pipe = instance.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let option = PathBuf::from(format!("--exclude-from={}", pipe.display()));
    let running = Process::spawn(&mut instance.command("folder-backup", &[&source, &option])).unwrap();
    let partial = instance.back_dir().join(".longshore/folder-site/partial");
    wait_until_blocking("the backup has begun", Duration::from_secs(10), || {
        fs::read_dir(&partial).is_ok_and(|entries| entries.count() == 1)
    });
    let status = running.end(rustix::process::Signal::TERM).unwrap();
    assert_eq!(status.code(), Some(143));
    assert_eq!(instance.log().word, "wrong");
    assert!(instance.log().lines[0].contains("ended by a signal"));
    assert!(instance.kept().is_empty());
    instance.good("folder-backup", &[&source]);
}

/// The script is killed at its nth call of one of the programs that change files, for every n, and each time the next runs
/// must go on so that what was announced, and only that, is a chain that restores to what was there.
#[test]
fn killed_at_any_step_the_announced_backups_still_make_a_whole_chain() {
    let shims = tempfile::tempdir().unwrap();
    for program in ["mv", "rm", "sync", "mkdir"] {
        let shim = format!(
            "#!/bin/sh\ncount=$(($(cat \"$KILL_COUNT\") - 1)); echo $count >\"$KILL_COUNT\"\n\
             if [ $count = 0 ]; then kill -KILL -\"$KILL_GROUP\"; fi\nexec /usr/bin/{program} \"$@\"\n"
        );
        let path = shims.path().join(program);
        fs::write(&path, shim).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut reached_the_end = [false, false];
    for (of_a_full, end) in [true, false].into_iter().zip(&mut reached_the_end) {
        for step in 1..40 {
            let instance = Instance::new("folder", "site").with_last_all_log();
            let source = instance.path("source");
            make_tree(&source);
            let mut announced = Vec::new();
            let mut seen = None;
            // What the agent would take up: a log that this run has written.
            let look = |seen: &mut Option<Vec<u8>>, announced: &mut Vec<Log>| {
                let now = fs::read(instance.path("back_log")).ok();
                if now != *seen {
                    announced.push(instance.log());
                    *seen = now;
                }
            };
            instance.good("folder-backup", &[&source]);
            look(&mut seen, &mut announced);
            for change in ["two", "three"] {
                fs::write(source.join(change), change).unwrap();
                if change == "two" {
                    let counter = instance.path("count");
                    fs::write(&counter, step.to_string()).unwrap();
                    let mut command = Command::new("sh");
                    command
                        .args(["-c", "KILL_GROUP=$$ \"$0\" \"$1\""])
                        .arg(script("folder-backup"))
                        .arg(&source)
                        .env_clear()
                        .envs(&instance.variables)
                        .env("KILL_COUNT", &counter)
                        .env("FULL", if of_a_full { "yes" } else { "no" })
                        .env("PATH", format!("{}:/usr/bin:/bin", shims.path().display()))
                        .process_group(0);
                    let output = command.output().unwrap();
                    *end = output.status.signal().is_none();
                } else {
                    instance.good("folder-backup", &[&source]);
                }
                look(&mut seen, &mut announced);
            }
            assert!(announced.iter().all(|log| log.word == "ok"), "step {step}: {announced:?}");
            let full = announced.iter().rposition(|log| log.lines[0].contains("-full")).unwrap();
            let chain = &announced[full..];
            for pair in chain.windows(2) {
                assert_eq!(pair[1].value("from"), pair[0].value("to"), "step {step}: {announced:?}");
            }
            let full_named = instance.read_log("last_all_log").unwrap().lines[0].clone();
            assert_eq!(full_named, chain[0].lines[0], "step {step}");
            let files: Vec<PathBuf> = chain.iter().map(|log| instance.back_dir().join(&log.lines[0])).collect();
            let target = instance.path("restored");
            instance.restored("folder-restore", &target, &files);
            assert_same_tree(&source, &target);
            if *end {
                break;
            }
        }
    }
    assert_eq!(reached_the_end, [true, true], "every step was passed");
}
