//! Real rsync, as a few small things: the command line (pure), the owner of the process, what its exit code means, what its
//! output says, which version it is. Nothing here knows of queues or of the store.

pub mod arguments;
pub mod exit_code;
pub mod output;
pub mod process;
pub mod version;
