//! Runs the program as a user does.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--package", "example-check-history"]);
    command.args(["--example", "check-history", "--"]).args(arguments);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_write_skew_is_named_and_drawn() {
    let folder = std::env::temp_dir().join(format!("check-history-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (html, small) = (folder.join("report.html"), folder.join("small.edn"));
    let (html, small) = (html.to_str().unwrap(), small.to_str().unwrap());
    let file = "histories/write-skew.edn";
    let output = run(&[file, "--model", "list-append", "--html", html, "--shrink", small]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("list-append: INVALID"), "{said}");
    assert!(said.contains("G2-item"), "{said}");
    let report = std::fs::read_to_string(html).unwrap();
    assert!(report.starts_with("<!doctype html>") && report.contains("class=\"edge rw\""));
    let shrunk = std::fs::read_to_string(small).unwrap();
    assert!(shrunk.lines().count() < 8, "{shrunk}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_folder_of_verdicts_is_checked_line_by_line() {
    let output = run(&["histories", "--verdicts"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.ends_with("2 as expected, 0 not\n"), "{said}");
}

#[test]
fn what_can_not_be_checked_is_said_with_its_line() {
    let output = run(&["histories/verdicts.tsv", "--model", "register"]);
    assert_eq!(output.status.code(), Some(2));
    let output = run(&["histories/register.edn", "--model", "registre"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cas-register"), "{}", text(&output.stderr));
}
