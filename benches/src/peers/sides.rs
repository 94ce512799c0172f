//! Who takes part, and how a program of theirs is run.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::database::Fresh;

pub(crate) struct Side {
    pub(crate) name: &'static str,
    version: &'static str,
    pub(crate) events_table: &'static str,
    pub(crate) appends: bool,
    /// The ways of catching up that it has, each with a number of workers.
    pub(crate) catch_ups: &'static [(&'static str, u64)],
    /// The events of a page: 1 is the library's own default.
    pub(crate) page: u64,
    pub(crate) partitions: bool,
    /// The way of catching up whose memory is looked at.
    pub(crate) memory: Option<&'static str>,
    pub(crate) live: bool,
}

const NONE: Side = Side {
    name: "",
    version: "",
    events_table: "potter_events",
    appends: true,
    catch_ups: &[("catch-up", 1)],
    page: 1,
    partitions: false,
    memory: None,
    live: false,
};

pub(crate) const SIDES: &[Side] = &[
    Side {
        name: "floor",
        version: "bare SQL",
        catch_ups: &[("catch-up-server", 1), ("catch-up-batch", 1), ("catch-up", 1)],
        ..NONE
    },
    Side {
        name: "potter",
        version: env!("CARGO_PKG_VERSION"),
        catch_ups: &[
            ("catch-up-batch", 1),
            ("catch-up-batch", 4),
            ("catch-up-batch", 8),
            ("catch-up", 1),
            ("catch-up", 4),
            ("catch-up", 8),
        ],
        partitions: true,
        memory: Some("catch-up-batch"),
        live: true,
        ..NONE
    },
    Side {
        name: "mire",
        version: "0.4.0",
        events_table: "es_events",
        catch_ups: &[("catch-up-batch", 1), ("catch-up", 1)],
        // Its default is 100: a page of 1,000 is faster.
        page: 1000,
        live: true,
        ..NONE
    },
    Side { name: "postgres-es", version: "0.5.0", events_table: "events", ..NONE },
    Side { name: "esrs", version: "0.18.0", events_table: "account_events", ..NONE },
    Side { name: "eventcore", version: "2.1.0", events_table: "eventcore_events", ..NONE },
    Side { name: "disintegrate", version: "4.0.1", events_table: "event", live: true, ..NONE },
    Side {
        name: "whole-log",
        version: "own SQL, in the shape of pupsourcing's reader",
        appends: false,
        catch_ups: &[("catch-up", 1), ("catch-up", 4), ("catch-up", 8)],
        partitions: true,
        ..NONE
    },
];

/// What a program printed.
#[derive(Debug, Deserialize)]
pub(crate) struct Outcome {
    operations: f64,
    seconds: f64,
    #[serde(default)]
    pub(crate) peak_kib: f64,
    #[serde(default)]
    pub(crate) p50_ms: f64,
    #[serde(default)]
    pub(crate) p99_ms: f64,
    #[serde(default)]
    pub(crate) max_ms: f64,
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        self.operations / self.seconds
    }
}

impl Side {
    pub(crate) fn label(&self) -> String {
        format!("{} ({})", self.name, self.version)
    }

    fn program(&self) -> PathBuf {
        let own = std::env::current_exe().unwrap();
        if self.events_table == NONE.events_table {
            return own.with_file_name("peers-side");
        }
        // All are built into one target folder.
        own.with_file_name(format!("peer-{}", self.name))
    }

    pub(crate) fn setup(&self, database: &Fresh) {
        self.run("setup", database, &[], &[]).expect("setup");
    }

    /// Runs it; `None` when the library does not do this work. `setup` and `fill` report nothing.
    pub(crate) fn run(
        &self,
        work: &str,
        database: &Fresh,
        sizes: &[(&str, u64)],
        more: &[(&str, &str)],
    ) -> Option<Outcome> {
        let mut command = Command::new(self.program());
        command.arg(work).env("DATABASE_URL", &database.url).env("SIDE", self.name);
        for (name, size) in sizes {
            command.env(name, size.to_string());
        }
        command.envs(more.iter().copied());
        let output = command.stderr(Stdio::inherit()).output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", self.program().display()));
        if output.status.code() == Some(3) {
            return None;
        }
        if !output.status.success() {
            eprintln!("{} {work} failed: {}", self.name, output.status);
            return None;
        }
        let text = String::from_utf8_lossy(&output.stdout);
        eprintln!("{} {}", self.name, text.trim());
        if text.trim().is_empty() {
            return Some(Outcome {
                operations: 0.0,
                seconds: 1.0,
                peak_kib: 0.0,
                p50_ms: 0.0,
                p99_ms: 0.0,
                max_ms: 0.0,
            });
        }
        Some(serde_json::from_str(&text).unwrap())
    }
}
