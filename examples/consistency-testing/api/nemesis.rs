//! Faults by hand: on the system under test, beside what a test does to it. They are in the history of
//! the test that runs, and the end of one of its own faults heals them too.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use examples_common::{IdempotencyKey, JsonBody, Problem};
use futures::future::BoxFuture;
use potter_jepsen::Value;
use potter_jepsen::nemesis::{
    Clocks, Disk, Fault, Healed, Injected, Namespaces, Nemesis as _, Probe,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Service, problem};
use crate::environment::Environment;
use crate::faults::{self, Needs};

/// What a request did to the system under test.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Effect {
    status: &'static str,
    /// To whom.
    nodes: Vec<String>,
    /// The effect was seen.
    verified: bool,
    /// What was done and how it was seen.
    detail: String,
}

impl Effect {
    fn injected(status: &'static str, nodes: Vec<String>, injected: Injected) -> Self {
        let Injected { verified, detail, .. } = injected;
        Self { status, nodes, verified, detail }
    }

    /// Done by hand, and told to the test that runs.
    fn told(service: &Service, status: &'static str, fault: Fault, injected: Injected) -> Self {
        service.runs.note(|notes| notes.injected(fault.clone(), injected.clone()));
        Self::injected(status, fault.targets, injected)
    }

    fn healed(nodes: Vec<String>, healed: Healed) -> Self {
        let Healed { verified, detail, .. } = healed;
        Self { status: "healed", nodes, verified, detail }
    }
}

async fn environment(service: &Service, needs: Needs) -> Result<Arc<Environment>, Problem> {
    // Servers with the right clocks take the place of others only while no test runs on these.
    let idle = !service.runs.is_busy();
    service.runs.environments.get(needs, idle).await.map_err(|error| {
        tracing::warn!(error, "no system under test");
        Problem::unprocessable("nemesis_unavailable", format!("{error}."))
    })
}

/// A nemesis that tests can ask for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NemesisView {
    name: &'static str,
    aliases: Vec<&'static str>,
    description: &'static str,
    available: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The nemeses, and what is in effect now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NemesisList {
    nemesis: Vec<NemesisView>,
    /// Everything that will be undone at the end, in words.
    in_effect: Vec<String>,
    /// Whether real packets could be dropped between namespaces here; tests use proxies.
    network_namespaces: bool,
    total: usize,
}

/// Lists the nemeses.
#[utoipa::path(get, path = "/nemesis", operation_id = "list_nemesis",
    responses((status = 200, body = NemesisList)))]
pub(super) async fn list(State(service): State<Service>) -> Json<NemesisList> {
    let environments = &service.runs.environments;
    let place = environments.journal.path().parent().map(Path::to_owned).unwrap_or_default();
    let clocks = reason(Clocks::available(&place).await);
    let view = |named: &'static faults::Named| {
        let reason = match named.needs {
            Needs::Network => None,
            _ if !environments.is_private() => {
                Some("the servers of PRIMARY_DATABASE_URL are not this program's".to_owned())
            }
            Needs::Clocks => clocks.clone(),
            Needs::Disk => reason(Disk::can_mount()),
            Needs::Processes => None,
        };
        NemesisView {
            name: named.name,
            aliases: named.aliases.to_vec(),
            description: named.about,
            available: reason.is_none(),
            reason,
        }
    };
    let nemesis: Vec<_> = faults::ALL.iter().map(view).collect();
    let total = nemesis.len();
    let in_effect = environments.journal.in_effect();
    let network_namespaces = Namespaces::available().await == Probe::Available;
    Json(NemesisList { nemesis, in_effect, network_namespaces, total })
}

/// Why it can't work here, if it can't.
fn reason(probe: Probe) -> Option<String> {
    match probe {
        Probe::Available => None,
        Probe::Unavailable(reason) => Some(reason),
    }
}

/// Who does not hear whom.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PartitionRequest {
    /// Two or more are divided; one is alone, without all others. `client` stands for the clients.
    #[schema(example = json!(["postgres-primary", "postgres-replica"]))]
    nodes: Vec<String>,
    /// halves (the default), one, ring, bridge or one-way.
    #[serde(default)]
    shape: Option<String>,
    /// Chooses among the partitions of a shape.
    #[serde(default)]
    seed: Option<i64>,
}

/// Cuts nodes off from each other, until they are healed.
#[utoipa::path(post, path = "/nemesis/network/partition", operation_id = "partition_network",
    request_body = PartitionRequest, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Effect), (status = 422, body = Problem)))]
pub(super) async fn partition(
    State(service): State<Service>,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<PartitionRequest>,
) -> Result<Response, Problem> {
    let work = Box::pin(async {
        if request.nodes.is_empty() {
            let detail = "Say which nodes to cut off: GET /cluster/topology lists them.";
            return Err(
                Problem::unprocessable("invalid_fault", detail).with_field("nodes", "empty")
            );
        }
        let environment = environment(&service, Needs::Network).await?;
        let nodes: Vec<_> = request.nodes.iter().map(|node| node.replace('_', "-")).collect();
        let mut fault = Fault::new("partition").targets(&nodes);
        let alone = nodes.len() == 1 && request.shape.is_none();
        let shape = if alone { Some("one") } else { request.shape.as_deref() };
        if let Some(shape) = shape {
            fault = fault.param("shape", Value::from(shape));
        }
        if let Some(seed) = request.seed {
            fault = fault.param("seed", Value::Int(seed));
        }
        let injected = environment.network.inject(&fault).await.map_err(|e| problem(&e))?;
        Ok(Effect::told(&service, "partitioned", fault, injected))
    });
    service.remembered.once("partition", &key, &request, work).await
}

/// Heals the network: no partition, no delay, no loss.
#[utoipa::path(post, path = "/nemesis/network/heal", operation_id = "heal_network",
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Effect)))]
pub(super) async fn heal(
    State(service): State<Service>,
    key: IdempotencyKey,
) -> Result<Response, Problem> {
    undo(&service, &key, "heal", |environment| Box::pin(environment.heal_network())).await
}

/// Undoes faults of one kind in the system under test, if there is one.
async fn undo(
    service: &Service,
    key: &IdempotencyKey,
    scope: &'static str,
    heal: impl for<'e> FnOnce(&'e Environment) -> BoxFuture<'e, potter_jepsen::Result<Healed>>,
) -> Result<Response, Problem> {
    let work = Box::pin(async {
        let Some(environment) = service.runs.environments.current().await else {
            return Ok(Effect::healed(Vec::new(), Healed::verified("there was no fault")));
        };
        let healed = heal(&environment).await.map_err(|error| problem(&error))?;
        service.runs.note(|notes| notes.healed(healed.clone()));
        Ok(Effect::healed(environment.servers(), healed))
    });
    service.remembered.once(scope, key, &(), work).await
}

/// A process of the system under test.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProcessRequest {
    /// postgres-primary (or `postgres`), postgres-replica: GET /cluster/status lists them.
    #[schema(example = "postgres")]
    process: String,
}

/// The process that a request means, with what it belongs to.
async fn owned(service: &Service, name: &str) -> Result<(Arc<Environment>, String), Problem> {
    let environment = environment(service, Needs::Network).await?;
    let process = environment.process(name).await.map_err(|owned| {
        let list = if owned.is_empty() { "none".to_owned() } else { owned.join(", ") };
        let detail = format!(
            "'{name}' is no process of this service, and it touches no other. It owns: {list}."
        );
        let problem = Problem::new(StatusCode::FORBIDDEN, "process_not_owned", detail);
        owned.iter().fold(problem, |problem, name| problem.with_field("process", name.as_str()))
    });
    process.map(|process| (environment, process.name))
}

/// Kills a process of this service (SIGKILL), with all below it. It stays dead until it is started,
/// or a test heals.
#[utoipa::path(post, path = "/nemesis/process/kill", operation_id = "kill_process",
    request_body = ProcessRequest, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Effect),
        (status = 403, description = "It is no process of this service", body = Problem)))]
pub(super) async fn kill(
    State(service): State<Service>,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<ProcessRequest>,
) -> Result<Response, Problem> {
    let work = Box::pin(async {
        let (environment, name) = owned(&service, &request.process).await?;
        let killed = environment.processes.kill(&name).await.map_err(|error| problem(&error))?;
        let status = if killed.verified { "killed" } else { "not_running" };
        Ok(Effect::told(&service, status, Fault::new("kill").target(name), killed))
    });
    service.remembered.once("kill", &key, &request, work).await
}

/// Starts a process again that was killed, and waits until it answers.
#[utoipa::path(post, path = "/nemesis/process/start", operation_id = "start_process",
    request_body = ProcessRequest, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Effect),
        (status = 403, description = "It is no process of this service", body = Problem)))]
pub(super) async fn start(
    State(service): State<Service>,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<ProcessRequest>,
) -> Result<Response, Problem> {
    let work = Box::pin(async {
        let (environment, name) = owned(&service, &request.process).await?;
        let started = environment.processes.start_again(&name).await;
        let started = started.map_err(|error| problem(&error))?;
        Ok(Effect::injected("running", vec![name], started))
    });
    service.remembered.once("start-process", &key, &request, work).await
}

/// Whose clock, and how wrong.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SkewRequest {
    /// Seconds from the true time, ahead or back.
    #[serde(default)]
    #[schema(example = 300)]
    seconds: Option<i64>,
    /// The same as text: "5m", "-30s".
    #[serde(default, alias = "offset")]
    skew: Option<String>,
    /// All servers if left out.
    #[serde(default)]
    nodes: Vec<String>,
    /// The same for one.
    #[serde(default)]
    node: Option<String>,
}

impl SkewRequest {
    fn seconds(&self) -> Option<i64> {
        let Some(text) = &self.skew else { return self.seconds };
        let (sign, text) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.trim_start_matches('+')),
        };
        let seconds: Duration = crate::duration::parse(text)?;
        i64::try_from(seconds.as_secs()).ok().map(|seconds| seconds * sign)
    }
}

/// Lets servers' clocks be wrong, until they are reset. The machine's clock is not touched.
#[utoipa::path(post, path = "/nemesis/clock/skew", operation_id = "skew_clock",
    request_body = SkewRequest, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Effect), (status = 422, body = Problem)))]
pub(super) async fn skew(
    State(service): State<Service>,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<SkewRequest>,
) -> Result<Response, Problem> {
    let work = Box::pin(async {
        let seconds = request.seconds().ok_or_else(|| {
            let detail = "Say how wrong: {\"seconds\": 300}, or {\"skew\": \"-5m\"}.";
            Problem::unprocessable("invalid_fault", detail).with_field("seconds", "missing")
        })?;
        let environment = environment(&service, Needs::Clocks).await?;
        let mut nodes: Vec<_> = request.nodes.iter().chain(&request.node).cloned().collect();
        if nodes.is_empty() {
            nodes = environment.servers();
        }
        let fault = Fault::new("clock-skew").targets(&nodes).param("seconds", Value::Int(seconds));
        let injected = environment.nemesis.inject(&fault).await.map_err(|e| problem(&e))?;
        Ok(Effect::told(&service, "skewed", fault, injected))
    });
    service.remembered.once("skew", &key, &request, work).await
}

/// Sets all clocks right.
#[utoipa::path(post, path = "/nemesis/clock/reset", operation_id = "reset_clock",
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Effect)))]
pub(super) async fn reset(
    State(service): State<Service>,
    key: IdempotencyKey,
) -> Result<Response, Problem> {
    undo(&service, &key, "reset", |environment| Box::pin(environment.heal_clocks())).await
}
