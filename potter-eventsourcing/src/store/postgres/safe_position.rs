//! Up to which position all events are final.
//!
//! Positions come from a sequence, in another order than transactions commit: position 11 can be
//! visible while 10 is still being written. A reader that goes on from 11 would never see 10.
//!
//! # Invariant
//! No event with a position at or below the safe position is committed after it was answered.
//!
//! Every append takes a shared advisory lock before its first position and holds it to the end
//! of its transaction; the end makes its rows visible first and gives the lock back second. So:
//!
//! 1. read the fence, the last position that the sequence gave;
//! 2. in a **later** statement, read who holds the lock;
//! 3. whoever got a position at or below the fence held the lock by 1, so either is seen by 2 or
//!    has ended, and then its rows are visible to statements after 2. When all that 2 saw have
//!    ended, the fence is safe. Those that come later only get higher positions.
//!
//! It is the grace period of read-copy-update (McKenney). What would break it: fence and holders
//! (or rows) in one statement, whose parts see different moments; a sequence with a cache; a
//! reader in an old snapshot (REPEATABLE READ); a prepared transaction, which holds its lock
//! under a new name after a restart (so as long as there is one, nobody counts as ended); a fence
//! on a sequence that was never called, whose last value is not given yet.
//!
//! # By rows
//! Servers without advisory locks have 32 rows in their place. An append takes a shared lock on one
//! of them, the one whose turn it is by the clock, before its first position. A reader looks which
//! rows it could lock itself (`SKIP LOCKED`: it never waits): nobody holds those. Once each row was
//! seen free at some time after the fence was read, all who got a position up to the fence have
//! ended. The turns only make every row free soon; whatever the clocks say, what is safe stays so.
//! A prepared transaction keeps its row locked.
//!
//! No time-out decides
//! anything: a transaction that stays open holds readers up at its first position, one that rolls
//! back costs nothing, and those that do not append, or are in another database, do not matter.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use potter_core::{Database, Row};
use tokio::sync::Mutex;

use super::locks::{Choice, Locks};
use crate::error::{Error, ErrorKind, Result};
use crate::store::rows::unsigned;

const FENCE: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS fence,
            pg_is_in_recovery() AS standby,
            EXISTS (SELECT 1 FROM potter_log_parts) AS in_parts
     FROM potter_events_global_position_seq";

// The numbers of the lock are those in potter_append; a log that was put into parts meanwhile was the
// table potter_events_first before. objsubid 2 is the form with two numbers.
const HOLDERS: &str = "SELECT virtualtransaction AS holder, pid IS NULL AS prepared
     FROM pg_locks
     WHERE locktype = 'advisory' AND granted AND objsubid = 2
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND classid = 1886352500
       AND objid IN ('potter_events'::regclass::oid, to_regclass('potter_events_first')::oid)";

/// How many rows take turns.
const TURNS: i64 = 32;

// All of them: the few whose lock is asked for again cost less than an array would.
const FREE: &str =
    "SELECT id::bigint AS id FROM potter_append_locks WHERE id < 32 FOR UPDATE SKIP LOCKED";

const IN_PARTS: &str = "SELECT EXISTS (SELECT 1 FROM potter_log_parts) AS in_parts";

/// How long it is believed that a log is not in parts: between its conversion and the first archived
/// part there is more time than that.
const PARTS_KNOWN_FOR: Duration = Duration::from_secs(10);

const ARCHIVED: &str =
    "SELECT coalesce(max(until_position), 0) AS until FROM potter_log_parts WHERE archived";

const CACHE: &str = "SELECT seqcache FROM pg_sequence
     WHERE seqrelid = 'potter_events_global_position_seq'::regclass";

/// The safe position of one store, shared by all its readers.
pub(super) struct SafePosition {
    database: Database,
    locks: Arc<Choice>,
    /// How many refreshes were begun.
    begun: AtomicU64,
    /// The log is in parts, so some may be archived.
    in_parts: AtomicBool,
    /// When that was looked up.
    parts_seen: StdMutex<Option<Instant>>,
    state: Mutex<State>,
}

/// What a look found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Everything up to here is final.
    pub(super) safe: u64,
    /// The last position that was given.
    pub(super) fence: u64,
}

#[derive(Debug, Default)]
struct State {
    safe: u64,
    fence: u64,
    /// A fence, and who must end before it is safe.
    grace: Option<(u64, HashSet<String>)>,
    /// A fence, and the rows that were not seen free since.
    turns: Option<(u64, BTreeSet<i64>)>,
    /// The number of the last refresh that came to its end.
    completed: u64,
}

/// Who holds the lock now.
#[derive(Debug, Default)]
struct Holders {
    names: HashSet<String>,
    prepared: bool,
}

impl State {
    /// Takes note of a fence and of the holders that a later statement saw.
    fn observe(&mut self, fence: u64, holders: Holders) {
        if let Some((waiting_for, old)) = &self.grace
            && !holders.prepared
            && old.is_disjoint(&holders.names)
        {
            self.safe = self.safe.max(*waiting_for);
            self.grace = None;
        }
        if holders.names.is_empty() {
            self.safe = self.safe.max(fence);
            self.grace = None;
        } else if self.grace.is_none() && fence > self.safe {
            self.grace = Some((fence, holders.names));
        }
    }
}

impl State {
    /// Takes note of a fence; until it is safe, an older one is waited for first.
    fn begin_turns(&mut self, fence: u64) {
        if self.turns.is_none() && fence > self.safe {
            self.turns = Some((fence, (0..TURNS).collect()));
        }
    }

    /// Takes note of rows that a statement after that saw free.
    fn observe_free(&mut self, free: &[i64]) {
        let Some((fence, waiting)) = &mut self.turns else { return };
        for row in free {
            waiting.remove(row);
        }
        if waiting.is_empty() {
            self.safe = self.safe.max(*fence);
            self.turns = None;
        }
    }
}

impl SafePosition {
    pub(super) fn new(database: Database, locks: Arc<Choice>) -> Self {
        Self {
            database,
            locks,
            begun: AtomicU64::new(0),
            in_parts: AtomicBool::new(false),
            parts_seen: StdMutex::default(),
            state: Mutex::default(),
        }
    }

    /// The safe position, looked up now. Callers at the same time share one look.
    pub(super) async fn refresh(&self) -> Result<Known> {
        let asked = self.begun.load(Ordering::SeqCst);
        let mut state = self.state.lock().await;
        if state.completed > asked {
            return Ok(Known { safe: state.safe, fence: state.fence });
        }
        let locks = self.locks.locks().await?;
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let fence = self.fence().await?;
        if fence > state.safe {
            match locks {
                Locks::Advisory => {
                    let holders = self.holders().await?;
                    state.observe(fence, holders);
                }
                Locks::Rows => {
                    state.begin_turns(fence);
                    let free = self.free().await?;
                    state.observe_free(&free);
                    // An older fence is through: where all are free, so is this one.
                    if i64::try_from(free.len()) == Ok(TURNS) {
                        state.safe = state.safe.max(fence);
                    }
                }
            }
        }
        state.fence = fence;
        state.completed = number;
        Ok(Known { safe: state.safe, fence })
    }

    /// Refuses a sequence whose connections set positions aside.
    pub(super) async fn check_sequence(&self) -> Result<()> {
        let rows = self.database.read(CACHE, &[]).await?;
        if first(&rows)?.i64("seqcache")? == 1 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            "the sequence of potter_events has a cache, so events could be skipped: \
             ALTER SEQUENCE potter_events_global_position_seq CACHE 1",
        ))
    }

    async fn fence(&self) -> Result<u64> {
        let rows = self.database.read(FENCE, &[]).await?;
        let row = first(&rows)?;
        if row.bool("standby")? {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "all events can't be read on a standby: it does not know which transactions are \
                 open; read on the primary",
            ));
        }
        self.note_parts(row.bool("in_parts")?);
        unsigned(row, "fence")
    }

    fn note_parts(&self, in_parts: bool) {
        self.in_parts.store(in_parts, Ordering::SeqCst);
        let mut seen = self.parts_seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(Instant::now());
    }

    /// Is the log in parts? Known from [`PARTS_KNOWN_FOR`] ago at most.
    pub(super) async fn in_parts(&self) -> Result<bool> {
        let seen = *self.parts_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_none_or(|seen| seen.elapsed() > PARTS_KNOWN_FOR) {
            let rows = self.database.read(IN_PARTS, &[]).await?;
            self.note_parts(first(&rows)?.bool("in_parts")?);
        }
        Ok(self.in_parts.load(Ordering::SeqCst))
    }

    /// Refuses to go on from `after` when what comes then is archived. To be asked after a refresh
    /// and after the events were read: a part may be archived in between.
    pub(super) async fn check_archived(&self, after: u64) -> Result<()> {
        if !self.in_parts.load(Ordering::SeqCst) {
            return Ok(());
        }
        let rows = self.database.read(ARCHIVED, &[]).await?;
        let until = rows.first().map_or(Ok(0), |row| unsigned(row, "until"))?;
        if after >= until {
            return Ok(());
        }
        let message = format!(
            "the events up to position {until} are archived, and were asked for from {after} on: \
             begin at {until}, or bring them back with PartitionedLog::restore"
        );
        Err(Error::new(ErrorKind::NotFound, message))
    }

    async fn free(&self) -> Result<Vec<i64>> {
        let rows = self.database.write(FREE, &[]).await?;
        rows.iter().map(|row| Ok(row.i64("id")?)).collect()
    }

    async fn holders(&self) -> Result<Holders> {
        let mut holders = Holders::default();
        for row in self.database.read(HOLDERS, &[]).await? {
            holders.prepared |= row.bool("prepared")?;
            holders.names.insert(row.text("holder")?);
        }
        Ok(holders)
    }
}

fn first(rows: &[Row]) -> Result<&Row> {
    rows.first()
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the sequence of potter_events is not there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(names: &[&str]) -> Holders {
        let prepared = names.iter().any(|name| name.starts_with("-1/"));
        Holders { names: names.iter().map(|name| (*name).to_owned()).collect(), prepared }
    }

    #[test]
    fn a_fence_is_safe_when_those_before_it_have_ended() {
        let mut state = State::default();
        state.observe(5, holders(&[]));
        assert_eq!(state.safe, 5);
        state.observe(8, holders(&["3/1", "4/1"]));
        assert_eq!(state.safe, 5);
        state.observe(9, holders(&["4/1", "5/1"]));
        assert_eq!(state.safe, 5, "4/1 may have a position up to 8");
        state.observe(12, holders(&["5/1", "6/1"]));
        assert_eq!(state.safe, 8, "there are always holders, and still it goes on");
        state.observe(13, holders(&["7/1"]));
        assert_eq!(state.safe, 12);
        state.observe(13, holders(&[]));
        assert_eq!(state.safe, 13);
    }

    #[test]
    fn a_fence_is_safe_when_each_row_was_free_once() {
        let mut state = State::default();
        state.begin_turns(5);
        let but = |held: i64| (0..TURNS).filter(|row| *row != held).collect::<Vec<_>>();
        state.observe_free(&but(3));
        assert_eq!(state.safe, 0);
        state.begin_turns(9);
        state.observe_free(&but(4));
        assert_eq!(state.safe, 5, "3 was free now, 4 before");
        state.begin_turns(9);
        state.observe_free(&but(4));
        assert_eq!(state.safe, 5, "what was free before 9 was given says nothing about it");
        state.observe_free(&[4]);
        assert_eq!(state.safe, 9);
    }

    #[test]
    fn a_prepared_transaction_may_be_anyone() {
        let mut state = State::default();
        state.observe(5, holders(&["3/1"]));
        // The server was restarted: 3/1 is prepared, under another name.
        state.observe(6, holders(&["-1/700", "3/1"]));
        state.observe(6, holders(&["-1/700"]));
        assert_eq!(state.safe, 0);
        state.observe(7, holders(&["4/1"]));
        assert_eq!(state.safe, 5);
        state.observe(7, holders(&[]));
        assert_eq!(state.safe, 7);
    }
}
