//! Checks of histories that somebody else has recorded.

use std::fmt::Write as _;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use examples_common::{IdempotencyKey, JsonBody, Problem};
use potter_jepsen::{Budget, Loaded, Spec, load_str, report};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::results::{blocking, history as load};
use super::{Service, problem, stored};

const CHECK_TIME: Duration = Duration::from_secs(60);
const CHECK_BYTES: usize = 1 << 30;

/// A history to check.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckRequest {
    /// The history of a test of this service; or `history`.
    #[serde(default)]
    test_id: Option<String>,
    /// Operations as Jepsen has them, {process, type, f, value, key}; or all of it as text, in EDN
    /// or JSON lines.
    #[serde(default, alias = "operations")]
    #[schema(value_type = Option<Vec<Object>>)]
    history: Option<Value>,
    /// For linearizability the object: register (the default), cas-register, queue, kv, set, …, with
    /// parameters: "register init=0".
    #[serde(default)]
    #[schema(example = "cas-register")]
    model: Option<String>,
}

/// The objects that linearizability is defined for here.
const OBJECTS: [&str; 10] = [
    "register",
    "cas-register",
    "cas",
    "kv",
    "multi-register",
    "mutex",
    "queue",
    "stack",
    "linear-set",
    "linear-counter",
];

/// Is there an order of the operations that fits their results and the time?
#[utoipa::path(post, path = "/consistency/linearizability", operation_id = "check_linearizability",
    request_body = CheckRequest, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn linearizability(
    State(service): State<Service>,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<CheckRequest>,
) -> Result<Response, Problem> {
    let model = request.model.clone().unwrap_or_else(|| "register".to_owned());
    let object = model.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    if !OBJECTS.contains(&object.replace('_', "-").as_str()) {
        let objects = OBJECTS.join(", ");
        let detail = format!("There is no object \"{object}\" here; there are {objects}.");
        return Err(Problem::unprocessable("invalid_model", detail).with_field("model", "unknown"));
    }
    check(service, "linearizability", key, request, model).await
}

/// Is there an order of the operations that fits their results and each process's own order?
#[utoipa::path(post, path = "/consistency/sequential", operation_id = "check_sequential",
    request_body = CheckRequest, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn sequential(
    State(service): State<Service>,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<CheckRequest>,
) -> Result<Response, Problem> {
    check(service, "sequential", key, request, "sequential".to_owned()).await
}

/// Do the last reads of all processes agree on what was written?
#[utoipa::path(post, path = "/consistency/eventual", operation_id = "check_eventual",
    request_body = CheckRequest, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn eventual(
    State(service): State<Service>,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<CheckRequest>,
) -> Result<Response, Problem> {
    check(service, "eventual", key, request, "eventual".to_owned()).await
}

async fn check(
    service: Service,
    name: &'static str,
    key: IdempotencyKey,
    request: CheckRequest,
    model: String,
) -> Result<Response, Problem> {
    let work = Box::pin(async {
        let loaded = match (&request.test_id, &request.history) {
            (Some(id), None) => {
                let history = load(&service, &stored(&service, id).await?).await?;
                Loaded { history, format: potter_jepsen::Format::Json }
            }
            (None, Some(history)) => {
                let text = text_of(history)?;
                blocking(move || load_str(&text).map_err(|error| problem(&error))).await?
            }
            _ => {
                let detail = "Send either a history or the test_id of one.";
                return Err(Problem::unprocessable("invalid_body", detail));
            }
        };
        let mut answer = blocking(move || {
            let checker = Spec::parse(&model).and_then(|spec| spec.checker(loaded.format));
            let budget = Budget::new(CHECK_TIME, CHECK_BYTES);
            let analysis = checker.and_then(|checker| checker.check(&loaded.history, &budget));
            let analysis = analysis.map_err(|error| problem(&error))?;
            let text = report::json(&loaded.history, &analysis);
            serde_json::from_str::<Value>(&text).map_err(|error| Problem::internal(&error))
        })
        .await?;
        answer["consistency"] = name.into();
        // Unknown is neither.
        answer["consistent"] = match answer["verdict"].as_str() {
            Some("valid") => true.into(),
            Some("invalid") => false.into(),
            _ => Value::Null,
        };
        Ok(answer)
    });
    service.remembered.once(name, &key, &request, work).await
}

fn text_of(history: &Value) -> Result<String, Problem> {
    match history {
        Value::String(text) => Ok(text.clone()),
        Value::Array(events) => Ok(events.iter().fold(String::new(), |mut all, event| {
            _ = writeln!(all, "{event}");
            all
        })),
        _ => {
            let detail = "A history is a list of operations, or a text in EDN or JSON lines.";
            Err(Problem::unprocessable("invalid_history", detail).with_field("history", "wrong"))
        }
    }
}
