//! Operations from a device.

use chrono::{DateTime, Utc};
use examples_common::Problem;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::register::rfc3339;
use super::{Bearer, SyncService, check_id, epoch_changed, replica_of, retired};
use crate::document::Kind;
use crate::ingest::{OperationResult, Prepared, Status, Uploader};
use crate::protocol::{OPERATIONS_MAX, digest};
use crate::store::{EntityKey, Replica, User};

/// What a device did while it was away.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadRequest {
    /// Which device.
    #[schema(example = "device-123")]
    pub device_id: String,
    /// Its operations, by entity, in the order in which it made them.
    pub changes: Vec<Changes>,
    /// The batch's name: sent again, it gets the first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    /// The how-manieth upload of the incarnation this is, from 1. It shows copies and restored
    /// backups, of the device and of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Which life of the device; that of the token if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// Which history of the server the device knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The device's clock when it sent this; only for its status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_time: Option<DateTime<Utc>>,
}

/// Operations on one entity.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// The entity.
    #[schema(example = "doc-1")]
    pub entity_id: String,
    /// Its kind in the user's program.
    #[serde(default = "document")]
    pub entity_type: String,
    /// Its CRDT.
    #[schema(example = "LWWRegister")]
    pub crdt_type: String,
    /// In order. See `Operation`.
    #[schema(value_type = Vec<crate::document::Operation>)]
    pub operations: Vec<Value>,
}

fn document() -> String {
    "document".to_owned()
}

/// What became of an upload.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UploadAnswer {
    /// The device.
    pub device_id: String,
    /// How many operations are in (applied, clamped or there before).
    pub accepted: usize,
    /// How many were set aside.
    pub rejected: usize,
    /// One for each operation.
    pub results: Vec<OperationResult>,
    /// The number of the user's last change: what a download must reach to hold all of this.
    pub seq: u64,
    /// Which history of the server.
    pub epoch: String,
    /// The server's clock.
    pub server_time: String,
    /// By what a retry is known: `op_id`, `batch_id`, or `none`.
    pub identity: String,
    /// What can't be told apart without ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// An upload that is well-formed, of a device that may upload.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) device_id: String,
    /// Which life of the device; its latest if `None`.
    pub(super) incarnation: Option<u64>,
    pub(super) sequence: Option<u64>,
    pub(super) epoch: Option<String>,
    pub(super) device_time: Option<DateTime<Utc>>,
    pub(super) operations: Vec<Prepared>,
    pub(super) hash: Vec<u8>,
    /// Its name within its user.
    pub(super) id: Option<String>,
    /// What a reuse of that name means.
    pub(super) reused: &'static str,
}

impl SyncService {
    /// Applies a device's operations, each once. The answer is JSON of [`UploadAnswer`].
    ///
    /// # Errors
    /// 422 for a malformed upload, 409 for `stale_incarnation`, `epoch_changed` and a `batch_id`
    /// of another batch, 401 and 404 for the device.
    pub async fn upload(
        &self,
        request: &UploadRequest,
        bearer: Bearer<'_>,
        key: Option<&str>,
    ) -> Result<String, Problem> {
        let caller = self.caller(&request.device_id, bearer).await?;
        let incarnation = match (request.incarnation, caller.incarnation) {
            (Some(asked), Some(proven)) if asked != proven => {
                let detail = "The token is one of another incarnation.";
                return Err(Problem::unprocessable("wrong_incarnation", detail));
            }
            (asked, proven) => asked.or(proven),
        };
        let replica = replica_of(&caller.device.replicas, incarnation)?;
        let batch = prepare(request, &caller.device.user.user_id, replica, incarnation, key)?;
        self.enqueue(caller.device, batch).await
    }
}

/// Has the server lost uploads of this replica? An error if it is the replica that is stale.
pub(super) fn has_lost(batch: &Batch, user: &User, replica: &Replica) -> Result<bool, Problem> {
    if replica.retired {
        return Err(Problem::conflict("device_retired", retired(&replica.device_id)));
    }
    if batch.epoch.as_ref().is_some_and(|epoch| *epoch != user.epoch) {
        return Err(epoch_changed());
    }
    let Some(sequence) = batch.sequence else { return Ok(false) };
    if sequence <= replica.last_sequence {
        return Err(stale(&replica.device_id, sequence));
    }
    Ok(sequence - replica.last_sequence > 1)
}

pub(super) fn stale(device_id: &str, sequence: u64) -> Problem {
    let detail = format!(
        "The server has another upload {sequence} of this incarnation of device {device_id}: it \
         was restored from a backup or copied. Register again with reissue, then upload what is \
         not acknowledged (with its op_ids)."
    );
    Problem::conflict("stale_incarnation", detail)
}

/// Reads an upload.
fn prepare(
    request: &UploadRequest,
    user_id: &str,
    replica: &Replica,
    incarnation: Option<u64>,
    key: Option<&str>,
) -> Result<Batch, Problem> {
    let count: usize = request.changes.iter().map(|one| one.operations.len()).sum();
    if count > OPERATIONS_MAX {
        let detail =
            format!("An upload has at most {OPERATIONS_MAX} operations, this has {count}.");
        return Err(Problem::too_large("too_many_operations", detail));
    }
    if request.sequence == Some(0) {
        let detail = "sequence counts from 1.";
        return Err(
            Problem::unprocessable("invalid_sequence", detail).with_field("sequence", detail)
        );
    }
    if let Some(id) = &request.batch_id {
        check_id("batch_id", id)?;
    }
    let mut operations = Vec::with_capacity(count);
    for (at, one) in request.changes.iter().enumerate() {
        check_id(&format!("changes[{at}].entity_id"), &one.entity_id)?;
        check_id(&format!("changes[{at}].entity_type"), &one.entity_type)?;
        let kind = kind_of(&one.crdt_type, &format!("changes[{at}].crdt_type"))?;
        let key =
            EntityKey { entity_type: one.entity_type.clone(), entity_id: one.entity_id.clone() };
        let each = one.operations.iter();
        operations.extend(each.map(|raw| Prepared::new(user_id, key.clone(), kind, raw)));
    }
    // The name says what a reuse means.
    let (id, reused) = match (request.sequence, &request.batch_id, key) {
        (Some(sequence), ..) => {
            let Replica { device_id, incarnation, .. } = replica;
            (Some(format!("#{incarnation}.{sequence} {device_id}")), "stale_incarnation")
        }
        (None, Some(id), _) => (Some(format!("batch {id}")), "batch_id_reused"),
        (None, None, Some(key)) => (Some(format!("key {key}")), "idempotency_key_reused"),
        (None, None, None) => (None, "batch_id_reused"),
    };
    Ok(Batch {
        device_id: request.device_id.clone(),
        incarnation,
        sequence: request.sequence,
        epoch: request.epoch.clone(),
        device_time: request.device_time,
        operations,
        hash: hash_of(request),
        id,
        reused,
    })
}

/// The CRDT of that name, or a problem that lists them.
pub(crate) fn kind_of(name: &str, field: &str) -> Result<Kind, Problem> {
    Kind::parse(name).ok_or_else(|| {
        let shown: String = name.chars().take(40).collect();
        let detail = format!("There is no crdt_type {shown:?}. There are: {}.", Kind::names());
        Problem::unprocessable("unknown_crdt_type", detail.clone()).with_field(field, detail)
    })
}

/// What was asked, whichever device asks.
fn hash_of(request: &UploadRequest) -> Vec<u8> {
    let changes: Vec<_> = request
        .changes
        .iter()
        .map(|one| {
            let operations: Vec<_> =
                one.operations.iter().map(potter_crdt::JsonValue::from).collect();
            let operations: Vec<_> = operations.iter().map(|op| op.as_str().to_owned()).collect();
            (&one.entity_type, &one.entity_id, &one.crdt_type, operations)
        })
        .collect();
    digest(&[&serde_json::to_vec(&changes).unwrap_or_default()]).to_vec()
}

/// What is answered to a batch after which the last change is `seq`.
pub(super) fn answer(
    batch: &Batch,
    by: &Uploader<'_>,
    results: Vec<OperationResult>,
    seq: u64,
) -> UploadAnswer {
    let rejected = results.iter().filter(|one| one.status == Status::Rejected).count();
    let named = batch.operations.iter().all(|op| op.name.is_some());
    let identity = match (&batch.id, named) {
        (_, true) => "op_id",
        (Some(_), false) => "batch_id",
        (None, false) => "none",
    };
    let note = (identity == "none").then(|| {
        "Operations without an op_id in a batch without a batch_id can't be told from new ones: \
         sent again, increments count again. (Writes of the same device, instant and value are \
         recognised.)"
            .to_owned()
    });
    UploadAnswer {
        device_id: by.device_id.to_owned(),
        accepted: results.len() - rejected,
        rejected,
        results,
        seq,
        epoch: by.user.epoch.clone(),
        server_time: rfc3339(by.now),
        identity: identity.to_owned(),
        note,
    }
}
