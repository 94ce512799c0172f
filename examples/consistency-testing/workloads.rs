//! The workloads by name.

use std::sync::Arc;

use potter_jepsen::runner::Workload;
use potter_jepsen::workloads::postgres::{Isolation, Kind, Options, Postgres, Reads};

use crate::spec::TestSpec;

/// A workload as it is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// What is tested: PostgreSQL itself, or a library of this project on it.
    pub(crate) system: &'static str,
    kind: Built,
}

#[derive(Clone, Copy, Debug)]
enum Built {
    Postgres(Kind),
}

/// All workloads.
pub(crate) fn all() -> Vec<Named> {
    let postgres = Kind::ALL.map(|kind| Named {
        name: kind.name(),
        about: kind.description(),
        system: "postgresql",
        kind: Built::Postgres(kind),
    });
    Vec::from(postgres)
}

/// The workload of this name, or what there is.
pub(crate) fn find(name: &str) -> Result<Named, String> {
    let wanted = name.trim().to_ascii_lowercase().replace('_', "-");
    let wanted = match wanted.as_str() {
        "list-append" => "append",
        "rw-register" => "rw",
        "cas-register" => "cas",
        "sagas" => "saga",
        "events" => "event-store",
        other => other,
    };
    all().into_iter().find(|workload| workload.name == wanted).ok_or_else(|| {
        let names: Vec<_> = all().iter().map(|workload| workload.name).collect();
        format!("there is no workload \"{name}\"; there are {}", names.join(", "))
    })
}

/// The name of an isolation level, as it is written everywhere.
pub(crate) fn isolation(name: &str) -> Result<String, String> {
    Isolation::parse(name)
        .map(|level| level.name().to_owned())
        .map_err(|_| "must be read-committed, repeatable-read or serializable".to_owned())
}

/// The workload of a test.
pub(crate) fn build(spec: &TestSpec) -> Result<Arc<dyn Workload>, String> {
    let named = find(&spec.workload)?;
    let text = |error: potter_jepsen::Error| error.to_string();
    match named.kind {
        Built::Postgres(kind) => {
            let mut options = Options::default().keys(spec.keys);
            options = options.isolation(Isolation::parse(&spec.isolation).map_err(text)?);
            if spec.reads == "replica" {
                options = options.reads(Reads::Replica);
            }
            Ok(Arc::new(Postgres::new(kind, options).map_err(text)?))
        }
    }
}
