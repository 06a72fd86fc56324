//! Everything that one run of one instance needs to know, taken from the configuration once. It is written into the intent,
//! so that what a run began is finished as it was meant, even by a later agent with another configuration.

use std::{path::PathBuf, time::Duration};

use longshore_core::{
    BackupType, BusinessId, InstanceKey, InstanceName, Job, JobId, Millis, QueueName, RelativePath, ServerId, Source,
    Transport,
    digest::DigestChoice,
    job::{AgentStamp, HostAddress, JOB_VERSION, ModuleName},
};
use serde::{Deserialize, Serialize};

use crate::chain_state::ChainKind;

/// One section of the configuration, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The section's name.
    pub section: String,
    /// The host.
    pub server_id: ServerId,
    /// The type.
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    /// Which one.
    pub instance: InstanceName,
    /// The product line.
    pub business_id: BusinessId,
    /// The level that its jobs wait in.
    pub queue: QueueName,
    /// How often it is backed up.
    pub interval_seconds: u64,
    /// Where nodes fetch from.
    pub place: Place,
    /// Where the script puts its files.
    pub back_dir: PathBuf,
    /// What the script says of its result.
    pub back_log: PathBuf,
    /// What the script says of its last full; `None` where there are no chains.
    pub last_all_log: Option<PathBuf>,
    /// How the chain is restored.
    pub chain: ChainKind,
    /// A shell command line.
    pub script: String,
    /// When the script is ended.
    pub timeout: Duration,
    /// Which digests are made.
    pub digest: DigestChoice,
}

/// Where nodes find what lies in a folder of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// How they fetch.
    pub transport: Transport,
    /// This host, as nodes reach it.
    pub address: HostAddress,
    /// TCP port; `None` for the transport's own.
    pub port: Option<u16>,
    /// The rsync module.
    pub module: ModuleName,
    /// The folder inside the module that `back_dir` is.
    pub folder: Option<RelativePath>,
}

impl Place {
    /// The source of `name` in this place.
    ///
    /// # Errors
    /// When folder and name together are too long.
    pub fn source(&self, name: &RelativePath) -> Result<Source, longshore_core::path::PathError> {
        let path = match &self.folder {
            Some(folder) => folder.join(name)?,
            None => name.clone(),
        };
        Ok(Source {
            transport: self.transport,
            address: self.address.clone(),
            port: self.port,
            module: self.module.clone(),
            path,
            extra: serde_json::Map::new(),
        })
    }
}

impl Plan {
    /// The instance.
    pub fn key(&self) -> InstanceKey {
        InstanceKey {
            server_id: self.server_id.clone(),
            backup_type: self.backup_type.clone(),
            instance: self.instance.clone(),
        }
    }

    /// The job of a run, before anything is known of its result.
    pub fn job(&self, id: JobId, made_at: Millis) -> Job {
        Job {
            v: JOB_VERSION,
            id,
            server_id: self.server_id.clone(),
            backup_type: self.backup_type.clone(),
            instance: self.instance.clone(),
            business_id: self.business_id.clone(),
            made_at,
            interval_seconds: self.interval_seconds,
            queue: self.queue.clone(),
            source: None,
            content: None,
            chain: None,
            script: None,
            agent: Some(agent_stamp()),
            signature: None,
            extra: serde_json::Map::new(),
        }
    }
}

/// This agent on this host.
pub fn agent_stamp() -> AgentStamp {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    AgentStamp {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: if host.is_empty() { "unknown".to_owned() } else { host.to_owned() },
        extra: serde_json::Map::new(),
    }
}
