//! Connections to the file: one writer on a thread of its own, so that writes never wait for each other inside SQLite, and a
//! few readers. Readers are opened when first needed, so a program may start before the file exists.
//!
//! WAL with `synchronous=FULL`: what a commit returned from is on disk. Writes begin IMMEDIATE, because a transaction that
//! turns from reading to writing fails at once when another process wrote in between, whatever the busy timeout.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use rusqlite_migration::{M, Migrations};
use tokio::sync::{Semaphore, oneshot};

use crate::{Access, CatalogError, Result};

const READERS: usize = 4;
const BUSY: Duration = Duration::from_secs(10);
/// The first version without the WAL-reset corruption, as `sqlite3_libversion_number`.
const SQLITE_FLOOR: i32 = 3_051_003;

const STEPS: &[M<'static>] = &[M::up(include_str!("schema-1.sql"))];
const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);
/// How many migrations there are: the file's `user_version` when it is ours.
const SCHEMA_VERSION: i64 = 1;

type Work = Box<dyn FnOnce(&mut Option<Connection>) + Send>;

/// The file's connections.
#[derive(Debug)]
pub(super) struct Connections {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Connection>>>,
    readers: Arc<Semaphore>,
    writer: Option<mpsc::Sender<Work>>,
}

impl Connections {
    /// Prepares; nothing is opened yet, and the file need not exist.
    pub(super) fn new(path: &Path, access: Access) -> Result<Self> {
        let version = rusqlite::version_number();
        if version < SQLITE_FLOOR {
            return Err(CatalogError::Config(format!(
                "SQLite {} can damage a database in WAL mode: build with 3.51.3 or newer",
                rusqlite::version()
            )));
        }
        let writer = match access {
            Access::Read => None,
            Access::Write => Some(start_writer(path)?),
        };
        Ok(Self {
            path: Arc::new(path.to_owned()),
            idle: Arc::default(),
            readers: Arc::new(Semaphore::new(READERS)),
            writer,
        })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the file and brings its tables to this version.
    pub(super) async fn migrate(&self) -> Result<()> {
        let path = Arc::clone(&self.path);
        self.on_writer(move |slot| {
            let mut connection = open_writer(&path)?;
            MIGRATIONS.to_latest(&mut connection).map_err(|error| match error {
                rusqlite_migration::Error::RusqliteError { err, .. } => classify(&path, &err),
                other => unusable(&path, format!("its tables don't fit this version of longshore: {other}")),
            })?;
            *slot = Some(connection);
            Ok(())
        })
        .await
    }

    /// Runs `work` in one IMMEDIATE transaction and commits it.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = Arc::clone(&self.path);
        self.on_writer(move |slot| {
            if slot.is_none() {
                if !path.exists() {
                    return Err(CatalogError::NotCreated { place: shown(&path) });
                }
                let connection = open_writer(&path)?;
                check_schema(&path, &connection)?;
                *slot = Some(connection);
            }
            let Some(connection) = slot.as_mut() else { return Err(CatalogError::NotCreated { place: shown(&path) }) };
            let in_transaction = |connection: &mut Connection| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let result = work(&transaction)?;
                transaction.commit()?;
                Ok(result)
            };
            in_transaction(connection).map_err(|error| classify(&path, &error))
        })
        .await
    }

    async fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Option<Connection>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let gone = || CatalogError::Unavailable { place: shown(&self.path), why: "its writer has ended".to_owned() };
        let writer = self.writer.as_ref().ok_or_else(|| unusable(&self.path, "it was opened for reading only"))?;
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |slot| {
            let _ = reply.send(work(slot));
        });
        writer.send(work).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Runs `work` on a connection that only reads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _turn = self.readers.acquire().await.map_err(|_| unusable(&self.path, "its readers are closed"))?;
        let (path, idle) = (Arc::clone(&self.path), Arc::clone(&self.idle));
        let task = tokio::task::spawn_blocking(move || {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = kept.map_or_else(|| open_reader(&path), Ok)?;
            let result = work(&connection);
            // A file that was replaced or damaged is opened anew next time.
            if !matches!(result, Err(CatalogError::Unusable { .. } | CatalogError::NotCreated { .. })) {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
            result
        });
        task.await.map_err(|error| unusable(&self.path, format!("a reader ended early: {error}")))?
    }
}

fn start_writer(path: &Path) -> Result<mpsc::Sender<Work>> {
    let (sender, receiver) = mpsc::channel::<Work>();
    // Ends when the last sender is dropped.
    thread::Builder::new()
        .name("catalog-writer".to_owned())
        .spawn(move || {
            let mut connection = None;
            for work in receiver {
                work(&mut connection);
            }
        })
        .map_err(|error| unusable(path, format!("no thread for its writer: {error}")))?;
    Ok(sender)
}

fn open_writer(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).map_err(|error| classify(path, &error))?;
    prepare(&connection)
        .and_then(|()| {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")
        })
        .map_err(|error| classify(path, &error))?;
    Ok(connection)
}

fn open_reader(path: &Path) -> Result<Connection> {
    if !path.exists() {
        return Err(CatalogError::NotCreated { place: shown(path) });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| classify(path, &error))?;
    prepare(&connection).map_err(|error| classify(path, &error))?;
    check_schema(path, &connection)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    // 16 MiB of pages.
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "foreign_keys", true)
}

fn check_schema(path: &Path, connection: &Connection) -> Result<()> {
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| classify(path, &error))?;
    match version {
        SCHEMA_VERSION => Ok(()),
        0 => Err(CatalogError::NotCreated { place: shown(path) }),
        older if older < SCHEMA_VERSION => {
            Err(unusable(path, "an older version made it: start longshore-indexer of this version once"))
        }
        _ => Err(unusable(path, "a newer version of longshore made it: upgrade this program")),
    }
}

/// What an error of SQLite means for the caller.
pub(super) fn classify(path: &Path, error: &rusqlite::Error) -> CatalogError {
    let place = shown(path);
    let why = error.to_string();
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull | ErrorCode::SystemIoFailure,
        ) => CatalogError::Unavailable { place, why },
        Some(ErrorCode::CannotOpen) => {
            CatalogError::Unusable { place, why: format!("{why}; is its folder there, and may this user write in it?") }
        }
        Some(ErrorCode::NotADatabase) => {
            CatalogError::Unusable { place, why: "the file is not a SQLite database".to_owned() }
        }
        Some(ErrorCode::DatabaseCorrupt) => CatalogError::Unusable {
            place,
            why: format!("{why}; set the file aside and run `longshore-indexer rebuild` on every node's store"),
        },
        _ => CatalogError::Unusable { place, why },
    }
}

fn unusable(path: &Path, why: impl Into<String>) -> CatalogError {
    CatalogError::Unusable { place: shown(path), why: why.into() }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::{MIGRATIONS, SCHEMA_VERSION};

    #[test]
    fn the_migrations_are_valid_sql() {
        MIGRATIONS.validate().unwrap();
        let mut connection = rusqlite::Connection::open_in_memory().unwrap();
        MIGRATIONS.to_latest(&mut connection).unwrap();
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, SCHEMA_VERSION);
    }
}
