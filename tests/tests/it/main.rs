//! The cluster as one, and what is shipped with it, against real services.
#![allow(clippy::unwrap_used)]

mod chaos;
mod copies;
mod databases;
mod evidence;
mod examples;
mod hostile;
mod kills;
mod quickstart;
mod scripts;
mod seed_files;
