//! A database of a test's own, and the program on it.

use examples_test_support::{Answer, Program};
use potter_core::testing::TestDatabase;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) url: String,
    pub(crate) runtime: Runtime,
    variable: &'static str,
    database: Option<TestDatabase>,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("sync.db").display());
        Self {
            folder,
            url,
            runtime: Runtime::new().unwrap(),
            variable: "DATABASE_URL",
            database: None,
        }
    }

    pub(crate) fn postgres() -> Self {
        let runtime = Runtime::new().unwrap();
        let database = runtime.block_on(TestDatabase::postgres());
        let url = database.url().to_owned();
        Self {
            folder: tempfile::tempdir().unwrap(),
            url,
            runtime,
            variable: "DATABASE_URL",
            database: Some(database),
        }
    }

    /// A database of its own on the server that `POTTER_TEST_MONGO_URL` names; the server goes with
    /// its test run, and so does the database.
    #[cfg(feature = "mongodb")]
    pub(crate) fn mongodb() -> Self {
        let server = std::env::var("POTTER_TEST_MONGO_URL").unwrap_or_else(|_| {
            panic!("POTTER_TEST_MONGO_URL is not set; run: eval \"$(scripts/services up)\"")
        });
        let (base, _) = server.rsplit_once('/').unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            url: format!("{base}/sync_{}", potter_core::new_id().simple()),
            runtime: Runtime::new().unwrap(),
            variable: "MONGO_URL",
            database: None,
        }
    }

    pub(crate) fn start(&self) -> Program {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, variables: &[(&str, &str)]) -> Program {
        let all = [&[(self.variable, self.url.as_str())], variables].concat();
        Program::start("sync-service", self.folder.path(), &all)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            self.runtime.block_on(database.close());
        }
    }
}

pub(crate) const API: &str = "/api/v1";

pub(crate) fn post(program: &Program, path: &str, body: &Value) -> Answer {
    program.post(&format!("{API}{path}"), body)
}

pub(crate) fn get(program: &Program, path: &str) -> Answer {
    program.get(&format!("{API}{path}"))
}

/// Registers a device and gives the answer.
pub(crate) fn register(program: &Program, device: &str, user: &str) -> Value {
    let body = json!({ "device_id": device, "user_id": user });
    let answer = post(program, "/sync/register-device", &body);
    assert!([200, 201].contains(&answer.status), "{}", answer.body);
    answer.json()
}

/// An upload of operations on one entity.
pub(crate) fn operations(device: &str, entity: &str, kind: &str, operations: &Value) -> Value {
    let change = json!({ "entity_id": entity, "crdt_type": kind, "operations": operations });
    json!({ "device_id": device, "changes": [change] })
}

pub(crate) fn upload(
    program: &Program,
    device: &str,
    entity: &str,
    kind: &str,
    ops: &Value,
) -> Value {
    post(program, "/sync/upload", &operations(device, entity, kind, ops)).of(200)
}

/// What the server has of an entity.
pub(crate) fn value(program: &Program, entity: &str) -> Value {
    get(program, &format!("/crdt/state/document/{entity}")).of(200)["value"].clone()
}
