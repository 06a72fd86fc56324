//! The registry: what is expected, and what operators set. Businesses, types, instances, clusters, nodes, and the rules of
//! levels and hosts, in one SQLite file that only this
//! program opens. Every write raises the registry's version in the same transaction, and is durable when it returns.

pub mod business;
pub mod cluster;
pub mod entity;
pub mod host;
pub mod import;
pub mod instance;
mod label;
mod policy;
pub mod queue;
mod schema;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use serde_json::{Map, Value};
use tokio::sync::watch;

pub use self::{
    business::{Business, TypeEntry},
    cluster::{Cluster, ClusterId, NodeEntry},
    entity::Entity,
    host::HostEntry,
    import::{Imported, RowErrors},
    instance::InstanceEntry,
    label::{Label, LabelError},
    queue::QueueEntry,
};

/// Why the registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No entry has this key.
    #[error("{kind} {key} is not registered")]
    NotFound {
        /// Of what.
        kind: &'static str,
        /// Which.
        key: String,
    },
    /// The key, or another unique field, is taken.
    #[error("{kind} {key} can't be written: {why}")]
    Taken {
        /// Of what.
        kind: &'static str,
        /// Which.
        key: String,
        /// By what.
        why: String,
    },
    /// Others point at it.
    #[error("{kind} {key} is used by {users}; remove or change those first")]
    InUse {
        /// Of what.
        kind: &'static str,
        /// Which.
        key: String,
        /// By whom.
        users: String,
    },
    /// It points at what is not there.
    #[error("{0}")]
    Reference(String),
    /// A field's value is not acceptable.
    #[error("{0}")]
    Invalid(String),
    /// Rows of an imported file are wrong; nothing was written.
    #[error("{} of the file's rows can't be imported; nothing was written", .0.count)]
    Rows(RowErrors),
    /// The database failed.
    #[error("the registry's database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// The file's tables could not be brought up to date.
    #[error("the registry's tables could not be brought up to date: {0}")]
    Migration(#[from] rusqlite_migration::Error),
}

/// A handle on the registry; clones share one connection, since writes are few and reads are small.
#[derive(Clone, Debug)]
pub struct Registry {
    connection: Arc<Mutex<Connection>>,
    written: watch::Sender<()>,
}

impl Registry {
    /// Opens the file, making it and its tables when they are not there.
    ///
    /// # Errors
    /// When it can't be opened, or is of a later version.
    pub fn open(file: &Path) -> Result<Self, RegistryError> {
        let mut connection = Connection::open(file)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        schema::MIGRATIONS.to_latest(&mut connection)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), written: watch::Sender::new(()) })
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let connection = Arc::clone(&self.connection);
        let done = tokio::task::spawn_blocking(move || {
            // A panic inside leaves a rolled-back transaction behind, never half of one.
            work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))
        });
        done.await.unwrap_or_else(|error| Err(RegistryError::Invalid(format!("the registry's task ended: {error}"))))
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let done = self.blocking(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.execute("UPDATE version SET number = number + 1", [])?;
            transaction.commit()?;
            Ok(done)
        });
        let done = done.await?;
        self.written.send_replace(());
        Ok(done)
    }

    /// Tells each write.
    pub fn writes(&self) -> watch::Receiver<()> {
        self.written.subscribe()
    }

    /// Raised by every write.
    ///
    /// # Errors
    /// The database's own.
    pub async fn version(&self) -> Result<u64, RegistryError> {
        self.blocking(|connection| {
            let number: i64 = connection.query_row("SELECT number FROM version", [], |row| row.get(0))?;
            Ok(number.unsigned_abs())
        })
        .await
    }

    /// All entries, by key.
    ///
    /// # Errors
    /// The database's own.
    pub async fn list<E: Entity>(&self) -> Result<Vec<E>, RegistryError> {
        self.blocking(|connection| entity::list(connection)).await
    }

    /// The entry of this key, when there is one.
    ///
    /// # Errors
    /// The database's own.
    pub async fn find<E: Entity>(&self, key: String) -> Result<Option<E>, RegistryError> {
        self.blocking(move |connection| entity::get(connection, &key)).await
    }

    /// The entry of this key.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], or the database's own.
    pub async fn get<E: Entity>(&self, key: String) -> Result<E, RegistryError> {
        let found = self.find(key.clone()).await?;
        found.ok_or(RegistryError::NotFound { kind: E::KIND, key })
    }

    /// Adds an entry that must not be there yet; gives it as it was kept.
    ///
    /// # Errors
    /// [`RegistryError::Taken`], [`RegistryError::Reference`], or the database's own.
    pub async fn add<E: Entity>(&self, entry: E) -> Result<E, RegistryError> {
        self.write(move |connection| {
            let key = entry.key();
            if entity::get::<E>(connection, &key)?.is_some() {
                return Err(RegistryError::Taken { kind: E::KIND, key, why: "it is registered already".to_owned() });
            }
            entity::put(connection, &entry)?;
            kept(connection, key)
        })
        .await
    }

    /// Writes an entry, over the one of its key when there is one; gives it as it was kept.
    ///
    /// # Errors
    /// [`RegistryError::Reference`], or the database's own.
    pub async fn put<E: Entity>(&self, entry: E) -> Result<E, RegistryError> {
        self.write(move |connection| {
            entity::put(connection, &entry)?;
            kept(connection, entry.key())
        })
        .await
    }

    /// Changes some fields (RFC 7396) of an entry; its key stays.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Invalid`], [`RegistryError::Reference`], or the database's own.
    pub async fn patch<E: Entity>(&self, key: String, patch: Map<String, Value>) -> Result<E, RegistryError> {
        self.write(move |connection| {
            let Some(entry) = entity::get::<E>(connection, &key)? else {
                return Err(RegistryError::NotFound { kind: E::KIND, key });
            };
            let changed = entity::merged(&entry, patch)?;
            if changed.key() != key {
                return Err(RegistryError::Invalid(format!("the key of {} {key} can't be changed", E::KIND)));
            }
            entity::put(connection, &changed)?;
            kept(connection, key)
        })
        .await
    }

    /// Removes an entry that nothing points at.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::InUse`], or the database's own.
    pub async fn remove<E: Entity>(&self, key: String) -> Result<(), RegistryError> {
        self.write(move |connection| match entity::remove::<E>(connection, &key)? {
            true => Ok(()),
            false => Err(RegistryError::NotFound { kind: E::KIND, key }),
        })
        .await
    }

    /// Writes every row of a file, or none.
    ///
    /// # Errors
    /// [`RegistryError::Rows`] naming each wrong one, or the database's own.
    pub async fn import<E: Entity + PartialEq>(&self, text: String) -> Result<Imported, RegistryError> {
        self.write(move |connection| {
            let rows = import::rows(&text).map_err(RegistryError::Rows)?;
            let mut done = Imported { rows: rows.len() as u64, added: 0, changed: 0 };
            let mut errors = RowErrors::default();
            for fields in rows {
                let written = E::from_import(&fields, connection).and_then(|entry| {
                    let key = entry.key();
                    let before = entity::get::<E>(connection, &key).map_err(|error| error.to_string())?;
                    entity::put(connection, &entry).map_err(|error| error.to_string())?;
                    let after = entity::get::<E>(connection, &key).map_err(|error| error.to_string())?;
                    done.added += u64::from(before.is_none());
                    done.changed += u64::from(before.is_some() && before != after);
                    Ok(())
                });
                if let Err(error) = written {
                    errors.add(fields.line, error);
                }
            }
            if errors.count > 0 { Err(RegistryError::Rows(errors)) } else { Ok(done) }
        })
        .await
    }
}

fn kept<E: Entity>(connection: &Connection, key: String) -> Result<E, RegistryError> {
    entity::get(connection, &key)?.ok_or(RegistryError::NotFound { kind: E::KIND, key })
}

#[cfg(test)]
mod tests;
