//! A map in which the last writer of each key wins.
//!
//! Invariant: each key shows the greatest of its writes in the order of [`crate::LwwRegister`]; a
//! deletion is a write. A write's stamp is above all that its replica had seen of the key, and
//! writes that no other has seen are kept side by side, so the join is associative also with
//! reclaiming (keeping the winner alone is not: a winner that is taken away would have hidden a
//! concurrent write on one side only).

use serde_json::Value as Json;

use crate::actor::DotIx;
use crate::causal::codec::Order;
use crate::causal::map::MapStore;
use crate::causal::register::{LwwStore, Stamped};
use crate::causal::{Causal, DotStore, JoinCx, Txn};
use crate::codec::{Decoder, Encoder};
use crate::{Context, Hlc, Result, Stamp, Timestamp, Value, Writer};

/// A last-writer-wins map.
///
/// ```
/// use potter_crdt::{ActorId, Hlc, LwwMap, Timestamp, Writer};
///
/// let actor = ActorId::new("a")?;
/// let (mut writer, mut clock) = (Writer::new(actor.clone()), Hlc::new(actor));
/// let now = Timestamp::parse("2024-01-01T10:00:00Z")?;
/// let mut map = LwwMap::new();
/// map.put(&mut writer, &mut clock, now, "name".to_owned(), "Ada".to_owned())?;
/// assert_eq!(map.get(&"name".to_owned()).map(String::as_str), Some("Ada"));
/// map.delete(&mut writer, &mut clock, now, "name".to_owned())?;
/// assert!(map.get(&"name".to_owned()).is_none());
/// # Ok::<(), potter_crdt::Error>(())
/// ```
pub type LwwMap<K, V> = Causal<LwwMapStore<K, V>>;

/// The entries of an [`LwwMap`].
#[derive(Clone, Debug)]
pub struct LwwMapStore<K, V>(MapStore<K, LwwStore<V>>);

impl<K, V> Default for LwwMapStore<K, V> {
    fn default() -> Self {
        Self(MapStore::default())
    }
}

impl<K: Value, V: Value> LwwMapStore<K, V> {
    /// Writes with a stamp above all that is seen of `key`; `None` deletes.
    pub fn set(
        &mut self,
        txn: &mut Txn<'_>,
        clock: &mut Hlc,
        wall: Timestamp,
        key: K,
        value: Option<V>,
    ) -> Result<Stamp> {
        self.0.update(txn, key, |register, txn| register.set(txn, clock, wall, value))
    }

    /// Writes with a given stamp; false, and nothing is written, if what is seen is above.
    pub fn set_stamped(
        &mut self,
        txn: &mut Txn<'_>,
        stamp: Stamp,
        key: K,
        value: Option<V>,
    ) -> Result<bool> {
        self.0.update(txn, key, |register, txn| register.set_stamped(txn, stamp, value))
    }

    /// The winning write of `key`, which may be a deletion.
    pub fn top(&self, key: &K) -> Option<&Stamped<V>> {
        self.0.entries.get(key).and_then(LwwStore::top)
    }

    /// All writes that are kept, by key: more than one of a key are concurrent.
    pub fn writes(&self) -> impl Iterator<Item = (&K, &LwwStore<V>)> {
        self.0.entries.iter()
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.top(key).and_then(|write| write.value.as_ref())
    }

    /// The keys that have a value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.entries.iter().filter_map(|(key, register)| Some((key, register.get()?)))
    }
}

impl<K: Value, V: Value> DotStore for LwwMapStore<K, V> {
    const TYPE: &'static str = "LWWMap";
    const TAG: u8 = 12;

    fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    fn is_bottom(&self) -> bool {
        self.0.is_bottom()
    }

    fn each_dot(&self, each: &mut dyn FnMut(DotIx)) {
        self.0.each_dot(each);
    }

    fn check(&self, theirs: &Self, cx: &JoinCx<'_>) -> Result<()> {
        self.0.check(&theirs.0, cx)
    }

    fn merge(&mut self, theirs: &Self, cx: &JoinCx<'_>) -> bool {
        self.0.merge(&theirs.0, cx)
    }

    fn part(&self, keep: &dyn Fn(DotIx) -> bool) -> Self {
        Self(self.0.part(keep))
    }

    fn clear(&mut self, txn: &mut Txn<'_>) -> Result<()> {
        self.0.clear(txn)
    }

    /// Keys of which nothing is left but deletions that all have seen.
    fn reclaim(&mut self, stable: &dyn Fn(DotIx) -> bool) -> usize {
        let before = self.0.entries.len();
        self.0.entries.retain(|_, register| {
            register.values.iter().any(|(dot, write)| write.value.is_some() || !stable(*dot))
        });
        before - self.0.entries.len()
    }

    fn encode(&self, out: &mut Encoder, order: &Order<'_>) {
        self.0.encode(out, order);
    }

    fn decode(input: &mut Decoder<'_>, ctx: &Context) -> Result<Self> {
        MapStore::decode(input, ctx).map(Self)
    }

    fn to_json(&self, order: &Order<'_>) -> Json {
        self.0.to_json(order)
    }

    fn from_json(value: &Json, ctx: &Context) -> Result<Self> {
        MapStore::from_json(value, ctx).map(Self)
    }
}

impl<K: Value, V: Value> LwwMap<K, V> {
    /// Writes `value`; `wall` is what the wall clock shows.
    pub fn put(
        &mut self,
        writer: &mut Writer,
        clock: &mut Hlc,
        wall: Timestamp,
        key: K,
        value: V,
    ) -> Result<Stamp> {
        self.edit(writer, |map, txn| map.set(txn, clock, wall, key, Some(value)))
    }

    /// Deletes `key`: a later write brings it back, an earlier one does not.
    pub fn delete(
        &mut self,
        writer: &mut Writer,
        clock: &mut Hlc,
        wall: Timestamp,
        key: K,
    ) -> Result<Stamp> {
        self.edit(writer, |map, txn| map.set(txn, clock, wall, key, None))
    }

    /// Takes in a write made elsewhere with its stamp; false if it loses against what is here.
    pub fn put_stamped(
        &mut self,
        writer: &mut Writer,
        stamp: Stamp,
        key: K,
        value: Option<V>,
    ) -> Result<bool> {
        self.edit(writer, |map, txn| map.set_stamped(txn, stamp, key, value))
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.store.get(key)
    }

    /// The winning write of `key`, which may be a deletion.
    pub fn top(&self, key: &K) -> Option<&Stamped<V>> {
        self.store.top(key)
    }

    /// The keys that have a value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.store.iter()
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}
