//! The program through its port, on real servers that it starts itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod external;
mod requests;
mod results;

use std::ops::Deref;
use std::path::Path;
use std::time::{Duration, Instant};

use examples_test_support::Program;
use serde_json::Value;

const NAME: &str = "consistency-testing";
const DEADLINE: Duration = Duration::from_secs(180);

/// The service; it is stopped in order when this value goes, so that it stops its servers.
struct Service(Program);

impl Service {
    fn start(folder: &Path, variables: &[(&str, &str)]) -> Self {
        // PATH for the programs that faults use, TMPDIR for where the servers' data is.
        let path = std::env::var("PATH").unwrap_or_default();
        let mut all = vec![("PATH", path.as_str())];
        all.extend_from_slice(variables);
        Self(Program::start(NAME, folder, &all))
    }

    fn stop(&mut self) {
        self.0.signal("TERM");
        assert!(self.0.ended().success());
    }

    fn create(&self, body: &Value) -> String {
        let accepted = self.post("/api/v1/tests", body).of(202);
        accepted["test_id"].as_str().unwrap().to_owned()
    }

    fn status(&self, id: &str) -> String {
        let status = self.get(&format!("/api/v1/tests/{id}/status")).of(200);
        status["status"].as_str().unwrap().to_owned()
    }

    /// Waits until the test has one of these statuses.
    fn wait(&self, id: &str, wanted: &[&str]) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let status = self.status(id);
            if wanted.contains(&status.as_str()) {
                return status;
            }
            let over = ["completed", "cancelled", "failed", "interrupted"];
            let test = || self.get(&format!("/api/v1/tests/{id}")).body;
            assert!(!over.contains(&status.as_str()), "it will not be {wanted:?}: {}", test());
            assert!(Instant::now() < end, "not {wanted:?} within {DEADLINE:?}: {}", test());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn result(&self, id: &str) -> Value {
        self.wait(id, &["completed"]);
        self.get(&format!("/api/v1/results/{id}")).of(200)
    }
}

impl Deref for Service {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.0
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        if std::net::TcpStream::connect(self.0.address()).is_ok() {
            self.0.signal("TERM");
            self.0.ended();
        }
    }
}
