//! The command as its users run it, against a real dashboard with a real Redis, and real pullers that serve what they stored.
#![allow(clippy::unwrap_used)]
// A whole puller is laid out as one future within a test's.
#![recursion_limit = "256"]

mod commands;
mod misbehaving;
mod nodes;
mod operators;
mod registry;
mod restore;
mod rules;
mod site;
mod watch;
mod wrong_answers;
