//! Errors at start say what is wrong, and never the password.

use potter_eventsourcing::{ErrorKind, EventStore, MongoEventStore, MongoOptions};

use crate::support::{MongoDatabase, mongo_servers};

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_has_its_error() {
    let server = &mongo_servers()[0];
    let address = server.strip_prefix("mongodb://").unwrap().split('/').next().unwrap();
    let address = address.rsplit('@').next().unwrap();
    let wrong_user = format!("mongodb://nobody:s3cret@{address}/shop?authSource=admin");
    let cases = [
        ("postgres://u:s3cret@h/d", ErrorKind::Config, "mongodb://"),
        ("mongodb://u:s3cret@h:99999/d", ErrorKind::Config, "malformed"),
        ("mongodb://u:s3cret/@h:27017/d", ErrorKind::Config, "malformed"),
        ("mongodb://u:s3cret@127.0.0.1:1/d", ErrorKind::Unavailable, "127.0.0.1:1"),
        ("mongodb://u:s3cret@127.0.0.1:1/", ErrorKind::Config, "names no database"),
        (&wrong_user, ErrorKind::Config, "refuses the user"),
    ];
    for (url, kind, words) in cases {
        let options = MongoOptions::new().timeout(std::time::Duration::from_secs(3));
        let error = MongoEventStore::connect_with(url, options).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        let mut text = format!("{error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text.push_str(&format!("{error} {error:?}"));
            source = error.source();
        }
        assert!(!text.contains("s3cret"), "{text}");
    }
    let options = MongoOptions::new().collection_prefix("Shop-");
    let error = MongoEventStore::connect_with(server, options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_migrate_at_once() {
    let test = MongoDatabase::new().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(test.client().await);
    }
    let all = clients.iter().map(|client| client.migrate());
    futures::future::try_join_all(all).await.unwrap();
    let store = test.store().await;
    let events = store.driver().collection::<mongodb::bson::Document>("potter_events");
    let names = events.list_index_names().await.unwrap();
    for name in ["position", "stream_version", "event_id", "group_position", "type_position"] {
        assert!(names.iter().any(|one| one == name), "{name} of {names:?}");
    }
}

/// Two independent stores in one database.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_prefix() {
    use potter_eventsourcing::{ExpectedVersion, NewEvent, StreamId};

    let test = MongoDatabase::new().await;
    let options = MongoOptions::new().collection_prefix("shop_");
    let shop = test.store_with(&test.server, options).await;
    shop.migrate().await.unwrap();
    let event = NewEvent::new("sold", &1).unwrap();
    let stream = StreamId::new("item", 1).unwrap();
    shop.append(&stream, ExpectedVersion::NoStream, vec![event]).await.unwrap();
    assert_eq!(shop.head_position().await.unwrap(), 1);
    assert_eq!(test.client().await.head_position().await.unwrap(), 0);
    let collections = shop.driver().list_collection_names().await.unwrap();
    assert!(collections.iter().any(|name| name == "shop_events"), "{collections:?}");
}

/// An index of the same name that is another: it is not replaced, and not relied on.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_changed_is_an_error() {
    let test = MongoDatabase::new().await;
    let store = test.store().await;
    let change = [
        mongodb::bson::doc! { "dropIndexes": "potter_events", "index": "stream_version" },
        mongodb::bson::doc! {
            "createIndexes": "potter_events",
            "indexes": [{ "name": "stream_version", "key": { "stream": 1, "version": 1 } }],
        },
    ];
    for command in change {
        store.driver().run_command(command).await.unwrap();
    }
    let error = store.migrate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("stream_version"), "{error}");
}
