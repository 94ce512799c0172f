//! A primary and a replica that the test starts itself, and faults on them.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use potter_jepsen::db::{PostgresCluster, PostgresOptions};
use potter_jepsen::generator::{self, Generator};
use potter_jepsen::nemesis::{Disk, Fault, Journal, Nemesis as _, Probe};
use potter_jepsen::runner::{Op, Test};
use potter_jepsen::workloads::postgres::{Isolation, Kind, Options, Postgres, Reads};
use potter_jepsen::{Process, Value};
use tempfile::TempDir;

fn workload(kind: Kind, options: Options) -> Postgres {
    Postgres::new(kind, options).unwrap()
}

async fn cluster(options: PostgresOptions) -> (TempDir, Arc<PostgresCluster>) {
    let (place, cluster) = try_cluster(options).await;
    (place, cluster.unwrap())
}

async fn try_cluster(
    options: PostgresOptions,
) -> (TempDir, potter_jepsen::Result<Arc<PostgresCluster>>) {
    // The servers' user has to get there.
    let place = tempfile::Builder::new().prefix("potter-cluster-").tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (journal, _) = Journal::open(place.path().join("journal")).unwrap();
    let options = options.setting("fsync", "off");
    let cluster = PostgresCluster::new(journal, place.path().join("data"), options).await;
    (place, cluster.map(Arc::new))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_an_asynchronous_replica_are_not_linearizable() {
    let (_place, cluster) = cluster(PostgresOptions::default()).await;
    let nodes = cluster.launch().await.unwrap();
    let register = |reads, seed| {
        let options = Options::default().isolation(Isolation::ReadCommitted).reads(reads).keys(2);
        let test = Test::builder(workload(Kind::Register, options)).seed(seed).concurrency(8);
        let test = nodes.iter().fold(test, |test, node| test.node(&node.name, &node.url));
        test.max_operations(2000).op_timeout(Duration::from_secs(60)).build().unwrap()
    };
    let primary = register(Reads::Primary, 1).run().await.unwrap();
    assert!(primary.analysis.verdict.is_valid(), "{:?}", primary.analysis.verdict);
    for seed in 0..20 {
        let run = register(Reads::Replica, seed).run().await.unwrap();
        assert!(!run.analysis.verdict.is_unknown(), "{:?}", run.analysis.verdict);
        if let Some(found) = run.analysis.verdict.counterexample() {
            assert_eq!(found.anomaly, "nonlinearizable");
            cluster.shut_down().await.unwrap();
            return;
        }
    }
    panic!("20 runs of 2000 operations, and no read was stale");
}

/// The bank under partitions, kills, pauses and a server's clock that is five minutes off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_stays_whole_under_partition_and_kill() {
    let (place, cluster) = cluster(PostgresOptions::default().replicas(0).clocks()).await;
    let skew = |seconds| Fault::new("clock-skew").param("seconds", Value::Int(seconds));
    let primary = "postgres-primary";
    let faults = [
        Fault::new("partition").targets(["client", primary]),
        Fault::new("kill").target(primary),
        Fault::new("pause").target(primary),
        skew(300).target(primary),
        skew(-300).target(primary),
    ];
    let (quiet, active) = (Duration::from_millis(500), Duration::from_millis(1200));
    let each = faults.map(|fault| {
        let steps = [
            generator::sleep(quiet).boxed(),
            generator::once(Op::inject(fault)).boxed(),
            generator::sleep(active).boxed(),
            generator::once(Op::heal()).boxed(),
        ];
        generator::concat(steps).boxed()
    });
    let test = Test::builder(workload(Kind::Bank, Options::default()))
        .db(cluster.clone())
        .concurrency(4)
        .pace(Duration::from_millis(4))
        .op_timeout(Duration::from_millis(800))
        .time_limit(Duration::from_secs(15))
        .nemesis(cluster.nemesis().unwrap())
        .faults(generator::concat(each))
        .directory(place.path().join("run"))
        .seed(5)
        .build()
        .unwrap();
    let run = test.run().await.unwrap();
    assert!(run.unverified.is_empty(), "{:?}", run.unverified);
    assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
    let progress = &run.progress;
    assert!(progress.faults >= 2 && progress.info + progress.fail > 0, "{progress:?}");
    // The last reads saw the healed system.
    let events = run.history.events();
    let healed = events.iter().rposition(|e| e.process == Process::NEMESIS).unwrap();
    let reads = events[healed..].iter().filter(|e| &*e.f == "read" && e.kind.as_str() == "ok");
    assert!(reads.count() > 0);
    assert!(place.path().join(format!("run/log-{primary}.txt")).exists());
    assert!(cluster.processes().names().is_empty(), "stopped at the end");
}

/// Transactions are refused while there is no room, and the server dies of it; what was acknowledged
/// is there afterwards, and nothing by halves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_stays_whole_on_a_full_disk() {
    const PRIMARY: &str = "postgres-primary";
    // Conflicts of transactions would fill the log.
    let options = PostgresOptions::default().disk(256 << 20).setting("log_min_messages", "fatal");
    let (place, cluster) = try_cluster(options).await;
    let cluster = match (Disk::can_mount(), cluster) {
        (Probe::Available, cluster) => cluster.unwrap(),
        (Probe::Unavailable(reason), cluster) => {
            assert!(reason.contains("root"), "{reason}");
            assert!(cluster.is_err());
            return;
        }
    };
    let (quiet, active) = (Duration::from_millis(700), Duration::from_millis(2500));
    let windows = (0..3).map(|_| {
        let steps = [
            generator::sleep(quiet).boxed(),
            generator::once(Op::inject(Fault::new("disk-full").target(PRIMARY))).boxed(),
            generator::sleep(active).boxed(),
            generator::once(Op::heal()).boxed(),
        ];
        generator::concat(steps).boxed()
    });
    let test = Test::builder(workload(Kind::Bank, Options::default()))
        .db(cluster.clone())
        .concurrency(6)
        .op_timeout(Duration::from_secs(2))
        .time_limit(Duration::from_secs(11))
        .nemesis(cluster.nemesis().unwrap())
        .faults(generator::concat(windows))
        .directory(place.path().join("run"))
        .seed(6)
        .build()
        .unwrap();
    let run = test.run().await.unwrap();
    assert!(run.unverified.is_empty(), "{:?}", run.unverified);
    assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
    assert!(run.progress.faults >= 1, "{:?}", run.progress);
    let log = std::fs::read_to_string(place.path().join(format!("run/log-{PRIMARY}.txt"))).unwrap();
    let events = run.history.events();
    let mut errors = events.iter().filter_map(|event| event.error.as_deref());
    let refused = errors.any(|error| error.contains("No space left"));
    assert!(refused || log.contains("No space left"), "{log}");
    let healed = events.iter().rposition(|e| e.process == Process::NEMESIS).unwrap();
    let reads = events[healed..].iter().filter(|e| &*e.f == "read" && e.kind.as_str() == "ok");
    assert!(reads.count() > 0, "it serves again");
    assert!(!place.path().join("data").exists(), "unmounted and deleted");
}

#[tokio::test]
async fn only_the_primary_has_a_disk_to_fill() {
    let (_place, refused) = try_cluster(PostgresOptions::default().disk(1 << 20)).await;
    assert!(refused.unwrap_err().to_string().contains("PostgreSQL needs"));
    if Disk::can_mount() == Probe::Available {
        let (_place, cluster) = cluster(PostgresOptions::default().disk(256 << 20)).await;
        let fault = Fault::new("disk-full").target("postgres-replica");
        let refused = cluster.nemesis().unwrap().inject(&fault).await.unwrap_err();
        assert!(refused.to_string().contains("postgres-replica"), "{refused}");
    }
}
