//! Idempotency keys: the same request does its work once and gets the same answer every time.
//!
//! # Invariant
//! For one (scope, key) at most one transaction that called [`IdempotencyStore::complete`]
//! commits, and every later [`IdempotencyStore::begin`] with the same request answers what it
//! stored. The key's row is written before the work and in the work's own transaction, so:
//!
//! - two equal requests at once: the second waits on the row until the first ends, then sees its
//!   answer; after a rollback it does the work itself;
//! - a crash before the commit leaves no row: the next attempt starts afresh;
//! - work that spans several transactions commits the row first ([`IdempotencyStore::begin`],
//!   commit): others are told `InFlight` until it completes or its time runs out. Whoever takes
//!   over then gets another token, and `complete` of the first one is `Fenced`. Tokens are
//!   random: one that counted would start again after a purge, and fit an attempt from before.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::clock::{after, micros};
use crate::database::{MemoryTable, Sql, Tx};
use crate::error::{Error, ErrorKind, Result};
use crate::json::Json;
use crate::values;

/// Where keys and answers are kept: one table, many scopes (a route, a consumer's name).
///
/// Defaults: an unfinished key is given up after 60 s, an answer is kept for 24 h.
#[derive(Clone, Debug)]
pub struct IdempotencyStore {
    scope: String,
    in_flight_ttl: Duration,
    answer_ttl: Duration,
}

/// What is known of a key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Begun {
    /// It is new: do the work, then [`complete`](IdempotencyStore::complete) with this ticket.
    New(Ticket),
    /// The work was done before; this is its answer.
    Done(Json),
}

/// The right to complete a key.
#[derive(Clone, Debug)]
#[must_use = "complete the key with it, in the transaction of the work"]
pub struct Ticket {
    key: String,
    token: i64,
}

struct Keys;

#[derive(Clone)]
struct KeyRow {
    request_hash: String,
    token: i64,
    answer: Option<Json>,
    expires_at: DateTime<Utc>,
}

impl MemoryTable for Keys {
    type Key = (String, String);
    type Row = KeyRow;
}

// An expired row is free again, whether it was answered or not.
const BEGIN: Sql = Sql::new(
    "INSERT INTO potter_idempotency (scope, key, request_hash, token, expires_at)
     VALUES ($1, $2, $3, $5, CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $4)
     ON CONFLICT (scope, key) DO UPDATE
       SET request_hash = excluded.request_hash, token = excluded.token, answer = NULL,
           expires_at = excluded.expires_at
       WHERE potter_idempotency.expires_at <= CAST(unixepoch('subsec') * 1000000 AS INTEGER)
     RETURNING token",
    "INSERT INTO potter_idempotency (scope, key, request_hash, token, expires_at)
     VALUES ($1, $2, $3, $5, clock_timestamp() + $4 * interval '1 microsecond')
     ON CONFLICT (scope, key) DO UPDATE
       SET request_hash = excluded.request_hash, token = excluded.token, answer = NULL,
           expires_at = excluded.expires_at
       WHERE potter_idempotency.expires_at <= clock_timestamp()
     RETURNING token",
);

const COMPLETE: Sql = Sql::new(
    "UPDATE potter_idempotency
     SET answer = $4, expires_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $5
     WHERE scope = $1 AND key = $2 AND token = $3 AND answer IS NULL",
    "UPDATE potter_idempotency
     SET answer = $4::json, expires_at = clock_timestamp() + $5 * interval '1 microsecond'
     WHERE scope = $1 AND key = $2 AND token = $3 AND answer IS NULL",
);

const PURGE: Sql = Sql::new(
    "DELETE FROM potter_idempotency WHERE scope = $1
     AND expires_at <= CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
    "DELETE FROM potter_idempotency WHERE scope = $1 AND expires_at <= clock_timestamp()",
);

impl IdempotencyStore {
    /// The keys of `scope`; the same key in another scope is another key.
    pub fn new(scope: impl Into<String>) -> Self {
        Self {
            scope: scope.into(),
            in_flight_ttl: Duration::from_secs(60),
            answer_ttl: Duration::from_secs(24 * 3600),
        }
    }

    /// After how long an unfinished key may be taken over.
    #[must_use]
    pub fn in_flight_ttl(mut self, ttl: Duration) -> Self {
        self.in_flight_ttl = ttl;
        self
    }

    /// How long an answer is kept; after that the key is new again.
    #[must_use]
    pub fn answer_ttl(mut self, ttl: Duration) -> Self {
        self.answer_ttl = ttl;
        self
    }

    /// The hash to compare requests by: SHA-256 of the JSON.
    ///
    /// # Errors
    /// `InvalidInput` when the request can't be written as JSON.
    pub fn request_hash<T: Serialize + ?Sized>(request: &T) -> Result<String> {
        let digest = Sha256::digest(Json::of(request)?.as_str().as_bytes());
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Reserves `key` in the transaction of the work. An equal request in an open transaction is
    /// waited for.
    ///
    /// # Errors
    /// `KeyReused` when the key was used with another request; `InFlight` when an unfinished
    /// attempt committed its reservation and still has time; `InvalidInput` for an empty key,
    /// one longer than 255 bytes or with a NUL character.
    pub async fn begin(&self, tx: &mut Tx, key: &str, request_hash: &str) -> Result<Begun> {
        if key.is_empty() || key.len() > 255 || key.contains('\0') {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "an idempotency key has 1 to 255 bytes, no NUL",
            ));
        }
        if tx.memory().is_some() {
            return self.begin_in_memory(tx, key, request_hash);
        }
        let ttl = micros(self.in_flight_ttl);
        if let Some(row) = tx
            .fetch_optional(BEGIN, values![&self.scope, key, request_hash, ttl, new_token()])
            .await?
        {
            return Ok(Begun::New(Ticket { key: key.to_owned(), token: row.i64("token")? }));
        }
        let row = tx
            .fetch_optional(
                "SELECT request_hash, answer FROM potter_idempotency WHERE scope = $1 AND key = $2",
                values![&self.scope, key],
            )
            .await?
            .ok_or_else(|| in_flight(key))?;
        answer(key, request_hash, &row.text("request_hash")?, row.opt_json("answer")?)
    }

    /// Stores the answer, in the transaction of the work.
    ///
    /// # Errors
    /// `Fenced` when the time of this attempt ran out and another took the key over: the
    /// transaction must not be committed.
    pub async fn complete(&self, tx: &mut Tx, ticket: Ticket, answer: Json) -> Result<()> {
        let Ticket { key, token } = ticket;
        let done = if let Some(memory) = tx.memory() {
            let now = memory.now();
            let id = (self.scope.clone(), key.clone());
            match memory.get::<Keys>(&id).cloned() {
                Some(row) if row.token == token && row.answer.is_none() => {
                    let expires_at = after(now, self.answer_ttl);
                    memory.put::<Keys>(id, KeyRow { answer: Some(answer), expires_at, ..row });
                    true
                }
                _ => false,
            }
        } else {
            let ttl = micros(self.answer_ttl);
            tx.execute(COMPLETE, values![&self.scope, &key, token, answer, ttl]).await? == 1
        };
        if done {
            return Ok(());
        }
        let message = format!(
            "another attempt took over the idempotency key \"{key}\"; this one must roll back"
        );
        Err(Error::new(ErrorKind::Fenced, message))
    }

    /// Removes what has expired; answers how many keys.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn purge(&self, tx: &mut Tx) -> Result<u64> {
        if let Some(memory) = tx.memory() {
            let now = memory.now();
            let expired: Vec<_> = memory
                .rows::<Keys>()
                .iter()
                .filter(|(id, row)| id.0 == self.scope && row.expires_at <= now)
                .map(|(id, _)| id.clone())
                .collect();
            for id in &expired {
                memory.remove::<Keys>(id);
            }
            return Ok(expired.len() as u64);
        }
        tx.execute(PURGE, values![&self.scope]).await
    }

    fn begin_in_memory(&self, tx: &mut Tx, key: &str, request_hash: &str) -> Result<Begun> {
        let memory = tx.memory().ok_or_else(|| in_flight(key))?;
        let now = memory.now();
        let id = (self.scope.clone(), key.to_owned());
        if let Some(row) = memory.get::<Keys>(&id).filter(|row| row.expires_at > now) {
            let row = row.clone();
            return answer(key, request_hash, &row.request_hash, row.answer);
        }
        let token = new_token();
        let row = KeyRow {
            request_hash: request_hash.to_owned(),
            token,
            answer: None,
            expires_at: after(now, self.in_flight_ttl),
        };
        memory.put::<Keys>(id, row);
        Ok(Begun::New(Ticket { key: key.to_owned(), token }))
    }
}

fn answer(key: &str, asked: &str, stored: &str, answer: Option<Json>) -> Result<Begun> {
    if asked != stored {
        let message = format!(
            "the idempotency key \"{key}\" was used before with another request: use a new key"
        );
        return Err(Error::new(ErrorKind::KeyReused, message));
    }
    answer.map(Begun::Done).ok_or_else(|| in_flight(key))
}

fn new_token() -> i64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    i64::from_ne_bytes(high.to_ne_bytes())
}

fn in_flight(key: &str) -> Error {
    let message = format!(
        "the request with idempotency key \"{key}\" is still being worked on: ask again later"
    );
    Error::new(ErrorKind::InFlight, message)
}
