//! The catalog against real back-ends.
#![allow(clippy::unwrap_used)]

mod contract;
mod elasticsearch;
mod samples;
mod sqlite;
