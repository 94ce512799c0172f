//! Limits and sizes of a store.

/// What a store takes at most. The defaults: 10 000 events and 32 MiB in an append, 1 MiB for a
/// payload, 1024 appends waiting; a group commit takes up to 128 appends or 2 000 events, and on
/// PostgreSQL up to 2 of them run at once. Advisory locks and LISTEN are used where there are any.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    pub(crate) events_max: usize,
    pub(crate) append_bytes_max: usize,
    pub(crate) payload_bytes_max: usize,
    pub(crate) queue_max: usize,
    pub(crate) group_appends_max: usize,
    pub(crate) group_events_max: usize,
    pub(crate) committers_max: usize,
    pub(crate) advisory_locks: bool,
    pub(crate) listen: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            events_max: 10_000,
            append_bytes_max: 32 << 20,
            payload_bytes_max: 1 << 20,
            queue_max: 1024,
            group_appends_max: 128,
            group_events_max: 2_000,
            committers_max: 2,
            advisory_locks: true,
            listen: true,
        }
    }
}

impl StoreOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most events in one append.
    #[must_use]
    pub fn events_max(mut self, events: usize) -> Self {
        self.events_max = events.max(1);
        self
    }

    /// The most bytes of payloads and metadata in one append.
    #[must_use]
    pub fn append_bytes_max(mut self, bytes: usize) -> Self {
        self.append_bytes_max = bytes;
        self
    }

    /// The most bytes of one payload, and of one event's metadata.
    #[must_use]
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// How many appends may wait to be committed; more wait to be let in.
    #[must_use]
    pub fn queue_max(mut self, appends: usize) -> Self {
        self.queue_max = appends.max(1);
        self
    }

    /// How many appends share a transaction at most; 1 gives each its own.
    #[must_use]
    pub fn group_appends_max(mut self, appends: usize) -> Self {
        self.group_appends_max = appends.max(1);
        self
    }

    /// How many events share a transaction at most (a single append may have more).
    #[must_use]
    pub fn group_events_max(mut self, events: usize) -> Self {
        self.group_events_max = events.max(1);
        self
    }

    /// PostgreSQL: how many transactions of the store run at once.
    #[must_use]
    pub fn committers_max(mut self, committers: usize) -> Self {
        self.committers_max = committers.max(1);
        self
    }

    /// PostgreSQL: whether appends and readers find each other by advisory locks (the default), or
    /// by locks on rows of a table, for servers that speak its language and have none. All programs
    /// on one database must choose the same: the choice is kept there by the first `migrate`, and
    /// another one is refused with `Config`.
    ///
    /// With rows, a reader of all events can be some 50 ms further behind while others append
    /// without a pause.
    #[must_use]
    pub fn advisory_locks(mut self, yes: bool) -> Self {
        self.advisory_locks = yes;
        self
    }

    /// PostgreSQL: whether other processes are told of new events by NOTIFY, and told by LISTEN.
    /// Without, they find them by polling; the readers of this process are told as before.
    #[must_use]
    pub fn listen(mut self, yes: bool) -> Self {
        self.listen = yes;
        self
    }
}
