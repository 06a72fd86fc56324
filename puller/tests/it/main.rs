//! The puller against the real things: its own binary, real Redis, real rsync daemons, a real small disk.
#![allow(clippy::unwrap_used)] // a test that can't go on says where by a panic
// As in the library: a transfer is one future.
#![recursion_limit = "256"]

mod aside;
mod bandwidth;
mod batches;
mod cluster;
mod copies;
mod cuts;
mod disk;
mod failures;
mod file_systems;
mod kills;
mod leases;
mod lifecycle;
mod names;
mod policy;
mod resume;
mod serving;
mod storing;
mod transports;
