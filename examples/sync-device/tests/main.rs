//! Two devices as their users see them: processes with files of their own, and a service between.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use examples_test_support::{Program, program};

fn device(folder: &Path, server: &str, arguments: &[&str]) -> Output {
    Command::new(program("sync-device"))
        .env_clear()
        .env("SYNC_SERVER", server)
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Words as a shell has them.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect()
}

#[test]
fn the_story_of_the_readme_is_true() {
    let folder = tempfile::tempdir().unwrap();
    let service = Program::start("sync-service", folder.path(), &[]);
    let server = format!("http://{}", service.address());
    let readme = include_str!("../README.md");
    let mut lines = readme.lines().peekable();
    let mut run = 0;
    while let Some(line) = lines.next() {
        let words = words(line);
        match words.first().map(String::as_str) {
            Some("cp") => {
                // The journal of SQLite is empty when no command runs.
                let [from, to] = [1, 2].map(|at| folder.path().join(&words[at]));
                std::fs::copy(from, to).unwrap();
            }
            Some("sync-device") => {
                let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
                let mut expected = String::new();
                while let Some(text) = lines.next_if(|next| next.starts_with("# ")) {
                    expected.push_str(&text[2..]);
                    expected.push('\n');
                }
                let output = device(folder.path(), &server, &arguments);
                assert_eq!(said(&output), expected, "{line}");
                run += 1;
            }
            _ => {}
        }
    }
    assert!(run >= 15, "{run}");
}

#[test]
fn offline_is_no_error_of_the_device_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = "http://127.0.0.1:1";
    assert_eq!(said(&device(folder.path(), nowhere, &["inc", "n"])), "n = 1  (1 not synced)\n");
    let output = device(folder.path(), nowhere, &["sync"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).starts_with("offline: "));
    let output = device(folder.path(), nowhere, &["add", "n", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said(&output), "type_mismatch: n is a PNCounter\n");
    assert_eq!(
        said(&device(folder.path(), nowhere, &["on", "flag"])),
        "flag = true  (1 not synced)\n"
    );
    assert_eq!(
        said(&device(folder.path(), nowhere, &["put", "m", "k", "[1]"])),
        "m = {\"k\":[1]}  (1 not synced)\n"
    );
    assert_eq!(
        said(&device(folder.path(), nowhere, &["unset", "m", "k"])),
        "m = {}  (2 not synced)\n"
    );
    let service = Program::start("sync-service", folder.path(), &[]);
    let server = format!("http://{}", service.address());
    assert_eq!(said(&device(folder.path(), &server, &["sync"])), "4 sent, 3 received\n");
    let status = said(&device(folder.path(), &server, &["status"]));
    assert!(status.contains("device       phone of me"), "{status}");
    assert!(status.contains("not sent     0"), "{status}");
    assert_eq!(device(folder.path(), &server, &["fly"]).status.code(), Some(2));
}

/// It looks at its file once an hour: what it shows, it was told.
#[test]
fn a_watch_is_told_of_news_by_the_server() {
    use std::io::{BufRead, BufReader};

    let folder = tempfile::tempdir().unwrap();
    let service = Program::start("sync-service", folder.path(), &[]);
    let server = format!("http://{}", service.address());
    device(folder.path(), &server, &["--file", "phone.db", "inc", "n"]);
    device(folder.path(), &server, &["--file", "phone.db", "sync"]);
    let mut watch = Command::new(program("sync-device"))
        .env_clear()
        .env("SYNC_SERVER", &server)
        .current_dir(folder.path())
        .args(["--file", "tablet.db", "watch", "--every-ms", "3600000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for n in 1..6 {
        assert_eq!(lines.next().unwrap().unwrap(), format!("n = {n}"));
        device(folder.path(), &server, &["--file", "phone.db", "inc", "n"]);
        device(folder.path(), &server, &["--file", "phone.db", "sync"]);
    }
    // It ends at once, though it waits.
    let stopped = Command::new("kill").args(["-s", "INT", &watch.id().to_string()]).status();
    assert!(stopped.unwrap().success());
    assert!(watch.wait().unwrap().success());
}

#[test]
fn a_watch_shows_what_another_device_does() {
    use std::io::{BufRead, BufReader};

    let folder = tempfile::tempdir().unwrap();
    let service = Program::start("sync-service", folder.path(), &[]);
    let server = format!("http://{}", service.address());
    let mut watch = Command::new(program("sync-device"))
        .env_clear()
        .env("SYNC_SERVER", &server)
        .current_dir(folder.path())
        .args(["--file", "tablet.db", "watch", "--every-ms", "50"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    // A command on the watched file takes its turn.
    device(folder.path(), &server, &["--file", "tablet.db", "inc", "visits", "3"]);
    let mut shown = String::new();
    while !shown.starts_with("visits = 3") {
        shown = lines.next().unwrap().unwrap();
    }
    device(folder.path(), &server, &["--file", "phone.db", "inc", "visits", "2"]);
    device(folder.path(), &server, &["--file", "phone.db", "sync"]);
    while shown != "visits = 5" {
        shown = lines.next().unwrap().unwrap();
    }
    let stopped = Command::new("kill").args(["-s", "INT", &watch.id().to_string()]).status();
    assert!(stopped.unwrap().success());
    watch.wait().unwrap();
}
