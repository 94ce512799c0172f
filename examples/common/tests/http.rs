//! The kit's promises, looked at from outside: a real process, a real port, bytes on a socket.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn probe(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kit-probe"));
    command
        .env_clear()
        .envs([("PORT", "0"), ("DATABASE_URL", "postgres://me:secret@db/orders?x=y")])
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A running probe; its process ends with it.
struct Service {
    child: Child,
    address: String,
    log: Receiver<Value>,
    start: Value,
}

impl Service {
    fn start(variables: &[(&str, &str)]) -> Self {
        let mut child = probe(variables).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (lines, log) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| json!({ "bad": line }));
                let _ = lines.send(line);
            }
        });
        let start = log.recv_timeout(PATIENCE).unwrap();
        let address = start["address"].as_str().unwrap_or_default().to_owned();
        Self { child, address, log, start }
    }

    fn send(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let request =
            format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::read(&String::from_utf8(bytes).unwrap())
    }

    fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1"), b"")
    }

    fn post(&self, body: &str) -> Answer {
        self.send("POST /orders HTTP/1.1\r\ncontent-type: application/json", body.as_bytes())
    }

    /// The next line of a request for `path`.
    fn line_of(&self, path: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.log.recv_timeout(deadline - Instant::now()).unwrap();
            assert_eq!(line.get("bad"), None, "every line is JSON");
            if line["message"] == "request" && line["path"] == path {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    /// A problem of that status and code; gives its detail.
    #[track_caller]
    fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let body = self.json();
        assert_eq!((&body["status"], &body["code"]), (&json!(status), &json!(code)), "{body}");
        assert_eq!(body["type"], format!("urn:problem:{code}"));
        assert!(body["title"].is_string());
        body["detail"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_body_is_taken_or_refused_with_the_place_of_the_mistake() {
    let service = Service::start(&[]);
    let order = r#"{"customer":"ada","items":[{"sku":"a","quantity":2}]}"#;
    let answer = service.post(order);
    assert_eq!((answer.status, answer.body.as_str()), (200, order));

    let detail = service.post("{\"customer\":\n oops}").problem(400, "malformed_json");
    assert!(detail.contains("line 2, column 2"), "{detail}");
    service.post("").problem(400, "malformed_json");

    let answer = service.post(r#"{"customer":"ada","items":[{"sku":"a","quantity":-2}]}"#);
    answer.problem(422, "invalid_body");
    assert_eq!(answer.json()["errors"][0]["field"], "items[0].quantity");
    let answer = service.post(r#"{"customer":"ada","items":[],"coupon":1}"#);
    answer.problem(422, "invalid_body");
    assert_eq!(answer.json()["errors"][0]["field"], "coupon");

    let plain = "POST /orders HTTP/1.1\r\ncontent-type: text/plain";
    service.send(plain, order.as_bytes()).problem(415, "unsupported_media_type");
    // What `curl -d` sends is taken; what a page in a browser may send unasked is not.
    let form = "POST /orders HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded";
    assert_eq!(service.send(form, order.as_bytes()).status, 200);
    assert_eq!(service.send("POST /orders HTTP/1.1", order.as_bytes()).status, 200);
    for (sent, by_page) in [
        (form, "origin: http://elsewhere.example"),
        (form, "sec-fetch-site: cross-site"),
        ("POST /orders HTTP/1.1", "origin: null"),
    ] {
        let head = format!("{sent}\r\n{by_page}");
        service.send(&head, order.as_bytes()).problem(415, "unsupported_media_type");
    }
    let json =
        "POST /orders HTTP/1.1\r\ncontent-type: application/json\r\norigin: http://localhost";
    assert_eq!(service.send(json, order.as_bytes()).status, 200);
    let large = format!("{{\"customer\":\"{}\",\"items\":[]}}", "x".repeat(8 << 20));
    let detail = service.post(&large).problem(413, "body_too_large");
    assert!(detail.contains("1048576"), "{detail}");
    let fits = format!("{{\"customer\":\"{}\",\"items\":[]}}", "x".repeat((1 << 20) - 64));
    assert_eq!(service.post(&fits).status, 200);
}

#[test]
fn every_refusal_is_a_problem() {
    let service = Service::start(&[]);
    let detail = service.get("/nowhere").problem(404, "no_such_route");
    assert!(detail.contains("/nowhere"), "{detail}");
    let answer = service.get("/orders");
    answer.problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("post"));
    service.get("/items/seven").problem(400, "bad_request");
    let detail = service.get("/items?limit=x").problem(400, "bad_request");
    assert!(detail.contains("limit"), "{detail}");
    assert_eq!(service.get("/items/7").body, "7");

    for path in ["/fail", "/panic"] {
        let answer = service.get(path);
        answer.problem(500, "internal");
        assert!(!answer.body.contains("secret"), "{}", answer.body);
    }
    assert_eq!(service.get("/items/7").body, "7", "it goes on after a panic");
}

#[test]
fn ids_are_taken_or_made_and_are_in_the_log() {
    let service = Service::start(&[]);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let head = format!(
        "GET /items/7 HTTP/1.1\r\nx-correlation-id: order-42\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-01"
    );
    assert_eq!(service.send(&head, b"").header("x-correlation-id"), Some("order-42"));
    let line = service.line_of("/items/{id}");
    assert_eq!(line["correlation_id"], "order-42");
    assert_eq!(line["trace_id"], trace);
    assert_eq!((&line["method"], &line["status"]), (&json!("GET"), &json!(200)));
    assert!(line["duration_ms"].is_f64());

    let head = "GET /nowhere HTTP/1.1\r\nx-correlation-id: a b\"c\r\ntraceparent: nonsense";
    let made = service.send(head, b"").header("x-correlation-id").unwrap().to_owned();
    assert_eq!(made.len(), 36, "one that could forge the log is replaced: {made}");
    let line = service.line_of("/nowhere");
    assert_eq!(line["correlation_id"], made.as_str());
    assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
}

#[test]
fn health_metrics_and_documentation() {
    let service = Service::start(&[]);
    let healthy = json!({ "status": "healthy", "service": "kit-probe", "version": "1.2.3" });
    assert_eq!(service.get("/health").json(), healthy);

    service.get("/items/1");
    service.get("/items/2");
    service.get("/made-up-by-a-caller");
    let text = service.get("/metrics").body;
    assert!(
        text.contains(r#"http_requests_total{method="GET",path="/items/{id}",status="200"} 2"#),
        "{text}"
    );
    assert!(
        text.contains(
            r#"http_request_duration_seconds_bucket{method="GET",path="/items/{id}",le="0.05"}"#
        ),
        "{text}"
    );
    assert!(text.contains(r#"path="unmatched",status="404"} 1"#), "{text}");
    assert!(!text.contains("made-up"), "callers make no labels");

    let document = service.get("/openapi.json").json();
    assert_eq!(document["info"]["title"], "kit-probe");
    assert!(document["paths"]["/orders"]["post"]["requestBody"].is_object(), "{document}");
    assert!(document["components"]["schemas"]["Problem"].is_object(), "{document}");
    let page = service.get("/docs");
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("http://") && !page.body.contains("https://"), "self-contained");

    let down = Service::start(&[("PROBE_DOWN", "true")]);
    let answer = down.get("/health");
    answer.problem(503, "unhealthy");
    assert_eq!(
        answer.json()["errors"],
        json!([{ "field": "database", "message": "does not answer" }])
    );
    assert!(!answer.body.contains("secret"));
}

#[test]
fn a_signal_lets_the_request_under_way_finish_and_exits_with_zero() {
    for signal in ["TERM", "INT"] {
        let mut service = Service::start(&[]);
        assert_eq!(service.start["database"], "postgres://***@db/orders");
        assert_eq!(service.start["service"], "kit-probe");
        let mut under_way = TcpStream::connect(&service.address).unwrap();
        under_way.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        // An idle connection must not hold the end up.
        let _idle = TcpStream::connect(&service.address).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let begin = Instant::now();
        service.signal(signal);
        let mut text = String::new();
        under_way.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("done"), "{text}");
        assert!(service.child.wait().unwrap().success());
        // It is given eight seconds before it is left behind.
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
        assert!(TcpStream::connect(&service.address).is_err());
    }
}

#[test]
fn a_request_that_never_ends_does_not_keep_the_program_past_ten_seconds() {
    let mut service = Service::start(&[]);
    let mut under_way = TcpStream::connect(&service.address).unwrap();
    under_way.write_all(b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let begin = Instant::now();
    service.signal("TERM");
    let status = service.child.wait().unwrap();
    assert!(status.success(), "{status}");
    let took = begin.elapsed();
    assert!((Duration::from_secs(8)..Duration::from_secs(30)).contains(&took), "{took:?}");
}

#[test]
fn a_caller_that_goes_away_is_in_the_log() {
    let service = Service::start(&[]);
    let mut caller = TcpStream::connect(&service.address).unwrap();
    caller.write_all(b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    drop(caller);
    assert_eq!(service.line_of("/hang")["status"], 499);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut service = Service::start(&[]);
    let mut under_way = TcpStream::connect(&service.address).unwrap();
    under_way.write_all(b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    service.signal("TERM");
    std::thread::sleep(Duration::from_millis(200));
    service.signal("INT");
    assert_eq!(service.child.wait().unwrap().code(), Some(1), "the first one alone ends with 0");
}

#[test]
fn a_malformed_setting_is_one_line_and_exit_code_one() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port().to_string();
    for (variable, value, says) in [
        ("PORT", "http", "PORT=http "),
        ("DATABASE_URL", "mysql://u:secret@h/d", "DATABASE_URL=mysql://***@h/d "),
        ("LOG_LEVEL", "loud", "LOG_LEVEL=loud "),
        ("PROBE_DOWN", "perhaps", "PROBE_DOWN=perhaps "),
        ("PORT", &taken, "can't listen on HOST=127.0.0.1 PORT="),
        ("JAEGER_ENDPOINT", "http://127.0.0.1:9", "JAEGER_ENDPOINT"),
        ("HOST", "256.0.0.1", "can't listen on HOST=256.0.0.1 "),
    ] {
        let output = probe(&[(variable, value)]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{variable}={value}: {text}");
        assert!(text.starts_with(&format!("kit-probe: {says}")), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
