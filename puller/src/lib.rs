//! The puller: a storage node's daemon. It claims jobs under leases, fetches with real rsync into a partial place, verifies,
//! publishes by one rename, and settles, which leaves a report. It serves what it stored to restores.
//!
//! One job's way on the disk is [`carrier`]: [`fetch`] by rsync into [`incoming`], [`verify`], publish in the [`store`].

pub mod carrier;
pub mod failure;
pub mod fetch;
pub mod incoming;
pub mod rsync;
pub mod settings;
pub mod space;
pub mod store;
pub mod verify;
