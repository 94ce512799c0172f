//! Which of all events are wanted.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::query::EventQuery;
use crate::stream_id::SEGMENTS;

/// How many groups of segments the stores have an index on.
pub(crate) const GROUPS: u16 = 64;

/// Which of all events a reader wants. The default: all of them.
///
/// The parts are joined by AND, the values of one part by OR.
///
/// ```
/// use potter_eventsourcing::EventFilter;
///
/// let orders = EventFilter::all().event_types(["order.placed", "order.cancelled"]);
/// let of_a_tenant = EventFilter::all().stream_types(["invoice"]).tenant("acme");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub(crate) event_types: Option<BTreeSet<String>>,
    pub(crate) stream_types: Option<BTreeSet<String>>,
    pub(crate) context: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) query: Option<EventQuery>,
    pub(crate) segments: Option<SegmentSet>,
}

impl EventFilter {
    /// All events.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only events of these types.
    #[must_use]
    pub fn event_types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.event_types = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// Only events of streams of these types.
    #[must_use]
    pub fn stream_types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.stream_types = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// Only events of one bounded context: of streams whose type begins with `context` and a dot
    /// (`billing.invoice` is in `billing`).
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// Only events whose metadata name this tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Only events that have all of these tags.
    #[must_use]
    pub fn tags<T: Into<String>>(self, tags: impl IntoIterator<Item = T>) -> Self {
        self.query(EventQuery::tags(tags))
    }

    /// Only events that a query over tags and types wants.
    #[must_use]
    pub fn query(mut self, query: EventQuery) -> Self {
        self.query = Some(query);
        self
    }

    /// Only events of streams in these segments.
    #[must_use]
    pub fn segments(mut self, segments: SegmentSet) -> Self {
        self.segments = Some(segments);
        self
    }

    /// The same, and events of these types too, if it wants certain types only.
    #[must_use]
    pub(crate) fn or_event_types<'a>(mut self, types: impl Iterator<Item = &'a str>) -> Self {
        let more: Vec<_> = types.map(str::to_owned).collect();
        if let Some(types) = &mut self.event_types {
            types.extend(more.iter().cloned());
        }
        if let Some(query) = &mut self.query {
            query.widen(&more);
        }
        self
    }

    /// Is it wanted? What stores with an index answer by that index.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        let stream_type = event.stream_type();
        let within = |set: &Option<BTreeSet<String>>, value: &str| {
            set.as_ref().is_none_or(|set| set.contains(value))
        };
        within(&self.event_types, &event.event_type)
            && within(&self.stream_types, stream_type)
            && self.context.as_ref().is_none_or(|context| {
                stream_type.strip_prefix(context.as_str()).is_some_and(|rest| rest.starts_with('.'))
            })
            && self
                .tenant
                .as_ref()
                .is_none_or(|tenant| event.metadata.tenant.as_ref() == Some(tenant))
            && self.query.as_ref().is_none_or(|query| query.matches(event))
            && self.segments.as_ref().is_none_or(|set| set.contains(event.stream_id.segment()))
    }

    /// Does it want every event?
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// A set of segments: parts of the space of streams, by the hash of their ids.
///
/// A stream is in one of [`SEGMENTS`] fine segments for ever. A projection counts in `count`
/// segments of its own, each a run of `SEGMENTS / count` fine ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSet {
    count: u16,
    members: BTreeSet<u16>,
}

impl SegmentSet {
    /// Those of `count` segments that are in `members`.
    ///
    /// # Errors
    /// `InvalidInput` when `count` is not a power of two up to [`SEGMENTS`], or a member is not
    /// below it.
    pub fn new(count: u16, members: impl IntoIterator<Item = u16>) -> Result<Self> {
        if !count.is_power_of_two() || count > SEGMENTS {
            let message =
                format!("{count} segments: it must be a power of two, {SEGMENTS} at most");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let members: BTreeSet<u16> = members.into_iter().collect();
        if let Some(beyond) = members.iter().find(|member| **member >= count) {
            let message = format!("segment {beyond} of {count}: they count from 0");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(Self { count, members })
    }

    /// Of how many.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Which, in order.
    pub fn members(&self) -> impl Iterator<Item = u16> + '_ {
        self.members.iter().copied()
    }

    /// Is the fine segment in it?
    pub fn contains(&self, fine: u16) -> bool {
        self.members.contains(&(fine / (SEGMENTS / self.count)))
    }

    /// The groups that have all of it: what the index of the stores is on.
    pub(crate) fn groups(&self) -> BTreeSet<u16> {
        if self.count > GROUPS {
            let per_group = self.count / GROUPS;
            return self.members.iter().map(|member| member / per_group).collect();
        }
        let groups = GROUPS / self.count;
        self.members.iter().flat_map(|member| member * groups..(member + 1) * groups).collect()
    }

    /// Is a part of its groups not in it?
    pub(crate) fn is_finer_than_groups(&self) -> bool {
        self.count > GROUPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_exactly_the_segments() {
        for (count, members) in [(1, vec![0]), (4, vec![1, 3]), (64, vec![0, 63]), (64, vec![])] {
            let set = SegmentSet::new(count, members).unwrap();
            let groups = set.groups();
            for fine in 0..SEGMENTS {
                let group = fine / (SEGMENTS / GROUPS);
                assert_eq!(set.contains(fine), groups.contains(&group), "{set:?} {fine}");
            }
        }
        let finer = SegmentSet::new(256, [0, 5]).unwrap();
        assert_eq!(finer.groups(), BTreeSet::from([0, 1]));
        assert!(finer.contains(15) && !finer.contains(16) && finer.contains(80));
    }

    #[test]
    fn counts_are_checked() {
        assert!(SegmentSet::new(0, []).is_err());
        assert!(SegmentSet::new(3, []).is_err());
        assert!(SegmentSet::new(8192, []).is_err());
        assert!(SegmentSet::new(4, [4]).is_err());
    }
}
