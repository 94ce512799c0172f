//! Queries over tags and types, across streams.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;

/// The most tags of one event, and of one item of a query.
pub(crate) const TAGS_MAX: usize = 32;
/// The most items of a query.
const ITEMS_MAX: usize = 64;
/// The most types of one item.
const TYPES_MAX: usize = 64;

/// Which events a decision depends on, whatever streams they are in: those that at least one of
/// its items wants. Without an item it wants none.
///
/// ```
/// use potter_eventsourcing::{EventQuery, QueryItem};
///
/// // What a student's joining a course depends on.
/// let query = EventQuery::new()
///     .item(QueryItem::tags(["course:7"]).event_types(["course.planned", "student.joined"]))
///     .item(QueryItem::tags(["student:3"]).event_types(["student.joined"]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventQuery {
    items: Vec<QueryItem>,
}

/// One item of an [`EventQuery`]: an event must have all of its tags and one of its types. No
/// types: any; no tags: any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryItem {
    pub(crate) tags: BTreeSet<String>,
    pub(crate) types: BTreeSet<String>,
}

impl EventQuery {
    /// Wants nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The events that have all of these tags.
    pub fn tags<T: Into<String>>(tags: impl IntoIterator<Item = T>) -> Self {
        Self::new().item(QueryItem::tags(tags))
    }

    /// Wants also what `item` wants.
    #[must_use]
    pub fn item(mut self, item: QueryItem) -> Self {
        self.items.push(item);
        self
    }

    /// Wants also these types, where an item names some; any, where that are too many.
    pub(crate) fn widen(&mut self, types: &[String]) {
        for item in self.items.iter_mut().filter(|item| !item.types.is_empty()) {
            item.types.extend(types.iter().cloned());
            if item.types.len() > TYPES_MAX {
                item.types.clear();
            }
        }
    }

    /// Does it want the event?
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        self.wants(&event.event_type, &event.tags)
    }

    pub(crate) fn wants(&self, event_type: &str, tags: &BTreeSet<String>) -> bool {
        self.items.iter().any(|item| {
            (item.types.is_empty() || item.types.contains(event_type)) && item.tags.is_subset(tags)
        })
    }

    /// The items.
    pub fn items(&self) -> &[QueryItem] {
        &self.items
    }

    /// Has every item a tag, so that an index finds what it wants?
    pub(crate) fn is_tagged(&self) -> bool {
        self.items.iter().all(|item| !item.tags.is_empty())
    }

    /// All types that it names, if every item names some.
    pub(crate) fn types(&self) -> Option<BTreeSet<String>> {
        let named = self.items.iter().all(|item| !item.types.is_empty());
        named.then(|| self.items.iter().flat_map(|item| item.types.iter().cloned()).collect())
    }

    /// Checks that it is within the limits: 64 items, each of at most 32 tags and 64 types.
    ///
    /// # Errors
    /// `LimitExceeded` when it is not; `InvalidInput` for a tag or type that no event can have.
    pub fn check(&self) -> Result<()> {
        if self.items.len() > ITEMS_MAX {
            return Err(limit(&format!("{} items, {ITEMS_MAX} at most", self.items.len())));
        }
        for item in &self.items {
            if item.tags.len() > TAGS_MAX {
                return Err(limit(&format!(
                    "{} tags in an item, {TAGS_MAX} at most",
                    item.tags.len()
                )));
            }
            if item.types.len() > TYPES_MAX {
                return Err(limit(&format!(
                    "{} types in an item, {TYPES_MAX} at most",
                    item.types.len()
                )));
            }
            if !item.tags.iter().chain(&item.types).all(|name| is_name(name)) {
                let message = "a tag or type of a query has 1 to 255 bytes and no NUL character";
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
        }
        Ok(())
    }
}

impl QueryItem {
    /// The events that have all of these tags.
    pub fn tags<T: Into<String>>(tags: impl IntoIterator<Item = T>) -> Self {
        Self { tags: tags.into_iter().map(Into::into).collect(), types: BTreeSet::new() }
    }

    /// The events of these types. Without tags no index finds them: reading looks through the log,
    /// and an append under such a condition lets nobody else append meanwhile.
    pub fn types<T: Into<String>>(types: impl IntoIterator<Item = T>) -> Self {
        Self { tags: BTreeSet::new(), types: types.into_iter().map(Into::into).collect() }
    }

    /// Only those of one of these types.
    #[must_use]
    pub fn event_types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.types = types.into_iter().map(Into::into).collect();
        self
    }
}

impl From<QueryItem> for EventQuery {
    fn from(item: QueryItem) -> Self {
        Self::new().item(item)
    }
}

/// Can it be the name of a type or a tag?
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.contains('\0')
}

fn limit(what: &str) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("the query has {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(tags: &[&str]) -> BTreeSet<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    #[test]
    fn items_are_ored_tags_anded_types_ored() {
        let query = EventQuery::new()
            .item(QueryItem::tags(["a", "b"]).event_types(["x", "y"]))
            .item(QueryItem::types(["z"]));
        assert!(query.wants("x", &tags(&["a", "b", "c"])));
        assert!(query.wants("y", &tags(&["a", "b"])));
        assert!(!query.wants("x", &tags(&["a"])));
        assert!(!query.wants("w", &tags(&["a", "b"])));
        assert!(query.wants("z", &tags(&[])));
        assert!(!EventQuery::new().wants("x", &tags(&["a"])));
        assert!(EventQuery::from(QueryItem::default()).wants("x", &tags(&[])));
        assert!(!query.is_tagged());
        assert_eq!(query.types(), Some(tags(&["x", "y", "z"])));
        assert_eq!(EventQuery::tags(["a"]).types(), None);
    }

    #[test]
    fn queries_are_bounded() {
        let many: Vec<_> = (0..33).map(|n| n.to_string()).collect();
        assert_eq!(EventQuery::tags(many).check().unwrap_err().kind(), ErrorKind::LimitExceeded);
        let items = (0..65).fold(EventQuery::new(), |query, _| query.item(QueryItem::default()));
        assert_eq!(items.check().unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert_eq!(EventQuery::tags([""]).check().unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
