//! The program in a terminal.

use std::process::Command;

use examples_test_support::program;
use potter_core::testing::TestDatabase;

use crate::place::NAME;

const README: &str = include_str!("../../README.md");

fn run(folder: &std::path::Path, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(program(NAME));
    let command = command.env_clear().current_dir(folder).envs(variables.iter().copied());
    let output = command.args(arguments).output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn the_demo_prints_what_the_readme_says() {
    let folder = tempfile::tempdir().unwrap();
    let (success, text) = run(folder.path(), &["demo"], &[]);
    assert!(success, "{text}");
    let expected = README.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(text, expected);
    assert!(!folder.path().join("data").exists(), "it leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_runs_on_postgres_too() {
    let test = TestDatabase::postgres().await;
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (success, text) = run(folder.path(), &["demo"], &[("DATABASE_URL", test.url())]);
        assert!(success, "{text}");
        let expected = README.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
        let expected = expected.replace("a temporary SQLite file", "the one of DATABASE_URL");
        assert_eq!(text, expected);
    }
    test.close().await;
}

#[test]
fn what_can_not_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (success, text) = run(folder.path(), &["--help"], &[]);
    assert!(success && text.contains("DATABASE_URL"), "{text}");
    let (success, text) = run(folder.path(), &["sing"], &[]);
    assert!(!success && text.contains("\"sing\""), "{text}");
    for (variable, value) in [
        ("DATABASE_URL", "postgres://user:secret@127.0.0.1:1/none"),
        ("CLICKHOUSE_URL", "http://user:secret@127.0.0.1:1/none"),
        ("SNAPSHOT_FREQUENCY", "often"),
    ] {
        let (success, text) = run(folder.path(), &[], &[("PORT", "0"), (variable, value)]);
        assert!(!success && text.contains(variable) && !text.contains("secret"), "{text}");
    }
}
