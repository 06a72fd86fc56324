//! The indexer as its users run it: the real program, a real Redis, both catalogs.

mod indexing;
mod rebuilding;
mod world;
