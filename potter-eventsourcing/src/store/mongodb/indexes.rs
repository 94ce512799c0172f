//! The indexes, from the files in `migrations/mongodb`.

use std::collections::BTreeMap;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use serde::Deserialize;

use super::connect::Mongo;
use super::failure::{Asked, code, meaning};
use crate::error::{Error, ErrorKind, Result};

/// Index definitions, as JSON.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MongoIndexes {
    /// What they are for.
    pub name: &'static str,
    /// A list of collections with their indexes, in the words of MongoDB's `createIndexes`.
    pub json: &'static str,
}

/// The indexes of this crate's collections, for this version: what
/// [`migrate`](crate::EventStore::migrate) creates on MongoDB, to print or to create otherwise.
pub const MONGO_INDEXES: &[MongoIndexes] = &[
    MongoIndexes {
        name: "events",
        json: include_str!("../../../migrations/mongodb/0001_events.json"),
    },
    MongoIndexes {
        name: "projections",
        json: include_str!("../../../migrations/mongodb/0002_projections.json"),
    },
    MongoIndexes {
        name: "snapshots",
        json: include_str!("../../../migrations/mongodb/0003_snapshots.json"),
    },
];

/// The server has an index of this name, or of these fields, that is another.
const OTHER_INDEX: [i32; 2] = [85, 86];
const NO_COLLECTION: i32 = 26;
/// Many processes may create the same collection at once.
const ATTEMPTS: u32 = 5;
/// An index on many events takes its time.
const AT_MOST: Duration = Duration::from_secs(3600);

#[derive(Debug, Deserialize)]
struct OfCollection {
    collection: String,
    indexes: Vec<Index>,
}

#[derive(Debug, Deserialize)]
struct Index {
    name: String,
    key: KeyOrder,
    unique: bool,
}

/// The fields of an index in the order of the file.
#[derive(Debug)]
struct KeyOrder(Vec<(String, i32)>);

impl<'de> Deserialize<'de> for KeyOrder {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> serde::de::Visitor<'de> for Fields {
            type Value = KeyOrder;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the fields of an index")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<KeyOrder, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(KeyOrder(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

pub(super) async fn create(mongo: &Mongo) -> Result<()> {
    let mut commands: BTreeMap<String, Vec<Document>> = BTreeMap::new();
    for file in MONGO_INDEXES {
        for of in parse(file)? {
            let collection = mongo.options.collection(&of.collection);
            commands.entry(collection).or_default().extend(of.indexes.into_iter().map(definition));
        }
    }
    for (collection, indexes) in commands {
        create_those(mongo, &collection, indexes).await?;
    }
    Ok(())
}

fn parse(file: &MongoIndexes) -> Result<Vec<OfCollection>> {
    serde_json::from_str(file.json).map_err(|source| {
        let message = format!("the index definitions of {} can't be read", file.name);
        Error::with_source(ErrorKind::Internal, message, source)
    })
}

fn definition(index: Index) -> Document {
    let key: Document =
        index.key.0.into_iter().map(|(field, order)| (field, order.into())).collect();
    let mut definition = doc! { "name": index.name, "key": key };
    if index.unique {
        definition.insert("unique", true);
    }
    definition
}

async fn create_those(mongo: &Mongo, collection: &str, wanted: Vec<Document>) -> Result<()> {
    let mut attempt = 0;
    loop {
        let error = match create_missing(mongo, collection, &wanted).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        attempt += 1;
        if attempt >= ATTEMPTS || matches!(error.kind(), ErrorKind::Config | ErrorKind::Corrupt) {
            return Err(error);
        }
        // Somebody else may have made them meanwhile.
        tokio::time::sleep(Duration::from_millis(50) * attempt).await;
    }
}

async fn create_missing(mongo: &Mongo, collection: &str, wanted: &[Document]) -> Result<()> {
    let there = existing(mongo, collection).await?;
    let mut missing = Vec::new();
    for index in wanted {
        let name = index.get_str("name").unwrap_or_default();
        match there.iter().find(|one| one.get_str("name").is_ok_and(|one| one == name)) {
            None => missing.push(index.clone()),
            Some(found) if is_same(index, found) => {}
            Some(_) => return Err(another(collection, name)),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let create = doc! { "createIndexes": collection, "indexes": missing };
    match tokio::time::timeout(AT_MOST, mongo.database.run_command(create)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if code(&error).is_some_and(|code| OTHER_INDEX.contains(&code)) => {
            Err(Error::with_source(ErrorKind::Corrupt, another(collection, "").to_string(), error))
        }
        Ok(Err(error)) => Err(meaning(Asked::Read, error)),
        Err(_) => {
            let message = format!("the indexes of {collection} were not made in {AT_MOST:?}");
            Err(Error::new(ErrorKind::Unavailable, message))
        }
    }
}

/// The indexes of a collection; none if there is no such collection.
async fn existing(mongo: &Mongo, collection: &str) -> Result<Vec<Document>> {
    let list = mongo.database.run_command(doc! { "listIndexes": collection });
    let answer = match tokio::time::timeout(mongo.options.timeout, list).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) if code(&error) == Some(NO_COLLECTION) => return Ok(Vec::new()),
        Ok(Err(error)) => return Err(meaning(Asked::Read, error)),
        Err(_) => {
            return Err(Error::new(ErrorKind::Unavailable, "MongoDB does not list its indexes"));
        }
    };
    let batch = answer.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let batch = batch.map_err(|source| {
        Error::with_source(ErrorKind::Internal, "MongoDB's list of indexes is malformed", source)
    })?;
    Ok(batch.iter().filter_map(|index| index.as_document().cloned()).collect())
}

/// The same fields in the same order, and unique or not.
fn is_same(wanted: &Document, found: &Document) -> bool {
    let fields = |index: &Document| -> Vec<String> {
        let key = index.get_document("key").ok();
        key.map(|key| key.keys().cloned().collect()).unwrap_or_default()
    };
    let unique = |index: &Document| index.get_bool("unique").unwrap_or(false);
    fields(wanted) == fields(found) && unique(wanted) == unique(found)
}

fn another(collection: &str, index: &str) -> Error {
    let message = format!(
        "collection {collection} has an index {index} that is not this library's, with the name or \
         the fields of one of its own: drop it, then migrate again"
    );
    Error::new(ErrorKind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_read() {
        for file in MONGO_INDEXES {
            for of in parse(file).unwrap() {
                assert!(of.collection.starts_with("potter_"), "{of:?}");
                assert!(!of.indexes.is_empty());
            }
        }
        let [events] = &parse(&MONGO_INDEXES[0]).unwrap()[..] else { panic!("one collection") };
        let stream = &events.indexes[1];
        assert!(stream.unique);
        assert_eq!(stream.key.0, [("stream".to_owned(), 1), ("version".to_owned(), 1)]);
    }
}
