//! The program on a database of a test's own.

use examples_test_support::{Answer, Program};
use potter_core::testing::TestDatabase;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const NAME: &str = "cqrs-event-store";

pub(crate) struct Place {
    pub(crate) test: TestDatabase,
    folder: TempDir,
}

impl Place {
    pub(crate) fn new(test: TestDatabase) -> Self {
        Self { test, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn start(&self) -> Program {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, variables: &[(&str, &str)]) -> Program {
        let mut all = vec![("DATABASE_URL", self.test.url())];
        all.extend(variables);
        Program::start(NAME, self.folder.path(), &all)
    }
}

pub(crate) fn command(aggregate_id: &str, command_type: &str, data: &Value) -> Value {
    json!({"aggregate_id": aggregate_id, "command_type": command_type, "data": data})
}

pub(crate) fn send(program: &Program, id: &str, command_type: &str, data: &Value) -> Answer {
    program.post("/api/v1/commands", &command(id, command_type, data))
}

/// Opens an account with so much in it.
pub(crate) fn open(program: &Program, id: &str, balance: u32) -> Value {
    let data = json!({"owner": "Jane", "initial_balance": balance});
    send(program, id, "CreateAccount", &data).of(200)
}

/// Asks until the answer is as it should be.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed().as_secs() < 60, "it does not come to this: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
