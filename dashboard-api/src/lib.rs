//! Registry, API and pages: what people and programs ask of a Longshore cluster.

pub mod registry;
