//! The vocabulary that every Longshore program shares, and the queue between them.
//!
//! A backup travels agent → queue → puller → reports → indexer → catalog → dashboard-api → restore. This crate holds
//! what crosses those borders: validated ids and paths, the job and its report, the chain link, the heartbeats, the
//! configuration reader, and the Redis queue. It knows nothing of what any program does with them.

pub mod beat;
pub mod calendar;
pub mod canonical;
pub mod chain;
pub mod config;
pub mod digest;
pub mod exit;
pub mod ids;
pub mod incoming;
pub mod jitter;
pub mod job;
pub mod legacy;
pub mod metrics;
pub mod path;
pub mod policy;
pub mod queue;
pub mod redis_link;
pub mod report;
pub mod shutdown;
pub mod startup;
pub mod step;
pub mod telemetry;
pub mod text;
pub mod time;
pub mod token;

pub use beat::{HostBeat, NodeBeat};
pub use chain::{ChainLink, ChainPosition, FullBackup};
pub use ids::{BackupType, BusinessId, InstanceKey, InstanceName, JobId, NodeId, QueueName, ServerId};
pub use job::{Content, ContentKind, Job, Source, Transport};
pub use path::RelativePath;
pub use policy::Policy;
pub use report::{Outcome, ReasonCode, Report};
pub use time::Millis;
