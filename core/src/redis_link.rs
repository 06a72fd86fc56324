//! The connection to a queue Redis.
