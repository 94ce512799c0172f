//! The demonstration.

use std::process::Command;

use examples_test_support::program;

const README: &str = include_str!("../../README.md");

fn block(mark: &str) -> &'static str {
    let start = format!("```{mark}\n");
    README.split(&start).nth(1).unwrap().split("```").next().unwrap()
}

#[test]
fn the_demo_prints_what_the_readme_says_and_opens_no_port() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("sync-service"));
    // A port that can't be: nobody asks for it.
    command.env_clear().env("PORT", "none").current_dir(folder.path()).arg("demo");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text, block("text"));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "it leaves nothing behind");
}

#[test]
fn the_demo_runs_on_postgres_too() {
    let place = crate::place::Place::postgres();
    let mut command = Command::new(program("sync-service"));
    command.env_clear().env("DATABASE_URL", &place.url).arg("demo");
    // Twice: what is there from before does not matter.
    for _ in 0..2 {
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(text.matches("visits = 1115").count(), 2, "{text}");
    }
}

#[test]
fn a_database_that_can_not_be_reached_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("sync-service"));
    let url = "postgres://me:secret@127.0.0.1:1/none";
    command.env_clear().env("DATABASE_URL", url).current_dir(folder.path());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.contains("DATABASE_URL") && text.contains("127.0.0.1"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}
