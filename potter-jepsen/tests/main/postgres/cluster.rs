//! A primary and a replica that the test starts itself, and faults on them.

use std::sync::Arc;
use std::time::Duration;

use potter_jepsen::db::PostgresCluster;
use potter_jepsen::generator;
use potter_jepsen::nemesis::{Fault, Journal, Nemesis, Processes, ProxyNetwork, compose};
use potter_jepsen::runner::{Db, Node, Test};
use potter_jepsen::workloads::postgres::{Isolation, Kind, Options, Postgres, Reads};
use potter_jepsen::{Process, Value};

fn workload(kind: Kind, options: Options) -> Postgres {
    Postgres::new(kind, options).unwrap()
}

#[tokio::test]
async fn reads_of_an_asynchronous_replica_are_not_linearizable() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(folder.path()).unwrap();
    let processes = Arc::new(Processes::new(journal));
    let cluster = PostgresCluster::new(processes.clone(), 1).unwrap().setting("fsync", "off");
    let cluster = Arc::new(cluster);
    let nodes = cluster.start().await.unwrap();
    assert_eq!(processes.names(), ["primary", "replica-1"]);
    let register = |reads, seed| {
        let options = Options::default().isolation(Isolation::ReadCommitted).reads(reads).keys(2);
        let test = Test::builder(workload(Kind::Register, options)).seed(seed).concurrency(8);
        let test = nodes.iter().fold(test, |test, node| test.node(&node.name, &node.url));
        test.max_operations(2000).op_timeout(Duration::from_secs(60)).build().unwrap()
    };
    let primary = register(Reads::Primary, 1).run().await.unwrap();
    assert!(primary.analysis.verdict.is_valid(), "{:?}", primary.analysis.verdict);
    let mut stale = None;
    for seed in 0..20 {
        let run = register(Reads::Replica, seed).run().await.unwrap();
        if run.analysis.verdict.is_invalid() {
            stale = Some(run);
            break;
        }
    }
    let stale = stale.expect("20 runs of 2000 operations, and no read was stale");
    let found = stale.analysis.verdict.counterexample().unwrap();
    assert_eq!(found.anomaly, "nonlinearizable");
    let logs = cluster.logs().await;
    assert!(logs.iter().all(|(_, text)| text.contains("ready to accept")), "{logs:?}");
    cluster.stop().await.unwrap();
    assert!(processes.names().is_empty());
}

/// The bank under partitions between clients and the primary, eaten answers of COMMIT, and kills.
#[tokio::test]
async fn a_bank_stays_whole_under_partition_and_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(folder.path().join("journal")).unwrap();
    let processes = Arc::new(Processes::new(journal.clone()));
    let cluster = PostgresCluster::new(processes.clone(), 0).unwrap().setting("fsync", "off");
    let cluster = Arc::new(cluster);
    let network = ProxyNetwork::new(journal, 7).await.unwrap();
    let target = cluster.address("primary").unwrap();
    let proxy = network.link("clients", "primary", target).await.unwrap();
    let parts: [Arc<dyn Nemesis>; 2] = [network.clone(), processes.clone()];
    let nemesis = Arc::new(compose(parts).unwrap());
    let faults = [
        Fault::new("partition").param("shape", Value::Str("halves".into())),
        Fault::new("kill").target("primary"),
        Fault::new("pause").target("primary"),
    ];
    let windows =
        generator::fault_windows(faults, Duration::from_millis(700), Duration::from_millis(1500));
    let through = Node::new("primary", PostgresCluster::url(proxy));
    let options = Options::default();
    let test = Test::builder(workload(Kind::Bank, options))
        .db(Arc::new(Through { cluster, node: through }))
        .concurrency(4)
        .pace(Duration::from_millis(4))
        .op_timeout(Duration::from_millis(800))
        .time_limit(Duration::from_secs(8))
        .nemesis(nemesis)
        .faults(windows)
        .directory(folder.path().join("run"))
        .seed(5)
        .build()
        .unwrap();
    let run = test.run().await.unwrap();
    assert!(run.unverified.is_empty(), "{:?}", run.unverified);
    assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
    assert!(
        run.progress.faults >= 2 && run.progress.info + run.progress.fail > 0,
        "{:?}",
        run.progress
    );
    // The last reads saw the healed system.
    let healed = run.history.events().iter().rposition(|e| e.process == Process::NEMESIS).unwrap();
    let last = &run.history.events()[healed..];
    assert!(last.iter().any(|e| &*e.f == "read" && e.kind.as_str() == "ok"));
    assert!(folder.path().join("run/log-primary.txt").exists());
    assert!(processes.names().is_empty(), "stopped at the end");
}

/// The cluster as clients see it: through a proxy.
struct Through {
    cluster: Arc<PostgresCluster>,
    node: Node,
}

#[async_trait::async_trait]
impl Db for Through {
    async fn start(&self) -> Result<Vec<Node>, potter_jepsen::runner::Failure> {
        self.cluster.start().await?;
        Ok(vec![self.node.clone()])
    }

    async fn stop(&self) -> Result<(), potter_jepsen::runner::Failure> {
        self.cluster.stop().await
    }

    async fn logs(&self) -> Vec<(String, String)> {
        self.cluster.logs().await
    }
}
