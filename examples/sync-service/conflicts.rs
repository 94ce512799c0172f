//! Ending a conflict: by hand or by a rule. Either is a write that has seen all values, so it goes to
//! the devices as any other change does, and a write that nobody has seen opens the conflict again.

use examples_common::Problem;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::document::{Document, Kind, Operation, Seen, Sibling};
use crate::ingest::{Prepared, Status, Uploader, ingest};
use crate::protocol::digest;
use crate::service::{Bearer, SyncService};
use crate::store::{Commit, Conflict, Identity, Loaded, User};

/// The device that a resolution without a device is written as.
const RESOLVER: &str = "resolver";

/// A rule that picks one of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The latest write.
    LastWriterWins,
    /// The earliest write.
    FirstWriterWins,
    /// The greatest number, or the last text in order.
    Max,
    /// The smallest number, or the first text in order.
    Min,
    /// All elements of the values, which must be arrays.
    Union,
    /// What the device of the request wrote.
    PreferDevice,
}

/// How a conflict ends by hand.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// The value to keep; it need not be one of those in conflict.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    pub value: Option<Value>,
    /// Or the how-manieth of the values, from 0.
    pub choose: Option<usize>,
    /// In whose name; needs the device's token if tokens are required.
    pub device_id: Option<String>,
}

/// How it ends by a rule.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoResolveRequest {
    /// Which rule; the last writer wins if it is left out.
    pub policy: Option<Policy>,
    /// The device that `prefer_device` prefers, and in whose name it is written.
    pub device_id: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Resolved {
    /// The conflict.
    pub id: Uuid,
    /// `resolved`.
    pub status: String,
    /// The value that is kept.
    #[schema(value_type = Object)]
    pub value: Value,
    /// `manual`, or the policy.
    pub resolution: String,
    /// The number of the change that says so to the devices.
    pub seq: u64,
}

/// A `null` that is there is a value.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// What a rule picks.
///
/// # Errors
/// 422 when it does not fit the values.
pub fn pick(policy: Policy, siblings: &[Sibling], device: Option<&str>) -> Result<Value, Problem> {
    let misfit = |detail: &str| Problem::unprocessable("policy_does_not_fit", detail);
    let none = || misfit("There are no values.");
    let chosen = match policy {
        Policy::LastWriterWins => siblings.first(),
        Policy::FirstWriterWins => siblings.last(),
        Policy::Max | Policy::Min => {
            let alike =
                siblings.windows(2).all(|two| order(&two[0].value, &two[1].value).is_some());
            if !alike {
                return Err(misfit("max and min need values that are all numbers or all texts."));
            }
            let by =
                |a: &&Sibling, b: &&Sibling| order(&a.value, &b.value).unwrap_or(Ordering::Equal);
            let all = siblings.iter();
            if policy == Policy::Max { all.max_by(by) } else { all.min_by(by) }
        }
        Policy::Union => {
            let mut all: Vec<Value> = Vec::new();
            for sibling in siblings.iter().rev() {
                let items = sibling.value.as_array();
                for item in items.ok_or_else(|| misfit("union needs values that are arrays."))? {
                    if !all.contains(item) {
                        all.push(item.clone());
                    }
                }
            }
            return Ok(Value::Array(all));
        }
        Policy::PreferDevice => {
            let Some(device) = device else {
                return Err(misfit("prefer_device needs a device_id."));
            };
            let found = siblings.iter().find(|sibling| sibling.node_id == device);
            Some(found.ok_or_else(|| misfit("That device wrote none of the values."))?)
        }
    };
    chosen.map(|sibling| sibling.value.clone()).ok_or_else(none)
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

impl SyncService {
    /// The conflict, if the request's user may see it.
    ///
    /// # Errors
    /// 404 otherwise: that it is there is nobody else's business.
    pub async fn visible_conflict(
        &self,
        id: Uuid,
        user: Option<&str>,
    ) -> Result<Conflict, Problem> {
        let found = self.store().conflict(id).await?;
        found.filter(|found| user.is_none_or(|user| user == found.user_id)).ok_or_else(|| {
            Problem::not_found("conflict_not_found", format!("There is no conflict {id}."))
        })
    }

    /// Ends a conflict by hand. The answer is JSON of [`Resolved`].
    ///
    /// # Errors
    /// 404 if it is unknown, 409 if it has ended.
    pub async fn resolve(
        &self,
        id: Uuid,
        request: &ResolveRequest,
        bearer: Bearer<'_>,
        key: Option<&str>,
    ) -> Result<String, Problem> {
        let (value, choose) = (request.value.clone(), request.choose);
        if value.is_some() == choose.is_some() {
            let detail = "Send either value or choose.";
            return Err(Problem::unprocessable("invalid_resolution", detail));
        }
        let asked = serde_json::to_vec(&(id, &value, choose)).unwrap_or_default();
        let pick = |siblings: &[Sibling]| match (&value, choose) {
            (Some(value), _) => Ok(value.clone()),
            (None, at) => {
                let found = siblings.get(at.unwrap_or_default());
                found.map(|sibling| sibling.value.clone()).ok_or_else(|| {
                    let detail = format!("choose is from 0 to {}.", siblings.len() - 1);
                    Problem::unprocessable("invalid_resolution", detail)
                })
            }
        };
        let device = request.device_id.as_deref();
        self.end(id, "manual", &pick, device, bearer, key, &asked).await
    }

    /// Ends a conflict by a rule. The answer is JSON of [`Resolved`].
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve); 422 when the rule does not fit the values.
    pub async fn auto_resolve(
        &self,
        id: Uuid,
        request: &AutoResolveRequest,
        bearer: Bearer<'_>,
        key: Option<&str>,
    ) -> Result<String, Problem> {
        let policy = request.policy.unwrap_or(Policy::LastWriterWins);
        let name = serde_json::to_value(policy).ok();
        let name = name.as_ref().and_then(Value::as_str).unwrap_or("policy").to_owned();
        let device = request.device_id.as_deref();
        let asked = serde_json::to_vec(&(id, policy, device)).unwrap_or_default();
        let choose = |siblings: &[Sibling]| pick(policy, siblings, device);
        self.end(id, &name, &choose, device, bearer, key, &asked).await
    }

    #[expect(clippy::too_many_arguments, reason = "the two callers above, and nobody else")]
    async fn end(
        &self,
        id: Uuid,
        resolution: &str,
        pick: &(dyn Fn(&[Sibling]) -> Result<Value, Problem> + Send + Sync),
        device: Option<&str>,
        bearer: Bearer<'_>,
        key: Option<&str>,
        asked: &[u8],
    ) -> Result<String, Problem> {
        let user = self.user_of(device, bearer).await?;
        let conflict = self.visible_conflict(id, user.as_deref()).await?;
        let (hash, scope) = (digest(&[asked]).to_vec(), format!("resolve:{}", conflict.user_id));
        let mut turn = self.turn(&conflict.user_id).await;
        loop {
            let now = self.store().user(&conflict.user_id).await?;
            let now = now.ok_or_else(|| Problem::internal(&"a conflict without its user"))?;
            let ids: Vec<&str> = key.into_iter().collect();
            let keys = [conflict.key.clone()];
            let loaded = self.store().load(&conflict.user_id, &scope, &ids, &[], &keys).await?;
            if let Some(stored) = loaded.identities.values().next() {
                return Self::given_before(stored, &hash, "idempotency_key_reused");
            }
            let (mut commit, answer) =
                self.ended(&conflict, &now, &loaded, device, resolution, pick)?;
            commit.identities.extend(key.map(|key| Identity {
                scope: scope.clone(),
                id: key.to_owned(),
                hash: hash.clone(),
                answer: answer.clone(),
            }));
            if turn.commit(&commit).await? {
                return Ok(answer);
            }
        }
    }

    /// The write that ends a conflict, and what is answered.
    fn ended(
        &self,
        conflict: &Conflict,
        user: &User,
        loaded: &Loaded,
        device: Option<&str>,
        resolution: &str,
        pick: &(dyn Fn(&[Sibling]) -> Result<Value, Problem> + Send + Sync),
    ) -> Result<(Commit, String), Problem> {
        let id = conflict.id;
        let entity = loaded.entities.get(&conflict.key);
        let entity = entity.ok_or_else(|| Problem::internal(&"a conflict of no entity"))?;
        let document = Document::from_bytes(entity.kind, &entity.state)
            .map_err(|error| Problem::internal(&error))?;
        let open = document.conflicts().into_iter().find(|(at, _)| *at == conflict.entry);
        let Some((_, siblings)) = open else {
            let detail = format!("Conflict {id} has ended: one value is left.");
            return Err(Problem::conflict("conflict_ended", detail));
        };
        let value = pick(&siblings)?;
        let operation = operation(&document, conflict.entry.clone(), value.clone());
        let uploader = Uploader {
            user,
            device_id: device.unwrap_or(RESOLVER),
            incarnation: 0,
            replica: None,
            now: self.now(),
        };
        let (key, bytes) = (conflict.key.clone(), value.to_string().len());
        let prepared = Prepared::of(&conflict.user_id, key, entity.kind, Ok(operation), bytes);
        let mut done =
            ingest(&uploader, &[prepared], loaded).map_err(|error| Problem::internal(&error))?;
        let refused = done.results.iter().find(|result| result.status == Status::Rejected);
        if let Some(refused) = refused {
            let code = refused.code.clone().unwrap_or_default();
            return Err(Problem::unprocessable(code, refused.detail.clone().unwrap_or_default()));
        }
        for ended in done.commit.conflicts.iter_mut().filter(|one| one.id == id) {
            ended.status = "resolved";
            ended.resolution = Some(resolution.to_owned());
        }
        let (status, resolution) = ("resolved".to_owned(), resolution.to_owned());
        let seq = done.commit.after.head.seq;
        let answer = serde_json::to_string(&Resolved { id, status, value, resolution, seq })
            .map_err(|error| Problem::internal(&error))?;
        Ok((done.commit, answer))
    }
}

/// The write that has seen all there is.
fn operation(document: &Document, entry: Option<String>, value: Value) -> Operation {
    let mut context: BTreeMap<String, Seen> = BTreeMap::new();
    if let Some(seen) = document.context() {
        for (actor, lo, hi) in seen.iter() {
            let ranges = context.entry(actor.to_string()).or_insert(Seen::Ranges(Vec::new()));
            if let Seen::Ranges(ranges) = ranges {
                ranges.push((lo, hi));
            }
        }
    }
    let delete = value.is_null() && matches!(document.kind(), Kind::LwwRegister | Kind::LwwMap);
    Operation {
        kind: if delete { "delete" } else { "set" }.to_owned(),
        value: Some(value),
        key: entry,
        context: Some(context),
        ..Operation::default()
    }
}
