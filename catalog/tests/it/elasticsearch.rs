//! The contract on a real Elasticsearch, and what is Elasticsearch's own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use longshore_catalog::{Access, Catalog, CatalogConfig, CatalogError, CatalogKind, ElasticsearchConfig};
use longshore_core::config::Span;
use longshore_tests::{Elasticsearch, free_port};

use crate::{contract::contract_suite, samples::stored};

/// A configuration with index names of its own.
pub(crate) fn config(urls: &[String]) -> CatalogConfig {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let elasticsearch = ElasticsearchConfig {
        urls: urls.to_vec(),
        prefix: format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        replicas: 0,
        ..ElasticsearchConfig::default()
    };
    CatalogConfig { kind: CatalogKind::Elasticsearch, elasticsearch, ..CatalogConfig::default() }
}

async fn open() -> (Arc<dyn Catalog>, ()) {
    // The first starts it: half a minute that must not hold the runtime.
    let server = tokio::task::spawn_blocking(Elasticsearch::shared).await.unwrap();
    let catalog = longshore_catalog::open(&config(&[server.url()]), Access::Write).unwrap();
    catalog.ensure_schema().await.unwrap();
    (catalog, ())
}

contract_suite!(open());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_does_not_answer_is_passed_over() {
    let server = tokio::task::spawn_blocking(Elasticsearch::shared).await.unwrap();
    let dead = format!("http://127.0.0.1:{}", free_port());
    let catalog = longshore_catalog::open(&config(&[dead, server.url()]), Access::Write).unwrap();
    catalog.ensure_schema().await.unwrap();
    assert!(catalog.health().await.unwrap().place.contains(&server.url()));
}

#[tokio::test]
async fn a_cluster_that_is_away_is_a_passing_error_that_names_it() {
    let dead = format!("http://127.0.0.1:{}", free_port());
    let catalog = longshore_catalog::open(&config(std::slice::from_ref(&dead)), Access::Write).unwrap();
    let error = catalog.put(&[stored("3306", 0)]).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains(&dead), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_frozen_cluster_is_not_waited_for_longer_than_configured() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(&[format!("http://{}", silent.local_addr().unwrap())]);
    config.elasticsearch.timeout = Span::seconds(1);
    let catalog = longshore_catalog::open(&config, Access::Read).unwrap();
    let error = catalog.health().await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("no answer in time"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_a_catalog_not_made_yet_says_what_to_start() {
    let server = tokio::task::spawn_blocking(Elasticsearch::shared).await.unwrap();
    let catalog = longshore_catalog::open(&config(&[server.url()]), Access::Read).unwrap();
    for error in [
        catalog.health().await.unwrap_err(),
        catalog.latest_good(&stored("3306", 0).job.key()).await.unwrap_err(),
        catalog.hosts(1, None).await.unwrap_err(),
        catalog.host(&"1".parse().unwrap()).await.unwrap_err(),
    ] {
        assert!(matches!(error, CatalogError::NotCreated { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_be_right_is_refused_with_its_key() {
    let wrong = |change: fn(&mut ElasticsearchConfig), word: &str| {
        let mut config = config(&["http://127.0.0.1:9200".to_owned()]);
        change(&mut config.elasticsearch);
        let error = longshore_catalog::open(&config, Access::Read).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    wrong(|c| c.urls.clear(), "elasticsearch.urls");
    wrong(|c| c.urls = vec!["localhost:9200".to_owned()], "elasticsearch.urls");
    wrong(|c| c.urls = vec!["http://a:b@localhost:9200".to_owned()], "username");
    wrong(|c| c.prefix = "Longshore".to_owned(), "elasticsearch.prefix");
    wrong(|c| c.username = Some("x".to_owned()), "elasticsearch.password");
    wrong(|c| c.ca_file = Some("/nonexistent".into()), "elasticsearch.ca_file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_indexers_merge_freshness_without_losing_any() {
    let (catalog, ()) = open().await;
    let reports: Vec<_> = (0..40).map(|hours| stored("3306", hours)).collect();
    let tasks: Vec<_> = (0..8)
        .map(|writer| {
            let (catalog, reports) = (Arc::clone(&catalog), reports.clone());
            tokio::spawn(async move {
                for report in reports.iter().skip(writer).step_by(8) {
                    let record = longshore_catalog::Freshness::of(report);
                    catalog.put_freshness(&[record]).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let expected = longshore_catalog::Freshness::summary(&reports).remove(0);
    assert_eq!(catalog.freshness_of(&expected.key).await.unwrap().unwrap(), expected);
}
