//! Reports become catalog entries, and each instance's freshness is kept.
//!
//! The promise is at-least-once made exactly-once: the stream is acknowledged only after the catalog has a batch durably, and
//! everything written is keyed by the job and its revision, so that a batch that is written again changes nothing.

pub mod batch;
pub mod check;
pub mod cli;
pub mod condition;
pub mod manifests;
pub mod rebuild;
pub mod refused;
pub mod run;
pub mod settings;
pub mod status;

mod backoff;
