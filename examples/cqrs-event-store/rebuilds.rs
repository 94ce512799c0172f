//! Read models that are being built anew by this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use examples_common::Problem;
use potter_eventsourcing::{EventStore, Rebuild, Rebuildable};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

/// How a rebuild is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RebuildView {
    /// `running`, `completed` or `failed`.
    #[schema(example = "completed")]
    pub(crate) state: &'static str,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
    /// How many events the new read model was built from.
    pub(crate) events: Option<u64>,
    /// Why it failed. The live read model is as it was.
    pub(crate) error: Option<String>,
}

/// The last rebuild of each read model. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rebuilds {
    events: Arc<dyn EventStore>,
    stop: CancellationToken,
    last: Arc<Mutex<HashMap<String, RebuildView>>>,
}

impl Rebuilds {
    pub(crate) fn new(events: Arc<dyn EventStore>, stop: CancellationToken) -> Self {
        Self { events, stop, last: Arc::default() }
    }

    /// The last one of a read model.
    pub(crate) fn last(&self, name: &str) -> Option<RebuildView> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Begins one beside the live read model; it takes over when it has caught up. When the program
    /// stops before, it is given up, and the live one stays.
    ///
    /// # Errors
    /// 409 `rebuild_under_way`.
    pub(crate) fn start(&self, model: Arc<dyn Rebuildable>) -> Result<RebuildView, Problem> {
        let name = model.name().to_owned();
        let rebuild = Rebuild::new(Arc::clone(&self.events), model);
        let rebuild = rebuild.map_err(|error| crate::service::problem(&error))?;
        let view = RebuildView {
            state: "running",
            started_at: Utc::now(),
            finished_at: None,
            events: None,
            error: None,
        };
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.get(&name).is_some_and(|one| one.state == "running") {
                let detail = format!("The read model {name} is being rebuilt: wait for its end.");
                return Err(Problem::conflict("rebuild_under_way", detail));
            }
            last.insert(name.clone(), view.clone());
        }
        let this = self.clone();
        tokio::spawn(async move {
            let run = Box::pin(rebuild.run());
            let done = tokio::select! {
                () = this.stop.cancelled() => Err("the program stopped".to_owned()),
                done = run => done.map_err(|error| error.to_string()),
            };
            let mut last = this.last.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(view) = last.get_mut(&name) else { return };
            view.finished_at = Some(Utc::now());
            match done {
                Ok(rebuilt) => (view.state, view.events) = ("completed", Some(rebuilt.handled)),
                Err(error) => {
                    tracing::warn!(projection = name, error, "a rebuild failed");
                    (view.state, view.error) = ("failed", Some(error));
                }
            }
        });
        Ok(view)
    }
}
