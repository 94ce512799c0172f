//! The call of `potter_append`: its arguments and its answers.
//!
//! Arrays are bound as the text of array literals, so that the call goes through
//! [`Database`](potter_core::Database) and [`Tx`](potter_core::Tx) like every other statement.

use potter_core::{Row, SqlValue, values};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Appended;
use crate::store::append::{Append, Prepared};
use crate::store::rows::unsigned;

pub(super) const APPEND: &str = "SELECT idx::bigint AS idx, outcome, first_version, last_version, last_position, current_version
     FROM potter_append($1::text[], $2::bigint[], $3::integer[], $4::smallint[],
                        $5::uuid[], $6::text[], $7::integer[], $8::text[], $9::text[])";

pub(super) fn values(appends: &[Append]) -> Vec<SqlValue> {
    let events = || appends.iter().flat_map(|append| &append.events);
    let text = |read: fn(&Prepared) -> &str| quoted(events().map(read));
    values![
        quoted(appends.iter().map(|append| append.stream.as_str())),
        plain(appends.iter().map(|append| append.expected.code())),
        plain(appends.iter().map(|append| append.events.len())),
        plain(appends.iter().map(|append| append.stream.segment())),
        plain(events().map(|new| new.event.event_id)),
        text(|new| &new.event.event_type),
        plain(events().map(|new| new.event.schema_version)),
        text(|new| new.event.payload.as_str()),
        text(|new| new.metadata.as_str()),
    ]
    .to_vec()
}

pub(super) fn answers(appends: &[Append], rows: &[Row]) -> Result<Vec<Result<Appended>>> {
    if rows.len() != appends.len() {
        let message = format!("potter_append answered {} of {}", rows.len(), appends.len());
        return Err(Error::new(ErrorKind::Internal, message));
    }
    appends.iter().zip(1..).zip(rows).map(|((append, idx), row)| answer(append, idx, row)).collect()
}

fn answer(append: &Append, idx: i64, row: &Row) -> Result<Result<Appended>> {
    let outcome = row.text("outcome")?;
    if row.i64("idx")? != idx {
        return Err(Error::new(ErrorKind::Internal, "potter_append answered out of order"));
    }
    Ok(match outcome.as_str() {
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
        _ => {
            let message = format!("potter_append answered \"{outcome}\", which is unknown");
            Err(Error::new(ErrorKind::Internal, message))
        }
    })
}

/// An array literal of numbers or ids.
fn plain(items: impl Iterator<Item = impl std::fmt::Display>) -> String {
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

/// An array literal of texts.
fn quoted<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::from("{");
    for item in items {
        if out.len() > 1 {
            out.push(',');
        }
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
        assert_eq!(quoted([r#"a"b\"#, "", "ü,{}"].into_iter()), r#"{"a\"b\\","","ü,{}"}"#);
        assert_eq!(plain([1, -2].into_iter()), "{1,-2}");
        assert_eq!(plain(std::iter::empty::<i64>()), "{}");
    }
}
