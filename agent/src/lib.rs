//! The agent of a host: runs backup scripts, reads the logs they write, and hands the results to the queue.
//!
//! One `run` (from cron) goes through every section: lock the instance, finish what an earlier run left behind, sync an
//! [`intent`], run the script under a [`wrapper`], read its [`backup_log`], [`examine`] the file, [`spool`] the job, and
//! [`push`] it. The invariant: from the moment a script ends, its result is never lost, wherever the agent is killed.

pub mod backup_log;
pub mod chain_state;
pub mod check;
pub mod cli;
pub mod durable;
pub mod examine;
pub mod finish;
pub mod intent;
pub mod plan;
pub mod push;
pub mod rsync_version;
pub mod run;
pub mod script;
mod section;
pub mod settings;
pub mod slot;
pub mod spool;
pub mod status;
pub mod submit;
pub mod wrapper;
