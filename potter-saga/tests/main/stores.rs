//! The conformance suite on every store.

use potter_saga::saga_store;
use potter_saga::testing::conformance;

use crate::engines::{Fresh, on_every_engine};

async fn store_conforms(fresh: Fresh) {
    conformance(saga_store(&fresh.database)).await;
}

on_every_engine! {
    store_conforms;
}
