//! The contract on SQLite, and what is SQLite's own.

use std::{path::Path, sync::Arc};

use longshore_catalog::{Access, Catalog, CatalogConfig, CatalogError, CatalogKind, Put};
use tempfile::TempDir;

use crate::{contract::contract_suite, samples::stored};

fn config(path: &Path) -> CatalogConfig {
    CatalogConfig { kind: CatalogKind::Sqlite, path: path.to_owned(), ..CatalogConfig::default() }
}

async fn open() -> (Arc<dyn Catalog>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let catalog = longshore_catalog::open(&config(&folder.path().join("catalog.db")), Access::Write).unwrap();
    catalog.ensure_schema().await.unwrap();
    (catalog, folder)
}

contract_suite!(open());

#[tokio::test]
async fn a_reader_may_start_before_the_file_exists_and_says_what_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder.path().join("catalog.db"));
    let reader = longshore_catalog::open(&config, Access::Read).unwrap();
    let error = reader.health().await.unwrap_err();
    assert!(matches!(error, CatalogError::NotCreated { .. }));
    assert!(error.to_string().contains("start longshore-indexer"), "{error}");
    assert!(!folder.path().join("catalog.db").exists());

    let writer = longshore_catalog::open(&config, Access::Write).unwrap();
    writer.ensure_schema().await.unwrap();
    let report = stored("3306", 0);
    writer.put(std::slice::from_ref(&report)).await.unwrap();
    assert_eq!(reader.by_id(report.job.id).await.unwrap().unwrap().report, report);
    assert!(matches!(reader.put(&[report]).await, Err(CatalogError::Unusable { .. })));
}

#[tokio::test]
async fn a_writer_that_was_never_migrated_creates_nothing_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let writer = longshore_catalog::open(&config(&folder.path().join("catalog.db")), Access::Write).unwrap();
    assert!(matches!(writer.put(&[stored("3306", 0)]).await, Err(CatalogError::NotCreated { .. })));
    assert!(!folder.path().join("catalog.db").exists());
}

#[tokio::test]
async fn a_file_of_a_newer_version_or_no_database_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let newer = folder.path().join("newer.db");
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let other = folder.path().join("other.db");
    std::fs::write(&other, "this is no database, but a text that is long enough".repeat(100)).unwrap();
    for (path, word) in [(newer, "newer"), (other, "not a SQLite database")] {
        for access in [Access::Read, Access::Write] {
            let catalog = longshore_catalog::open(&config(&path), access).unwrap();
            let result = match access {
                Access::Read => catalog.health().await.map(drop),
                Access::Write => catalog.ensure_schema().await,
            };
            let error = result.unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(&path.display().to_string()), "{access:?}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_may_write_at_once() {
    let (catalog, folder) = open().await;
    let other = longshore_catalog::open(&config(&folder.path().join("catalog.db")), Access::Write).unwrap();
    let write = |catalog: Arc<dyn Catalog>| async move {
        for n in 0..50 {
            assert_eq!(catalog.put(&[stored("3306", n)]).await.unwrap(), [Put::Written]);
        }
    };
    tokio::join!(write(Arc::clone(&catalog)), write(other));
    assert_eq!(catalog.totals(&longshore_catalog::Filter::default()).await.unwrap().count, 100);
}
