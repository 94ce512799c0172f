//! PostgreSQL with a replica: it follows, is cut off, killed, skewed, and comes back.

use std::process::Command;
use std::sync::Arc;

use potter_jepsen::Value;
use potter_jepsen::db::{PostgresCluster, PostgresOptions};
use potter_jepsen::nemesis::{Fault, Journal, Nemesis};
use potter_jepsen::runner::Node;

use super::wait_for;

fn sql(node: &Node, text: &str) -> Option<String> {
    let mut command = Command::new("psql");
    command.env("PGCONNECT_TIMEOUT", "2").args(["-XAtqc", text, &node.url]);
    let output = command.output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_follows_and_survives_its_faults() {
    // Not below the test's own directory, which only its owner can enter.
    let place = tempfile::Builder::new().prefix("potter-cluster-").tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let (journal, _) = Journal::open(place.path().join("journal")).unwrap();
    let directory = place.path().join("data");
    let options = PostgresOptions::default().clocks();
    let cluster = PostgresCluster::new(Arc::clone(&journal), &directory, options).await.unwrap();
    let nodes = cluster.launch().await.unwrap();
    let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["postgres-primary", "postgres-replica"]);
    let (primary, replica) = (&nodes[0], &nodes[1]);
    assert_eq!(sql(replica, "SELECT pg_is_in_recovery()").as_deref(), Some("t"));
    sql(primary, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)").unwrap();
    let count = |node: &Node| sql(node, "SELECT count(*) FROM t");
    wait_for("the replica to follow", || count(replica).as_deref() == Some("1"));

    let nemesis = cluster.nemesis().unwrap();
    nemesis.probe().await.require("cluster").unwrap();
    // Primary and replica don't hear each other; clients reach both.
    let apart = Fault::new("partition").targets(["postgres-primary", "postgres-replica"]);
    let injected = nemesis.inject(&apart).await.unwrap();
    assert!(injected.verified, "{}", injected.detail);
    sql(primary, "INSERT INTO t VALUES (2)").unwrap();
    assert_eq!(count(primary).as_deref(), Some("2"));
    assert_eq!(count(replica).as_deref(), Some("1"), "it can't have heard of it");
    assert!(nemesis.heal().await.unwrap().verified);
    wait_for("the replica to catch up", || count(replica).as_deref() == Some("2"));

    let kill = Fault::new("kill").target("postgres-primary");
    assert!(nemesis.inject(&kill).await.unwrap().verified);
    assert_eq!(count(primary), None);
    let healed = nemesis.heal().await.unwrap();
    assert!(healed.verified, "{}", healed.detail);
    assert_eq!(count(primary).as_deref(), Some("2"), "what was committed is there");
    sql(primary, "INSERT INTO t VALUES (3)").unwrap();
    wait_for("the replica to connect again", || count(replica).as_deref() == Some("3"));

    let skew = Fault::new("clock-skew").target("postgres-primary");
    let skew = skew.param("seconds", Value::Int(7_200));
    let injected = nemesis.inject(&skew).await.unwrap();
    assert!(injected.verified, "{}", injected.detail);
    let ahead = "SELECT clock_timestamp() > to_timestamp($time) + interval '1 hour'";
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let ahead = ahead.replace("$time", &now.to_string());
    assert_eq!(sql(primary, &ahead).as_deref(), Some("t"), "the server sees it itself");
    assert_eq!(sql(replica, &ahead).as_deref(), Some("f"));
    assert!(nemesis.heal().await.unwrap().verified);
    assert_eq!(sql(primary, &ahead).as_deref(), Some("f"));

    assert!(cluster.last_logs().iter().all(|(_, log)| log.contains("ready to accept")));
    cluster.shut_down().await.unwrap();
    assert!(!directory.exists());
    assert!(cluster.processes().names().is_empty());
}
