//! The queue against a real Redis.
#![allow(clippy::unwrap_used)]

mod cluster;
mod queue_admission;
mod queue_budget;
mod queue_claims;
mod queue_leases;
mod queue_model;
mod queue_operators;
mod queue_outages;
mod queue_policy;
mod queue_reaping;
mod queue_reports;
mod redis_link;
