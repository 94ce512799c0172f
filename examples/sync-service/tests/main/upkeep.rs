//! Silent devices, old logs, garbage. In this process, with a clock that is moved by hand.

use std::sync::Arc;
use std::time::Duration;

use example_sync_service::service::{
    DownloadRequest, Downloaded, Options, RegisterRequest, SyncService, UploadAnswer, UploadRequest,
};
use example_sync_service::store::sql::SqlStore;
use example_sync_service::upkeep::upkeep;
use potter_core::ManualClock;
use potter_core::testing::TestDatabase;
use serde_json::{Value, json};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct World {
    service: SyncService,
    clock: ManualClock,
}

impl World {
    async fn new(test: &TestDatabase) -> Self {
        let clock = ManualClock::new(chrono::Utc::now());
        let store = Arc::new(SqlStore::open(test.database().clone()).await.unwrap());
        let options = Options { tokens_required: false, ..Options::default() };
        let service = SyncService::open(store, Arc::new(clock.clone()), options).await.unwrap();
        Self { service, clock }
    }

    async fn register(&self, device: &str) {
        let request = RegisterRequest {
            device_id: device.to_owned(),
            user_id: "ada".to_owned(),
            reissue: false,
        };
        self.service.register(&request, None).await.unwrap();
    }

    async fn upload(&self, device: &str, entity: &str, kind: &str, ops: Value) -> UploadAnswer {
        let change = json!({ "entity_id": entity, "crdt_type": kind, "operations": ops });
        let body = json!({ "device_id": device, "changes": [change] });
        let request: UploadRequest = serde_json::from_value(body).unwrap();
        let answer = self.service.upload(&request, None, None).await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    async fn download(
        &self,
        device: &str,
        cursor: Option<&str>,
    ) -> Result<Downloaded, examples_common::Problem> {
        let request = DownloadRequest {
            device_id: device.to_owned(),
            cursor: cursor.map(ToOwned::to_owned),
            ..DownloadRequest::default()
        };
        let answer = self.service.download(&request, None).await?;
        Ok(serde_json::from_str(&answer).unwrap())
    }
}

async fn silent_devices_are_retired_and_garbage_goes(test: TestDatabase) {
    let world = World::new(&test).await;
    world.register("live").await;
    world.register("drawer").await;
    let put = |key: &str| json!([{ "type": "set", "key": key, "value": 1 }]);
    world.upload("live", "map", "LWWMap", put("a")).await;
    let drawer = world.download("drawer", None).await.unwrap();
    let cursor = drawer.next_cursor.clone();
    world.upload("live", "map", "LWWMap", put("b")).await;
    world.upload("live", "map", "LWWMap", json!([{ "type": "delete", "key": "a" }])).await;
    let live = world.download("live", None).await.unwrap();
    world.download("live", Some(&live.next_cursor)).await.unwrap();
    // The drawer has acknowledged nothing yet: all is kept for it.
    let kept = upkeep(&world.service).await.unwrap();
    assert_eq!((kept.retired, kept.trimmed, kept.reclaimed), (0, 0, 0));
    // It does once: what both have goes.
    world.download("drawer", Some(&cursor)).await.unwrap();
    assert_eq!(upkeep(&world.service).await.unwrap().trimmed, 1);
    world.download("drawer", Some(&cursor)).await.unwrap();

    world.clock.advance(DAY * 60);
    world.upload("live", "n", "GCounter", json!([{ "type": "increment" }])).await;
    let live = world.download("live", Some(&live.next_cursor)).await.unwrap();
    world.download("live", Some(&live.next_cursor)).await.unwrap();
    assert_eq!(upkeep(&world.service).await.unwrap().retired, 0);
    world.clock.advance(DAY * 31);
    let done = upkeep(&world.service).await.unwrap();
    assert_eq!((done.retired, done.trimmed), (1, 3), "the log's rest");
    assert_eq!(done.reclaimed, 1, "the deletion of a");

    // The drawer comes back.
    let refused = world.download("drawer", Some(&cursor)).await.unwrap_err();
    assert_eq!((refused.status, &*refused.code), (410, "device_retired"));
    world.register("drawer").await;
    let refused = world.download("drawer", Some(&cursor)).await.unwrap_err();
    assert_eq!((refused.status, &*refused.code), (410, "cursor_expired"));
    assert!(refused.detail.contains("without a cursor"));
    let all = world.download("drawer", None).await.unwrap();
    assert_eq!(all.changes.len(), 2);
    let map = all.changes.iter().find(|change| change.entity_id == "map").unwrap();
    assert_eq!(map.delta["store"]["entries"].as_array().unwrap().len(), 1);
    // What follows goes on from there.
    world.upload("live", "map", "LWWMap", put("c")).await;
    let next = world.download("drawer", Some(&all.next_cursor)).await.unwrap();
    assert_eq!(next.changes.len(), 1);
    test.close().await;
}

async fn ids_are_kept_twice_as_long_as_a_device_may_be_silent(test: TestDatabase) {
    let world = World::new(&test).await;
    world.register("d").await;
    let op = json!([{ "type": "increment", "op_id": "one" }]);
    world.upload("d", "n", "GCounter", op.clone()).await;
    // Ids are dated by the system's clock, which the clock of this test is ahead of.
    world.clock.advance(DAY * 170);
    assert_eq!(upkeep(&world.service).await.unwrap().forgotten, 0);
    world.register("d").await;
    let again = world.upload("d", "n", "GCounter", op).await;
    assert_eq!(again.results[0].status, example_sync_service::ingest::Status::Duplicate);
    world.clock.advance(DAY * 11);
    assert_eq!(upkeep(&world.service).await.unwrap().forgotten, 1);
    test.close().await;
}

potter_core::on_every_sql_engine!(
    silent_devices_are_retired_and_garbage_goes,
    ids_are_kept_twice_as_long_as_a_device_may_be_silent,
);
