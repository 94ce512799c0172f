//! The demonstration, and the README.

use std::process::Command;

use crate::place::Place;
use crate::process::{Process, command};

const README: &str = include_str!("../../README.md");

/// The code blocks of the README that are marked so.
fn blocks(mark: &str) -> Vec<&'static str> {
    let start = format!("```{mark}\n");
    README.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Every number of milliseconds as `#`, and every run of spaces as one.
fn without_times(text: &str) -> String {
    let line = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_time = |index: usize| words.get(index + 1) == Some(&"ms");
        let words = words.iter().enumerate().map(|(i, word)| if is_time(i) { "#" } else { word });
        words.collect::<Vec<_>>().join(" ")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_demo_prints_what_the_readme_says() {
    let place = Place::sqlite();
    let output = command(&place, &[]).env_remove("DATABASE_URL").arg("demo").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(without_times(&text), without_times(blocks("text")[0]));
    assert!(!place.folder.path().join("data").exists(), "it leaves nothing behind");
}

#[test]
fn the_demo_runs_on_postgres_too() {
    let place = Place::postgres();
    let output = command(&place, &[]).arg("demo").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = blocks("text")[0].replace("a temporary SQLite file", "the one of DATABASE_URL");
    assert_eq!(without_times(&text), without_times(&expected));
}

/// Runs the README's requests as they stand there; a comment before one says its status.
#[test]
fn the_requests_of_the_readme_work() {
    let place = Place::sqlite();
    let process = Process::start(&place, &[]);
    let requests = blocks("sh").join("\n").replace("\\\n", " ");
    let (mut expected, mut count) = ("2", 0);
    for line in requests.lines() {
        if let Some(status) = line.strip_prefix("# ").and_then(|words| words.split(':').next())
            && status.parse::<u16>().is_ok()
        {
            expected = status;
        }
        if !line.starts_with("curl ") {
            continue;
        }
        let line = line.replace("127.0.0.1:8080", &process.address);
        let output = Command::new("sh")
            .args(["-c", &format!("{line} -w '\\n%{{http_code}}'")])
            .output()
            .expect("sh runs curl: install it");
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        assert!(status.starts_with(expected), "{line}\n{status} {body}");
        if line.contains("-X POST") && line.contains("/orders") && status == "202" {
            assert_eq!(body, blocks("json")[0].trim(), "{line}");
            let saga: serde_json::Value = serde_json::from_str(body).unwrap();
            process.finished(saga["saga_id"].as_str().unwrap());
        }
        (expected, count) = ("2", count + 1);
    }
    assert!(count >= 12, "{count} requests");
}
