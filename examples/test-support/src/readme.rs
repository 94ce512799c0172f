//! The commands of a README, so that it can't rot: lines of `sh` blocks that begin with `curl`,
//! each followed by a comment with the status of the answer (`# 201 {"id":…}`).

use crate::http::Answer;
use crate::program::Program;

/// One request of a README.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    method: String,
    path: String,
    headers: Vec<String>,
    body: String,
    /// The status that the README promises.
    pub status: u16,
}

impl Command {
    /// The same with `value` in the place of a word of the README, such as an id that an answer
    /// before gave.
    #[must_use]
    pub fn with(&self, word: &str, value: &str) -> Self {
        let mut command = self.clone();
        command.path = command.path.replace(word, value);
        command.body = command.body.replace(word, value);
        for header in &mut command.headers {
            *header = header.replace(word, value);
        }
        command
    }

    /// Sends it.
    pub fn send(&self, program: &Program) -> Answer {
        let headers: Vec<&str> = self.headers.iter().map(String::as_str).collect();
        program.send(&self.method, &self.path, &headers, &self.body).unwrap()
    }
}

/// The requests in the text of a README, in order.
///
/// # Panics
/// When a `curl` is not followed by its status.
pub fn commands(readme: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut lines = readme.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.starts_with("curl ") {
            continue;
        }
        let mut command = line.to_owned();
        while command.ends_with('\\') {
            command.pop();
            command.push_str(lines.next().unwrap_or_default());
        }
        let status = lines.peek().and_then(|next| next.strip_prefix("# ")?.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status behind: {command}"));
        commands.push(command_of(&command, status));
    }
    commands
}

fn command_of(text: &str, status: u16) -> Command {
    let mut command = Command {
        method: "GET".to_owned(),
        path: String::new(),
        headers: Vec::new(),
        body: String::new(),
        status,
    };
    let mut words = words(text).into_iter().skip(1);
    while let Some(word) = words.next() {
        let mut next = || words.next().unwrap_or_default();
        match word.as_str() {
            "-X" => command.method = next(),
            "-H" => command.headers.push(next()),
            "-d" => {
                command.body = next();
                if command.method == "GET" {
                    "POST".clone_into(&mut command.method);
                }
            }
            url if url.contains("://") => {
                let path = url.splitn(4, '/').nth(3).unwrap_or_default();
                command.path = format!("/{path}");
            }
            _ => {}
        }
    }
    // As curl does.
    let names_it = |header: &String| header.to_ascii_lowercase().starts_with("content-type:");
    if !command.body.is_empty() && !command.headers.iter().any(names_it) {
        command.headers.push("Content-Type: application/x-www-form-urlencoded".to_owned());
    }
    command
}

/// Words as a shell sees them, with quotes of both kinds.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in text.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.push(c),
            ('\'' | '"', None) => quote = Some(c),
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (c, None) => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_from_a_readme() {
        let text = "text\n```sh\ncurl -H 'Idempotency-Key: a b' \\\n  -d '{\"x\": \"y z\"}' http://localhost:8080/a?b=1\n# 201 ok\n```\n";
        let commands = commands(text);
        assert_eq!(commands.len(), 1);
        let Command { method, path, headers, body, status } = &commands[0];
        assert_eq!((method.as_str(), path.as_str(), *status), ("POST", "/a?b=1", 201));
        assert_eq!(body, r#"{"x": "y z"}"#);
        assert_eq!(
            headers[..],
            ["Idempotency-Key: a b", "Content-Type: application/x-www-form-urlencoded"]
        );
    }
}
