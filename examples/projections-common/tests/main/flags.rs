//! Flags and variables that can't be used.

use crate::place::Place;
use crate::process::{command, output};

/// Exit code and the one line on stderr.
fn refused(name: &str, flags: &str, variables: &[(&str, &str)]) -> (i32, String) {
    let place = Place::sqlite();
    let output = command(name, &place, flags).envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    (output.status.code().unwrap(), text)
}

#[test]
fn a_key_out_of_range_is_an_error_that_says_the_range() {
    for (name, flags, variables, part) in [
        ("partitioned", "--partition-key=4", &[][..], "--partition-key 4 is out of range"),
        ("partitioned", "--partition-key=-1", &[], "from 0 to 3"),
        ("partitioned", "--total-partitions=8", &[("PARTITION_KEY", "8")], "from 0 to 7"),
        ("partitioned", "", &[("PARTITION_KEY", "3"), ("TOTAL_PARTITIONS", "3")], "from 0 to 2"),
        ("partitioned", "", &[], "PARTITION_KEY or --partition-key, 0 to 3"),
        ("partitioned", "--partition-key=0 --total-partitions=65", &[], "from 1 to 64"),
        ("scaling", "--worker-id=4", &[], "from 0 to 3"),
        ("scaling", "--total-workers=0", &[("WORKER_ID", "0")], "--total-workers 0"),
        ("scaling", "", &[], "WORKER_ID or --worker-id, 0 to 3"),
        ("worker-pool", "--workers=0", &[], "from 1 to 64"),
    ] {
        let (code, text) = refused(name, flags, variables);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_database_that_is_not_there_is_named_with_its_variable_and_host() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("postgres://user:secret@{free}/users");
    for name in ["basic", "single-worker", "worker-pool", "multiple-projections"] {
        let (code, text) = refused(name, "", &[("DATABASE_URL", &url)]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("DATABASE_URL") && text.contains(&free.to_string()), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn every_program_has_help() {
    let place = Place::sqlite();
    for (name, flag) in [
        ("basic", "--database-url"),
        ("single-worker", "--once"),
        ("partitioned", "TOTAL_PARTITIONS"),
        ("worker-pool", "WORKERS"),
        ("multiple-projections", "BATCH_SIZE"),
        ("scaling", "WORKER_ID"),
        ("stop-resume", "append"),
    ] {
        assert!(output(name, &place, "--help").contains(flag), "{name}");
    }
}
