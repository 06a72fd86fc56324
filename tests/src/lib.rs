//! Real services for the tests of every crate: each test starts its own on free ports of 127.0.0.1 in temporary folders, and
//! they end with it. Depends on no crate of the product.
#![allow(clippy::expect_used, clippy::missing_panics_doc)] // a kit that can't start a service says so by a panic

mod binary;
mod clock;
mod cluster;
mod elasticsearch;
mod mariadb;
mod port;
mod postgresql;
mod process;
mod program;
mod proxy;
mod random;
mod redis;
mod rsyncd;
mod small_disk;
mod wait;

pub use binary::binary;
pub use clock::ShiftedClock;
pub use cluster::{Cluster, ClusterOptions, SERVER_ID, Section};
pub use elasticsearch::Elasticsearch;
pub use mariadb::MariaDb;
pub use port::free_port;
pub use postgresql::Postgres;
pub use process::Process;
pub use program::Program;
pub use proxy::{Passage, Proxy};
pub use random::Random;
pub use redis::{Redis, Written};
pub use rsyncd::Rsyncd;
pub use small_disk::SmallDisk;
pub use wait::{wait_until, wait_until_blocking};
