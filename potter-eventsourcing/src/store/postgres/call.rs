//! The calls of `potter_append` and `potter_append_group`: their arguments and answers.
//!
//! Arrays are bound as the text of array literals, so that the call goes through
//! [`Database`](potter_core::Database) and [`Tx`](potter_core::Tx) like every other statement.

use std::collections::HashSet;

use potter_core::{Json, Row, SqlValue, values};

use super::locks::Locks;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Appended;
use crate::store::append::{Append, Prepared};
use crate::store::condition::{AppendCondition, Batch};
use crate::store::rows::{signed, unsigned};

/// A statement and what is bound to it.
pub(super) type Call = (&'static str, Vec<SqlValue>);

macro_rules! answers {
    ($call:literal) => {
        concat!(
            "SELECT idx::bigint AS idx, outcome, first_version, last_version, last_position, current_version FROM ",
            $call
        )
    };
}

const EACH: &str = answers!(
    "potter_append($1::text[], $2::bigint[], $3::integer[], $4::smallint[], $5::uuid[], $6::text[],
                   $7::integer[], $8::text[], $9::text[], $10::text[], $11)"
);

const GROUP: &str = answers!(
    "potter_append_group($1::text[], $2::bigint[], $3::integer[], $4::smallint[], $5::integer[],
                         $6::integer[], $7::uuid[], $8::text[], $9::integer[], $10::text[],
                         $11::text[], $12::text[], $13, $14, $15::json, $16, $17::bigint[], $18)"
);

/// A group of appends, each with its own answer. Unless it is to `look` for ids that are there, a
/// unique violation says that there is one: fit only for a transaction of its own.
pub(super) fn group(appends: &[Append], locks: Locks, look: bool) -> Result<Call> {
    let (mut streams, mut ids) = (HashSet::new(), HashSet::new());
    let plain = appends.iter().all(|append| {
        streams.insert(&append.stream)
            && append.events.iter().all(|new| ids.insert(new.event.event_id))
    });
    if plain {
        let order: Vec<_> = appends.iter().enumerate().collect();
        return Ok((GROUP, group_values(appends, &order, locks, None, look)?));
    }
    let events = || appends.iter().flat_map(|append| &append.events);
    let [ids, types, schema_versions, payloads, metadata] = arrays(events());
    let values = values![
        quoted(appends.iter().map(|append| Some(append.stream.as_str()))),
        plain_array(appends.iter().map(|append| append.expected.code())),
        plain_array(appends.iter().map(|append| append.events.len())),
        plain_array(appends.iter().map(|append| append.stream.segment())),
        ids,
        types,
        schema_versions,
        payloads,
        metadata,
        tags(appends, events()),
        locks.name(),
    ];
    Ok((EACH, values.to_vec()))
}

/// An append to several streams, all or nothing.
pub(super) fn batch(batch: &Batch, locks: Locks) -> Result<Call> {
    let order: Vec<_> = batch.in_order().collect();
    Ok((GROUP, group_values(&batch.appends, &order, locks, Some(&batch.condition), true)?))
}

/// `appends` are sorted by stream; `order` has them with their places, in the order in which their
/// events get positions. With a condition it is all or nothing.
fn group_values(
    appends: &[Append],
    order: &[(usize, &Append)],
    locks: Locks,
    condition: Option<&AppendCondition>,
    look: bool,
) -> Result<Vec<SqlValue>> {
    let events = || order.iter().flat_map(|(_, append)| &append.events);
    let places = order
        .iter()
        .flat_map(|(place, append)| std::iter::repeat_n(place + 1, append.events.len()));
    let [ids, types, schema_versions, payloads, metadata] = arrays(events());
    let looked = condition.filter(|condition| !condition.is_none());
    Ok(values![
        quoted(appends.iter().map(|append| Some(append.stream.as_str()))),
        plain_array(appends.iter().map(|append| append.expected.code())),
        plain_array(appends.iter().map(|append| append.events.len())),
        plain_array(appends.iter().map(|append| append.stream.segment())),
        plain_array(places),
        plain_array(order.iter().flat_map(|(_, append)| 1..=append.events.len())),
        ids,
        types,
        schema_versions,
        payloads,
        metadata,
        tags(appends, events()),
        locks.name(),
        condition.is_some(),
        looked.map(|condition| Json::of(condition.query.items())).transpose()?,
        looked.map_or(0, |condition| signed(condition.after)),
        plain_array(looked.iter().flat_map(|condition| &condition.seen)),
        look,
    ]
    .to_vec())
}

/// The ids, types, schema versions, payloads and metadata of events, an array literal each.
pub(super) fn arrays<'a>(events: impl Iterator<Item = &'a Prepared> + Clone) -> [SqlValue; 5] {
    [
        plain_array(events.clone().map(|new| new.event.event_id)),
        quoted(events.clone().map(|new| Some(new.event.event_type.as_str()))),
        plain_array(events.clone().map(|new| new.event.schema_version)),
        quoted(events.clone().map(|new| Some(new.event.payload.as_str()))),
        quoted(events.map(|new| Some(new.metadata.as_str()))),
    ]
    .map(SqlValue::from)
}

fn tags<'a>(appends: &[Append], events: impl Iterator<Item = &'a Prepared>) -> Option<String> {
    let tagged = appends.iter().any(Append::is_tagged);
    tagged.then(|| quoted(events.map(|new| new.tags.as_ref().map(Json::as_str))))
}

pub(super) fn answers(appends: &[Append], rows: &[Row]) -> Result<Vec<Result<Appended>>> {
    counted(appends, rows)?;
    let answers = appends.iter().zip(1..).zip(rows);
    answers
        .map(|((append, idx), row)| {
            let outcome = outcome_of(row, idx)?;
            answer(append, &outcome, row)?.ok_or_else(|| unknown(&outcome))
        })
        .collect()
}

/// The answer to an append to several streams.
pub(super) fn batch_answer(batch: &Batch, rows: &[Row]) -> Result<Vec<Appended>> {
    counted(&batch.appends, rows)?;
    let (mut answers, mut held) = (Vec::with_capacity(rows.len()), false);
    for ((append, idx), row) in batch.appends.iter().zip(1..).zip(rows) {
        let outcome = outcome_of(row, idx)?;
        match outcome.as_str() {
            "held" => held = true,
            "condition" => {
                return Err(AppendCondition::broken(unsigned(row, "current_version")?));
            }
            "isolation" => {
                let message = "an append on a condition needs a transaction that is READ COMMITTED";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            _ => {
                answers.push(answer(append, &outcome, row)?.ok_or_else(|| unknown(&outcome))?);
            }
        }
    }
    if held && answers.iter().all(Result::is_ok) {
        return Err(batch.partly_repeated());
    }
    batch.answers(answers)
}

fn counted(appends: &[Append], rows: &[Row]) -> Result<()> {
    if rows.len() == appends.len() {
        return Ok(());
    }
    let message = format!("potter_append answered {} of {}", rows.len(), appends.len());
    Err(Error::new(ErrorKind::Internal, message))
}

fn outcome_of(row: &Row, idx: i64) -> Result<String> {
    if row.i64("idx")? != idx {
        return Err(Error::new(ErrorKind::Internal, "potter_append answered out of order"));
    }
    Ok(row.text("outcome")?)
}

fn unknown(outcome: &str) -> Error {
    let message = format!("potter_append answered \"{outcome}\", which is unknown");
    Error::new(ErrorKind::Internal, message)
}

/// `None` for an outcome that is not one of a single append.
fn answer(append: &Append, outcome: &str, row: &Row) -> Result<Option<Result<Appended>>> {
    Ok(Some(match outcome {
        "appended" | "repeated" => Ok(Appended {
            first_version: unsigned(row, "first_version")?,
            last_version: unsigned(row, "last_version")?,
            last_position: unsigned(row, "last_position")?,
            duplicate: outcome == "repeated",
        }),
        "conflict" => {
            let current = row.opt_i64("current_version")?.unwrap_or(0);
            Err(append.conflict(current.unsigned_abs()))
        }
        "duplicate_event_id" => Err(append.duplicate_event_id()),
        _ => return Ok(None),
    }))
}

/// An array literal of numbers or ids.
fn plain_array(items: impl Iterator<Item = impl std::fmt::Display>) -> String {
    use std::fmt::Write;
    let mut out = String::from("{");
    for item in items {
        if out.len() > 1 {
            out.push(',');
        }
        let _ = write!(out, "{item}");
    }
    out.push('}');
    out
}

/// An array literal of texts; `None` is NULL.
fn quoted<'a>(items: impl Iterator<Item = Option<&'a str>>) -> String {
    let mut out = String::from("{");
    for item in items {
        if out.len() > 1 {
            out.push(',');
        }
        let Some(item) = item else {
            out.push_str("NULL");
            continue;
        };
        out.push('"');
        let mut rest = item;
        while let Some(at) = rest.find(['"', '\\']) {
            out.push_str(&rest[..at]);
            out.push('\\');
            out.push_str(&rest[at..=at]);
            rest = &rest[at + 1..];
        }
        out.push_str(rest);
        out.push('"');
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_literals_are_escaped() {
        let texts = [Some(r#"a"b\"#), Some(""), None, Some("ü,{}"), Some("NULL")];
        assert_eq!(quoted(texts.into_iter()), r#"{"a\"b\\","",NULL,"ü,{}","NULL"}"#);
        assert_eq!(plain_array([1, -2].into_iter()), "{1,-2}");
        assert_eq!(plain_array(std::iter::empty::<i64>()), "{}");
    }
}
