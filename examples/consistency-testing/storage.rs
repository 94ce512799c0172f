//! The tests and what came out of them, in the service's own database.

use chrono::{DateTime, Utc};
use potter_core::{Database, Migration, Migrations, Result, Row, Tx, values};
use serde::Serialize;
use utoipa::ToSchema;

use crate::spec::TestSpec;

/// The schema.
pub(crate) const MIGRATIONS: Migrations = Migrations {
    owner: "consistency-testing",
    list: &[Migration {
        version: 1,
        name: "tests",
        sqlite: include_str!("migrations/sqlite/0001_tests.sql"),
        postgres: include_str!("migrations/postgres/0001_tests.sql"),
    }],
};

/// Where a test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// It waits for POST /tests/{id}/start.
    Created,
    /// It waits for the tests before it.
    Queued,
    /// Its system and its tables are prepared.
    Starting,
    /// Clients and faults.
    Running,
    /// What they saw is checked.
    Checking,
    /// There is a verdict.
    Completed,
    /// It was stopped. What it saw until then was checked if it had begun.
    Cancelled,
    /// It could not be run: `error` says why.
    Failed,
    /// The service ended while it ran.
    Interrupted,
}

impl Status {
    pub(crate) const ALL: [Self; 9] = [
        Self::Created,
        Self::Queued,
        Self::Starting,
        Self::Running,
        Self::Checking,
        Self::Completed,
        Self::Cancelled,
        Self::Failed,
        Self::Interrupted,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Checking => "checking",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// It is being run.
    pub(crate) fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Checking)
    }

    /// Nothing will change any more.
    pub(crate) fn is_over(self) -> bool {
        !self.is_live() && !matches!(self, Self::Created | Self::Queued)
    }
}

/// A row.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) spec: TestSpec,
    pub(crate) status: Status,
    pub(crate) verdict: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) analysis: Option<String>,
    pub(crate) performance: Option<String>,
    pub(crate) created_at: String,
    pub(crate) started_at: Option<String>,
    pub(crate) ended_at: Option<String>,
}

/// What came out of a test.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    pub(crate) verdict: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) analysis: Option<String>,
    pub(crate) performance: Option<String>,
}

/// A line of a test's log.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct LogLine {
    pub(crate) number: i64,
    pub(crate) at: String,
    pub(crate) line: String,
}

const COLUMNS: &str = "id, spec, status, verdict, error, analysis, performance, created_at, \
                       started_at, ended_at";

fn now() -> String {
    shown(Utc::now())
}

fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

fn defect(message: String) -> potter_core::Error {
    potter_core::Error::new(potter_core::ErrorKind::Internal, message)
}

fn stored(row: &Row) -> Result<Stored> {
    let id = row.text("id")?;
    let spec = serde_json::from_str(&row.text("spec")?)
        .map_err(|error| defect(format!("test {id} has a spec that can't be read: {error}")))?;
    let status = row.text("status")?;
    let status = Status::parse(&status)
        .ok_or_else(|| defect(format!("test {id} has the unknown status {status}")))?;
    Ok(Stored {
        spec,
        status,
        verdict: row.opt_text("verdict")?,
        error: row.opt_text("error")?,
        analysis: row.opt_text("analysis")?,
        performance: row.opt_text("performance")?,
        created_at: row.text("created_at")?,
        started_at: row.opt_text("started_at")?,
        ended_at: row.opt_text("ended_at")?,
        id,
    })
}

/// How many tests wait, for others or for their start.
pub(crate) async fn waiting(tx: &mut Tx) -> Result<i64> {
    let count = "SELECT count(*) AS total FROM tests WHERE status IN ('created', 'queued')";
    let rows = tx.fetch_all(count, values![]).await?;
    rows.first().map_or(Ok(0), |row| row.i64("total"))
}

/// Adds a test, in the transaction of the request.
pub(crate) async fn insert(tx: &mut Tx, id: &str, spec: &TestSpec, status: Status) -> Result<()> {
    let text = serde_json::to_string(spec).map_err(|error| defect(error.to_string()))?;
    tx.execute(
        "INSERT INTO tests (id, name, workload, nemesis, spec, status, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        values![
            id.to_owned(),
            spec.name.clone(),
            spec.workload.clone(),
            spec.nemesis.clone(),
            text,
            status.name().to_owned(),
            now()
        ],
    )
    .await
    .map(drop)
}

/// One test.
pub(crate) async fn get(database: &Database, id: &str) -> Result<Option<Stored>> {
    let text = format!("SELECT {COLUMNS} FROM tests WHERE id = $1");
    let rows = database.read(potter_core::Sql::checked(text), values![id.to_owned()]).await?;
    rows.first().map(stored).transpose()
}

/// Which tests to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) status: Option<Status>,
    pub(crate) verdict: Option<String>,
    pub(crate) workload: Option<String>,
    /// Only those with a result.
    pub(crate) over: bool,
    pub(crate) limit: u32,
    pub(crate) offset: u32,
}

/// Tests, newest first, and how many there are in all.
pub(crate) async fn list(database: &Database, filter: &Filter) -> Result<(Vec<Stored>, i64)> {
    const WHERE: &str = "($1 IS NULL OR status = $1) AND ($2 IS NULL OR verdict = $2)
         AND ($3 IS NULL OR workload = $3) AND ($4 = 0 OR ended_at IS NOT NULL)";
    let status = filter.status.map(|status| status.name().to_owned());
    let over = i64::from(filter.over);
    let text =
        format!("SELECT {COLUMNS} FROM tests WHERE {WHERE} ORDER BY id DESC LIMIT $5 OFFSET $6");
    let rows = database
        .read(
            potter_core::Sql::checked(text),
            values![
                status.clone(),
                filter.verdict.clone(),
                filter.workload.clone(),
                over,
                i64::from(filter.limit),
                i64::from(filter.offset)
            ],
        )
        .await?;
    let text = format!("SELECT count(*) AS total FROM tests WHERE {WHERE}");
    let total = database
        .read(
            potter_core::Sql::checked(text),
            values![status, filter.verdict.clone(), filter.workload.clone(), over],
        )
        .await?;
    let total = total.first().map_or(Ok(0), |row| row.i64("total"))?;
    Ok((rows.iter().map(stored).collect::<Result<_>>()?, total))
}

/// The test that has waited longest.
pub(crate) async fn next_queued(database: &Database) -> Result<Option<Stored>> {
    let text = format!("SELECT {COLUMNS} FROM tests WHERE status = 'queued' ORDER BY id LIMIT 1");
    let rows = database.read(potter_core::Sql::checked(text), values![]).await?;
    rows.first().map(stored).transpose()
}

/// Moves a test on, if it is where it should be. `false`: it is not.
pub(crate) async fn advance(
    database: &Database,
    id: &str,
    from: &[Status],
    to: Status,
) -> Result<bool> {
    let mut changed = 0;
    for status in from {
        let started = (to == Status::Starting).then(now);
        let ended = to.is_over().then(now);
        changed += database
            .execute(
                "UPDATE tests SET status = $3, started_at = coalesce($4, started_at),
                     ended_at = coalesce($5, ended_at)
                 WHERE id = $1 AND status = $2",
                values![
                    id.to_owned(),
                    status.name().to_owned(),
                    to.name().to_owned(),
                    started,
                    ended
                ],
            )
            .await?;
        if changed > 0 {
            break;
        }
    }
    Ok(changed > 0)
}

/// Writes down what came out.
pub(crate) async fn finish(database: &Database, id: &str, outcome: &Outcome) -> Result<()> {
    database
        .execute(
            "UPDATE tests SET status = $2, verdict = $3, error = $4, analysis = $5,
                 performance = $6, ended_at = $7 WHERE id = $1",
            values![
                id.to_owned(),
                outcome.status.name().to_owned(),
                outcome.verdict.clone(),
                outcome.error.clone(),
                outcome.analysis.clone(),
                outcome.performance.clone(),
                now()
            ],
        )
        .await
        .map(drop)
}

/// The tests that ran when the service ended did not end.
pub(crate) async fn interrupt(database: &Database) -> Result<u64> {
    database
        .execute(
            "UPDATE tests SET status = 'interrupted', ended_at = $1,
                 error = 'the service ended while the test ran'
             WHERE status IN ('starting', 'running', 'checking')",
            values![now()],
        )
        .await
}

/// Forgets a test. `false`: there is none, or it runs.
pub(crate) async fn delete(database: &Database, id: &str) -> Result<bool> {
    let deleted = database
        .execute(
            "DELETE FROM tests WHERE id = $1 AND status NOT IN ('starting', 'running', 'checking')",
            values![id.to_owned()],
        )
        .await?;
    if deleted > 0 {
        database.execute("DELETE FROM test_log WHERE test_id = $1", values![id.to_owned()]).await?;
    }
    Ok(deleted > 0)
}

/// Adds lines to a test's log.
pub(crate) async fn log(database: &Database, id: &str, first: i64, lines: &[String]) -> Result<()> {
    let mut tx = database.begin().await?;
    for (number, line) in (first..).zip(lines) {
        tx.execute(
            "INSERT INTO test_log (test_id, number, at, line) VALUES ($1, $2, $3, $4)",
            values![id.to_owned(), number, now(), line.clone()],
        )
        .await?;
    }
    tx.commit().await
}

/// A part of a test's log, and how many lines there are.
pub(crate) async fn log_of(
    database: &Database,
    id: &str,
    limit: u32,
    offset: u32,
) -> Result<(Vec<LogLine>, i64)> {
    let rows = database
        .read(
            "SELECT number, at, line FROM test_log WHERE test_id = $1 ORDER BY number
             LIMIT $2 OFFSET $3",
            values![id.to_owned(), i64::from(limit), i64::from(offset)],
        )
        .await?;
    let line = |row: &Row| {
        Ok(LogLine { number: row.i64("number")?, at: row.text("at")?, line: row.text("line")? })
    };
    let count = "SELECT count(*) AS total FROM test_log WHERE test_id = $1";
    let total = database.read(count, values![id.to_owned()]).await?;
    let total = total.first().map_or(Ok(0), |row| row.i64("total"))?;
    Ok((rows.iter().map(line).collect::<Result<_>>()?, total))
}
