//! The document of an append, and back.
//!
//! ```json
//! {
//!   "_id": 17, "position": 18,             // its first and its last position
//!   "stream": "order-42", "stream_type": "order", "segment": 680, "group": 10,
//!   "first_version": 3, "version": 4,      // its first and its last version
//!   "recorded_at": ISODate("…"), "tags": ["course:7"],  // all tags of its events
//!   "events": [{
//!     "id": UUID("…"), "position": 17, "version": 3, "type": "order.paid", "schema": 1,
//!     "payload": "{\"cents\":5}", "metadata": "{…}",     // what counts: text, bit for bit
//!     "tenant": "acme", "tags": ["course:7"],
//!     "data": { "cents": 5 }, "meta": { … }              // copies, for queries
//!   }]
//! }
//! ```
//!
//! BSON can't hold all of JSON: the copy has a double for an integer beyond 64 bits, `＄` and `．`
//! (U+FF04, U+FF0E) for a `$` that begins a key and for a dot in one, text for what is nested 80
//! levels deep, and there is none of a payload with a number beyond a double, or half a surrogate
//! pair. If an append is over 16 MiB with its copies, it has none.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime as BsonTime, Document, RawDocument, RawDocumentBuf};
use potter_core::Json;
use serde_json::Value;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::store::append::{Append, Prepared};
use crate::store::plan::Insert;
use crate::stream_id::StreamId;

/// The server's limit for a document, and some room for its own use.
const BYTES_MAX: usize = (16 << 20) - 4096;
/// Of BSON's 100 levels, what the document itself leaves.
const DEPTH_MAX: usize = 80;

/// Is there room for the append in a document, without copies?
pub(crate) fn check_size(append: &Append) -> Result<()> {
    // Field names, numbers, lengths: 137 bytes an event. Tags are there twice.
    let bytes_of = |Prepared { event, metadata, .. }: &Prepared| {
        let tenant = event.metadata.tenant.as_ref().map_or(0, String::len);
        let tags: usize = event.tags.iter().map(|tag| 2 * (tag.len() + 16)).sum();
        let text = event.payload.as_str().len() + metadata.as_str().len();
        text + event.event_type.len() + tenant + tags + 176
    };
    let bytes = append.events.iter().map(bytes_of).sum::<usize>() + 2048;
    if bytes > BYTES_MAX {
        let stream = &append.stream;
        let message = format!(
            "append to stream {stream} refused: it needs {bytes} bytes, {BYTES_MAX} at most: on \
             MongoDB an append is one document"
        );
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(())
}

/// What does not follow from the events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoding {
    pub(crate) recorded_at: BsonTime,
    pub(crate) copies: bool,
    pub(crate) nested_arrays: bool,
}

/// The document of one append; `inserts` are its events.
pub(crate) fn encode(inserts: &[Insert<'_>], encoding: Encoding) -> Result<RawDocumentBuf> {
    let document = raw(&document(inserts, encoding)?)?;
    if document.as_bytes().len() <= BYTES_MAX || !encoding.copies {
        return Ok(document);
    }
    raw(&self::document(inserts, Encoding { copies: false, ..encoding })?)
}

fn raw(document: &Document) -> Result<RawDocumentBuf> {
    RawDocumentBuf::try_from(document).map_err(|source| {
        Error::with_source(ErrorKind::InvalidInput, "an append can't be written as BSON", source)
    })
}

fn document(inserts: &[Insert<'_>], encoding: Encoding) -> Result<Document> {
    let (Some(first), Some(last)) = (inserts.first(), inserts.last()) else {
        return Err(Error::new(ErrorKind::Internal, "an append without events was planned"));
    };
    let stream = first.stream;
    let segment = i32::from(stream.segment());
    let mut document = Document::new();
    document.insert("_id", signed(first.global_position));
    document.insert("position", signed(last.global_position));
    document.insert("stream", stream.as_str());
    document.insert("stream_type", stream.stream_type());
    document.insert("segment", segment);
    document.insert("group", segment >> 6);
    document.insert("first_version", signed(first.version));
    document.insert("version", signed(last.version));
    document.insert("recorded_at", encoding.recorded_at);
    let tags: BTreeSet<&str> =
        inserts.iter().flat_map(|one| &one.event.event.tags).map(String::as_str).collect();
    if !tags.is_empty() {
        document.insert("tags", tags.into_iter().collect::<Vec<_>>());
    }
    let events: Vec<_> = inserts.iter().map(|insert| event(insert, encoding)).collect();
    document.insert("events", events);
    Ok(document)
}

fn event(insert: &Insert<'_>, encoding: Encoding) -> Bson {
    let Prepared { event, metadata, .. } = insert.event;
    let mut document = Document::new();
    document.insert("id", binary(event.event_id));
    document.insert("position", signed(insert.global_position));
    document.insert("version", signed(insert.version));
    document.insert("type", event.event_type.as_str());
    document.insert("schema", i64::from(event.schema_version));
    document.insert("payload", event.payload.as_str());
    document.insert("metadata", metadata.as_str());
    if let Some(tenant) = &event.metadata.tenant {
        document.insert("tenant", tenant.as_str());
    }
    if !event.tags.is_empty() {
        document.insert("tags", event.tags.iter().map(String::as_str).collect::<Vec<_>>());
    }
    if encoding.copies {
        for (key, json) in [("data", &event.payload), ("meta", metadata)] {
            if let Ok(value) = serde_json::from_str::<Value>(json.as_str()) {
                document.insert(key, copy(value, encoding.nested_arrays, 0));
            }
        }
    }
    Bson::Document(document)
}

pub(crate) fn binary(id: Uuid) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: id.as_bytes().to_vec() })
}

fn copy(value: Value, nested_arrays: bool, depth: usize) -> Bson {
    match value {
        Value::Null => Bson::Null,
        Value::Bool(value) => Bson::Boolean(value),
        Value::String(text) => Bson::String(text),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Bson::Int64(integer),
            (None, Some(double)) if double.is_finite() => Bson::Double(double),
            _ => Bson::String(number.to_string()),
        },
        Value::Array(_) | Value::Object(_) if depth >= DEPTH_MAX => Bson::String(value.to_string()),
        Value::Array(values) => {
            let of = |value: Value| match value {
                Value::Array(_) if !nested_arrays => Bson::String(value.to_string()),
                value => copy(value, nested_arrays, depth + 1),
            };
            Bson::Array(values.into_iter().map(of).collect())
        }
        Value::Object(fields) => {
            let of = |(name, value)| (key(name), copy(value, nested_arrays, depth + 1));
            Bson::Document(fields.into_iter().map(of).collect())
        }
    }
}

fn key(name: String) -> String {
    if !name.starts_with('$') && !name.contains(['.', '\0']) {
        return name;
    }
    let name = name.replace('.', "\u{ff0e}").replace('\0', "\u{fffd}");
    match name.strip_prefix('$') {
        Some(rest) => format!("\u{ff04}{rest}"),
        None => name,
    }
}

/// The events of a document, in order, that `wanted` takes by position and version.
pub(crate) fn decode(
    document: &RawDocument,
    wanted: impl Fn(u64, u64) -> bool,
) -> Result<Vec<RecordedEvent>> {
    let stream_id = StreamId::parse(text(document, "stream")?)
        .map_err(|source| corrupt("a stored stream id is malformed", source))?;
    let recorded_at = document.get_datetime("recorded_at").map_err(unreadable)?.timestamp_millis();
    let recorded_at = DateTime::<Utc>::from_timestamp_millis(recorded_at)
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "a stored time is out of range"))?;
    let mut events = Vec::new();
    for stored in document.get_array("events").map_err(unreadable)? {
        let stored = stored.map_err(|source| corrupt("a stored append is malformed", source))?;
        let Some(stored) = stored.as_document() else {
            return Err(Error::new(ErrorKind::Corrupt, "a stored event is no document"));
        };
        let (position, version) = (unsigned(stored, "position")?, unsigned(stored, "version")?);
        if !wanted(position, version) {
            continue;
        }
        events.push(RecordedEvent {
            event_id: uuid(stored, "id")?,
            stream_id: stream_id.clone(),
            version,
            global_position: position,
            event_type: text(stored, "type")?.to_owned(),
            schema_version: u32::try_from(unsigned(stored, "schema")?)
                .map_err(|source| corrupt("a stored schema version is out of range", source))?,
            payload: json(stored, "payload")?,
            metadata: json(stored, "metadata")?.get()?,
            tags: tags(stored)?,
            recorded_at,
        });
    }
    Ok(events)
}

fn tags(stored: &RawDocument) -> Result<BTreeSet<String>> {
    let mut tags = BTreeSet::new();
    let Ok(array) = stored.get_array("tags") else { return Ok(tags) };
    for tag in array {
        let tag = tag.map_err(|source| corrupt("stored tags are malformed", source))?;
        tags.extend(tag.as_str().map(str::to_owned));
    }
    Ok(tags)
}

pub(crate) fn text<'a>(document: &'a RawDocument, key: &str) -> Result<&'a str> {
    document.get_str(key).map_err(unreadable)
}

pub(crate) fn json(document: &RawDocument, key: &str) -> Result<Json> {
    Ok(Json::parse(text(document, key)?.to_owned())?)
}

pub(crate) fn uuid(document: &RawDocument, key: &str) -> Result<Uuid> {
    let stored = document.get_binary(key).map_err(unreadable)?;
    Uuid::from_slice(stored.bytes).map_err(|source| corrupt("a stored id is no UUID", source))
}

/// A number that is never negative. Tools that edit by hand like to change the type of numbers.
pub(crate) fn unsigned(document: &RawDocument, key: &str) -> Result<u64> {
    let number = match document.get_i64(key) {
        Ok(number) => number,
        Err(error) => document.get_i32(key).map(i64::from).map_err(|_| unreadable(error))?,
    };
    u64::try_from(number).map_err(|source| corrupt("a stored number is negative", source))
}

/// BSON has no unsigned numbers: what is beyond is "no limit".
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unreadable(source: mongodb::bson::error::Error) -> Error {
    corrupt("a stored document is not of the form that this library writes", source)
}

fn corrupt(message: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Corrupt, message, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(text: &str, nested_arrays: bool) -> Bson {
        copy(serde_json::from_str(text).unwrap(), nested_arrays, 0)
    }

    #[test]
    fn copies_keep_what_bson_can_hold() {
        let Bson::Document(copy) = copied(
            r#"{"n": 5, "big": 18446744073709551615, "f": 1.5, "t": "x", "a": [1, null, true],
                "$set": 1, "a.b": {"c\u0000": 2}}"#,
            true,
        ) else {
            panic!("a document")
        };
        assert_eq!(copy.get_i64("n").unwrap(), 5);
        assert_eq!(copy.get_f64("big").unwrap(), 18_446_744_073_709_551_615_f64);
        assert_eq!(copy.get_f64("f").unwrap(), 1.5);
        assert_eq!(copy.get_array("a").unwrap().len(), 3);
        assert_eq!(copy.get_i64("\u{ff04}set").unwrap(), 1);
        let nested = copy.get_document("a\u{ff0e}b").unwrap();
        assert_eq!(nested.get_i64("c\u{fffd}").unwrap(), 2);
        assert!(raw(&copy).is_ok());
    }

    #[test]
    fn deep_and_nested_values_become_text() {
        let deep = format!("{}1{}", "[".repeat(120), "]".repeat(120));
        let mut copy = &copied(&deep, true);
        let mut depth = 0;
        while let Bson::Array(inner) = copy {
            copy = &inner[0];
            depth += 1;
        }
        assert_eq!(depth, DEPTH_MAX);
        assert!(matches!(copy, Bson::String(text) if text.starts_with('[')));
        let flat = copied("[[1, 2], 3]", false);
        assert_eq!(flat, Bson::Array(vec![Bson::String("[1,2]".to_owned()), Bson::Int64(3)]));
    }
}
