//! What was set aside for a person: in `.corrupt/` what differed from its announcement, in `.superseded/` what another node
//! settled. Kept for a time and within a share of the disk; the oldest goes first, and nothing within a day of the log line that
//! told of it, however large.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    incoming::{Size, on_disk},
    node::Node,
    store::{self, CORRUPT, SUPERSEDED},
};

/// Nobody is expected to have looked sooner.
const TIME_TO_LOOK: Duration = Duration::from_secs(24 * 3600);

/// One backup that was set aside.
#[derive(Debug)]
struct Aside {
    path: PathBuf,
    age: Duration,
    bytes: u64,
}

/// Removes what was kept long enough, and tells the metrics how much is left.
pub async fn sweep(node: &Arc<Node>) {
    let settings = &node.settings.store;
    let Ok(disk) = node.measure().await else { return };
    let most_bytes = settings.keep_aside_space.bytes(disk.size_bytes);
    let (root, keep) = (node.store.root().to_owned(), settings.keep_aside.duration());
    let swept = on_disk(move || {
        let mut kept = found(&root)?;
        for path in dropped(&mut kept, keep, most_bytes) {
            match store::remove_all(&path) {
                Ok(()) => tracing::warn!(path = %path.display(), "removed what had been set aside for a person"),
                Err(error) => tracing::warn!(path = %path.display(), %error, "what was set aside can't be removed"),
            }
        }
        Ok(kept)
    });
    match swept.await {
        Ok(kept) => {
            node.metrics.set_aside.set(i64::try_from(kept.len()).unwrap_or(i64::MAX));
            let bytes: u64 = kept.iter().map(|aside| aside.bytes).sum();
            node.metrics.set_aside_bytes.set(bytes.cast_signed());
        }
        Err(error) => tracing::warn!(%error, "what was set aside can't be listed"),
    }
}

/// Everything that was set aside, the oldest first.
fn found(root: &Path) -> io::Result<Vec<Aside>> {
    let now = SystemTime::now();
    let mut found = Vec::new();
    for corner in [CORRUPT, SUPERSEDED] {
        for entry in fs::read_dir(root.join(corner))? {
            let entry = entry?;
            // Set when it came here; one of the future is new.
            let age = now.duration_since(entry.metadata()?.modified()?).unwrap_or_default();
            let path = entry.path();
            found.push(Aside { age, bytes: Size::below(&path).bytes, path });
        }
    }
    found.sort_by_key(|aside| std::cmp::Reverse(aside.age));
    Ok(found)
}

/// Takes out of `kept`, the oldest first, what is older than `keep`, and what is too much beside `most_bytes`.
fn dropped(kept: &mut Vec<Aside>, keep: Duration, most_bytes: u64) -> Vec<PathBuf> {
    let mut bytes: u64 = kept.iter().map(|aside| aside.bytes).sum();
    let too_old_or_much = |aside: &mut Aside| {
        let goes = aside.age >= keep || (bytes > most_bytes && aside.age >= TIME_TO_LOOK);
        if goes {
            bytes -= aside.bytes;
        }
        goes
    };
    kept.extract_if(.., too_old_or_much).map(|aside| aside.path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_the_newest_stays_however_large() {
        let aside = |name: &str, days: u32, bytes| Aside { path: name.into(), age: days * TIME_TO_LOOK, bytes };
        let all = || vec![aside("a", 31, 1), aside("b", 9, 50), aside("c", 8, 50), aside("d", 0, 500)];
        let drop = |keep: u32, most_bytes| {
            dropped(&mut all(), keep * TIME_TO_LOOK, most_bytes).iter().map(|path| path.display().to_string()).collect()
        };
        let names: [Vec<String>; 3] = [drop(30, 1000), drop(30, 560), drop(30, 1)];
        assert_eq!(names.map(|names| names.concat()), ["a", "ab", "abc"]);
    }
}
