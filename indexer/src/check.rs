//! `check`: does everything answer that the configuration names? Nothing is started or created.

use longshore_catalog::{Access, CatalogError};
use longshore_core::{exit::Exit, queue::Queue, redis_link::RedisLink};

use crate::{run::GROUP, settings::Settings};

/// Prints a line for each thing looked at.
///
/// # Errors
/// When the configuration can't be right.
pub async fn check(settings: &Settings) -> anyhow::Result<Exit> {
    let mut exit = Exit::Done;
    let queue = Queue::new(RedisLink::new(&settings.redis));
    match queue.now_micros().await {
        Ok(_) => println!("ok     queue    redis {}", queue.link().name()),
        Err(error) => {
            println!("wrong  queue    {error}");
            exit = Exit::ServiceRefused;
        }
    }
    println!("ok     reader   {} of group {GROUP}, {} workers", settings.stream.consumer(), settings.stream.workers);
    let catalog = match longshore_catalog::open(&settings.catalog, Access::Read) {
        Ok(catalog) => catalog,
        Err(error) => {
            println!("wrong  catalog  {error}");
            return Ok(Exit::Configuration);
        }
    };
    match catalog.health().await {
        Ok(health) => println!("ok     catalog  {} at {}: {}", health.kind.as_str(), health.place, health.detail),
        Err(CatalogError::NotCreated { place }) => println!("ok     catalog  {place}: not there yet; `run` creates it"),
        Err(error) => {
            println!("wrong  catalog  {error}");
            exit = if error.is_transient() { Exit::ServiceRefused } else { Exit::Configuration };
        }
    }
    Ok(exit)
}
