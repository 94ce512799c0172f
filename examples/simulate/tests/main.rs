//! Runs the program as a user does: every command of the README prints what it says.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

use examples_test_support::program;

fn run(arguments: &str) -> Output {
    let mut command = Command::new(program("simulate"));
    command.args(arguments.split_whitespace()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_readme_is_true_to_the_byte() {
    let readme = include_str!("../README.md");
    let mut count = 0;
    for block in readme.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for run_of_it in block.split("$ ").skip(1) {
            let (line, expected) = run_of_it.split_once('\n').unwrap();
            let (_, arguments) = line.split_once("--example simulate -- ").unwrap();
            assert_eq!(text(&run(arguments).stdout), expected, "{line}");
            count += 1;
        }
    }
    assert!(count >= 3, "{count} commands");
}

#[test]
fn the_exit_status_is_the_verdict() {
    assert_eq!(run("--seed 7 --bug stale-reads").status.code(), Some(1));
    assert_eq!(run("--seed 7").status.code(), Some(0));
    assert_eq!(run("--seed 7 --operations 0").status.code(), Some(3), "nothing was seen");
    let wrong = run("--bug stale-read");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("stale-reads"), "{}", text(&wrong.stderr));
}

#[test]
fn the_command_that_it_names_fails_in_the_same_way() {
    let first = text(&run("--seed 7 --bug write-skew --shrink").stdout);
    let again = first.lines().find_map(|line| line.strip_prefix("again: ")).unwrap();
    let (_, arguments) = again.split_once("--example simulate -- ").unwrap();
    let second = run(arguments);
    assert_eq!(second.status.code(), Some(1));
    let verdict =
        |text: &str| text.lines().find(|line| line.contains("INVALID")).map(str::to_owned);
    assert_eq!(verdict(&first), verdict(&text(&second.stdout)));
}
