//! From a node's disk into the catalog.

use std::{fs, path::PathBuf};

use longshore_catalog::{Filter, FreshnessQuery};
use longshore_core::{RelativePath, Report};
use longshore_tests::Elasticsearch;

use crate::world::{World, report, reports};

/// Lays a backup below `store` as a puller does, its data `bytes` long.
fn lay(world: &World, report: &mut Report, bytes: usize) -> PathBuf {
    report.job.content.as_mut().unwrap().size_bytes = 7;
    let place = format!("mysql/111111/{}/2026-11/{}", report.job.instance, report.job.id);
    report.path = Some(RelativePath::new(&place).unwrap());
    let folder = world.folder().join("store").join(place);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(report.job.name().unwrap()), vec![b'x'; bytes]).unwrap();
    fs::write(folder.join("manifest.json"), serde_json::to_vec(&report).unwrap()).unwrap();
    folder
}

async fn a_lost_catalog_comes_back_from_the_disk(world: World) {
    let store = world.folder().join("store");
    let store = store.to_str().unwrap();
    let mut stored = reports(25);
    for report in &mut stored {
        lay(&world, report, 7);
    }
    fs::create_dir_all(world.folder().join("store/.incoming/a/b/c/d/e")).unwrap();

    // Nothing is there yet, and a look makes nothing.
    let output = world.ask(&["rebuild", store, "--dry-run"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("25 manifests: 25 missing and 0 older in the catalog (would be written)"), "{text}");
    assert!(world.catalog.health().await.is_err());

    let output = world.ask(&["rebuild", store]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    world.has_exactly(&stored).await;
    assert_eq!(world.catalog.freshness(&FreshnessQuery::default()).await.unwrap().items.len(), 10);

    // Again: nothing differs.
    let output = world.ask(&["rebuild", store]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_sqlite_catalog_comes_back_from_the_disk() {
    a_lost_catalog_comes_back_from_the_disk(World::on_sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_elasticsearch_catalog_comes_back_from_the_disk() {
    let server = tokio::task::spawn_blocking(Elasticsearch::shared).await.unwrap();
    a_lost_catalog_comes_back_from_the_disk(World::on_elasticsearch(server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_is_named() {
    let world = World::on_sqlite();
    let mut good = report("3306", 0);
    lay(&world, &mut good, 7);
    let mut older = report("3307", 0);
    lay(&world, &mut older, 7);
    let mut lost = report("3308", 0);
    let lost_folder = lay(&world, &mut lost, 7);
    let store = world.folder().join("store");
    let store = store.to_str().unwrap();
    assert_eq!(world.ask(&["rebuild", store]).status.code(), Some(0));

    // The disk has moved on.
    fs::remove_dir_all(lost_folder).unwrap();
    older.revision += 10;
    lay(&world, &mut older, 7);
    let mut short = report("3309", 0);
    lay(&world, &mut short, 3);
    let mut damaged = report("3310", 0);
    fs::write(lay(&world, &mut damaged, 7).join("manifest.json"), "{\"v\": 1, ").unwrap();
    let mut moved = report("3311", 0);
    let folder = lay(&world, &mut moved, 7);
    fs::create_dir_all(world.folder().join("store/mysql/222222/3311/2026-11")).unwrap();
    let other = world.folder().join(format!("store/mysql/222222/3311/2026-11/{}", moved.job.id));
    fs::rename(folder, other).unwrap();

    let output = world.ask(&["rebuild", store]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let told = |words: &[&str]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(told(&["older", &older.job.id.to_string()]), "{text}");
    assert!(told(&["missing", &short.job.id.to_string()]), "{text}");
    assert!(told(&["data wrong", &short.job.id.to_string(), "3 bytes", "says 7"]), "{text}");
    assert!(told(&["damaged", &damaged.job.id.to_string(), "manifest.json is damaged"]), "{text}");
    assert!(told(&["damaged", "222222", "says that it lies in mysql/111111"]), "{text}");
    assert!(told(&["not on disk", &lost.job.id.to_string()]), "{text}");
    assert_eq!(world.catalog.by_id(older.job.id).await.unwrap().unwrap().report.revision, older.revision);
    assert_eq!(world.catalog.totals(&Filter::default()).await.unwrap().count, 4);
    assert_eq!(world.ask(&["rebuild", "/nonexistent"]).status.code(), Some(64));
}
