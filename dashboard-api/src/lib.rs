//! Registry, API and pages: what people and programs ask of a Longshore cluster.
//!
//! It reads the catalog and the clusters' Redis. What it owns is the registry, whose rules it publishes to the nodes. When a service that it
//! looks at is away, the API and the page say which and since when, and the rest goes on.
// The layers around the router nest their types deeper than the compiler's default.
#![recursion_limit = "256"]

pub mod api;
pub mod app;
pub mod clusters;
pub mod freshness;
pub mod keys;
pub mod measures;
pub mod pages;
pub mod plan;
pub mod policy;
pub mod registry;
pub mod service;
pub mod settings;
pub mod watch;
pub mod why;

pub use app::{App, CatalogLink, Parts};
pub use service::{Deps, run};
