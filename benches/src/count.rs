//! What one operation costs, whatever the machine: commits, round trips, bytes of log.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use sqlx::{Connection, Row};

use crate::target::{Engine, Target};

#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) commits: Option<f64>,
    pub(crate) round_trips: Option<f64>,
    pub(crate) wal_bytes: Option<f64>,
}

pub(crate) enum Counter {
    /// Transaction ids are given to transactions that write: their difference counts commits.
    Postgres { xid: i64, lsn: f64, round_trips: u64 },
    /// An open reader keeps the log from being wound back, so that its commits can be counted.
    Sqlite { reader: Box<sqlx::SqliteConnection>, commits: u64, bytes: u64 },
}

async fn postgres_marks(target: &Target) -> (i64, f64) {
    let mut connection = sqlx::PgConnection::connect(&target.direct_url).await.unwrap();
    let row = sqlx::query(
        "SELECT (pg_current_xact_id()::text)::bigint AS xid, (pg_current_wal_insert_lsn() - '0/0')::float8 AS lsn",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    (row.get("xid"), row.get("lsn"))
}

fn wal_path(target: &Target) -> PathBuf {
    let folder = target.folder.as_ref().expect("an SQLite target");
    folder.path().join("bench.db-wal")
}

/// Commits and bytes in the log: a frame that commits says how large the database is after it.
fn sqlite_marks(target: &Target) -> (u64, u64) {
    let log = std::fs::read(wal_path(target)).unwrap_or_default();
    if log.len() < 32 {
        return (0, 0);
    }
    let page = u32::from_be_bytes([log[8], log[9], log[10], log[11]]) as usize;
    let salt = &log[16..24];
    let frames = log[32..].chunks_exact(24 + page).take_while(|frame| &frame[8..16] == salt);
    let (mut commits, mut bytes) = (0, 0);
    for frame in frames {
        bytes += frame.len() as u64;
        commits += u64::from(frame[4..8] != [0; 4]);
    }
    (commits, bytes)
}

impl Counter {
    pub(crate) async fn start(target: &Target) -> Self {
        match target.engine() {
            Engine::Postgres => {
                let (xid, lsn) = postgres_marks(target).await;
                Self::Postgres { xid, lsn, round_trips: target.round_trips.load(Ordering::Relaxed) }
            }
            Engine::Sqlite => {
                let mut reader = sqlx::SqliteConnection::connect(&target.url).await.unwrap();
                sqlx::query("BEGIN").execute(&mut reader).await.unwrap();
                sqlx::query("SELECT count(*) FROM accounts").fetch_one(&mut reader).await.unwrap();
                let (commits, bytes) = sqlite_marks(target);
                Self::Sqlite { reader: Box::new(reader), commits, bytes }
            }
        }
    }

    pub(crate) async fn end(self, target: &Target, operations: u32) -> Counts {
        let operations = f64::from(operations);
        match self {
            Self::Postgres { xid, lsn, round_trips } => {
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let trips = (target.round_trips.load(Ordering::Relaxed) - round_trips) as f64;
                let (xid_after, lsn_after) = postgres_marks(target).await;
                // One id was taken by the mark itself.
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let commits = (xid_after - xid - 1) as f64;
                Counts {
                    commits: Some(commits / operations),
                    round_trips: Some(trips / operations),
                    wal_bytes: Some((lsn_after - lsn) / operations),
                }
            }
            Self::Sqlite { reader, commits, bytes } => {
                let (commits_after, bytes_after) = sqlite_marks(target);
                drop(reader);
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let (commits, bytes) =
                    ((commits_after - commits) as f64, (bytes_after - bytes) as f64);
                Counts {
                    commits: Some(commits / operations),
                    round_trips: None,
                    wal_bytes: Some(bytes / operations),
                }
            }
        }
    }
}
