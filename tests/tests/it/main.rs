//! The cluster as one, and what is shipped with it, against real services.
#![allow(clippy::unwrap_used)]

mod databases;
mod examples;
mod quickstart;
mod scripts;
