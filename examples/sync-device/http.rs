//! The way to the server.

use std::time::Duration;

use async_trait::async_trait;
use example_sync_service::client::{Failure, Meta, Transport};
use example_sync_service::service::{
    Downloaded, RegisterRequest, Registered, UploadAnswer, UploadRequest,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest answer, bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How long a wait for news lasts, milliseconds; shorter than the patience.
const WAIT_MS: &str = "10000";

/// A server by its address. Its calls block the thread: the program does nothing else meanwhile, or
/// makes them on a thread of their own.
#[derive(Clone)]
pub(crate) struct Http {
    agent: ureq::Agent,
    base: String,
}

impl Http {
    /// The server at `address`, such as `http://127.0.0.1:8091`.
    pub(crate) fn new(address: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .build();
        let base = format!("{}/api/v1/sync", address.trim_end_matches('/'));
        Self { agent: config.new_agent(), base }
    }

    fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
        token: &str,
    ) -> Result<T, Failure> {
        let body = serde_json::to_string(body)
            .map_err(|error| Failure::Keeping(format!("this can't be sent: {error}")))?;
        let mut request = self.agent.post(format!("{}{path}", self.base));
        request = request.header("content-type", "application/json");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        read(request.send(body))
    }
}

impl Http {
    /// Waits until the server has something behind this cursor, or for some seconds: is there
    /// anything? The page itself is left for the next download.
    ///
    /// # Errors
    /// When the server can't be reached, or wants the device to begin anew.
    pub(crate) fn wait_for_news(&self, meta: &Meta) -> Result<bool, Failure> {
        let Some(cursor) = &meta.cursor else { return Ok(true) };
        let request = self
            .agent
            .get(format!("{}/download", self.base))
            .query("device_id", &meta.device_id)
            .query("limit", "1")
            .query("wait_ms", WAIT_MS)
            .query("cursor", cursor)
            .header("authorization", format!("Bearer {}", meta.token));
        let page: Downloaded = read(request.call())?;
        Ok(!page.changes.is_empty())
    }
}

fn read<T: DeserializeOwned>(
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<T, Failure> {
    let unreachable = |error: &dyn std::fmt::Display| Failure::Unreachable(error.to_string());
    let mut answer = answer.map_err(|error| unreachable(&error))?;
    let status = answer.status();
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let body = body.map_err(|error| unreachable(&error))?;
    if status.is_success() {
        return serde_json::from_str(&body)
            .map_err(|error| Failure::Unreachable(format!("the answer can't be read: {error}")));
    }
    let problem: Value = serde_json::from_str(&body).unwrap_or_default();
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    if status.is_server_error() {
        return Err(Failure::Unreachable(format!("{status} {}", text("detail"))));
    }
    Err(Failure::Refused { status: status.as_u16(), code: text("code"), detail: text("detail") })
}

#[async_trait]
impl Transport for Http {
    async fn register(&self, request: &RegisterRequest) -> Result<Registered, Failure> {
        self.post("/register-device", request, "")
    }

    async fn upload(&self, request: &UploadRequest, token: &str) -> Result<UploadAnswer, Failure> {
        self.post("/upload", request, token)
    }

    async fn download(
        &self,
        device_id: &str,
        cursor: Option<&str>,
        token: &str,
    ) -> Result<Downloaded, Failure> {
        let mut request = self
            .agent
            .get(format!("{}/download", self.base))
            .query("device_id", device_id)
            .query("limit", "500")
            .header("authorization", format!("Bearer {token}"));
        if let Some(cursor) = cursor {
            request = request.query("cursor", cursor);
        }
        read(request.call())
    }
}
