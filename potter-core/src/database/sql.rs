//! Statements, values and rows that mean the same on both SQL engines.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::names::Identifier;

use crate::error::{Error, ErrorKind, Result};
use crate::json::Json;

/// A statement in each dialect. Only texts from the program's source: values are always bound,
/// and names of tables that are known only at run time go in by [`with`](Self::with).
#[derive(Clone, Debug)]
pub struct Sql {
    pub(crate) sqlite: Cow<'static, str>,
    pub(crate) postgres: Cow<'static, str>,
}

impl Sql {
    /// One text each.
    pub const fn new(sqlite: &'static str, postgres: &'static str) -> Self {
        Self { sqlite: Cow::Borrowed(sqlite), postgres: Cow::Borrowed(postgres) }
    }

    /// The same text for both.
    pub const fn same(text: &'static str) -> Self {
        Self::new(text, text)
    }

    /// A text that was put together at run time, the same for both. The caller answers for it:
    /// nothing from outside the program may be in it but an [`Identifier`], quoted.
    pub fn checked(text: impl Into<String>) -> Self {
        let text: Cow<'static, str> = text.into().into();
        Self { sqlite: text.clone(), postgres: text }
    }

    /// Puts a name, quoted, in the place of `{placeholder}`.
    ///
    /// ```
    /// use potter_core::{Identifier, Sql};
    ///
    /// const ADD: Sql = Sql::same("INSERT INTO {stock} (sku) VALUES ($1)");
    /// let statement = ADD.with("stock", &Identifier::new("stock_next")?);
    /// # Ok::<(), potter_core::Error>(())
    /// ```
    #[must_use]
    pub fn with(self, placeholder: &str, name: &Identifier) -> Self {
        let (from, to) = (format!("{{{placeholder}}}"), name.quoted());
        Self {
            sqlite: self.sqlite.replace(&from, &to).into(),
            postgres: self.postgres.replace(&from, &to).into(),
        }
    }
}

/// The same text for both.
impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self::new(text, text)
    }
}

/// A value to bind. `None` is the SQL NULL of that type.
///
/// On SQLite a UUID is its hyphenated text and a time is microseconds since 1970 as an integer;
/// on PostgreSQL they are `uuid` and `timestamptz`. JSON is bound as text: write `$1::json` or
/// `$1::jsonb` on PostgreSQL.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SqlValue {
    /// `boolean`.
    Bool(Option<bool>),
    /// `bigint`.
    Int(Option<i64>),
    /// `double precision`.
    Float(Option<f64>),
    /// `text`.
    Text(Option<String>),
    /// `bytea`.
    Bytes(Option<Vec<u8>>),
    /// `uuid`.
    Uuid(Option<Uuid>),
    /// `timestamptz`.
    Time(Option<DateTime<Utc>>),
}

macro_rules! from {
    ($($type:ty => $variant:ident $(, $convert:expr)?;)*) => {$(
        impl From<$type> for SqlValue {
            fn from(value: $type) -> Self {
                Self::$variant(Some(from!(@ value $(, $convert)?)))
            }
        }
        impl From<Option<$type>> for SqlValue {
            fn from(value: Option<$type>) -> Self {
                Self::$variant(value.map(|value| from!(@ value $(, $convert)?)))
            }
        }
    )*};
    (@ $value:ident) => { $value };
    (@ $value:ident, $convert:expr) => { $convert($value) };
}

from! {
    bool => Bool;
    i64 => Int;
    i32 => Int, i64::from;
    u32 => Int, i64::from;
    f64 => Float;
    String => Text;
    &str => Text, str::to_owned;
    &String => Text, String::clone;
    Vec<u8> => Bytes;
    Uuid => Uuid;
    DateTime<Utc> => Time;
    Json => Text, |json: Json| json.as_str().to_owned();
    &Json => Text, |json: &Json| json.as_str().to_owned();
}

/// Values to bind, in order: `values![order_id, 3, "eur"]`.
#[macro_export]
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::SqlValue::from($value)),*] };
}

/// Which column of a row: by its name, or by its place in the statement, from 0. Names are looked up
/// in each row; where there are many rows, places are faster.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a> {
    /// By name.
    Name(&'a str),
    /// By place.
    At(usize),
}

impl<'a> From<&'a str> for Column<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a String> for Column<'a> {
    fn from(name: &'a String) -> Self {
        Self::Name(name)
    }
}

impl From<usize> for Column<'_> {
    fn from(place: usize) -> Self {
        Self::At(place)
    }
}

impl fmt::Display for Column<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::At(place) => write!(f, "number {place}"),
        }
    }
}

/// A row of a result; columns are read by name or place.
#[derive(Debug)]
pub struct Row(RowInner);

#[derive(Debug)]
enum RowInner {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::sqlite::SqliteRow),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::postgres::PgRow),
}

#[cfg(feature = "sqlite")]
impl From<sqlx::sqlite::SqliteRow> for Row {
    fn from(row: sqlx::sqlite::SqliteRow) -> Self {
        Self(RowInner::Sqlite(row))
    }
}

#[cfg(feature = "postgres")]
impl From<sqlx::postgres::PgRow> for Row {
    fn from(row: sqlx::postgres::PgRow) -> Self {
        Self(RowInner::Postgres(row))
    }
}

/// A reader for the value and one for the nullable value; the driver's types can be converted.
macro_rules! getters {
    ($($name:ident, $opt:ident, $type:ty, $what:literal, $sqlite:ty, $from_sqlite:expr, $postgres:ty, $from_postgres:expr;)*) => {$(
        #[doc = concat!("The column as ", $what, ".")]
        ///
        /// # Errors
        /// `Corrupt` when there is no such column, it is NULL or of another type.
        #[cfg_attr(not(any(feature = "sqlite", feature = "postgres")), allow(unused_variables))]
        pub fn $name<'a>(&self, column: impl Into<Column<'a>>) -> Result<$type> {
            let column = column.into();
            self.$opt(column)?.ok_or_else(|| corrupt(column, "is NULL"))
        }

        #[doc = concat!("The column as ", $what, ", or `None` for NULL.")]
        ///
        /// # Errors
        /// `Corrupt` when there is no such column or it is of another type.
        #[cfg_attr(not(any(feature = "sqlite", feature = "postgres")), allow(unused_variables))]
        pub fn $opt<'a>(&self, column: impl Into<Column<'a>>) -> Result<Option<$type>> {
            let column = column.into();
            match &self.0 {
                #[cfg(feature = "sqlite")]
                RowInner::Sqlite(row) => {
                    use sqlx::Row as _;
                    let value: std::result::Result<Option<$sqlite>, _> = match column {
                        Column::Name(name) => row.try_get(name),
                        Column::At(place) => row.try_get(place),
                    };
                    let value = value.map_err(|error| unreadable(column, error))?;
                    value.map($from_sqlite).transpose()
                }
                #[cfg(feature = "postgres")]
                RowInner::Postgres(row) => {
                    use sqlx::Row as _;
                    let value: std::result::Result<Option<$postgres>, _> = match column {
                        Column::Name(name) => row.try_get(name),
                        Column::At(place) => row.try_get(place),
                    };
                    let value = value.map_err(|error| unreadable(column, error))?;
                    value.map($from_postgres).transpose()
                }
                #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
                _ => Ok(None),
            }
        }
    )*};
}

impl Row {
    getters! {
        bool, opt_bool, bool, "a boolean", bool, Ok, bool, Ok;
        i64, opt_i64, i64, "a 64-bit integer", i64, Ok, i64, Ok;
        f64, opt_f64, f64, "a float", f64, Ok, f64, Ok;
        text, opt_text, String, "text", String, Ok, String, Ok;
        bytes, opt_bytes, Vec<u8>, "bytes", Vec<u8>, Ok, Vec<u8>, Ok;
        uuid, opt_uuid, Uuid, "a UUID", String, |text: String| text.parse().map_err(|_| corrupt("id", "is no UUID")), Uuid, Ok;
        time, opt_time, DateTime<Utc>, "a time", i64, |micros| DateTime::from_timestamp_micros(micros).ok_or_else(|| corrupt("time", "is out of range")), DateTime<Utc>, Ok;
        json, opt_json, Json, "JSON", String, Json::parse, sqlx::types::Json<Json>, |json: sqlx::types::Json<Json>| Ok(json.0);
    }
}

fn corrupt<'a>(column: impl Into<Column<'a>>, what: &str) -> Error {
    let column = column.into();
    Error::new(ErrorKind::Corrupt, format!("column {column} {what}"))
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn unreadable(column: Column<'_>, source: sqlx::Error) -> Error {
    Error::with_source(ErrorKind::Corrupt, format!("column {column} can't be read"), source)
}

pub(crate) fn no_row() -> Error {
    Error::new(ErrorKind::Corrupt, "the database answered no row where one was due")
}

pub(crate) fn memory_takes_no_sql() -> Error {
    Error::new(
        ErrorKind::Config,
        "the memory database takes no SQL: use Tx::memory() and its tables, or connect to sqlite://",
    )
}

/// The texts are the program's own; what was put into one is a quoted name or a checked prefix.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn sql_str(text: Cow<'static, str>) -> sqlx::SqlStr {
    use sqlx::SqlSafeStr;
    match text {
        Cow::Borrowed(text) => text.into_sql_str(),
        Cow::Owned(text) => sqlx::AssertSqlSafe(text).into_sql_str(),
    }
}

#[cfg(feature = "sqlite")]
pub(crate) fn bind_sqlite(
    text: Cow<'static, str>,
    values: &[SqlValue],
) -> sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
    let mut query = sqlx::query(sql_str(text));
    for value in values {
        query = match value {
            SqlValue::Bool(value) => query.bind(*value),
            SqlValue::Int(value) => query.bind(*value),
            SqlValue::Float(value) => query.bind(*value),
            SqlValue::Text(value) => query.bind(value.clone()),
            SqlValue::Bytes(value) => query.bind(value.clone()),
            SqlValue::Uuid(value) => query.bind(value.map(|id| id.to_string())),
            SqlValue::Time(value) => query.bind(value.map(|time| time.timestamp_micros())),
        };
    }
    query
}

#[cfg(feature = "postgres")]
pub(crate) fn bind_postgres(
    text: Cow<'static, str>,
    values: &[SqlValue],
) -> sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments> {
    let mut query = sqlx::query(sql_str(text));
    for value in values {
        query = match value {
            SqlValue::Bool(value) => query.bind(*value),
            SqlValue::Int(value) => query.bind(*value),
            SqlValue::Float(value) => query.bind(*value),
            SqlValue::Text(value) => query.bind(value.clone()),
            SqlValue::Bytes(value) => query.bind(value.clone()),
            SqlValue::Uuid(value) => query.bind(*value),
            SqlValue::Time(value) => query.bind(*value),
        };
    }
    query
}

/// What a driver error means for a statement inside a transaction: nothing has taken effect.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn db_error(source: sqlx::Error) -> Error {
    let (kind, message) = classify(&source);
    Error::with_source(kind, message, source)
}

/// The same for a statement that commits itself: a connection that breaks leaves it open
/// whether it took effect.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn autocommit_error(source: sqlx::Error) -> Error {
    let open = match &source {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        // The server ends the session, or does not know itself: after the commit, for all we know.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            matches!(&*code, "57P01" | "57P02" | "40003") || code.starts_with("08")
        }),
        _ => false,
    };
    if !open {
        return db_error(source);
    }
    Error::with_source(
        ErrorKind::Unknown,
        "the connection broke before the database answered: the change may or may not be there",
        source,
    )
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn classify(source: &sqlx::Error) -> (ErrorKind, String) {
    match source {
        sqlx::Error::PoolTimedOut => (
            ErrorKind::Unavailable,
            "no database connection came free in time: raise max_connections or lower the load"
                .to_owned(),
        ),
        sqlx::Error::PoolClosed => (ErrorKind::Closed, "the database handle was closed".to_owned()),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => {
            (ErrorKind::Unavailable, "the connection to the database broke".to_owned())
        }
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            let kind = kind_of(&code);
            let message = match kind {
                ErrorKind::Conflict => "another transaction changed the same rows first",
                ErrorKind::Unavailable => "the database is not available at the moment",
                _ => "the database refused the statement",
            };
            let said = error.message();
            let missing = matches!(&*code, "42P01" | "42883") || said.starts_with("no such table");
            let hint = if missing { "; migrate() makes the library's own tables" } else { "" };
            (kind, format!("{message} (code {code}): {said}{hint}"))
        }
        _ => (ErrorKind::Internal, "the database driver failed".to_owned()),
    }
}

/// SQLSTATE classes, and SQLite's result codes.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn kind_of(code: &str) -> ErrorKind {
    match code {
        // Serialization failure, deadlock, unique violation; SQLite: the same constraints.
        "40001" | "40P01" | "23505" | "1555" | "2067" | "2579" => ErrorKind::Conflict,
        "28P01" | "28000" => ErrorKind::Unauthorized,
        // Shutting down, starting up, too many connections; SQLite: busy and locked.
        "57P01" | "57P02" | "57P03" | "53300" | "5" | "6" | "261" | "517" => ErrorKind::Unavailable,
        // A lock, a statement or an idle transaction that took too long.
        "55P03" | "57014" | "25P03" | "25P04" => ErrorKind::Timeout,
        // A refused value: too long, out of range, invalid text, a check or foreign key.
        "22001" | "22003" | "22021" | "22P02" | "22P05" | "23502" | "23503" | "23514" | "275"
        | "787" | "1299" => ErrorKind::InvalidInput,
        code if code.starts_with("08") => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}
