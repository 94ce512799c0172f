//! From events to state.

use super::{Loaded, event_id};
use crate::aggregate::Aggregate;
use crate::error::{Error, Result};
use crate::event::RecordedEvent;
use crate::stream_id::StreamId;

/// Sums up events, and recognises those that a command with a key has led to before.
pub(super) struct Fold<'a, A: Aggregate> {
    stream: &'a StreamId,
    key: Option<&'a str>,
    pub(super) loaded: Loaded<A>,
    /// The events of the command with the key.
    pub(super) done: Vec<A::Event>,
    /// Version and position of the last of them.
    pub(super) done_at: Option<(u64, u64)>,
}

impl<'a, A: Aggregate> Fold<'a, A> {
    pub(super) fn new(stream: &'a StreamId, key: Option<&'a str>) -> Self {
        let loaded = Loaded { state: A::default(), version: 0 };
        Self { stream, key, loaded, done: Vec::new(), done_at: None }
    }

    pub(super) fn apply(&mut self, recorded: &RecordedEvent) -> Result<()> {
        let event: A::Event = recorded.decode().map_err(|source| {
            let message = format!(
                "event {} of stream {} can't be read: {source}",
                recorded.version, recorded.stream_id
            );
            Error::with_source(source.kind(), message, source)
        })?;
        self.loaded.state.evolve(&event);
        self.loaded.version = recorded.version;
        if let Some(key) = self.key
            && recorded.event_id == event_id(self.stream, key, self.done.len())
        {
            self.done.push(event);
            self.done_at = Some((recorded.version, recorded.global_position));
        }
        Ok(())
    }
}
