//! Changes for a device, a page at a time.

use std::time::Duration;

use examples_common::Problem;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use super::register::rfc3339;
use super::{Bearer, Caller, SyncService, epoch_changed, replica_of, retired};
use crate::document::{Document, Kind};
use crate::protocol::{Cursor, PAGE_MAX, Position};
use crate::store::{Entity, EntityKey, LogEntry, Replica, User};

/// A page ends before it has more bytes of deltas than this, unless its first has.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What a device asks for.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct DownloadRequest {
    /// Which device.
    pub device_id: String,
    /// Where the page before ended; without it everything is sent, as a snapshot.
    pub cursor: Option<String>,
    /// At most so many changes, 1 to 500 (100).
    pub limit: Option<u64>,
    /// Which life of the device; that of the token if it is left out.
    pub incarnation: Option<u64>,
    /// Leave out what the device changed itself: `false` (the default is `true`: its state is what
    /// it downloads).
    pub include_own: Option<bool>,
    /// If there is nothing new, wait so long for something; at most 30,000.
    pub wait_ms: Option<u64>,
}

/// One change of an entity.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Its number.
    pub seq: u64,
    /// The entity's kind.
    pub entity_type: String,
    /// The entity.
    pub entity_id: String,
    /// Its CRDT.
    pub crdt_type: String,
    /// Who changed it; not there in a snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// What to join to the device's own state of the entity: a state of `potter-crdt`.
    #[schema(value_type = Object)]
    pub delta: Value,
}

/// A page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Downloaded {
    /// The device.
    pub device_id: String,
    /// In order.
    pub changes: Vec<Change>,
    /// Send it with the next download, once the changes are stored.
    pub next_cursor: String,
    /// There is more at once.
    pub has_more: bool,
    /// This page is of a snapshot: it begins anew.
    pub snapshot: bool,
    /// The number up to which the device has everything once this page is stored.
    pub seq: u64,
    /// Which history of the server.
    pub epoch: String,
    /// The server's clock.
    pub server_time: String,
}

/// What a page is made of; the same for all devices that ask for it.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    /// A JSON array of [`Change`].
    changes: Box<RawValue>,
    /// Where it ends in the log.
    position: Position,
    /// Where it ends in a snapshot.
    after: Option<EntityKey>,
    /// There is more of the log or of the snapshot.
    more: bool,
}

/// [`Downloaded`], to be written.
#[derive(Serialize)]
struct Answer<'a> {
    device_id: &'a str,
    changes: &'a RawValue,
    next_cursor: String,
    has_more: bool,
    snapshot: bool,
    seq: u64,
    epoch: &'a str,
    server_time: String,
}

fn resync(code: &'static str, detail: &str) -> Problem {
    Problem::new(axum::http::StatusCode::GONE, code, detail)
}

impl SyncService {
    /// A page of changes. Moves nothing but the acknowledgement of the cursor that came back, so it
    /// may be asked again and again. The answer is JSON of [`Downloaded`].
    ///
    /// # Errors
    /// 410 `cursor_expired` and `device_retired` (download without a cursor), 409 `epoch_changed`,
    /// 400 for a cursor that was not made here.
    pub async fn download(
        &self,
        request: &DownloadRequest,
        bearer: Bearer<'_>,
    ) -> Result<String, Problem> {
        let limit = request.limit.unwrap_or(100);
        if !(1..=PAGE_MAX).contains(&limit) {
            let detail = format!("limit is from 1 to {PAGE_MAX}.");
            return Err(
                Problem::unprocessable("invalid_limit", detail.clone()).with_field("limit", detail)
            );
        }
        let caller = self.caller(&request.device_id, bearer).await?;
        let incarnation = request.incarnation.or(caller.incarnation);
        let replica = replica_of(&caller.device.replicas, incarnation)?.clone();
        if replica.retired {
            return Err(resync("device_retired", &retired(&replica.device_id)));
        }
        let user = &caller.device.user;
        let Some(text) = &request.cursor else {
            let page = self.snapshot(user, None, limit).await?;
            return self.downloaded(&caller, &page, user.head, true);
        };
        let cursor = self.inner.secret.open(&user.user_id, text).ok_or_else(|| {
            let detail = "The cursor was not made by this service for this user: send the \
                          next_cursor of a download as it is, or none.";
            Problem::bad_request("invalid_cursor", detail)
        })?;
        self.check_cursor(&caller, &cursor).await?;
        let position = cursor.position;
        if let Some((entity_type, entity_id)) = cursor.after {
            let after = EntityKey { entity_type, entity_id };
            let page = self.snapshot(user, Some(after), limit).await?;
            return self.downloaded(&caller, &page, position, true);
        }
        self.acknowledge(&replica, position).await?;
        let wait = Duration::from_millis(request.wait_ms.unwrap_or(0)).min(WAIT_MAX);
        let page = self.page(user, request, position, limit, wait).await?;
        self.downloaded(&caller, &page, page.position, false)
    }

    /// Is the cursor of this history, and is the log behind it still there?
    async fn check_cursor(&self, caller: &Caller, cursor: &Cursor) -> Result<(), Problem> {
        let user = &caller.device.user;
        if cursor.epoch != user.epoch {
            return Err(epoch_changed());
        }
        let Position { seq, mark } = cursor.position;
        if seq < user.horizon.seq {
            return Err(resync(
                "cursor_expired",
                "The log behind this cursor is trimmed: download without a cursor, and put what \
                 comes in the place of the device's state.",
            ));
        }
        let known = match seq {
            0 => Some(0),
            _ if seq == user.horizon.seq => Some(user.horizon.mark),
            _ if seq == user.head.seq => Some(user.head.mark),
            _ => self.inner.store.mark(&user.user_id, seq).await?,
        };
        if seq > user.head.seq || known != Some(mark) {
            // Trimmed since the device was read?
            let now = self.inner.store.user(&user.user_id).await?;
            if now.is_some_and(|now| seq < now.horizon.seq) {
                return Err(resync(
                    "cursor_expired",
                    "The log is trimmed: begin without a cursor.",
                ));
            }
            self.begin_epoch(user).await?;
            return Err(epoch_changed());
        }
        Ok(())
    }

    /// A cursor that came back is an acknowledgement.
    async fn acknowledge(&self, replica: &Replica, position: Position) -> Result<(), Problem> {
        let now = self.now();
        let quiet = now - replica.last_seen < chrono::TimeDelta::minutes(1);
        if position.seq > replica.acked || !quiet {
            self.inner.store.acknowledge(replica, position.seq, now).await?;
        }
        Ok(())
    }

    /// The changes after a position.
    async fn page(
        &self,
        user: &User,
        request: &DownloadRequest,
        from: Position,
        limit: u64,
        wait: Duration,
    ) -> Result<Page, Problem> {
        let without = (request.include_own == Some(false)).then_some(request.device_id.as_str());
        let key = if from.seq < user.head.seq && without.is_none() {
            let [seq, mark, limit] = [from.seq, from.mark, limit].map(|number| number.to_string());
            self.inner.cache.key("page", user, &[&seq, &mark, &limit])
        } else {
            None
        };
        if let Some(page) = self.inner.cache.get(key.as_ref()).await {
            return Ok(page);
        }
        let log = self.wait_for(&user.user_id, from.seq, limit, wait).await?;
        let page = page_of(log, from, limit, without)?;
        self.inner.cache.put(key.filter(|_| page.position.seq <= user.head.seq), &page);
        Ok(page)
    }

    async fn wait_for(
        &self,
        user_id: &str,
        after: u64,
        limit: u64,
        wait: Duration,
    ) -> Result<Vec<LogEntry>, Problem> {
        let mut listener = self.inner.news.listen(self.inner.news_name(user_id));
        let end = tokio::time::Instant::now() + wait;
        let mut how = "at_once";
        loop {
            listener.looks();
            let look_every = self.inner.look_every();
            let log = self.inner.store.log(user_id, after, limit + 1).await?;
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            if !log.is_empty() || left.is_zero() || self.inner.news.has_ended() {
                if !wait.is_zero() {
                    let how = if log.is_empty() { "in_vain" } else { how };
                    metrics::counter!("sync_waits_total", "ended" => how).increment(1);
                }
                return Ok(log);
            }
            // A hint, the next look, or the end of the wait.
            let told = tokio::time::timeout(left.min(look_every), listener.told()).await;
            how = if told.is_ok() { "told" } else { "looked" };
        }
    }

    /// Entities in the order of their keys. It ends with the position at which it began: what
    /// changed meanwhile comes from the log.
    async fn snapshot(
        &self,
        user: &User,
        after: Option<EntityKey>,
        limit: u64,
    ) -> Result<Page, Problem> {
        let limit_asked = limit.to_string();
        let mut asked = vec![limit_asked.as_str()];
        if let Some(after) = &after {
            asked.extend([after.entity_type.as_str(), &after.entity_id]);
        }
        let key = self.inner.cache.key("snapshot", user, &asked);
        if let Some(page) = self.inner.cache.get(key.as_ref()).await {
            return Ok(page);
        }
        let entities = self.inner.store.entities(&user.user_id, after.as_ref(), limit + 1).await?;
        let known = entities.iter().all(|entity| entity.seq <= user.head.seq);
        let page = snapshot_of(entities, after, limit)?;
        self.inner.cache.put(key.filter(|_| known), &page);
        Ok(page)
    }

    fn downloaded(
        &self,
        caller: &Caller,
        page: &Page,
        position: Position,
        snapshot: bool,
    ) -> Result<String, Problem> {
        let user = &caller.device.user;
        let after = page.after.as_ref().filter(|_| page.more);
        let after = after.map(|key| (key.entity_type.clone(), key.entity_id.clone()));
        let answer = Answer {
            device_id: &caller.device.replicas[0].device_id,
            changes: &page.changes,
            has_more: page.more || (snapshot && user.head.seq > position.seq),
            snapshot,
            // Inside a snapshot nothing is complete yet.
            seq: if after.is_some() { 0 } else { position.seq },
            next_cursor: {
                let cursor = Cursor { epoch: user.epoch.clone(), position, after };
                self.inner.secret.seal(&user.user_id, &cursor)
            },
            epoch: &user.epoch,
            server_time: rfc3339(self.now()),
        };
        serde_json::to_string(&answer).map_err(|error| Problem::internal(&error))
    }
}

fn page_of(
    log: Vec<LogEntry>,
    from: Position,
    limit: u64,
    without: Option<&str>,
) -> Result<Page, Problem> {
    let (mut changes, mut position, mut bytes, mut taken) = (Vec::new(), from, 0, 0);
    let in_all = log.len();
    for entry in log {
        bytes += entry.delta.len();
        if taken > 0 && (bytes > PAGE_BYTES || taken as u64 == limit) {
            break;
        }
        taken += 1;
        position = entry.position;
        if without == Some(&entry.device_id) {
            continue;
        }
        changes.push(Change {
            seq: entry.position.seq,
            delta: json_of(entry.kind, &entry.delta)?,
            entity_type: entry.key.entity_type,
            entity_id: entry.key.entity_id,
            crdt_type: entry.kind.name().to_owned(),
            device_id: Some(entry.device_id),
        });
    }
    let changes = to_raw_value(&changes).map_err(|error| Problem::internal(&error))?;
    Ok(Page { changes, position, after: None, more: taken < in_all })
}

fn snapshot_of(
    entities: Vec<Entity>,
    after: Option<EntityKey>,
    limit: u64,
) -> Result<Page, Problem> {
    let in_all = entities.len();
    let (mut changes, mut after, mut bytes) = (Vec::new(), after, 0);
    for entity in entities {
        bytes += entity.state.len();
        let full = changes.len() as u64 == limit || bytes > PAGE_BYTES;
        if full && !changes.is_empty() {
            break;
        }
        after = Some(entity.key.clone());
        changes.push(Change {
            seq: entity.seq,
            delta: json_of(entity.kind, &entity.state)?,
            entity_type: entity.key.entity_type,
            entity_id: entity.key.entity_id,
            crdt_type: entity.kind.name().to_owned(),
            device_id: None,
        });
    }
    let more = changes.len() < in_all;
    let changes = to_raw_value(&changes).map_err(|error| Problem::internal(&error))?;
    Ok(Page { changes, position: Position::default(), after, more })
}

fn json_of(kind: Kind, bytes: &[u8]) -> Result<Value, Problem> {
    let document = Document::from_bytes(kind, bytes).map_err(|error| Problem::internal(&error))?;
    Ok(document.to_json())
}
