//! The tables of this crate: streams and events.

use potter_core::{Migration, Migrations};

/// The schema of this crate's tables, to apply or to print.
pub const MIGRATIONS: Migrations = Migrations {
    owner: "potter-eventsourcing",
    list: &[
        Migration {
            version: 1,
            name: "events",
            sqlite: include_str!("../migrations/sqlite/0001_events.sql"),
            postgres: include_str!("../migrations/postgres/0001_events.sql"),
        },
        Migration {
            version: 2,
            name: "projections",
            sqlite: include_str!("../migrations/sqlite/0002_projections.sql"),
            postgres: include_str!("../migrations/postgres/0002_projections.sql"),
        },
        Migration {
            version: 3,
            name: "snapshots",
            sqlite: include_str!("../migrations/sqlite/0003_snapshots.sql"),
            postgres: include_str!("../migrations/postgres/0003_snapshots.sql"),
        },
        Migration {
            version: 4,
            name: "tags",
            sqlite: include_str!("../migrations/sqlite/0004_tags.sql"),
            postgres: include_str!("../migrations/postgres/0004_tags.sql"),
        },
        Migration {
            version: 5,
            name: "log_parts",
            sqlite: include_str!("../migrations/sqlite/0005_log_parts.sql"),
            postgres: include_str!("../migrations/postgres/0005_log_parts.sql"),
        },
    ],
};
