//! A map of CRDTs.
//!
//! Invariant: all values share the document's one context; a key is there as long as its value
//! holds something. Removing a key removes what was seen of its value: a concurrent update keeps
//! the key, with that update alone (update wins, observed remove of the rest). Updates of one key
//! merge as its value's type merges.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::actor::DotIx;
use crate::causal::codec::Order;
use crate::causal::{Causal, DotStore, JoinCx, Txn};
use crate::codec::{Decoder, Encoder, json};
use crate::{Context, Error, Result, Value, Writer};

/// A map from keys to CRDTs of one type, which may be maps too.
///
/// ```
/// use potter_crdt::{ActorId, OrMap, SetStore, Writer};
///
/// let mut writer = Writer::new(ActorId::new("a")?);
/// let mut map: OrMap<String, SetStore<String>> = OrMap::new();
/// map.update(&mut writer, "colours".to_owned(), |set, txn| set.add(txn, "red".to_owned()))?;
/// assert!(map.get(&"colours".to_owned()).is_some_and(|set| set.contains(&"red".to_owned())));
/// map.remove(&mut writer, &"colours".to_owned())?;
/// assert!(map.is_empty());
/// # Ok::<(), potter_crdt::Error>(())
/// ```
pub type OrMap<K, S> = Causal<MapStore<K, S>>;

/// The entries of an [`OrMap`].
#[derive(Clone, Debug)]
pub struct MapStore<K, S> {
    pub(crate) entries: BTreeMap<K, S>,
}

impl<K, S> Default for MapStore<K, S> {
    fn default() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

impl<K: Value, S: DotStore> MapStore<K, S> {
    /// Changes the value of `key`, which begins empty. What `update` did before it fails stays.
    pub fn update<R>(
        &mut self,
        txn: &mut Txn<'_>,
        key: K,
        update: impl FnOnce(&mut S, &mut Txn<'_>) -> Result<R>,
    ) -> Result<R> {
        let mut entry = match self.entries.entry(key) {
            std::collections::btree_map::Entry::Occupied(entry) => entry,
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert_entry(S::default()),
        };
        let done = update(entry.get_mut(), txn);
        if entry.get().is_bottom() {
            entry.remove();
        }
        done
    }

    /// Removes what is seen of `key`; true if it was there.
    pub fn remove(&mut self, txn: &mut Txn<'_>, key: &K) -> Result<bool> {
        let Some(value) = self.entries.get_mut(key) else { return Ok(false) };
        let was = !value.is_empty();
        value.clear(txn)?;
        if value.is_bottom() {
            self.entries.remove(key);
        }
        Ok(was)
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&S> {
        self.entries.get(key).filter(|value| !value.is_empty())
    }

    /// The keys and their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &S)> {
        self.entries.iter().filter(|(_, value)| !value.is_empty())
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl<K: Value, S: DotStore> DotStore for MapStore<K, S> {
    const TYPE: &'static str = "ORMap";
    const TAG: u8 = 11;

    fn is_empty(&self) -> bool {
        MapStore::is_empty(self)
    }

    fn is_bottom(&self) -> bool {
        self.entries.is_empty()
    }

    fn each_dot(&self, each: &mut dyn FnMut(DotIx)) {
        self.entries.values().for_each(|value| value.each_dot(each));
    }

    fn mentions(&self, each: &mut dyn FnMut(DotIx)) {
        self.entries.values().for_each(|value| value.mentions(each));
    }

    fn check(&self, theirs: &Self, cx: &JoinCx<'_>) -> Result<()> {
        for (key, value) in &theirs.entries {
            if let Some(mine) = self.entries.get(key) {
                mine.check(value, cx)?;
            }
        }
        Ok(())
    }

    fn merge(&mut self, theirs: &Self, cx: &JoinCx<'_>) -> bool {
        let mut changed = false;
        let nothing = S::default();
        self.entries.retain(|key, mine| {
            changed |= mine.merge(theirs.entries.get(key).unwrap_or(&nothing), cx);
            !mine.is_bottom()
        });
        for (key, value) in &theirs.entries {
            if !self.entries.contains_key(key) {
                let mut mine = S::default();
                changed |= mine.merge(value, cx);
                if !mine.is_bottom() {
                    self.entries.insert(key.clone(), mine);
                }
            }
        }
        changed
    }

    fn part(&self, keep: &dyn Fn(DotIx) -> bool) -> Self {
        let parts = self.entries.iter().map(|(key, value)| (key.clone(), value.part(keep)));
        Self { entries: parts.filter(|(_, value)| !value.is_bottom()).collect() }
    }

    fn clear(&mut self, txn: &mut Txn<'_>) -> Result<()> {
        for value in self.entries.values_mut() {
            value.clear(txn)?;
        }
        self.entries.retain(|_, value| !value.is_bottom());
        Ok(())
    }

    fn reclaim(&mut self, stable: &dyn Fn(DotIx) -> bool) -> usize {
        let mut dropped = 0;
        self.entries.retain(|_, value| {
            dropped += value.reclaim(stable);
            !value.is_bottom()
        });
        dropped
    }

    fn encode(&self, out: &mut Encoder, order: &Order<'_>) {
        out.byte(S::TAG);
        out.length(self.entries.len());
        for (key, value) in &self.entries {
            key.encode(out);
            value.encode(out, order);
        }
    }

    fn decode(input: &mut Decoder<'_>, ctx: &Context) -> Result<Self> {
        if input.byte()? != S::TAG {
            return Err(Error::malformed(format!("the map does not hold {} values", S::TYPE)));
        }
        let mut out = Self::default();
        for _ in 0..input.length()? {
            let (key, value) = (K::decode(input)?, S::decode(input, ctx)?);
            out.put(key, value)?;
        }
        Ok(out)
    }

    fn to_json(&self, order: &Order<'_>) -> Json {
        let entries = self
            .entries
            .iter()
            .map(|(key, value)| Json::Array(vec![key.to_json(), value.to_json(order)]));
        json::make_object([("entries", entries.collect()), ("of", S::TYPE.into())])
    }

    fn from_json(value: &Json, ctx: &Context) -> Result<Self> {
        let object = json::object(value)?;
        if json::text(json::field(object, "of")?)? != S::TYPE {
            return Err(Error::malformed(format!("the map does not hold {} values", S::TYPE)));
        }
        let mut out = Self::default();
        for entry in json::array(json::field(object, "entries")?)? {
            let [key, value] = json::array(entry)? else {
                return Err(Error::malformed("an entry of a map is [key, value]"));
            };
            out.put(K::from_json(key)?, S::from_json(value, ctx)?)?;
        }
        Ok(out)
    }
}

impl<K: Value, S: DotStore> MapStore<K, S> {
    fn put(&mut self, key: K, value: S) -> Result<()> {
        if value.is_bottom() || self.entries.insert(key, value).is_some() {
            return Err(Error::malformed("a key of a map is there twice, or without a value"));
        }
        Ok(())
    }
}

impl<K: Value, S: DotStore> OrMap<K, S> {
    /// Changes the value of `key`, which begins empty. What `update` did before it fails stays.
    pub fn update<R>(
        &mut self,
        writer: &mut Writer,
        key: K,
        update: impl FnOnce(&mut S, &mut Txn<'_>) -> Result<R>,
    ) -> Result<R> {
        self.edit(writer, |map, txn| map.update(txn, key, update))
    }

    /// Removes what is seen of `key`; true if it was there.
    pub fn remove(&mut self, writer: &mut Writer, key: &K) -> Result<bool> {
        self.edit(writer, |map, txn| map.remove(txn, key))
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&S> {
        self.store.get(key)
    }

    /// The keys and their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &S)> {
        self.store.iter()
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }
}
