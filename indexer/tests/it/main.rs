//! The indexer as its users run it: the real program, a real Redis, both catalogs.
#![allow(clippy::unwrap_used)]

mod indexing;
mod rebuilding;
mod world;
