//! The program through its port.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::Command;

use examples_test_support::{Program, commands, program};
use serde_json::json;

const NAME: &str = "eventsourcing-mongodb";
const README: &str = include_str!("../README.md");

/// A database of its own, dropped with it.
struct Mongo {
    server: String,
    name: String,
}

impl Mongo {
    fn new(name: &str) -> Self {
        let server = std::env::var("POTTER_TEST_MONGO_URL").expect(
            "POTTER_TEST_MONGO_URL is not set: start a private server with \
             eval \"$(scripts/services up mongodb)\"",
        );
        let name = format!("potter_example_{name}_{}", std::process::id());
        Self { server, name }
    }

    fn url(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').expect("a URL with a database name");
        format!("{server}/{}", self.name)
    }

    fn start(&self, folder: &tempfile::TempDir) -> Program {
        Program::start(NAME, folder.path(), &[("MONGO_URL", &self.url())])
    }
}

impl Drop for Mongo {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let client = mongodb::Client::with_uri_str(&self.server).await.unwrap();
            client.database(&self.name).drop().await.unwrap();
        });
    }
}

#[test]
fn the_readme_is_true() {
    let (mongo, folder) = (Mongo::new("readme"), tempfile::tempdir().unwrap());
    let program = mongo.start(&folder);
    let commands = commands(README);
    assert_eq!(commands.len(), 8);
    for command in commands {
        let answer = command.send(&program);
        assert_eq!(answer.status, command.status, "{command:?}: {}", answer.body);
    }
    let stock = program.get("/inventory/tea@berlin").of(200);
    assert_eq!((&stock["quantity"], &stock["reserved"]), (&json!(70), &json!(30)));
    let events = program.get("/events/by-type?type=inventory.item.added").of(200);
    assert_eq!(events["events"][0]["data"]["product_id"], "tea");
    assert_eq!(program.get("/health").of(200)["status"], "healthy");
    assert!(program.get("/openapi.json").of(200)["paths"]["/inventory/reserve"].is_object());
}

#[test]
fn bad_requests_are_refused() {
    let (mongo, folder) = (Mongo::new("bad"), tempfile::tempdir().unwrap());
    let program = mongo.start(&folder);
    let add = |body| program.post("/inventory/items", &body);
    for quantity in [0, -1, i64::MAX] {
        let body = json!({"product_id": "a", "warehouse_id": "w", "quantity": quantity});
        add(body).problem(422, "invalid_quantity");
        let body = json!({"inventory_id": "a@w", "quantity": quantity});
        program.post("/inventory/reserve", &body).problem(422, "invalid_quantity");
    }
    for bad in ["", "a b", "a/b", "ü"] {
        let body = json!({"product_id": bad, "warehouse_id": "w", "quantity": 1});
        add(body).problem(422, "invalid_name");
    }
    add(json!({"product_id": "a", "quantity": 1})).problem(422, "invalid_body");
    let unknown = json!({"inventory_id": "a@w", "quantity": 1});
    program.post("/inventory/reserve", &unknown).problem(404, "inventory_not_found");
    program.get("/events/by-type").problem(422, "missing_type");
    program.get("/events/by-type?type=x&limit=501").problem(422, "invalid_limit");
    let headers = ["content-type: application/json"];
    let malformed = program.send("POST", "/inventory/items", &headers, "{").unwrap();
    malformed.problem(400, "malformed_json");
}

#[test]
fn pages_of_a_type_go_on() {
    let (mongo, folder) = (Mongo::new("pages"), tempfile::tempdir().unwrap());
    let program = mongo.start(&folder);
    for n in 0..7 {
        let body = json!({"product_id": format!("p{n}"), "warehouse_id": "w", "quantity": 5});
        program.post("/inventory/items", &body).of(201);
        let body = json!({"inventory_id": format!("p{n}@w"), "quantity": 1});
        program.post("/inventory/reserve", &body).of(200);
    }
    let (mut seen, mut cursor) = (Vec::new(), json!(0));
    while !cursor.is_null() {
        let path = format!("/events/by-type?type=inventory.item.added&limit=3&cursor={cursor}");
        let page = program.get(&path).of(200);
        let events = page["events"].as_array().unwrap().clone();
        assert!(events.len() <= 3);
        seen.extend(events.iter().map(|event| event["inventory_id"].as_str().unwrap().to_owned()));
        cursor = page["next_cursor"].clone();
    }
    assert_eq!(seen, (0..7).map(|n| format!("p{n}@w")).collect::<Vec<_>>());
}

/// Killed while requests are under way; whoever got no answer asks again with the same key.
#[test]
fn nothing_is_lost_or_doubled() {
    let (mongo, folder) = (Mongo::new("killed"), tempfile::tempdir().unwrap());
    let mut program = mongo.start(&folder);
    let body = json!({"product_id": "a", "warehouse_id": "w", "quantity": 1000});
    program.post("/inventory/items", &body).of(201);
    let reserve = json!({"inventory_id": "a@w", "quantity": 1});
    for round in 0..2 {
        let keys: Vec<_> = (0..10).map(|n| format!("{round}-{n}")).collect();
        std::thread::scope(|scope| {
            for key in &keys {
                let (program, body) = (&program, reserve.to_string());
                scope.spawn(move || {
                    let key = format!("idempotency-key: {key}");
                    let headers = ["content-type: application/json", &*key];
                    // Most of them do not live to see the answer.
                    let _ = program.send("POST", "/inventory/reserve", &headers, &body);
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(30 * (round + 1)));
            program.signal("KILL");
        });
        program.ended();
        program = mongo.start(&folder);
        for key in &keys {
            program.post_once("/inventory/reserve", key, &reserve).of(200);
        }
    }
    let stock = program.get("/inventory/a@w").of(200);
    assert_eq!((&stock["reserved"], &stock["version"]), (&json!(20), &json!(21)));
    program.signal("TERM");
    assert!(program.ended().success());
}

#[test]
fn it_says_what_to_set() {
    let folder = tempfile::tempdir().unwrap();
    for (variables, words) in [
        (vec![], "MONGO_URL is not set"),
        (vec![("MONGODB_URI", "mongodb://u:s3cret@127.0.0.1:1/shop")], "MONGODB_URI can't be used"),
        (vec![("MONGO_URL", "mongodb://u:s3cret@127.0.0.1:1/")], "names no database"),
        (vec![("MONGO_URL", "postgres://u:s3cret@127.0.0.1/shop")], "mongodb://"),
    ] {
        let ended = Command::new(program(NAME))
            .env_clear()
            .current_dir(folder.path())
            .env("PORT", "0")
            .envs(variables)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{text}");
        assert!(text.contains(words) && !text.contains("s3cret"), "{text}");
        assert!(!folder.path().join("data").exists(), "it makes no folder");
    }
}
