//! The version of this host's rsync, which nodes speak to. Asked once for each rsync that is installed, and remembered.

use std::{
    env,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::durable;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    path: PathBuf,
    inode: u64,
    size_bytes: u64,
    modified_seconds: i64,
    version: String,
}

/// `3.5.0`, or nothing when there is no rsync in the `PATH`.
pub async fn rsync_version(state_dir: PathBuf) -> Option<String> {
    let path =
        env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join("rsync")).find(|path| path.is_file())?;
    let metadata = path.metadata().ok()?;
    let remembered = state_dir.join("rsync-version.json");
    let mut known = Known {
        path,
        inode: metadata.ino(),
        size_bytes: metadata.size(),
        modified_seconds: metadata.mtime(),
        version: String::new(),
    };
    if let Ok(Some(before)) = durable::read_json::<Known>(&remembered) {
        known.version.clone_from(&before.version);
        if before == known {
            return Some(before.version);
        }
    }
    known.version = ask(&known.path).await?;
    // To ask again is all that a failed write costs.
    let _ = durable::write_json(&remembered, &known);
    Some(known.version)
}

async fn ask(rsync: &Path) -> Option<String> {
    let output = Command::new(rsync).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().await.ok()?;
    version_in(&String::from_utf8_lossy(&output.stdout))
}

/// `rsync  version 3.5.0  protocol version 32`.
fn version_in(text: &str) -> Option<String> {
    let mut words = text.lines().next()?.split_ascii_whitespace().skip_while(|word| *word != "version");
    words.nth(1).map(|version| version.trim_start_matches('v').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_word_after_version() {
        assert_eq!(version_in("rsync  version 3.5.0  protocol version 32\nmore"), Some("3.5.0".to_owned()));
        assert_eq!(version_in("rsync  version v3.4.1pre1  protocol"), Some("3.4.1pre1".to_owned()));
        assert_eq!(version_in(""), None);
    }
}
