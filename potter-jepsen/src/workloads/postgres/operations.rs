//! The statements of each workload.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::Kind;
use super::tables::ACCOUNTS;
use crate::runner::{Completion, Op};
use crate::value::Value;

/// How an operation's statements ended.
pub(super) enum Ended {
    Done(Completion),
    Failed {
        error: sqlx::Error,
        /// Nothing was committed, and COMMIT was not sent.
        before_commit: bool,
    },
    /// The operation is none of this workload; nothing was sent.
    Misfit(String),
}

/// An error of a statement that commits by itself, or of COMMIT.
impl From<sqlx::Error> for Ended {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed { error, before_commit: false }
    }
}

fn uncommitted(error: sqlx::Error) -> Ended {
    Ended::Failed { error, before_commit: true }
}

fn misfit(op: &Op) -> Ended {
    Ended::Misfit(format!("the workload has no operation {} {}", op.f, op.value))
}

/// Whether the operation writes nothing, so that its failure is never in doubt.
pub(super) fn only_reads(op: &Op) -> bool {
    match &*op.f {
        "read" => true,
        "txn" => op.value.as_items().is_some_and(|steps| steps.iter().all(is_read)),
        _ => false,
    }
}

fn is_read(step: &Value) -> bool {
    step.as_items().and_then(|parts| parts.first()).and_then(Value::as_name) == Some("r")
}

pub(super) async fn run(kind: Kind, table: &str, op: &Op, connection: &mut PgConnection) -> Ended {
    let done = match kind {
        Kind::Register | Kind::Cas => register(table, op, connection).await,
        Kind::Bank => bank(table, op, connection).await,
        Kind::Set => set(table, op, connection).await,
        Kind::Append | Kind::Rw | Kind::LongFork => transaction(kind, table, op, connection).await,
        Kind::Queue => queue(table, op, connection).await,
        Kind::Counter | Kind::Monotonic => number(table, op, connection).await,
    };
    done.map_or_else(|ended| ended, |value| Ended::Done(Completion::Ok(value)))
}

type Answer = Result<Value, Ended>;

fn optional(number: Option<i64>) -> Value {
    number.map_or(Value::Nil, Value::Int)
}

fn numbers(all: Vec<i64>) -> Value {
    Value::List(all.into_iter().map(Value::Int).collect())
}

async fn register(table: &str, op: &Op, connection: &mut PgConnection) -> Answer {
    let key = op.key.as_ref().and_then(Value::as_int).ok_or_else(|| misfit(op))?;
    match (&*op.f, &op.value, op.value.as_items()) {
        ("read", ..) => {
            let sql = AssertSqlSafe(format!("SELECT v FROM {table} WHERE k = $1"));
            let held = sqlx::query_scalar(sql).bind(key).fetch_optional(connection).await?;
            Ok(optional(held))
        }
        ("write", Value::Int(new), _) => {
            let sql = AssertSqlSafe(upsert(table));
            sqlx::query(sql).bind(key).bind(new).execute(connection).await?;
            Ok(op.value.clone())
        }
        ("cas", _, Some([Value::Int(expected), Value::Int(new)])) => {
            let sql = AssertSqlSafe(format!("UPDATE {table} SET v = $1 WHERE k = $2 AND v = $3"));
            let update = sqlx::query(sql).bind(new).bind(key).bind(expected);
            match update.execute(connection).await?.rows_affected() {
                1 => Ok(op.value.clone()),
                // A statement that changed no row did nothing, for certain.
                _ => Err(refused("it does not hold the expected value")),
            }
        }
        _ => Err(misfit(op)),
    }
}

fn refused(why: &str) -> Ended {
    Ended::Done(Completion::Fail(why.into()))
}

fn upsert(table: &str) -> String {
    format!(
        "INSERT INTO {table} (k, v) VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET v = excluded.v"
    )
}

async fn bank(table: &str, op: &Op, connection: &mut PgConnection) -> Answer {
    if &*op.f == "read" {
        let sql = AssertSqlSafe(format!("SELECT k, v FROM {table} ORDER BY k"));
        let rows: Vec<(i64, i64)> = sqlx::query_as(sql).fetch_all(connection).await?;
        let pair = |(account, balance)| (Value::Int(account), Value::Int(balance));
        return Ok(Value::Map(rows.into_iter().map(pair).collect()));
    }
    let part = |name: &str| op.value.get(name).and_then(Value::as_int).ok_or_else(|| misfit(op));
    let (from, to, amount) = (part("from")?, part("to")?, part("amount")?);
    if from == to || !(0..ACCOUNTS).contains(&from) || !(0..ACCOUNTS).contains(&to) {
        return Err(misfit(op));
    }
    let mut tx = connection.begin().await.map_err(uncommitted)?;
    // Read, compute, write back: what applications do, and what needs isolation.
    let select = format!("SELECT v FROM {table} WHERE k = $1");
    let update = format!("UPDATE {table} SET v = $1 WHERE k = $2");
    let mut moved = Vec::new();
    for (account, by) in [(from, -amount), (to, amount)] {
        let query = sqlx::query_scalar(AssertSqlSafe(select.clone())).bind(account);
        match query.fetch_one(&mut *tx).await {
            Ok(balance) => moved.push((
                account,
                by + {
                    let b: i64 = balance;
                    b
                },
            )),
            Err(error) => return Err(undone(tx, error).await),
        }
    }
    if moved.iter().any(|(_, balance)| *balance < 0) {
        tx.rollback().await.map_err(uncommitted)?;
        return Err(refused("the balance is too small"));
    }
    for (account, balance) in moved {
        let query = sqlx::query(AssertSqlSafe(update.clone())).bind(balance).bind(account);
        if let Err(error) = query.execute(&mut *tx).await {
            return Err(undone(tx, error).await);
        }
    }
    tx.commit().await?;
    Ok(op.value.clone())
}

/// Rolls back, so that the connection can be used again.
async fn undone(tx: sqlx::Transaction<'_, sqlx::Postgres>, error: sqlx::Error) -> Ended {
    _ = tx.rollback().await;
    uncommitted(error)
}

async fn set(table: &str, op: &Op, connection: &mut PgConnection) -> Answer {
    match (&*op.f, &op.value) {
        ("add", Value::Int(element)) => {
            let sql = AssertSqlSafe(format!("INSERT INTO {table} (v) VALUES ($1)"));
            sqlx::query(sql).bind(element).execute(connection).await?;
            Ok(op.value.clone())
        }
        ("read", _) => {
            let sql = AssertSqlSafe(format!("SELECT v FROM {table} ORDER BY v"));
            Ok(numbers(sqlx::query_scalar(sql).fetch_all(connection).await?))
        }
        _ => Err(misfit(op)),
    }
}

async fn number(table: &str, op: &Op, connection: &mut PgConnection) -> Answer {
    match (&*op.f, &op.value) {
        ("add", Value::Int(by)) => {
            let sql = AssertSqlSafe(format!("UPDATE {table} SET v = v + $1 WHERE k = 0"));
            sqlx::query(sql).bind(by).execute(connection).await?;
            Ok(op.value.clone())
        }
        ("increment", _) => {
            let sql =
                AssertSqlSafe(format!("UPDATE {table} SET v = v + 1 WHERE k = 0 RETURNING v"));
            Ok(Value::Int(sqlx::query_scalar(sql).fetch_one(connection).await?))
        }
        ("read", _) => {
            let sql = AssertSqlSafe(format!("SELECT v FROM {table} WHERE k = 0"));
            Ok(Value::Int(sqlx::query_scalar(sql).fetch_one(connection).await?))
        }
        _ => Err(misfit(op)),
    }
}

async fn queue(table: &str, op: &Op, connection: &mut PgConnection) -> Answer {
    let mut tx = connection.begin().await.map_err(uncommitted)?;
    // Before the first snapshot: who has the lock sees what the one before committed.
    let lock = AssertSqlSafe(format!("LOCK TABLE {table} IN EXCLUSIVE MODE"));
    if let Err(error) = sqlx::query(lock).execute(&mut *tx).await {
        return Err(undone(tx, error).await);
    }
    let answer = match (&*op.f, &op.value) {
        ("enqueue", Value::Int(item)) => {
            let sql = AssertSqlSafe(format!("INSERT INTO {table} (v) VALUES ($1)"));
            let insert = sqlx::query(sql).bind(item).execute(&mut *tx).await;
            insert.map(|_| op.value.clone())
        }
        ("dequeue", _) => {
            let sql = AssertSqlSafe(format!(
                "DELETE FROM {table} WHERE k = (SELECT min(k) FROM {table}) RETURNING v"
            ));
            sqlx::query_scalar(sql).fetch_optional(&mut *tx).await.map(optional)
        }
        _ => return Err(misfit(op)),
    };
    match answer {
        Ok(answer) => {
            tx.commit().await?;
            Ok(answer)
        }
        Err(error) => Err(undone(tx, error).await),
    }
}

/// Steps `[:r k nil]`, `[:append k v]`, `[:w k v]`, one statement each, in one transaction.
async fn transaction(kind: Kind, table: &str, op: &Op, connection: &mut PgConnection) -> Answer {
    let steps = op.value.as_items().ok_or_else(|| misfit(op))?;
    let mut tx = connection.begin().await.map_err(uncommitted)?;
    let mut results = Vec::with_capacity(steps.len());
    for step in steps {
        match self::step(kind, table, step, &mut tx).await {
            Ok(Some(result)) => results.push(result),
            Ok(None) => return Err(misfit(op)),
            Err(error) => return Err(undone(tx, error).await),
        }
    }
    tx.commit().await?;
    Ok(Value::from(results))
}

/// The step with its result; `None` if it is none.
async fn step(
    kind: Kind,
    table: &str,
    step: &Value,
    connection: &mut PgConnection,
) -> Result<Option<Value>, sqlx::Error> {
    let Some([f, Value::Int(key), value]) = step.as_items() else { return Ok(None) };
    let result = match (f.as_name(), value) {
        (Some("r"), _) => {
            let sql = AssertSqlSafe(format!("SELECT v FROM {table} WHERE k = $1"));
            if kind == Kind::Append {
                let items: Option<Vec<i64>> =
                    sqlx::query_scalar(sql).bind(key).fetch_optional(connection).await?;
                items.map_or(Value::Nil, numbers)
            } else {
                optional(sqlx::query_scalar(sql).bind(key).fetch_optional(connection).await?)
            }
        }
        (Some("append"), Value::Int(item)) => {
            let sql = AssertSqlSafe(format!(
                "INSERT INTO {table} AS t (k, v) VALUES ($1, ARRAY[$2::bigint]) \
                 ON CONFLICT (k) DO UPDATE SET v = t.v || $2::bigint"
            ));
            sqlx::query(sql).bind(key).bind(item).execute(connection).await?;
            value.clone()
        }
        (Some("w"), Value::Int(new)) => {
            let sql = AssertSqlSafe(upsert(table));
            sqlx::query(sql).bind(key).bind(new).execute(connection).await?;
            value.clone()
        }
        _ => return Ok(None),
    };
    Ok(Some(Value::from(vec![f.clone(), Value::Int(*key), result])))
}
