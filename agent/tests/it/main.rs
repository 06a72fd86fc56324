//! The agent as cron runs it: the real program, an empty environment, a real Redis and a real rsync daemon.
// Outside of `#[test]` functions the lint does not see that these are tests; and a test program exports nothing.
#![allow(clippy::unwrap_used, unreachable_pub)]
// The nested futures of the Redis client are deeper than the default allows.
#![recursion_limit = "256"]

mod chain;
mod checks;
mod host;
mod kills;
mod queue_away;
mod results;
mod seed;
mod several;
mod submit;
