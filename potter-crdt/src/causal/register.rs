//! A register that keeps concurrent writes.
//!
//! Invariant: it holds the writes that no other write has seen. A write replaces what it has seen;
//! concurrent writes stay side by side until the next one.

use serde_json::Value as Json;

use crate::actor::DotIx;
use crate::causal::codec::{self, Order};
use crate::causal::{Causal, DotStore, JoinCx, Txn};
use crate::codec::{Decoder, Encoder, json};
use crate::{ActorId, Context, Dot, Error, Hlc, Result, Stamp, Timestamp, Value, Writer};

/// A multi-value register.
///
/// ```
/// use potter_crdt::{ActorId, Join, MvRegister, Writer};
///
/// let (mut a, mut b) = (MvRegister::new(), MvRegister::new());
/// let mut alice = Writer::new(ActorId::new("alice")?);
/// a.write(&mut alice, "tea".to_owned())?;
/// b.write(&mut Writer::new(ActorId::new("bob")?), "coffee".to_owned())?;
/// a.join(&b)?;
/// assert_eq!(a.values().count(), 2); // a conflict,
/// a.write(&mut alice, "tea".to_owned())?; // resolved.
/// assert_eq!(a.values().count(), 1);
/// # Ok::<(), potter_crdt::Error>(())
/// ```
pub type MvRegister<V> = Causal<MvStore<V>>;

/// The values of an [`MvRegister`].
#[derive(Clone, Debug)]
pub struct MvStore<V> {
    pub(crate) values: Vec<(DotIx, V)>,
}

impl<V> Default for MvStore<V> {
    fn default() -> Self {
        Self { values: Vec::new() }
    }
}

impl<V: Value> MvStore<V> {
    /// Writes, in place of all that is seen here.
    pub fn write(&mut self, txn: &mut Txn<'_>, value: V) -> Result<Dot> {
        let dot = txn.mint()?;
        self.values.clear();
        self.values.push((dot, value));
        Ok(txn.dot(dot))
    }

    /// The values: none, one, or concurrent ones.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.values.iter().map(|(_, value)| value)
    }
}

impl<V: Value> DotStore for MvStore<V> {
    const TYPE: &'static str = "MVRegister";
    const TAG: u8 = 8;

    fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn each_dot(&self, each: &mut dyn FnMut(DotIx)) {
        self.values.iter().for_each(|(dot, _)| each(*dot));
    }

    fn check(&self, theirs: &Self, cx: &JoinCx<'_>) -> Result<()> {
        for (dot, value) in &theirs.values {
            let dot = cx.import(*dot);
            if self.values.iter().any(|(mine, other)| *mine == dot && other != value) {
                return Err(cx.reused(dot));
            }
        }
        Ok(())
    }

    fn merge(&mut self, theirs: &Self, cx: &JoinCx<'_>) -> bool {
        let before = self.values.len();
        let has = |dot: DotIx| theirs.values.iter().any(|(other, _)| cx.import(*other) == dot);
        self.values.retain(|(dot, _)| has(*dot) || !cx.theirs_saw(*dot));
        let mut changed = self.values.len() < before;
        for (dot, value) in &theirs.values {
            let dot = cx.import(*dot);
            if !cx.mine_saw(dot) {
                self.values.push((dot, value.clone()));
                changed = true;
            }
        }
        changed
    }

    fn part(&self, keep: &dyn Fn(DotIx) -> bool) -> Self {
        Self { values: self.values.iter().filter(|(dot, _)| keep(*dot)).cloned().collect() }
    }

    fn clear(&mut self, _: &mut Txn<'_>) -> Result<()> {
        self.values.clear();
        Ok(())
    }

    fn encode(&self, out: &mut Encoder, order: &Order<'_>) {
        let mut values: Vec<_> = self.values.iter().collect();
        values.sort_unstable_by_key(|(dot, _)| order.export(*dot));
        out.length(values.len());
        for (dot, value) in values {
            order.put(*dot, out);
            value.encode(out);
        }
    }

    fn decode(input: &mut Decoder<'_>, ctx: &Context) -> Result<Self> {
        let mut out = Self::default();
        for _ in 0..input.length()? {
            let dot = codec::get(input, ctx)?;
            if out.values.last().is_some_and(|(last, _)| *last >= dot) {
                return Err(Error::malformed("the events of a register are not in order"));
            }
            out.values.push((dot, V::decode(input)?));
        }
        Ok(out)
    }

    fn to_json(&self, order: &Order<'_>) -> Json {
        let mut values: Vec<_> = self.values.iter().collect();
        values.sort_unstable_by_key(|(dot, _)| order.export(*dot));
        let one = |(dot, value): &(DotIx, V)| {
            json::make_object([("dot", order.json(*dot)), ("value", value.to_json())])
        };
        Json::Array(values.into_iter().map(one).collect())
    }

    fn from_json(value: &Json, ctx: &Context) -> Result<Self> {
        let mut seen = std::collections::HashSet::new();
        let mut out = Self::default();
        for one in json::array(value)? {
            let one = json::object(one)?;
            let dot = codec::get_json(json::field(one, "dot")?, ctx)?;
            if !seen.insert(dot) {
                return Err(Error::malformed("an event is live twice"));
            }
            out.values.push((dot, V::from_json(json::field(one, "value")?)?));
        }
        Ok(out)
    }
}

impl<V: Value> MvRegister<V> {
    /// Writes, in place of all that is seen here.
    pub fn write(&mut self, writer: &mut Writer, value: V) -> Result<Dot> {
        self.edit(writer, |register, txn| register.write(txn, value))
    }

    /// The values: none, one, or concurrent ones.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.store.values()
    }
}

/// A value and when it was written; ordered as last-writer-wins orders.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stamped<V> {
    /// When and by whom.
    pub stamp: Stamp,
    /// What; `None` is a deletion.
    pub value: Option<V>,
}

impl<V: Value> PartialOrd for Stamped<V> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<V: Value> Ord for Stamped<V> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let bytes = |value: &Option<V>| value.as_ref().map(Value::canonical_bytes);
        self.stamp.cmp(&other.stamp).then_with(|| bytes(&self.value).cmp(&bytes(&other.value)))
    }
}

impl<V: Value> Value for Stamped<V> {
    fn encode(&self, out: &mut Encoder) {
        put_stamp(&self.stamp, out);
        out.byte(u8::from(self.value.is_some()));
        if let Some(value) = &self.value {
            value.encode(out);
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        let stamp = get_stamp(input)?;
        let value = if bool::decode(input)? { Some(V::decode(input)?) } else { None };
        Ok(Self { stamp, value })
    }

    fn to_json(&self) -> Json {
        let mut out = stamp_to_json(&self.stamp);
        if let (Some(value), Json::Object(object)) = (&self.value, &mut out) {
            object.insert("value".into(), value.to_json());
        }
        out
    }

    fn from_json(value: &Json) -> Result<Self> {
        let stamp = stamp_from_json(value)?;
        let value = json::object(value)?.get("value").map(V::from_json).transpose()?;
        Ok(Self { stamp, value })
    }
}

pub(crate) fn put_stamp(stamp: &Stamp, out: &mut Encoder) {
    let (secs, nanos) = stamp.at.unix();
    out.int(secs);
    out.uint(u64::from(nanos));
    out.uint(u64::from(stamp.counter));
    out.actor(&stamp.node);
}

pub(crate) fn get_stamp(input: &mut Decoder<'_>) -> Result<Stamp> {
    let bad = |_| Error::malformed("a stamp is out of bounds");
    let secs = input.int()?;
    let nanos = u32::decode(input)?;
    let at = Timestamp::from_unix(secs, nanos).map_err(bad)?;
    Ok(Stamp { at, counter: u32::decode(input)?, node: input.actor()? })
}

/// `{"timestamp":"…","node_id":"…"}`, and the counter if it is not 0.
pub(crate) fn stamp_to_json(stamp: &Stamp) -> Json {
    let mut fields =
        vec![("node_id", stamp.node.as_str().into()), ("timestamp", stamp.at.to_string().into())];
    if stamp.counter > 0 {
        fields.push(("counter", stamp.counter.into()));
    }
    json::make_object(fields)
}

pub(crate) fn stamp_from_json(value: &Json) -> Result<Stamp> {
    let object = json::object(value)?;
    let at = Timestamp::parse(json::text(json::field(object, "timestamp")?)?)
        .map_err(|error| Error::malformed(error.to_string()))?;
    let counter = object.get("counter").map(u32::from_json).transpose()?.unwrap_or(0);
    let node: ActorId = json::actor(json::field(object, "node_id")?)?;
    Ok(Stamp { at, counter, node })
}

/// A last-writer-wins register for use in an [`crate::OrMap`]: keeps concurrent writes, so that its
/// join is associative together with removes, and shows the greatest.
pub type LwwStore<V> = MvStore<Stamped<V>>;

impl<V: Value> LwwStore<V> {
    /// Writes with a stamp above all that is seen here; `None` deletes.
    pub fn set(
        &mut self,
        txn: &mut Txn<'_>,
        clock: &mut Hlc,
        wall: Timestamp,
        value: Option<V>,
    ) -> Result<Stamp> {
        let read = self.values.iter().map(|(_, write)| &write.stamp).max();
        let stamp = clock.now_after(wall, read)?;
        self.write(txn, Stamped { stamp: stamp.clone(), value })?;
        Ok(stamp)
    }

    /// Writes with a given stamp; false, and nothing is written, if what is seen here is above.
    pub fn set_stamped(
        &mut self,
        txn: &mut Txn<'_>,
        stamp: Stamp,
        value: Option<V>,
    ) -> Result<bool> {
        let write = Stamped { stamp, value };
        if self.top().is_some_and(|top| *top >= write) {
            return Ok(false);
        }
        self.write(txn, write)?;
        Ok(true)
    }

    /// The write that wins.
    pub fn top(&self) -> Option<&Stamped<V>> {
        self.values().max()
    }

    /// Its value.
    pub fn get(&self) -> Option<&V> {
        self.top().and_then(|write| write.value.as_ref())
    }
}
