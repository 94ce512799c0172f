//! The history mirrored into ClickHouse.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use examples_test_support::Program;
use potter_core::new_id;
use potter_core::testing::TestDatabase;
use serde_json::{Value, json};

use crate::place::{Place, eventually, open, send};

/// A database of a test's own.
struct ClickHouse {
    place: String,
    database: String,
}

impl ClickHouse {
    fn new() -> Self {
        let server = std::env::var("POTTER_TEST_CLICKHOUSE_URL").unwrap_or_else(|_| {
            panic!(
                "POTTER_TEST_CLICKHOUSE_URL is not set; run: \
                 eval \"$(scripts/services up clickhouse)\""
            )
        });
        let place = server.split('/').nth(2).unwrap().to_owned();
        let database = format!("cqrs_{}", new_id().simple());
        let this = Self { place, database };
        this.ask(&format!("CREATE DATABASE {}", this.database));
        this
    }

    fn url(&self) -> String {
        format!("http://{}/{}", self.place, self.database)
    }

    fn ask(&self, statement: &str) -> String {
        let mut stream = TcpStream::connect(&self.place).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = statement.len();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{statement}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.trim().to_owned()
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.ask(&format!("DROP DATABASE {}", self.database));
        }
    }
}

fn mirror(program: &Program) -> Value {
    program.get("/api/v1/projections").of(200)["mirror"].clone()
}

/// Without `source`, which is another.
fn answer(program: &Program, path: &str, source: &str) -> Value {
    let join = if path.contains('?') { '&' } else { '?' };
    let mut answer = program.get(&format!("/api/v1{path}{join}source={source}")).of(200);
    let named = answer.as_object_mut().unwrap().remove("source").unwrap();
    assert_eq!(named == "clickhouse", source == "clickhouse", "{named}");
    answer
}

/// The service is killed again and again while it mirrors; at the end ClickHouse has each event
/// once, and answers as the log does.
async fn the_history_is_mirrored_over_kills(test: TestDatabase) {
    let (place, clickhouse) = (Place::new(test), ClickHouse::new());
    let url = clickhouse.url();
    let variables = [("CLICKHOUSE_URL", url.as_str())];
    for life in 0..6 {
        let mut program = place.start_with(&variables);
        for n in 0..10 {
            open(&program, &format!("account-{life}-{n}"), 10);
            send(&program, &format!("account-{life}-{n}"), "Deposit", &json!({"amount": 2.5}))
                .of(200);
            send(
                &program,
                &format!("order-{life}-{n}"),
                "CreateOrder",
                &json!({"customer_id": "c"}),
            )
            .of(200);
        }
        std::thread::sleep(Duration::from_millis(life * 70));
        program.kill();
    }
    let program = place.start_with(&variables);
    assert_eq!(program.get("/health").of(200)["status"], "healthy");
    let last = send(&program, "account-0-0", "Deposit", &json!({"amount": 1})).of(200);
    eventually("the mirror has it", || {
        mirror(&program)["status"]["position"].as_u64() >= last["position"].as_u64()
    });
    let count =
        format!("SELECT count(), uniqExact(event_id) FROM {}.potter_events", clickhouse.database);
    assert_eq!(clickhouse.ask(&count), "181\t181");
    let paid_in = format!(
        "SELECT sum(JSONExtract(payload, 'amount', 'Decimal(18, 2)')) FROM {}.potter_events
         WHERE event_type = 'account.deposited'",
        clickhouse.database
    );
    assert_eq!(clickhouse.ask(&paid_in), "151");
    for path in [
        "/analytics/events",
        "/analytics/events?event_type=account.opened",
        "/analytics/aggregates?limit=5",
        "/analytics/trends?bucket=minute",
        "/time-travel/analytics",
    ] {
        let by_clickhouse = answer(&program, path, "clickhouse");
        assert_eq!(by_clickhouse, answer(&program, path, "log"), "{path}");
    }
    let default = program.get("/api/v1/analytics/events").of(200);
    assert_eq!(
        (&default["source"], &default["totals"]["events"]),
        (&json!("clickhouse"), &json!(181))
    );
    place.test.close().await;
}

potter_core::on_every_sql_engine!(the_history_is_mirrored_over_kills);
