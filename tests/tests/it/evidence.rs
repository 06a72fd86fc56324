//! What a test can hold against a cluster: the scripts' own record of what they made, the sources, the catalog, the stores.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use longshore_catalog::{Access, Backup, Catalog, CatalogConfig, CatalogKind, Filter, SearchQuery};
use longshore_core::Outcome;
use longshore_tests::{Cluster, Section, wait_until_blocking};

/// The catalog of a cluster, read as the dashboard reads it.
pub(crate) struct Ledger {
    catalog: Arc<dyn Catalog>,
    runtime: tokio::runtime::Runtime,
}

impl Ledger {
    /// Of a cluster with SQLite.
    pub(crate) fn sqlite(cluster: &Cluster) -> Self {
        Self::at(&cluster.folder().join("indexer/catalog.db"))
    }

    /// Of an indexer with SQLite at `path`.
    pub(crate) fn at(path: &Path) -> Self {
        Self::open(&CatalogConfig { kind: CatalogKind::Sqlite, path: path.to_owned(), ..CatalogConfig::default() })
    }

    /// Of a cluster with the Elasticsearch at `url`.
    pub(crate) fn elasticsearch(url: &str, prefix: &str) -> Self {
        let mut config = CatalogConfig { kind: CatalogKind::Elasticsearch, ..CatalogConfig::default() };
        config.elasticsearch.urls = vec![url.to_owned()];
        config.elasticsearch.prefix = prefix.to_owned();
        Self::open(&config)
    }

    fn open(config: &CatalogConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let catalog = runtime.block_on(async { longshore_catalog::open(config, Access::Read).unwrap() });
        Self { catalog, runtime }
    }

    /// How many backups are stored by its word; 0 while the catalog does not answer.
    pub(crate) fn stored_count(&self) -> u64 {
        let stored = Filter { outcomes: vec![Outcome::Stored], ..Filter::default() };
        self.runtime.block_on(async { self.catalog.totals(&stored).await.map_or(0, |totals| totals.count) })
    }

    /// Every entry; `None` while the catalog does not answer.
    pub(crate) fn entries(&self) -> Option<Vec<Backup>> {
        self.runtime.block_on(async {
            let mut entries = Vec::new();
            let mut query = SearchQuery { limit: 1000, ..SearchQuery::default() };
            loop {
                let page = self.catalog.search(&query).await.ok()?;
                entries.extend(page.items);
                match page.next {
                    Some(next) => query.cursor = Some(next),
                    None => return Some(entries),
                }
            }
        })
    }
}

/// Where a backup's folders may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Places {
    /// Where its entry says, and nowhere else.
    One,
    /// Elsewhere too: a killed Redis may forget a settlement of its last second (under a busy disk also an acknowledged one),
    /// and then another node fetches the job again.
    Several,
}

/// A script that makes a file of random bytes and length, says so in the log, and then leaves its name in `made/`: what is there
/// was finished by a script, and must never be lost.
pub(crate) struct Maker {
    made: PathBuf,
    back_dir: PathBuf,
}

impl Maker {
    /// Gives `sections` sections to the cluster's agent, the first of them with fulls.
    pub(crate) fn install(cluster: &Cluster, sections: usize) -> Self {
        let made = cluster.host_dir().join("made");
        fs::create_dir(&made).unwrap();
        let script = cluster.host_dir().join("make-backup");
        fs::write(
            &script,
            "#!/bin/bash\nset -e\nname=$LONGSHORE_INSTANCE-$(date +%s%N)\n\
             head -c $((RANDOM + 1)) /dev/urandom >\"$LONGSHORE_BACK_DIR/$name\"\n\
             if [ -n \"${LONGSHORE_LAST_ALL_LOG:-}\" ]; then printf 'ok\\n%s\\n' \"$name\" >\"$LONGSHORE_LAST_ALL_LOG\"; fi\n\
             printf 'ok\\n%s\\n' \"$name\" >\"$LONGSHORE_BACK_LOG\"\n: >\"$1/$name\"\n",
        )
        .unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let command = format!("{} {}", script.display(), made.display());
        for index in 0..sections {
            let section = Section::new(&format!("files{index}"), "files", &format!("i{index}"), &command);
            cluster.add_section(&if index == 0 { section.with_chain() } else { section });
        }
        Self { made, back_dir: cluster.back_dir() }
    }

    /// Names of all that scripts have finished.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        names_in(&self.made)
    }

    /// Waits until the catalog has each of them, then checks: one entry each, no other, its file whole under its name on the
    /// node that the entry names, and in no other place of any store unless `places_allowed` says so.
    pub(crate) fn assert_each_once(&self, cluster: &Cluster, nodes: usize, ledger: &Ledger, places_allowed: Places) {
        let made = self.names();
        let mut entries = Vec::new();
        let mut missing = made.clone();
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until_blocking("every finished backup is in the catalog", Duration::from_secs(120), || {
                let Some(found) = ledger.entries() else { return false };
                let stored: BTreeSet<&str> = stored(&found).filter_map(|entry| entry.report.job.name()).collect();
                missing = made.iter().filter(|name| !stored.contains(name.as_str())).cloned().collect();
                entries = found;
                missing.is_empty()
            });
        }));
        assert!(waited.is_ok(), "{} of {} finished backups are missing: {missing:?}", missing.len(), made.len());
        let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for node in 0..nodes {
            for folder in published(&cluster.store(node)) {
                let id = folder.file_name().unwrap().to_string_lossy().into_owned();
                places.entry(id).or_default().push(folder);
            }
        }
        let mut seen = BTreeSet::new();
        for entry in stored(&entries) {
            let name = entry.report.job.name().unwrap().to_owned();
            assert!(seen.insert(name.clone()), "{name} has two entries");
            let node = entry.report.node_id.as_ref().unwrap().as_str().strip_prefix("node-").unwrap().parse().unwrap();
            let path = entry.report.path.as_ref().unwrap().below(&cluster.store(node));
            let copies = &places[&entry.id().to_string()];
            assert!(copies.contains(&path), "{name} is not at {}, but at {copies:?}", path.display());
            assert!(places_allowed == Places::Several || copies.len() == 1, "{name} is in several places: {copies:?}");
            assert!(
                fs::read(path.join(&name)).unwrap() == fs::read(self.back_dir.join(&name)).unwrap(),
                "{name} is not what the script made"
            );
        }
        assert_eq!(seen, made, "the catalog has what no script made");
        assert_eq!(places.len(), made.len(), "the stores have what the catalog has not");
    }
}

fn stored(entries: &[Backup]) -> impl Iterator<Item = &Backup> {
    entries.iter().filter(|entry| entry.report.outcome == Outcome::Stored)
}

/// The folders `{type}/{server_id}/{instance}/{year}-{month}/{job}` of a store; what begins with a dot is not published.
pub(crate) fn published(store: &Path) -> Vec<PathBuf> {
    let mut folders = vec![store.to_owned()];
    for _ in 0..5 {
        folders = folders
            .iter()
            .flat_map(|folder| names_in(folder).into_iter().map(|name| folder.join(name)))
            .filter(|path| path.is_dir() && !path.file_name().unwrap().to_string_lossy().starts_with('.'))
            .collect();
    }
    folders
}

/// Names in a folder; none when there is no such folder.
pub(crate) fn names_in(folder: &Path) -> BTreeSet<String> {
    let Ok(found) = fs::read_dir(folder) else { return BTreeSet::new() };
    found.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}
