//! From a URL to a database, with an error for each way in which that goes wrong.

use std::time::Duration;

use mongodb::bson::doc;
use mongodb::error::ErrorKind as Driver;
use mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, ReadConcern, ReadPreference,
    SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Collection, Database};

use super::failure::{Asked, meaning, within};
use super::options::MongoOptions;
use crate::error::{Error, ErrorKind, Result};

/// A database, and what its server can do.
#[derive(Clone, Debug)]
pub(crate) struct Mongo {
    pub(crate) database: Database,
    pub(crate) options: MongoOptions,
    /// FerretDB takes no array in an array.
    pub(crate) nested_arrays: bool,
}

impl Mongo {
    pub(crate) async fn connect(url: &str, options: MongoOptions) -> Result<Self> {
        options.check()?;
        let mut client = parse(url).await?;
        let hosts = hosts(&client);
        let name = options.database.clone().or_else(|| client.default_database.clone());
        let Some(name) = name else {
            let message = format!(
                "the MongoDB URL of {hosts} names no database: add one at its end, as in \
                 mongodb://host:27017/events"
            );
            return Err(Error::new(ErrorKind::Config, message));
        };
        client.app_name.get_or_insert_with(|| "potter-eventsourcing".to_owned());
        client.server_selection_timeout.get_or_insert(options.timeout.min(Duration::from_secs(5)));
        client.connect_timeout.get_or_insert(options.timeout.min(Duration::from_secs(5)));
        let client = Client::with_options(client).map_err(|error| malformed(&error))?;
        let database = client.database(&name);
        let info = tokio::time::timeout(
            options.timeout.max(Duration::from_secs(5)),
            // It needs a user, where a server has users: "ping" does not.
            async {
                database.run_command(doc! { "listCollections": 1, "nameOnly": true }).await?;
                database.run_command(doc! { "buildInfo": 1 }).await
            },
        )
        .await;
        let info = match info {
            Ok(Ok(info)) => info,
            Ok(Err(error)) => return Err(refused(&hosts, error)),
            Err(_) => {
                let message = format!("MongoDB at {hosts} does not answer");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        };
        let nested_arrays = !info.contains_key("ferretdbVersion");
        Ok(Self { database, options, nested_arrays })
    }

    /// One of the library's collections. Everything is read from the primary: two reads of
    /// different secondaries could contradict each other.
    ///
    /// `final_only` leaves out what a change of the primary could still take back.
    pub(crate) fn collection<T: Send + Sync>(
        &self,
        potter_name: &str,
        final_only: bool,
    ) -> Collection<T> {
        let read = if final_only { ReadConcern::majority() } else { ReadConcern::local() };
        let write = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        let options = CollectionOptions::builder()
            .read_concern(read)
            .write_concern(write)
            .selection_criteria(primary)
            .build();
        self.database.collection_with_options(&self.options.collection(potter_name), options)
    }

    /// Reads, with an end.
    pub(crate) async fn read<T>(
        &self,
        operation: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T> {
        within(Asked::Read, self.options.timeout, operation).await
    }

    /// Writes, with an end: without an answer it is `Unknown`.
    pub(crate) async fn write<T>(
        &self,
        operation: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T> {
        within(Asked::Write, self.options.timeout, operation).await
    }
}

async fn parse(url: &str) -> Result<ClientOptions> {
    if !url.starts_with("mongodb://") && !url.starts_with("mongodb+srv://") {
        let message = "a MongoDB URL begins with mongodb:// or mongodb+srv://".to_owned();
        return Err(Error::new(ErrorKind::Config, message));
    }
    ClientOptions::parse(url).await.map_err(|error| match &*error.kind {
        Driver::DnsResolve { .. } => {
            let message = "the host of the mongodb+srv URL can't be resolved";
            Error::with_source(ErrorKind::Unavailable, message, error)
        }
        _ => malformed(&error),
    })
}

/// Without the driver's own words: they may quote the URL, and the URL has the password.
fn malformed(_: &mongodb::error::Error) -> Error {
    Error::new(
        ErrorKind::Config,
        "the MongoDB URL is malformed: mongodb://user:password@host:27017/database, with \
         %-escapes for : / ? # [ ] @ % in the user name and the password",
    )
}

fn hosts(options: &ClientOptions) -> String {
    let hosts: Vec<_> = options.hosts.iter().map(ToString::to_string).collect();
    hosts.join(",")
}

fn refused(hosts: &str, error: mongodb::error::Error) -> Error {
    let error = meaning(Asked::Read, error);
    let message = match error.kind() {
        ErrorKind::Config => format!(
            "MongoDB at {hosts} refuses the user: check the user name, the password, authSource, \
             and that the user may read and write the database"
        ),
        ErrorKind::Unavailable => {
            format!("MongoDB at {hosts} can't be reached: is it running, and is the host right?")
        }
        _ => format!("MongoDB at {hosts} refused to be connected to: {error}"),
    };
    Error::with_source(error.kind(), message, error)
}
