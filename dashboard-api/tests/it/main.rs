//! The dashboard as its clients meet it: over HTTP, with a real Redis, and a catalog in SQLite filled as an indexer would.

#![allow(clippy::unwrap_used)]

mod access;
mod away;
mod backups;
mod legacy;
mod lookers;
mod nodes;
mod openapi;
mod operators;
mod policy;
mod program;
mod registry;
mod restore;
mod server;
mod why;
