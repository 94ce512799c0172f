//! A small transactional store in memory, with a choice of bugs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Env;
use super::env::lock;
use crate::value::Value;

/// What is wrong with a [`Database`], or with its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bug {
    /// Nothing: every transaction takes effect at one instant.
    #[default]
    None,
    /// Every third read-only transaction is answered by a replica that is up to 200 ms behind.
    StaleReads,
    /// What was committed in the last 50 ms before a crash is gone, though it was acknowledged.
    LostWrites,
    /// Read committed: each read sees what is committed at its moment, and commits overwrite.
    LostUpdates,
    /// Snapshot isolation, where the first committer wins: two transactions that read what the other
    /// one writes both commit.
    WriteSkew,
    /// Some transactions abort after others could see what they wrote.
    DirtyReads,
    /// The database is right and its client is not: it calls a time-out a failure.
    WrongTimeouts,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::StaleReads,
        Self::LostWrites,
        Self::LostUpdates,
        Self::WriteSkew,
        Self::DirtyReads,
        Self::WrongTimeouts,
    ];

    /// The name in words, with hyphens.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::StaleReads => "stale-reads",
            Self::LostWrites => "lost-writes",
            Self::LostUpdates => "lost-updates",
            Self::WriteSkew => "write-skew",
            Self::DirtyReads => "dirty-reads",
            Self::WrongTimeouts => "wrong-timeouts",
        }
    }

    /// The bug with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| bug.name() == name)
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Read(Value),
    Write(Value, Value),
    Append(Value, Value),
    /// Aborts the transaction unless the key holds the first value.
    Cas(Value, Value, Value),
}

impl Step {
    fn key(&self) -> &Value {
        match self {
            Self::Read(key) | Self::Write(key, _) | Self::Append(key, _) | Self::Cas(key, ..) => {
                key
            }
        }
    }

    fn writes(&self) -> bool {
        !matches!(self, Self::Read(_))
    }

    /// The result, and what the key holds then; `Err` aborts.
    fn apply(&self, held: &Value) -> Result<(Value, Option<Value>), String> {
        Ok(match self {
            Self::Read(_) => (held.clone(), None),
            Self::Write(_, value) => (value.clone(), Some(value.clone())),
            Self::Append(_, value) => {
                let mut items = held.as_items().unwrap_or_default().to_vec();
                items.push(value.clone());
                (value.clone(), Some(Value::from(items)))
            }
            Self::Cas(_, expected, new) if held == expected => (new.clone(), Some(new.clone())),
            Self::Cas(_, expected, _) => return Err(format!("it is {held}, not {expected}")),
        })
    }
}

/// The store. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Database {
    env: Env,
    bug: Bug,
    store: Arc<Mutex<Store>>,
}

#[derive(Debug, Default)]
struct Store {
    /// Key → (number of the commit, its time, value), oldest first.
    versions: BTreeMap<Value, Vec<(u64, Duration, Value)>>,
    commits: u64,
}

impl Store {
    fn at(&self, key: &Value, seen: impl Fn(u64, Duration) -> bool) -> Value {
        let versions = self.versions.get(key).map(Vec::as_slice).unwrap_or_default();
        let last = versions.iter().rev().find(|(commit, time, _)| seen(*commit, *time));
        last.map(|(.., value)| value.clone()).unwrap_or_default()
    }

    fn latest(&self, key: &Value) -> Value {
        self.at(key, |_, _| true)
    }

    fn commit(&mut self, now: Duration, writes: BTreeMap<Value, Value>) {
        self.commits += 1;
        for (key, value) in writes {
            self.versions.entry(key).or_default().push((self.commits, now, value));
        }
    }

    fn changed_since(&self, key: &Value, commit: u64) -> bool {
        self.versions.get(key).and_then(|all| all.last()).is_some_and(|last| last.0 > commit)
    }
}

impl Database {
    /// An empty store.
    pub fn new(env: &Env, bug: Bug) -> Self {
        Self { env: env.clone(), bug, store: Arc::default() }
    }

    /// What is wrong with it.
    pub fn bug(&self) -> Bug {
        self.bug
    }

    /// Crashes and comes back at once. Returns how many committed versions were lost: with
    /// [`Bug::LostWrites`] those that were not on disk yet, else none.
    pub fn crash(&self) -> usize {
        if self.bug != Bug::LostWrites {
            return 0;
        }
        let durable = self.env.now().saturating_sub(Duration::from_millis(50));
        let mut lost = 0;
        for versions in lock(&self.store).versions.values_mut() {
            let before = versions.len();
            versions.retain(|(_, time, _)| *time <= durable);
            lost += before - versions.len();
        }
        lost
    }

    /// Runs a transaction on the node that got it. `Err`: it was aborted.
    pub(super) async fn transact(&self, steps: Vec<Step>) -> Result<Vec<Value>, String> {
        match self.bug {
            Bug::WriteSkew => self.optimistic(&steps, true).await,
            Bug::LostUpdates => self.optimistic(&steps, false).await,
            Bug::DirtyReads if self.env.random(|random| random.chance(100)) => {
                self.undone(&steps).await
            }
            Bug::StaleReads if !steps.iter().any(Step::writes) => Ok(self.replica(&steps)),
            _ => self.atomic(&steps),
        }
    }

    fn atomic(&self, steps: &[Step]) -> Result<Vec<Value>, String> {
        let now = self.env.now();
        let mut store = lock(&self.store);
        let (mut writes, mut results) = (BTreeMap::new(), Vec::new());
        for step in steps {
            let held = writes.get(step.key()).cloned();
            let held = held.unwrap_or_else(|| store.latest(step.key()));
            let (result, written) = step.apply(&held)?;
            results.push(result);
            writes.extend(written.map(|value| (step.key().clone(), value)));
        }
        if !writes.is_empty() {
            store.commit(now, writes);
        }
        Ok(results)
    }

    fn replica(&self, steps: &[Step]) -> Vec<Value> {
        let behind = self.env.random(|random| random.chance(333));
        let lag = self.env.between(Duration::ZERO, Duration::from_millis(200));
        let seen = self.env.now().saturating_sub(if behind { lag } else { Duration::ZERO });
        let store = lock(&self.store);
        steps.iter().map(|step| store.at(step.key(), |_, time| time <= seen)).collect()
    }

    /// Steps one after the other with time between them, all writes at the end. With `snapshot` all
    /// reads are of the beginning, and who finds a newer version of what it writes is aborted.
    async fn optimistic(&self, steps: &[Step], snapshot: bool) -> Result<Vec<Value>, String> {
        let begin = lock(&self.store).commits;
        let (mut writes, mut results) = (BTreeMap::new(), Vec::new());
        for step in steps {
            let pause = self.env.between(Duration::from_millis(1), Duration::from_millis(8));
            self.env.sleep(pause).await;
            let held = writes.get(step.key()).cloned().unwrap_or_else(|| {
                let seen = |commit: u64, _: Duration| !snapshot || commit <= begin;
                lock(&self.store).at(step.key(), seen)
            });
            let (result, written) = step.apply(&held)?;
            results.push(result);
            writes.extend(written.map(|value| (step.key().clone(), value)));
        }
        let now = self.env.now();
        let mut store = lock(&self.store);
        if snapshot && writes.keys().any(|key| store.changed_since(key, begin)) {
            return Err("another transaction wrote the same first".into());
        }
        if !writes.is_empty() {
            store.commit(now, writes);
        }
        Ok(results)
    }

    /// Writes, is seen, and takes it back.
    async fn undone(&self, steps: &[Step]) -> Result<Vec<Value>, String> {
        let before = lock(&self.store).commits;
        self.atomic(steps)?;
        let mine = lock(&self.store).commits;
        let pause = self.env.between(Duration::from_millis(5), Duration::from_millis(30));
        self.env.sleep(pause).await;
        let keys: BTreeSet<&Value> = steps.iter().map(Step::key).collect();
        let mut store = lock(&self.store);
        for key in keys {
            if let Some(versions) = store.versions.get_mut(key) {
                versions.retain(|(commit, ..)| *commit != mine || mine == before);
            }
        }
        Err("aborted".into())
    }
}
