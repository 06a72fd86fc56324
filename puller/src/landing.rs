//! From verified to published, for one backup or for those of a batch: what makes them durable is done once for all of them.
//!
//! The order is what keeps invariant 2: data and manifests are durable before a rename gives the final name, and names are
//! durable before the queue is told.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    carrier::{Brought, Carrier, blocking},
    failure::Failure,
    store::{self, FILES, MANIFEST, SUPERSEDED, Store},
};

/// More files than this are synced with their whole file system: one wait for the disk instead of one for each.
const MOST_SINGLE_SYNCS: usize = 12;

impl Carrier {
    /// The store's file system, opened before the first byte of a transfer comes: syncing it tells of every write that failed
    /// since.
    ///
    /// # Errors
    /// [`Failure`] of the node's disk.
    pub async fn file_system(&self) -> Result<Arc<File>, Failure> {
        let root = self.store.root().to_owned();
        let opened =
            move || File::open(root).map(Arc::new).map_err(|error| Failure::store("opening the store", &error));
        blocking(opened).await
    }

    /// Writes the manifests beside the data, and syncs all: all but the names is durable then. A folder's files were synced by
    /// rsync, and its folders when they were verified. Many are synced by their `file_system`, if it was opened in time.
    ///
    /// # Errors
    /// [`Failure`] of the node's disk.
    pub async fn write_manifests(
        &self,
        backups: impl Iterator<Item = &Brought>,
        file_system: Option<&Arc<File>>,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::store("the manifest", &error);
        let (mut written, mut synced) = (Vec::new(), Vec::new());
        for brought in backups.filter(|brought| !brought.is_published) {
            let manifest = serde_json::to_vec_pretty(&brought.report).map_err(|error| failed(error.into()))?;
            let folder = brought.incoming.backup();
            synced.push(folder.join(MANIFEST));
            written.push((folder.join(MANIFEST), manifest));
            if let Some(files) = &brought.files {
                let files = serde_json::to_vec(files).map_err(|error| failed(error.into()))?;
                synced.push(folder.join(FILES));
                written.push((folder.join(FILES), files));
            } else {
                synced.extend(brought.report.job.name().map(|name| folder.join(name)));
            }
            synced.push(folder);
        }
        let file_system = file_system.map(Arc::clone);
        let durable = move || {
            written.iter().try_for_each(|(path, bytes)| store::write_unread(path, bytes))?;
            match file_system {
                Some(file_system) if synced.len() > MOST_SINGLE_SYNCS => Ok(rustix::fs::syncfs(&*file_system)?),
                // One after the other: the first writes the journal for all, and other slots' files share it.
                _ => synced.iter().try_for_each(|path| store::sync(path)),
            }
        };
        blocking(move || durable().map_err(failed)).await
    }

    /// Gives the backups their final names, for good; those that have them already get their new manifest now, when the lease is known
    /// to be ours. What had such a name, and was not this backup, moves to the superseded ones. Answers for each.
    pub async fn publish(&self, backups: impl Iterator<Item = &Brought>) -> Vec<Result<(), Failure>> {
        let root = self.store.root();
        let named: Vec<Named> = backups
            .map(|brought| Named {
                from: if brought.is_published {
                    From::Itself(serde_json::to_vec_pretty(&brought.report))
                } else {
                    From::Incoming(brought.incoming.backup())
                },
                aside: format!("{}-{}", brought.report.job.id, brought.report.revision),
                above: brought.place.below(root).parent().unwrap_or(root).to_owned(),
                place: brought.place.clone(),
            })
            .collect();
        let (store, count) = (Arc::clone(&self.store), named.len());
        let published = blocking(move || Ok(publish(&store, &named))).await;
        published.unwrap_or_else(|failure| vec![Err(failure); count])
    }

    /// These backups are settled: nothing of their transfers is needed any more.
    pub async fn finish(&self, backups: Vec<Brought>) {
        let store = Arc::clone(&self.store);
        let removed = tokio::task::spawn_blocking(move || {
            for Brought { incoming, .. } in backups {
                let job = incoming.job();
                if let Err(error) = incoming.retire(&store) {
                    tracing::warn!(%job, %error, "the transfer's folder could not be left to others; the sweep removes it");
                }
            }
        });
        let _ = removed.await;
    }
}

/// Where a backup comes from.
enum From {
    Incoming(PathBuf),
    /// It has its final name already, and gets this manifest.
    Itself(serde_json::Result<Vec<u8>>),
}

/// A backup that gets its final name.
struct Named {
    from: From,
    place: longshore_core::RelativePath,
    above: PathBuf,
    aside: String,
}

/// Renames all, then syncs each folder above them once.
fn publish(store: &Store, named: &[Named]) -> Vec<Result<(), Failure>> {
    let failed = |error: &io::Error| Failure::store("publishing", error);
    let renamed: Vec<io::Result<()>> = named.iter().map(|named| rename(store, named)).collect();
    let mut synced: BTreeMap<&Path, Result<(), Failure>> = BTreeMap::new();
    let mut results = Vec::with_capacity(named.len());
    for (named, renamed) in named.iter().zip(renamed) {
        results.push(match renamed {
            Err(error) => Err(failed(&error)),
            Ok(()) => {
                let sync = || store::sync(&named.above).map_err(|error| failed(&error));
                synced.entry(&named.above).or_insert_with(sync).clone()
            }
        });
    }
    results
}

fn rename(store: &Store, Named { from, place, aside, .. }: &Named) -> io::Result<()> {
    let from = match from {
        From::Incoming(from) => from,
        From::Itself(manifest) => {
            let manifest = manifest.as_ref().map_err(|error| io::Error::other(error.to_string()))?;
            let folder = place.below(store.root());
            // The kill may have come before the name was durable: synced once more, with the folder above.
            return store::write_whole(&folder.join(MANIFEST), manifest).and_then(|()| store::sync(&folder));
        }
    };
    match store.publish(from, place) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            store.set_aside(&place.below(store.root()), SUPERSEDED, aside)?;
            store.publish(from, place)
        }
        other => other,
    }
}
