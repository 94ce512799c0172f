//! Events in the order of their numbers, though they arrive in another.

use std::collections::BTreeMap;

use crate::history::Event;

/// Holds an event back until all with lower numbers are there.
#[derive(Default)]
pub(crate) struct InOrder {
    next: u64,
    /// `None`: the number was taken and is not used.
    waiting: BTreeMap<u64, Option<Event>>,
    last_time: i64,
}

impl InOrder {
    /// Adds one; what is complete now goes to `out`.
    pub(crate) fn push(&mut self, number: u64, event: Option<Event>, out: &mut Vec<Event>) {
        self.waiting.insert(number, event);
        while let Some(event) = self.waiting.remove(&self.next) {
            self.next += 1;
            self.emit(event, out);
        }
    }

    /// All that is left, gaps or not.
    pub(crate) fn finish(&mut self, out: &mut Vec<Event>) {
        for event in std::mem::take(&mut self.waiting).into_values() {
            self.emit(event, out);
        }
    }

    fn emit(&mut self, event: Option<Event>, out: &mut Vec<Event>) {
        let Some(mut event) = event else { return };
        // The clock was read a moment before or after the number was taken: plots want no step back.
        self.last_time = self.last_time.max(event.time.unwrap_or(0));
        event.time = Some(self.last_time);
        out.push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::EventKind;
    use crate::value::Value;

    #[test]
    fn numbers_decide_and_unused_ones_hold_nothing_up() {
        let event = |n: i64| Some(Event::new(n, EventKind::Invoke, "read", Value::Nil));
        let mut order = InOrder::default();
        let mut out = Vec::new();
        order.push(2, event(2), &mut out);
        order.push(1, None, &mut out);
        assert!(out.is_empty());
        order.push(0, event(0), &mut out);
        assert_eq!(out.iter().map(|e| e.process.0).collect::<Vec<_>>(), [0, 2]);
        order.push(5, event(5), &mut out);
        order.finish(&mut out);
        assert_eq!(out.len(), 3);
    }
}
