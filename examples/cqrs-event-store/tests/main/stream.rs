//! Server-sent events: what a client gets over the lives of the service.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use examples_test_support::Program;
use potter_core::testing::TestDatabase;
use serde_json::{Value, json};

use crate::place::{Place, eventually, open, send};

/// A client that keeps the last id, as browsers do.
struct Client {
    last_id: Option<String>,
    events: Vec<Value>,
    heartbeats: u64,
}

/// Why reading ended.
#[derive(Debug, PartialEq)]
enum End {
    Enough,
    Broken,
}

impl Client {
    fn new(last_id: Option<&str>) -> Self {
        Self { last_id: last_id.map(ToOwned::to_owned), events: Vec::new(), heartbeats: 0 }
    }

    /// Reads until `enough`, or the connection breaks.
    fn read(&mut self, address: &str, query: &str, mut enough: impl FnMut(&Self) -> bool) -> End {
        let Ok(mut stream) = TcpStream::connect(address) else { return End::Broken };
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let id = self.last_id.as_ref().map(|id| format!("last-event-id: {id}\r\n"));
        // HTTP/1.0: a body without chunks.
        let request = format!(
            "GET /api/v1/events/stream{query} HTTP/1.0\r\nhost: x\r\n{}\r\n",
            id.unwrap_or_default()
        );
        if stream.write_all(request.as_bytes()).is_err() {
            return End::Broken;
        }
        let mut lines = BufReader::new(stream).lines();
        for line in lines.by_ref() {
            let Ok(line) = line else { return End::Broken };
            if line.is_empty() {
                break;
            }
            if line.starts_with("HTTP/") {
                assert!(line.contains(" 200 "), "{line}");
            }
        }
        let (mut id, mut data) = (None, None);
        while !enough(self) {
            let Some(Ok(line)) = lines.next() else { return End::Broken };
            match line.split_once(": ").unwrap_or((&line, "")) {
                ("id", text) => id = Some(text.to_owned()),
                ("data", text) => data = Some(text.to_owned()),
                ("", text) if text.starts_with("heartbeat") => self.heartbeats += 1,
                _ if line.is_empty() => {
                    // Only what is complete counts.
                    if let Some(id) = id.take() {
                        self.last_id = Some(id);
                    }
                    if let Some(data) = data.take() {
                        self.events.push(serde_json::from_str(&data).unwrap());
                    }
                }
                _ => {}
            }
        }
        End::Enough
    }
}

fn all_events(program: &Program) -> Vec<Value> {
    let (mut events, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = program.get(&format!("/api/v1/events?limit=500{cursor}")).of(200);
        events.extend(page["events"].as_array().unwrap().clone());
        let Some(next) = page["next_cursor"].as_str() else { return events };
        cursor = format!("&cursor={next}");
    }
}

/// The service is killed again and again while it streams and is written to. The client comes back
/// with its last id; at the end it has each event of the log once, in order.
async fn a_stream_goes_on_over_kills_without_loss_or_double(test: TestDatabase) {
    let place = Place::new(test);
    let mut client = Client::new(None);
    for life in 0..5 {
        let mut program = place.start();
        if life == 0 {
            open(&program, "account-1", 0);
        }
        let address = address(&program);
        std::thread::scope(|scope| {
            let writers: Vec<_> =
                (0..3).map(|_| scope.spawn(|| while deposit(&address).is_some() {})).collect();
            let (from, before) = ("?after=0", client.events.len());
            // A while into the writing: killed in the middle of it.
            assert_eq!(
                client.read(&address, from, |now| now.events.len() >= before + 40),
                End::Enough
            );
            let reader = scope.spawn(|| client.read(&address, from, |_| false));
            std::thread::sleep(Duration::from_millis(30));
            program.kill();
            assert_eq!(reader.join().unwrap(), End::Broken);
            for writer in writers {
                writer.join().unwrap();
            }
        });
    }
    let program = place.start();
    let all = all_events(&program);
    let last = all.last().unwrap()["position"].clone();
    let is_last = |now: &Client| now.events.last().is_some_and(|one| one["position"] == last);
    assert_eq!(client.read(&address(&program), "?after=0", is_last), End::Enough);
    assert!(all.len() > 150, "{}", all.len());
    assert_eq!(client.events, all);
    place.test.close().await;
}

fn address(program: &Program) -> String {
    program.address().to_owned()
}

fn deposit(address: &str) -> Option<()> {
    use std::io::Read;
    let body = r#"{"aggregate_id": "account-1", "command_type": "Deposit", "data": {"amount": 1}}"#;
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = format!(
        "POST /api/v1/commands HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(())
}

async fn a_client_without_an_id_begins_at_the_end(test: TestDatabase) {
    let place = Place::new(test);
    let mut program = place.start_with(&[("SSE_HEARTBEAT_MS", "20")]);
    open(&program, "account-1", 0);
    let mut client = Client::new(None);
    // It knows where it is before anything happened.
    client.read(&address(&program), "", |now| now.last_id.is_some() && now.heartbeats >= 2);
    assert_eq!(client.events.len(), 0);
    assert_eq!(client.last_id.as_deref(), Some("1"));
    send(&program, "account-1", "Deposit", &json!({"amount": 1})).of(200);
    send(&program, "order-1", "CreateOrder", &json!({"customer_id": "c"})).of(200);
    client.read(&address(&program), "", |now| now.events.len() == 2);
    assert_eq!(client.events[0]["event_type"], "account.deposited");
    let mut orders = Client::new(Some("0"));
    orders.read(&address(&program), "?aggregate_type=order", |now| now.events.len() == 1);
    assert_eq!(orders.events[0]["aggregate_id"], "order-1");
    let refused = program.send("GET", "/api/v1/events/stream", &["last-event-id: x"], "").unwrap();
    refused.problem(422, "invalid_position");
    // Streams end with the service.
    let address = address(&program);
    let followed = std::thread::spawn(move || {
        let mut client = Client::new(Some("0"));
        client.read(&address, "", |_| false)
    });
    eventually("it is followed", || program.get("/metrics").body.contains("http_requests"));
    program.signal("TERM");
    assert!(program.ended().success());
    assert_eq!(followed.join().unwrap(), End::Broken);
    place.test.close().await;
}

async fn too_many_clients_are_refused(test: TestDatabase) {
    let place = Place::new(test);
    let program = place.start();
    open(&program, "account-1", 0);
    let follow = || {
        let mut stream = TcpStream::connect(program.address()).unwrap();
        let request = "GET /api/v1/events/stream?after=0 HTTP/1.0\r\nhost: x\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        (stream, line)
    };
    let followers: Vec<_> = (0..100).map(|_| follow()).collect();
    assert!(followers.iter().all(|(_, line)| line.contains(" 200 ")));
    program.get("/api/v1/events/stream").problem(503, "too_many_streams");
    // The others are answered, and a place that came free is given away.
    send(&program, "account-1", "Deposit", &json!({"amount": 1})).of(200);
    drop(followers);
    eventually("a place is free", || {
        send(&program, "account-1", "Deposit", &json!({"amount": 1})).of(200);
        follow().1.contains(" 200 ")
    });
    place.test.close().await;
}

potter_core::on_every_sql_engine!(
    too_many_clients_are_refused,
    a_stream_goes_on_over_kills_without_loss_or_double,
    a_client_without_an_id_begins_at_the_end,
);
