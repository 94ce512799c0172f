//! Operations on what carries stamps: registers and maps.

use std::time::Duration;

use potter_crdt::{
    ActorId, Context, Hlc, JsonValue, LwwMap, LwwStore, OrMap, Stamp, Stamped, Timestamp, Writer,
};

use super::{Applied, Author, JoinIn, Refused, changed, json_of, key, with_own};
use crate::document::{Operation, Register};

/// What became of an operation; `None` if the type has no such one.
type Done = Result<Option<Applied>, Refused>;

pub(super) fn lww_register(
    state: &mut Register,
    op: &Operation,
    seen: Option<Context>,
    author: &mut Author<'_>,
    by: &mut Writer,
) -> Done {
    let value = match op.kind.as_str() {
        "set" => Some(json_of(op)),
        "delete" | "clear" => None,
        _ => return Ok(None),
    };
    write_register(state, value, op, seen, author, by, true).map(Some)
}

pub(super) fn mv_register(
    state: &mut Register,
    op: &Operation,
    seen: Option<Context>,
    author: &mut Author<'_>,
    by: &mut Writer,
) -> Done {
    if !matches!(op.kind.as_str(), "set" | "write") {
        return Ok(None);
    }
    write_register(state, Some(json_of(op)), op, seen, author, by, false).map(Some)
}

pub(super) fn lww_map(
    state: &mut LwwMap<String, JsonValue>,
    op: &Operation,
    seen: Option<Context>,
    author: &mut Author<'_>,
    by: &mut Writer,
) -> Done {
    let value = match op.kind.as_str() {
        "set" | "put" => Some(json_of(op)),
        "delete" | "remove" => None,
        _ => return Ok(None),
    };
    write_entry(state, value, op, seen, author, by).map(Some)
}

pub(super) fn or_map(
    state: &mut OrMap<String, LwwStore<JsonValue>>,
    op: &Operation,
    seen: Option<Context>,
    author: &mut Author<'_>,
    by: &mut Writer,
) -> Done {
    match op.kind.as_str() {
        "set" | "put" => {
            let (stamp, clamped_by) = admit(op, author)?;
            let key = key(op)?;
            let value = Stamped { stamp: stamp.clone(), value: Some(json_of(op)) };
            let mut view = state.seen_by(&with_own(seen.unwrap_or_default(), by)?);
            view.update(by, key, |entry, txn| entry.write(txn, value))?;
            let changed = state.join_in(&view)?;
            Ok(Some(Applied { changed, stamp: Some(stamp), clamped_by, ..Applied::default() }))
        }
        "remove" | "delete" => {
            let key = key(op)?;
            let Some(seen) = seen else { return Ok(Some(changed(state.remove(by, &key)?))) };
            let mut view = state.seen_by(&with_own(seen, by)?);
            view.remove(by, &key)?;
            Ok(Some(changed(state.join_in(&view)?)))
        }
        _ => Ok(None),
    }
}

/// The stamp under which a write counts.
fn admit(op: &Operation, author: &mut Author<'_>) -> Result<(Stamp, Option<Duration>), Refused> {
    let node = ActorId::new(author.device)?;
    let Some(text) = &op.timestamp else { return Ok((Stamp::new(author.now, node), None)) };
    let at = Timestamp::parse(text)
        .map_err(|error| Refused::new("invalid_timestamp", error.to_string()))?;
    let claimed = Stamp { at, counter: op.counter.unwrap_or(0), node };
    let admitted = author.guard.admit(author.now, &claimed)?;
    Ok((admitted.effective, admitted.clamped_by))
}

/// The smallest stamp at or above `stamp` that is above `read`.
fn above(stamp: Stamp, read: Option<&Stamp>) -> Result<Stamp, Refused> {
    match read {
        Some(read) if *read >= stamp => Ok(Hlc::resume(stamp.node, read).now(stamp.at)?),
        _ => Ok(stamp),
    }
}

/// Who reads and then writes wins over what it read. What only the same device wrote counts as
/// read when the instants are equal: its clock is coarse, its order is not.
fn lww_stamp(
    op: &Operation,
    author: &mut Author<'_>,
    top: Option<&Stamped<JsonValue>>,
) -> Result<(Stamp, Option<Duration>), Refused> {
    let (stamp, clamped_by) = admit(op, author)?;
    let read = top.map(|write| &write.stamp).filter(|top| {
        let again = top.node == stamp.node && top.at == stamp.at && op.counter.is_none();
        op.context.is_some() || again || op.timestamp.is_none()
    });
    Ok((above(stamp, read)?, clamped_by))
}

fn write_register(
    register: &mut Register,
    value: Option<JsonValue>,
    op: &Operation,
    seen: Option<Context>,
    author: &mut Author<'_>,
    by: &mut Writer,
    last_wins: bool,
) -> Result<Applied, Refused> {
    let mut view = register.seen_by(&with_own(seen.unwrap_or_default(), by)?);
    if view.store().values().any(|write| is_same(op, write, &value, author)) {
        return Ok(Applied { repeated: true, ..Applied::default() });
    }
    let (stamp, clamped_by) =
        if last_wins { lww_stamp(op, author, view.store().top())? } else { admit(op, author)? };
    let wrote = view.edit(by, |store, txn| {
        if last_wins {
            return store.set_stamped(txn, stamp.clone(), value);
        }
        store.write(txn, Stamped { stamp: stamp.clone(), value })?;
        Ok(true)
    })?;
    let changed = wrote && register.join_in(&view)?;
    Ok(Applied { changed, stamp: Some(stamp), clamped_by, superseded: !wrote, repeated: false })
}

fn write_entry(
    map: &mut LwwMap<String, JsonValue>,
    value: Option<JsonValue>,
    op: &Operation,
    seen: Option<Context>,
    author: &mut Author<'_>,
    by: &mut Writer,
) -> Result<Applied, Refused> {
    let key = key(op)?;
    let mut view = map.seen_by(&with_own(seen.unwrap_or_default(), by)?);
    if view.top(&key).is_some_and(|write| is_same(op, write, &value, author)) {
        return Ok(Applied { repeated: true, ..Applied::default() });
    }
    let (stamp, clamped_by) = lww_stamp(op, author, view.top(&key))?;
    let wrote = view.put_stamped(by, stamp.clone(), key, value)?;
    let changed = wrote && map.join_in(&view)?;
    Ok(Applied { changed, stamp: Some(stamp), clamped_by, superseded: !wrote, repeated: false })
}

/// Without an id, a write that comes again is known by its instant and value.
fn is_same(
    op: &Operation,
    write: &Stamped<JsonValue>,
    value: &Option<JsonValue>,
    author: &Author<'_>,
) -> bool {
    let at = op.timestamp.as_deref().and_then(|text| Timestamp::parse(text).ok());
    op.op_id.is_none()
        && write.stamp.node.as_str() == author.device
        && Some(write.stamp.at) == at
        && write.stamp.counter == op.counter.unwrap_or(0)
        && write.value == *value
}
