//! What every example program shares: settings from the environment, answers over HTTP, health,
//! metrics, documentation, start and stop.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use examples_common::{Kit, Program, run};
//! use utoipa_axum::router::OpenApiRouter;
//!
//! fn main() -> ExitCode {
//!     let program = Program { service: "hello", version: env!("CARGO_PKG_VERSION"), port: 8080 };
//!     run(program, |context| async move {
//!         let routes = OpenApiRouter::new()
//!             .route("/hello", axum::routing::get(|| async { "hello" }));
//!         Ok(Kit::new(&context).router(routes))
//!     })
//! }
//! ```

mod docs;
mod extract;
mod health;
mod kit;
mod money;
mod once;
mod problem;
mod request;
mod serve;
mod settings;

pub use extract::{BodyLimit, JsonBody};
pub use health::HealthCheck;
pub use kit::Kit;
pub use money::Money;
pub use once::{IdempotencyKey, OnceAnswer, once};
pub use problem::{FieldProblem, Problem};
pub use request::RequestContext;
pub use serve::{Context, Program, StartError, run, serve};
pub use settings::{Settings, env_parsed, env_text};
