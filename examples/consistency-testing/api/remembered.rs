//! Answers that are given again for the same `Idempotency-Key`, where what was done is not in the
//! database: faults end with the program, and so does what it remembers of them.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::response::{IntoResponse, Response};
use examples_common::{IdempotencyKey, Problem};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OnceCell;

/// How many keys are remembered; the oldest is forgotten first.
const KEYS_MAX: usize = 1_000;

#[derive(Default)]
pub(super) struct Remembered(Mutex<Keys>);

#[derive(Default)]
struct Keys {
    entries: HashMap<String, Entry>,
    order: VecDeque<String>,
}

#[derive(Clone)]
struct Entry {
    request: Value,
    /// Two requests with one key that come at once do the work once.
    answer: Arc<OnceCell<Value>>,
}

impl Remembered {
    /// Does `work` once for each key. A refusal is not remembered.
    ///
    /// # Errors
    /// What `work` refused with; 422 `idempotency_key_reused` for another request with the key.
    pub(super) async fn once<T: Serialize>(
        &self,
        scope: &str,
        key: &IdempotencyKey,
        request: &impl Serialize,
        work: Pin<Box<impl Future<Output = Result<T, Problem>>>>,
    ) -> Result<Response, Problem> {
        let json = |value: Result<Value, serde_json::Error>| {
            value.map_err(|error| Problem::internal(&error))
        };
        let done = async { json(serde_json::to_value(work.await?)) };
        let Some(key) = &key.0 else { return Ok(Json(done.await?).into_response()) };
        let request = json(serde_json::to_value((scope, request)))?;
        let entry = self.entry(key, request.clone());
        if entry.request != request {
            let detail = "This Idempotency-Key was used for another request: use a new one.";
            return Err(Problem::unprocessable("idempotency_key_reused", detail));
        }
        let answer = entry.answer.get_or_try_init(|| done).await?;
        Ok(Json(answer).into_response())
    }

    fn entry(&self, key: &str, request: Value) -> Entry {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = keys.entries.get(key) {
            return entry.clone();
        }
        if keys.order.len() >= KEYS_MAX
            && let Some(oldest) = keys.order.pop_front()
        {
            keys.entries.remove(&oldest);
        }
        let entry = Entry { request, answer: Arc::default() };
        keys.entries.insert(key.to_owned(), entry.clone());
        keys.order.push_back(key.to_owned());
        entry
    }
}
