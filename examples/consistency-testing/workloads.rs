//! The workloads by name.

use std::sync::Arc;

use jepsen_workloads::{EventStoreWorkload, Orchestrators, Reader, SagaWorkload};
use potter_jepsen::Checker;
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
    EventStore(Reader),
    Saga,
}

/// All workloads.
pub(crate) fn all() -> Vec<Named> {
    let postgres = Kind::ALL.map(|kind| Named {
        name: kind.name(),
        about: kind.description(),
        system: "postgresql",
        kind: Built::Postgres(kind),
    });
    let mut all = Vec::from(postgres);
    all.push(Named {
        name: "event-store",
        about: "Appends to streams and reads of all events; versions are dense, nothing is skipped.",
        system: "potter-eventsourcing",
        kind: Built::EventStore(Reader::Safe),
    });
    all.push(Named {
        name: "event-store-naive",
        about: "The same with a reader that trusts positions: it skips events, and is caught.",
        system: "potter-eventsourcing",
        kind: Built::EventStore(Reader::Naive),
    });
    all.push(Named {
        name: "saga",
        about: "Sagas of several steps; each is done or undone as a whole, no effect happens twice.",
        system: "potter-saga",
        kind: Built::Saga,
    });
    all
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

/// A workload on PostgreSQL.
fn postgres(kind: Kind, spec: &TestSpec) -> Result<Postgres, String> {
    let mut options = Options::default().keys(spec.keys);
    let text = |error: potter_jepsen::Error| error.to_string();
    options = options.isolation(Isolation::parse(&spec.isolation).map_err(text)?);
    if spec.reads == "replica" {
        options = options.reads(Reads::Replica);
    }
    Postgres::new(kind, options).map_err(text)
}

/// The workload of a test. Sagas are run by these orchestrators.
pub(crate) fn build(
    spec: &TestSpec,
    orchestrators: Orchestrators,
) -> Result<Arc<dyn Workload>, String> {
    Ok(match find(&spec.workload)?.kind {
        Built::Postgres(kind) => Arc::new(postgres(kind, spec)?),
        Built::EventStore(reader) => Arc::new(EventStoreWorkload::new(reader)),
        Built::Saga => Arc::new(SagaWorkload::new(orchestrators)),
    })
}

/// The checker of a test alone, for a history that it has recorded.
pub(crate) fn checker(spec: &TestSpec) -> Result<Box<dyn Checker + Send>, String> {
    Ok(match find(&spec.workload)?.kind {
        Built::Postgres(kind) => postgres(kind, spec)?.checker(),
        Built::EventStore(reader) => EventStoreWorkload::new(reader).checker(),
        Built::Saga => SagaWorkload::effects_checker(),
    })
}
