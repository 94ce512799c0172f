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

/// What `model` says of `history`, compared with each of `columns`: whether it is as expected.
fn columns(name: &str, model: &str, history: &str, columns: &[(&str, bool)]) {
    let folder = std::env::temp_dir().join(format!("check-history-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("h.edn"), history).unwrap();
    let lines: Vec<String> =
        columns.iter().map(|(expected, _)| format!("h.edn\t{model}\t{expected}\n")).collect();
    std::fs::write(folder.join("verdicts.tsv"), lines.concat()).unwrap();
    let said = text(&run(&[folder.to_str().unwrap(), "--verdicts"]).stdout);
    for ((expected, right), line) in columns.iter().zip(said.lines()) {
        assert_eq!(line.starts_with("ok"), *right, "{expected}: {line}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn verdicts_are_written_in_many_words() {
    let skew = std::fs::read_to_string("histories/write-skew.edn").unwrap();
    let expected = [
        ("invalid", true),
        ("Invalid: not serializable", true),
        ("false", true),
        ("invalid (G2-item)", true),
        ("invalid: G2-item; not repeatable read", true),
        ("invalid - exactly G2", true),
        ("not serializable, snapshot isolation holds", true),
        ("invalid. Not strict serializable.", true),
        ("invalid: not strong-session-serializable; strong snapshot isolation holds", true),
        ("G2-item, no G1a", true),
        ("monotonic-atomic-view and cursor-stability hold", true),
        ("invalid: not cursor-stability", false),
        ("valid", false),
        ("invalid: G0", false),
        ("exactly lost-update", false),
        ("invalid: not snapshot-isolation", false),
        ("whatever", false),
    ];
    columns("skew", "list-append", &skew, &expected);
    let lost = "{:process 0 :type :ok :f :txn :value [[:w x 1]]}
                {:process 1 :type :ok :f :txn :value [[:r x 1] [:w x 2]]}
                {:process 2 :type :ok :f :txn :value [[:r x 1] [:w x 3]]}";
    let expected = [
        ("exactly lost-update; not cursor-stability, not update-atomic", true),
        ("invalid: not consistent-view, read committed holds", true),
        ("parallel snapshot isolation violated", true),
        ("exactly G1a", false),
        ("cursor-stability holds", false),
    ];
    columns("lost", "rw-register", lost, &expected);
    let stale = std::fs::read_to_string("histories/register.edn").unwrap();
    let expected = [("linearizable", true), ("true", true), ("not linearizable", false)];
    columns("register", "register init=nil", &stale, &expected);
}
