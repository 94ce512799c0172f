//! A lease with a fencing token: at most one holder at a time that can still write.
//!
//! # Invariant
//! A write made under [`Lease::check_in`] commits only if no one else has acquired the lease
//! since. The interleaving that could break it: a holder is paused after its check, the lease
//! expires, another acquires it and writes, the first one wakes up and commits. The check
//! therefore locks the lease's row until the transaction ends: either the other's acquisition
//! waits for that commit, or the token has moved on and the check fails. Expiry is only about
//! liveness, and is decided on the database's clock.
//!
//! Fencing tokens as in Kleppmann, "How to do distributed locking" (2016).

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::clock::{after, micros};
use crate::database::{Database, MemoryTable, Sql, Tx};
use crate::error::{Error, ErrorKind, Result};
use crate::id::new_id;
use crate::values;

/// A held lease. Renew it well before `ttl` runs out (a third of it is usual).
#[derive(Clone, Debug)]
pub struct Lease {
    database: Database,
    name: String,
    holder: Uuid,
    token: i64,
    ttl: Duration,
}

struct Leases;

#[derive(Clone)]
struct LeaseRow {
    token: i64,
    expires_at: DateTime<Utc>,
}

impl MemoryTable for Leases {
    type Key = String;
    type Row = LeaseRow;
}

const ACQUIRE: Sql = Sql::new(
    "INSERT INTO potter_leases (name, holder, token, expires_at)
     VALUES ($1, $2, 1, CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $3)
     ON CONFLICT (name) DO UPDATE
       SET holder = excluded.holder, token = potter_leases.token + 1, expires_at = excluded.expires_at
       WHERE potter_leases.expires_at <= CAST(unixepoch('subsec') * 1000000 AS INTEGER)
     RETURNING token",
    "INSERT INTO potter_leases (name, holder, token, expires_at)
     VALUES ($1, $2, 1, clock_timestamp() + $3 * interval '1 microsecond')
     ON CONFLICT (name) DO UPDATE
       SET holder = excluded.holder, token = potter_leases.token + 1, expires_at = excluded.expires_at
       WHERE potter_leases.expires_at <= clock_timestamp()
     RETURNING token",
);

const RENEW: Sql = Sql::new(
    "UPDATE potter_leases SET expires_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $3
     WHERE name = $1 AND token = $2",
    "UPDATE potter_leases SET expires_at = clock_timestamp() + $3 * interval '1 microsecond'
     WHERE name = $1 AND token = $2",
);

const CHECK: Sql = Sql::new(
    "SELECT token FROM potter_leases WHERE name = $1",
    "SELECT token FROM potter_leases WHERE name = $1 FOR SHARE",
);

impl Lease {
    /// Acquires the lease `name` for `ttl`, or answers `None` while someone holds it. A lease
    /// that expired is taken over with a higher token.
    ///
    /// # Errors
    /// `Unavailable`, `Unknown`: try again; a lease that was acquired without our knowledge
    /// expires by itself.
    pub async fn acquire(database: &Database, name: &str, ttl: Duration) -> Result<Option<Self>> {
        let holder = new_id();
        let token = if let Some(mut tx) = memory_tx(database).await? {
            let token = acquire_in_memory(&mut tx, name, ttl);
            tx.commit().await?;
            token
        } else {
            let rows = database.write(ACQUIRE, values![name, holder, micros(ttl)]).await?;
            rows.first().map(|row| row.i64("token")).transpose()?
        };
        Ok(token.map(|token| Self {
            database: database.clone(),
            name: name.to_owned(),
            holder,
            token,
            ttl,
        }))
    }

    /// The fencing token: grows with every acquisition. Hand it to whatever the holder writes
    /// to, and let that refuse a lower one.
    pub fn fencing_token(&self) -> i64 {
        self.token
    }

    /// The lease's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of this holder: new for each acquisition.
    pub fn holder(&self) -> Uuid {
        self.holder
    }

    /// Holds it for another `ttl` from now. A lease that expired without a taker is held again.
    ///
    /// It waits for transactions that have [checked](Self::check_in) the lease: a task that has
    /// such a transaction open ends it first.
    ///
    /// # Errors
    /// `Fenced` when someone else has acquired it: stop what was done under it.
    pub async fn renew(&self) -> Result<()> {
        self.set_expiry(self.ttl).await
    }

    /// Gives it up, so that another need not wait for its expiry.
    ///
    /// # Errors
    /// `Fenced` when someone else has acquired it already.
    pub async fn release(self) -> Result<()> {
        self.set_expiry(Duration::ZERO).await
    }

    /// Makes the transaction depend on the lease: it fails if someone else has acquired it, and
    /// no one can acquire it until the transaction ends.
    ///
    /// # Errors
    /// `Fenced` when someone else has acquired it.
    pub async fn check_in(&self, tx: &mut Tx) -> Result<()> {
        let token = if let Some(memory) = tx.memory() {
            memory.get::<Leases>(&self.name).map(|row| row.token)
        } else {
            let row = tx.fetch_optional(CHECK, values![&self.name]).await?;
            row.map(|row| row.i64("token")).transpose()?
        };
        if token == Some(self.token) { Ok(()) } else { Err(self.fenced()) }
    }

    async fn set_expiry(&self, ttl: Duration) -> Result<()> {
        let held = if let Some(mut tx) = memory_tx(&self.database).await? {
            let memory = tx.memory().ok_or_else(|| self.fenced())?;
            let now = memory.now();
            let held = memory.get::<Leases>(&self.name).is_some_and(|row| row.token == self.token);
            if held {
                memory.put::<Leases>(
                    self.name.clone(),
                    LeaseRow { token: self.token, expires_at: after(now, ttl) },
                );
            }
            tx.commit().await?;
            held
        } else {
            self.database.execute(RENEW, values![&self.name, self.token, micros(ttl)]).await? == 1
        };
        if held { Ok(()) } else { Err(self.fenced()) }
    }

    fn fenced(&self) -> Error {
        let message = format!(
            "the lease \"{}\" (token {}) was taken over by another holder",
            self.name, self.token
        );
        Error::new(ErrorKind::Fenced, message)
    }
}

fn acquire_in_memory(tx: &mut Tx, name: &str, ttl: Duration) -> Option<i64> {
    let memory = tx.memory()?;
    let now = memory.now();
    let token = match memory.get::<Leases>(&name.to_owned()) {
        Some(row) if row.expires_at > now => return None,
        Some(row) => row.token + 1,
        None => 1,
    };
    memory.put::<Leases>(name.to_owned(), LeaseRow { token, expires_at: after(now, ttl) });
    Some(token)
}

async fn memory_tx(database: &Database) -> Result<Option<Tx>> {
    if database.engine() == crate::database::Engine::Memory {
        database.begin().await.map(Some)
    } else {
        Ok(None)
    }
}
