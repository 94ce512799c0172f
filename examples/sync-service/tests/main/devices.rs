//! Devices of the client library, over the program's port.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use example_sync_service::client::{Dirty, Failure, Keeper, Local, Synced, Transport, sync};
use example_sync_service::document::{Kind, Operation};
use example_sync_service::service::{
    Downloaded, RegisterRequest, Registered, UploadAnswer, UploadRequest,
};
use example_sync_service::store::EntityKey;
use examples_test_support::{Answer, Program, exchange};
use potter_core::new_id;
use potter_crdt::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::place::API;

/// The program as a server; it can lose the answer to an upload.
pub(crate) struct Port {
    address: String,
    pub(crate) loses_answer: AtomicBool,
}

impl Port {
    pub(crate) fn of(program: &Program) -> Self {
        Self::at(program.address())
    }

    pub(crate) fn at(address: &str) -> Self {
        Self { address: address.to_owned(), loses_answer: AtomicBool::new(false) }
    }

    fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: &str,
    ) -> Result<T, Failure> {
        let bearer = format!("authorization: Bearer {token}");
        let mut headers = vec!["content-type: application/json"];
        if !token.is_empty() {
            headers.push(&bearer);
        }
        let answer = exchange(&self.address, method, &format!("{API}{path}"), &headers, body);
        read(&answer.map_err(|error| Failure::Unreachable(error.to_string()))?)
    }
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Failure> {
    match answer.status {
        200 | 201 => Ok(serde_json::from_str(&answer.body).unwrap()),
        500.. => Err(Failure::Unreachable(answer.body.clone())),
        status => {
            let problem = answer.json();
            let text = |name: &str| problem[name].as_str().unwrap().to_owned();
            Err(Failure::Refused { status, code: text("code"), detail: text("detail") })
        }
    }
}

#[async_trait]
impl Transport for Port {
    async fn register(&self, request: &RegisterRequest) -> Result<Registered, Failure> {
        let body = serde_json::to_string(request).unwrap();
        self.send("POST", "/sync/register-device", "", &body)
    }

    async fn upload(&self, request: &UploadRequest, token: &str) -> Result<UploadAnswer, Failure> {
        let body = serde_json::to_string(request).unwrap();
        let answer = self.send("POST", "/sync/upload", token, &body);
        if self.loses_answer.swap(false, Ordering::Relaxed) {
            return Err(Failure::Unreachable("lost".to_owned()));
        }
        answer
    }

    async fn download(
        &self,
        device_id: &str,
        cursor: Option<&str>,
        token: &str,
    ) -> Result<Downloaded, Failure> {
        let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let path = format!("/sync/download?device_id={device_id}&limit=7{cursor}");
        self.send("GET", &path, token, "")
    }
}

/// A device whose store is its memory.
pub(crate) struct Memory;

#[async_trait]
impl Keeper for Memory {
    async fn keep(&mut self, local: &mut Local) -> Result<(), Failure> {
        local.dirty = Dirty::default();
        Ok(())
    }
}

pub(crate) fn key(entity: &str) -> EntityKey {
    EntityKey { entity_type: "document".to_owned(), entity_id: entity.to_owned() }
}

/// The wall clock, `ahead` seconds ahead.
pub(crate) fn wall(ahead: i64) -> Timestamp {
    let now = potter_core::Clock::now(&potter_core::SystemClock);
    Timestamp::from_unix_millis(now.timestamp_millis() + ahead * 1000).unwrap()
}

pub(crate) fn act(device: &mut Local, entity: &str, kind: Kind, op: &str, value: Value) {
    act_at(device, entity, kind, op, value, wall(0));
}

pub(crate) fn act_at(
    device: &mut Local,
    entity: &str,
    kind: Kind,
    op: &str,
    value: Value,
    wall: Timestamp,
) {
    let operation = Operation { kind: op.to_owned(), value: Some(value), ..Operation::default() };
    device.record(&key(entity), kind, operation, new_id().to_string(), wall).unwrap();
}

pub(crate) fn meet(device: &mut Local, port: &Port) -> Result<Synced, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(sync(device, port, &mut Memory))
}

/// Meets until the server answers.
pub(crate) fn meet_at_last(device: &mut Local, port: &Port) -> Synced {
    loop {
        match meet(device, port) {
            Ok(synced) => return synced,
            Err(Failure::Unreachable(_)) => std::thread::sleep(Duration::from_millis(5)),
            Err(failure) => panic!("{failure}"),
        }
    }
}

pub(crate) fn shown(device: &Local, entity: &str) -> Value {
    device.show(&key(entity)).map_or(Value::Null, |shown| shown.value)
}

pub(crate) fn copy(device: &Local) -> Local {
    Local {
        meta: device.meta.clone(),
        entities: device.entities.clone(),
        ops: device.ops.clone(),
        dirty: Dirty::default(),
    }
}
