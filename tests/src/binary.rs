//! Where a program of the workspace is, for tests that start several of them.

use std::path::PathBuf;

/// The path of a built program, such as `longshore-agent`, of the same profile as the running test.
///
/// # Panics
/// When it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    // target/PROFILE/deps/it-HASH: the programs are two floors up.
    let folder = test.ancestors().nth(2).expect("a test executable lies below target/PROFILE/deps");
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not built: run `cargo build --bin {name}` first", path.display());
    path
}
