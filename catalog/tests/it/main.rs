//! The catalog against real back-ends.

mod contract;
mod samples;
mod sqlite;
