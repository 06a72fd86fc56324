//! The command as its users run it, against a real dashboard with a real Redis, and real pullers that serve what they stored.
#![allow(clippy::unwrap_used)]

mod commands;
mod misbehaving;
mod registry;
mod restore;
mod site;
