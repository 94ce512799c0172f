//! A small transactional database in memory: typed tables, one writer at a time, rollback by an
//! undo log. It is what the memory backends of all crates stand on, and tests can keep their own
//! tables in it, so that a step's effect and the saga's progress still commit together.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::clock::SharedClock;

/// A table: the type that names it, with the types of its key and row.
///
/// ```
/// use potter_core::{Database, MemoryTable};
///
/// struct Stock;
/// impl MemoryTable for Stock {
///     type Key = String;
///     type Row = u32;
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> potter_core::Result<()> {
/// let database = Database::memory();
/// let mut tx = database.begin().await?;
/// tx.memory().expect("a memory database").put::<Stock>("sku-1".into(), 5);
/// drop(tx); // rolled back
///
/// let mut tx = database.begin().await?;
/// assert!(tx.memory().expect("a memory database").get::<Stock>(&"sku-1".into()).is_none());
/// # Ok(())
/// # }
/// ```
pub trait MemoryTable: Send + 'static {
    /// What rows are found by.
    type Key: Ord + Clone + Send + Sync;
    /// What is stored.
    type Row: Clone + Send + Sync;
}

#[derive(Default)]
struct Tables(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl Tables {
    fn of<T: MemoryTable>(&mut self) -> &mut BTreeMap<T::Key, T::Row> {
        let table = self
            .0
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Box::new(BTreeMap::<T::Key, T::Row>::new()));
        match table.downcast_mut() {
            Some(table) => table,
            None => unreachable!("a table is stored under its own type"),
        }
    }
}

/// The shared state behind `Database::memory()`.
#[derive(Clone)]
pub struct MemoryDatabase {
    tables: Arc<Mutex<Tables>>,
    clock: SharedClock,
}

impl fmt::Debug for MemoryDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryDatabase")
    }
}

impl MemoryDatabase {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self { tables: Arc::default(), clock }
    }

    pub(super) async fn begin(&self) -> MemoryTx {
        let tables = Arc::clone(&self.tables).lock_owned().await;
        MemoryTx { tables, undo: Vec::new(), clock: Arc::clone(&self.clock) }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }
}

type Undo = Box<dyn FnOnce(&mut Tables) + Send + Sync>;

/// A transaction on the memory database: it holds the whole database until it ends.
pub struct MemoryTx {
    tables: OwnedMutexGuard<Tables>,
    undo: Vec<Undo>,
    clock: SharedClock,
}

impl fmt::Debug for MemoryTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTx").field("changes", &self.undo.len()).finish_non_exhaustive()
    }
}

impl MemoryTx {
    /// The time on the database's clock.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// The row of `key`.
    pub fn get<T: MemoryTable>(&mut self, key: &T::Key) -> Option<&T::Row> {
        self.tables.of::<T>().get(key)
    }

    /// All rows, in the order of their keys.
    pub fn rows<T: MemoryTable>(&mut self) -> &BTreeMap<T::Key, T::Row> {
        self.tables.of::<T>()
    }

    /// Writes the row of `key`; answers what was there.
    pub fn put<T: MemoryTable>(&mut self, key: T::Key, row: T::Row) -> Option<T::Row> {
        let before = self.tables.of::<T>().insert(key.clone(), row);
        self.remember::<T>(key, before.clone());
        before
    }

    /// Removes the row of `key`; answers what was there.
    pub fn remove<T: MemoryTable>(&mut self, key: &T::Key) -> Option<T::Row> {
        let before = self.tables.of::<T>().remove(key)?;
        self.remember::<T>(key.clone(), Some(before.clone()));
        Some(before)
    }

    fn remember<T: MemoryTable>(&mut self, key: T::Key, before: Option<T::Row>) {
        self.undo.push(Box::new(move |tables| {
            match before {
                Some(row) => tables.of::<T>().insert(key, row),
                None => tables.of::<T>().remove(&key),
            };
        }));
    }

    pub(super) fn commit(mut self) {
        self.undo.clear();
    }
}

impl Drop for MemoryTx {
    fn drop(&mut self) {
        while let Some(undo) = self.undo.pop() {
            undo(&mut self.tables);
        }
    }
}
