//! The queue against a real Redis.
#![allow(clippy::unwrap_used)]
// Futures within futures: the layout of the deepest is as deep as they are.
#![recursion_limit = "256"]

mod cluster;
mod queue_admission;
mod queue_batches;
mod queue_budget;
mod queue_claims;
mod queue_copies;
mod queue_explorer;
mod queue_explorer_world;
mod queue_forgetting;
mod queue_hosts;
mod queue_leases;
mod queue_model;
mod queue_operators;
mod queue_outages;
mod queue_policy;
mod queue_promises;
mod queue_reaping;
mod queue_reports;
mod queue_room;
mod queue_weights;
mod redis_link;
