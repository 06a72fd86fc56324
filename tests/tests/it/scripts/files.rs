//! Scripts of folders, repositories and SQLite files.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::{Instance, assert_same_tree, make_tree};

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
