//! Requests over a port.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::program::Program;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a service answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    /// The JSON of an answer of that status.
    ///
    /// # Panics
    /// When it has another.
    #[track_caller]
    pub fn of(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.json()
    }

    /// The detail of a problem of that status and code.
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> String {
        let body = self.of(status);
        assert_eq!(body["code"], code, "{body}");
        body["detail"].as_str().unwrap().to_owned()
    }
}

/// One request to `address` on a connection of its own; `headers` are whole lines.
///
/// # Errors
/// When nobody listens there, or stops before the answer is complete.
pub fn exchange(
    address: &str,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    if length.is_some_and(|length: usize| length != body.len()) {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(Answer { status, body: body.to_owned() })
}

impl Program {
    /// [`exchange`] with it.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> std::io::Result<Answer> {
        exchange(&self.address, method, path, headers, body)
    }

    /// GET.
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").unwrap()
    }

    /// A body of JSON by `method`.
    pub fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        let headers = ["content-type: application/json"];
        self.send(method, path, &headers, &body.to_string()).unwrap()
    }

    /// POST of JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.json("POST", path, body)
    }

    /// POST of JSON with an idempotency key.
    pub fn post_once(&self, path: &str, key: &str, body: &Value) -> Answer {
        let key = format!("idempotency-key: {key}");
        let headers = ["content-type: application/json", &key];
        self.send("POST", path, &headers, &body.to_string()).unwrap()
    }
}
