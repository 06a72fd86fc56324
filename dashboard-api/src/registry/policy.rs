//! What of the registry is told to nodes.

use longshore_core::policy::Rules;

use super::{Cluster, ClusterId, HostEntry, NodeEntry, QueueEntry, Registry, RegistryError, TypeEntry, entity};

impl Registry {
    /// The rules for the nodes of one cluster, and the version of the registry that they are of.
    ///
    /// # Errors
    /// The database's own.
    pub async fn rules(&self, cluster: ClusterId) -> Result<(u64, Rules), RegistryError> {
        self.blocking(move |connection| {
            let transaction = connection.transaction()?;
            let version: i64 = transaction.query_row("SELECT number FROM version", [], |row| row.get(0))?;
            let of_cluster = entity::get::<Cluster>(&transaction, cluster.as_str())?;
            let rules = Rules {
                cluster: of_cluster.map(Cluster::rule).unwrap_or_default(),
                queues: entity::list(&transaction)?.into_iter().map(QueueEntry::rule).collect(),
                types: entity::list(&transaction)?.into_iter().map(TypeEntry::rule).collect(),
                nodes: entity::list(&transaction)?.into_iter().map(NodeEntry::rule).collect(),
                hosts: entity::list(&transaction)?.into_iter().map(HostEntry::rule).collect(),
            };
            Ok((version.unsigned_abs(), rules))
        })
        .await
    }
}
