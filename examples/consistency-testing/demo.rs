//! The program without a browser: bank transfers while servers are cut off and killed.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use examples_common::StartError;
use potter_core::new_id;
use potter_jepsen::db::{PostgresCluster, PostgresOptions};
use potter_jepsen::generator::fault_windows;
use potter_jepsen::nemesis::{Fault, Journal, Nemesis as _};
use potter_jepsen::report;
use potter_jepsen::runner::{Db as _, Test};
use potter_jepsen::workloads::postgres::{Kind, Options, Postgres};

use crate::faults::Victims;
use crate::{faults, performance};

const CLIENTS: usize = 6;
const TIME: Duration = Duration::from_secs(20);
const WINDOW: Duration = Duration::from_millis(2_000);

/// Starts a private PostgreSQL with a replica, moves money between accounts for 20 s under
/// partitions and kills, and prints what happens to `out`. The report stays in a folder that is
/// named at the end; the servers and their data do not stay.
///
/// # Errors
/// When PostgreSQL is not installed or does not start, or `out` can't be written to.
pub fn demo(out: &mut dyn Write) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let place = std::env::temp_dir().join(format!("consistency-demo-{}", new_id()));
    let result = runtime.block_on(story(out, place.join("faults"), &place));
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

async fn story(
    out: &mut dyn Write,
    faults_in: PathBuf,
    place: &std::path::Path,
) -> Result<(), StartError> {
    let (journal, _) = Journal::open(faults_in)?;
    // Ctrl-C leaves no server and no fault behind.
    journal.undo_on_signals()?;
    let data = std::env::temp_dir().join(format!("potter-demo-{}", new_id()));
    let options = PostgresOptions::default();
    let cluster = PostgresCluster::new(Arc::clone(&journal), data, options).await?;
    writeln!(out, "Starting a private PostgreSQL, a primary with a streaming replica …")?;
    let nodes = cluster.launch().await?;
    let names: Vec<_> = nodes.iter().map(|node| node.name.clone()).collect();
    writeln!(
        out,
        "{} answer. {CLIENTS} clients move money between accounts for {TIME:?};",
        names.join(" and ")
    )?;
    writeln!(out, "meanwhile servers are cut off and killed, and come back.\n")?;
    let told = test(out, &cluster, &names, place).await;
    cluster.stop().await?;
    told
}

async fn test(
    out: &mut dyn Write,
    cluster: &PostgresCluster,
    names: &[String],
    place: &std::path::Path,
) -> Result<(), StartError> {
    let victims = Victims::of("bank", names.to_vec());
    let mut all = faults::of("network_partition", &victims);
    all.extend(faults::of("process_killer", &victims));
    all.push(Fault::new("kill").target(&names[0]));
    let mut builder = Test::of(Arc::new(Postgres::new(Kind::Bank, Options::default())?))
        .name("bank under partitions and kills")
        .concurrency(CLIENTS)
        .seed(7)
        .time_limit(TIME)
        .op_timeout(Duration::from_secs(2))
        .pace(Duration::from_millis(3))
        .directory(place.join("test"))
        .nemesis(cluster.nemesis()?)
        .faults(fault_windows(all, WINDOW, WINDOW));
    for node in cluster.nodes() {
        builder = builder.node(node.name, node.url);
    }
    let mut running = builder.build()?.start();
    let mut log = running.log();
    let run = loop {
        tokio::select! {
            ended = &mut running => break ended?,
            line = log.recv() => if let Ok(line) = line {
                writeln!(out, "  {line}")?;
            },
        }
    };
    let figures = performance::of(&run.history);
    writeln!(out, "\n{}", report::text(&run.history, &run.analysis))?;
    writeln!(
        out,
        "{:.0} successes a second; {} faults, of which {} were not verified.",
        figures.ok_per_second,
        run.progress.faults,
        run.unverified.len()
    )?;
    writeln!(out, "The report: {}", place.join("test/report.html").display())?;
    let healed = cluster.nemesis()?.heal().await?;
    writeln!(out, "At the end: {}", healed.detail)?;
    match run.analysis.verdict.is_invalid() {
        true => Err("money was made or lost: see the report".into()),
        false => Ok(()),
    }
}
