//! Both formats of the types that have no causal context.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use crate::causal::counter::{get_numbers, put_numbers, updown_from_json, updown_to_json, valid};
use crate::causal::register::{get_stamp, put_stamp, stamp_from_json, stamp_to_json};
use crate::codec::{Codec, Decoder, Encoder, json};
use crate::counter::bounded::Rights;
use crate::counter::entries::Entries;
use crate::counter::pn_counter::UpDown;
use crate::counter::resettable::ResetRow;
use crate::{
    BoundedCounter, Error, GCounter, GSet, LwwRegister, PnCounter, ResettableCounter, Result,
    TwoPhaseSet, Value, VectorClock,
};

/// A row of a table by actor.
trait Row: Clone + Default + PartialEq {
    fn put(&self, out: &mut Encoder);
    fn get(input: &mut Decoder<'_>) -> Result<Self>;
    fn to_json(&self) -> Json;
    fn from_json(value: &Json) -> Result<Self>;
}

impl Row for u64 {
    fn put(&self, out: &mut Encoder) {
        out.uint(*self);
    }

    fn get(input: &mut Decoder<'_>) -> Result<Self> {
        input.uint()
    }

    fn to_json(&self) -> Json {
        json::from_int(*self)
    }

    fn from_json(value: &Json) -> Result<Self> {
        json::int(value)
    }
}

impl Row for UpDown {
    fn put(&self, out: &mut Encoder) {
        out.uint(self.up);
        out.uint(self.down);
    }

    fn get(input: &mut Decoder<'_>) -> Result<Self> {
        within(Self { up: input.uint()?, down: input.uint()? })
    }

    fn to_json(&self) -> Json {
        updown_to_json(*self)
    }

    fn from_json(value: &Json) -> Result<Self> {
        within(updown_from_json(value)?)
    }
}

fn within(row: UpDown) -> Result<UpDown> {
    match row.up.checked_add(row.down) {
        Some(_) => Ok(row),
        None => Err(Error::malformed("a row of a counter is out of bounds")),
    }
}

impl Row for ResetRow {
    fn put(&self, out: &mut Encoder) {
        put_numbers(self, out);
    }

    fn get(input: &mut Decoder<'_>) -> Result<Self> {
        let row = get_numbers(input)?;
        valid(&row).map(|()| row)
    }

    fn to_json(&self) -> Json {
        json::make_object([
            ("counted", updown_to_json(self.counted)),
            ("reset", updown_to_json(self.reset)),
        ])
    }

    fn from_json(value: &Json) -> Result<Self> {
        let object = json::object(value)?;
        let counted = updown_from_json(json::field(object, "counted")?)?;
        let reset = updown_from_json(json::field(object, "reset")?)?;
        let row = Self { counted, reset };
        valid(&row).map(|()| row)
    }
}

impl Row for Rights {
    fn put(&self, out: &mut Encoder) {
        out.uint(self.added);
        out.uint(self.spent);
        put_entries(&self.given, out);
    }

    fn get(input: &mut Decoder<'_>) -> Result<Self> {
        let (added, spent) = (input.uint()?, input.uint()?);
        Ok(Self { added, spent, given: get_entries(input)? })
    }

    fn to_json(&self) -> Json {
        json::make_object([
            ("added", json::from_int(self.added)),
            ("given", entries_to_json(&self.given)),
            ("spent", json::from_int(self.spent)),
        ])
    }

    fn from_json(value: &Json) -> Result<Self> {
        let object = json::object(value)?;
        Ok(Self {
            added: json::int(json::field(object, "added")?)?,
            spent: json::int(json::field(object, "spent")?)?,
            given: entries_from_json(json::field(object, "given")?)?,
        })
    }
}

fn put_entries<T: Row>(entries: &Entries<T>, out: &mut Encoder) {
    out.length(entries.len());
    for (actor, row) in entries.iter() {
        out.actor(actor);
        row.put(out);
    }
}

fn get_entries<T: Row>(input: &mut Decoder<'_>) -> Result<Entries<T>> {
    let mut rows = Vec::new();
    for _ in 0..input.length()? {
        rows.push((input.actor()?, T::get(input)?));
    }
    table(rows)
}

fn entries_to_json<T: Row>(entries: &Entries<T>) -> Json {
    let rows = entries.iter().map(|(actor, row)| (actor.as_str().to_owned(), row.to_json()));
    Json::Object(rows.collect::<Map<_, _>>())
}

fn entries_from_json<T: Row>(value: &Json) -> Result<Entries<T>> {
    let mut rows = Vec::new();
    for (name, row) in json::object(value)? {
        rows.push((json::actor_text(name)?, T::from_json(row)?));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    table(rows)
}

fn table<T: Row>(rows: Vec<(crate::ActorId, T)>) -> Result<Entries<T>> {
    let rising = rows.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if !rising || rows.iter().any(|(_, row)| *row == T::default()) {
        return Err(Error::malformed("the rows of a table are out of order or empty"));
    }
    Ok(Entries::from_sorted(rows))
}

macro_rules! table_codec {
    ($($type:ident, $name:literal, $tag:literal;)*) => {$(
        impl Codec for $type {
            const TYPE: &'static str = $name;
            const TAG: u8 = $tag;

            fn encode_body(&self, out: &mut Encoder) {
                put_entries(&self.entries, out);
            }

            fn decode_body(input: &mut Decoder<'_>) -> Result<Self> {
                Ok(Self { entries: get_entries(input)? })
            }

            fn body_to_json(&self) -> Json {
                entries_to_json(&self.entries)
            }

            fn body_from_json(value: &Json) -> Result<Self> {
                Ok(Self { entries: entries_from_json(value)? })
            }
        }
    )*};
}

table_codec! {
    VectorClock, "VectorClock", 1;
    GCounter, "GCounter", 2;
    PnCounter, "PNCounter", 3;
    ResettableCounter, "ResettableCounter", 4;
    BoundedCounter, "BoundedCounter", 5;
}

/// `{"value":…,"timestamp":"…","node_id":"…"}`, `null` when nothing was written.
impl<V: Value> Codec for LwwRegister<V> {
    const TYPE: &'static str = "LWWRegister";
    const TAG: u8 = 6;

    fn encode_body(&self, out: &mut Encoder) {
        out.byte(u8::from(self.entry.is_some()));
        if let Some((stamp, value)) = &self.entry {
            put_stamp(stamp, out);
            value.encode(out);
        }
    }

    fn decode_body(input: &mut Decoder<'_>) -> Result<Self> {
        if !bool::decode(input)? {
            return Ok(Self::default());
        }
        let stamp = get_stamp(input)?;
        Ok(Self { entry: Some((stamp, V::decode(input)?)) })
    }

    fn body_to_json(&self) -> Json {
        let Some((stamp, value)) = &self.entry else { return Json::Null };
        let mut out = stamp_to_json(stamp);
        if let Json::Object(object) = &mut out {
            object.insert("value".into(), value.to_json());
        }
        out
    }

    fn body_from_json(value: &Json) -> Result<Self> {
        if value.is_null() {
            return Ok(Self::default());
        }
        let stamp = stamp_from_json(value)?;
        let value = V::from_json(json::field(json::object(value)?, "value")?)?;
        Ok(Self { entry: Some((stamp, value)) })
    }
}

fn put_set<T: Value>(set: &BTreeSet<T>, out: &mut Encoder) {
    out.length(set.len());
    set.iter().for_each(|element| element.encode(out));
}

fn get_set<T: Value>(input: &mut Decoder<'_>) -> Result<BTreeSet<T>> {
    let mut out = BTreeSet::new();
    for _ in 0..input.length()? {
        let element = T::decode(input)?;
        if out.last().is_some_and(|last| *last >= element) {
            return Err(Error::malformed("the elements of a set are not in order"));
        }
        out.insert(element);
    }
    Ok(out)
}

fn set_to_json<T: Value>(set: &BTreeSet<T>) -> Json {
    Json::Array(set.iter().map(Value::to_json).collect())
}

fn set_from_json<T: Value>(value: &Json) -> Result<BTreeSet<T>> {
    json::array(value)?.iter().map(T::from_json).collect()
}

impl<T: Value> Codec for GSet<T> {
    const TYPE: &'static str = "GSet";
    const TAG: u8 = 13;

    fn encode_body(&self, out: &mut Encoder) {
        put_set(&self.elements, out);
    }

    fn decode_body(input: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self { elements: get_set(input)? })
    }

    fn body_to_json(&self) -> Json {
        set_to_json(&self.elements)
    }

    fn body_from_json(value: &Json) -> Result<Self> {
        Ok(Self { elements: set_from_json(value)? })
    }
}

impl<T: Value> Codec for TwoPhaseSet<T> {
    const TYPE: &'static str = "TwoPhaseSet";
    const TAG: u8 = 14;

    fn encode_body(&self, out: &mut Encoder) {
        put_set(&self.added, out);
        put_set(&self.removed, out);
    }

    fn decode_body(input: &mut Decoder<'_>) -> Result<Self> {
        phases(get_set(input)?, get_set(input)?)
    }

    fn body_to_json(&self) -> Json {
        json::make_object([
            ("added", set_to_json(&self.added)),
            ("removed", set_to_json(&self.removed)),
        ])
    }

    fn body_from_json(value: &Json) -> Result<Self> {
        let object = json::object(value)?;
        let added = set_from_json(json::field(object, "added")?)?;
        phases(added, set_from_json(json::field(object, "removed")?)?)
    }
}

fn phases<T: Value>(added: BTreeSet<T>, removed: BTreeSet<T>) -> Result<TwoPhaseSet<T>> {
    if !removed.is_subset(&added) {
        return Err(Error::malformed("an element is removed that was never added"));
    }
    Ok(TwoPhaseSet { added, removed })
}
