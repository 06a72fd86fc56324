//! A testing aid: a process that ends itself, as a KILL would, at a named step. It is how the kill tests reach every border
//! between two steps with the very binary that users run.

/// Passing `name`. When the environment says `LONGSHORE_STOP_AT=name`, the process is killed here with SIGKILL: nothing is
/// flushed, nothing dropped.
pub fn reached(name: &str) {
    if std::env::var_os("LONGSHORE_STOP_AT").is_some_and(|wanted| wanted == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
