//! The READMEs: their commands print what they say.

use std::path::Path;
use std::process::Command;

use crate::process::{clean, program};

/// Ids that are new each time as `########`.
fn without_ids(line: &str) -> String {
    match line.split_once("(aggregate: ") {
        Some((before, after)) => format!("{before}(aggregate: ########{}", &after[8..]),
        None => line.to_owned(),
    }
}

/// The lines of an output: in any order where several workers print.
fn lines(name: &str, text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(without_ids).collect();
    if ["worker-pool", "multiple-projections"].contains(&name) {
        lines.sort();
    }
    lines
}

fn tell(name: &str, least: usize) {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let blocks = readme.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut count = 0;
    for block in blocks {
        for run in block.split("$ ").skip(1) {
            let (line, expected) = run.split_once('\n').unwrap();
            let cargo = format!("cargo run --example {name}");
            let (variables, flags) = line.split_once(&cargo).unwrap();
            let flags = flags.trim_start().trim_start_matches("-- ");
            let line = format!("{variables}'{}' {flags} 2>&1", program(name).display());
            let mut shell = Command::new("sh");
            let output = clean(&mut shell).args(["-c", &line]).current_dir(&folder).output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            assert_eq!(lines(name, &text), lines(name, expected), "{line}");
            count += 1;
        }
    }
    assert!(count >= least, "{count} commands in the README of {name}");
}

#[test]
fn basic() {
    tell("basic", 2);
}

#[test]
fn single_worker() {
    tell("single-worker", 1);
}

#[test]
fn partitioned() {
    tell("partitioned", 5);
}

#[test]
fn worker_pool() {
    tell("worker-pool", 1);
}

#[test]
fn multiple_projections() {
    tell("multiple-projections", 1);
}

#[test]
fn scaling() {
    tell("scaling", 2);
}

#[test]
fn stop_resume() {
    tell("stop-resume", 8);
}
