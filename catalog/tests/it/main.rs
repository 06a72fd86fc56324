//! The catalog against real back-ends.

mod contract;
mod elasticsearch;
mod samples;
mod sqlite;
