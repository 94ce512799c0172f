//! The indexes. They are made at the first start; what is there is left alone.

use mongodb::bson::{Document as Bson, doc};
use mongodb::options::IndexOptions;
use mongodb::{Collection, IndexModel};
use potter_core::Result;

use super::{MongoStore, write};

impl MongoStore {
    pub(super) async fn make_indexes(&self) -> Result<()> {
        let batches = self.batches();
        self.index(&batches, "version", doc! { "user": 1, "version": 1 }, true).await?;
        self.index(&batches, "last", doc! { "user": 1, "last": 1 }, false).await?;
        self.index(&batches, "ops", doc! { "ops.name": 1 }, false).await?;
        self.index(&batches, "answers", doc! { "answers.name": 1 }, false).await?;
        self.index(&batches, "at", doc! { "at": 1 }, false).await?;
        let replicas = self.replicas();
        self.index(&replicas, "device", doc! { "device": 1 }, false).await?;
        self.index(&replicas, "user", doc! { "user": 1 }, false).await?;
        let entities = self.entity_docs();
        self.index(&entities, "user", doc! { "user": 1, "type": 1, "id": 1 }, false).await?;
        self.index(&entities, "key", doc! { "type": 1, "id": 1 }, false).await?;
        let conflicts = doc! { "user": 1, "status": 1, "detected_at": -1 };
        self.index(&self.conflict_docs(), "user", conflicts, false).await
    }

    /// Makes an index that is not there. (Not every server takes one that is there again.)
    async fn index(
        &self,
        collection: &Collection<Bson>,
        name: &str,
        keys: Bson,
        unique: bool,
    ) -> Result<()> {
        // An error is that of a collection which is not there yet.
        let there = collection.list_index_names().await.unwrap_or_default();
        if there.iter().any(|one| one == name) {
            return Ok(());
        }
        let options =
            IndexOptions::builder().name(name.to_owned()).unique(unique.then_some(true)).build();
        let index = IndexModel::builder().keys(keys).options(options).build();
        match collection.create_index(index).await {
            Ok(_) => Ok(()),
            Err(error) => {
                // Another process made it meanwhile?
                let there = collection.list_index_names().await.unwrap_or_default();
                if there.iter().any(|one| one == name) { Ok(()) } else { Err(write(error)) }
            }
        }
    }
}
