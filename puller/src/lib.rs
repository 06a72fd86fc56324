//! The puller: a storage node's daemon. It claims jobs under leases, fetches with real rsync into a partial place, verifies,
//! publishes by one rename, and settles, which leaves a report. It serves what it stored to restores.
//!
//! [`puller`] is the loop, [`claimer`] what it asks of the queue, [`worker`] what one claim brought, [`batch`] several small files at once, [`recovery`] what a start does about the process before.
//! One job's way on the disk is [`carrier`]: [`fetch`] by rsync into [`incoming`], [`verify`], publish in the [`store`].
// A transfer is one future from the claim to the settlement; whether it may move between threads is asked of each part in it.
#![recursion_limit = "256"]

pub mod aside;
pub mod bandwidth;
pub mod batch;
pub mod carrier;
pub mod claimer;
pub mod commands;
pub mod copies;
pub mod disk_watch;
pub mod failure;
pub mod fetch;
pub mod incoming;
pub mod landing;
pub mod metrics;
pub mod node;
pub mod node_key;
pub mod peers;
pub mod policy;
pub mod problem;
pub mod progress;
pub mod puller;
pub mod range;
pub mod recovery;
pub mod rsync;
pub mod serve;
pub mod settings;
pub mod space;
pub mod spare;
pub mod status_server;
pub mod store;
pub mod throughput;
pub mod verify;
pub mod watchdog;
pub mod worker;
