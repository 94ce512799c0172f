//! Devices: registration, status, vector clocks.

use chrono::{DateTime, SecondsFormat, Utc};
use examples_common::Problem;
use potter_crdt::{ActorId, Causality, VectorClock, Writer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::{Bearer, SyncService, check_id, replica_of};
use crate::protocol::{CLOCK_DEVICES_MAX, digest};
use crate::store::{Commit, Identity, Notes, Replica};

/// A device that joins its user's others.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// The device.
    #[schema(example = "device-123")]
    pub device_id: String,
    /// Whose it is.
    #[schema(example = "user-456")]
    pub user_id: String,
    /// Begin another incarnation: the device was restored or copied, or the epoch changed.
    #[serde(default)]
    pub reissue: bool,
}

/// A registered device.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Registered {
    /// The device.
    pub device_id: String,
    /// Whose it is.
    pub user_id: String,
    /// Send it as `Authorization: Bearer …`.
    pub token: String,
    /// Which life of the device.
    pub incarnation: u64,
    /// Which history of the server.
    pub epoch: String,
    /// The number of the last upload that the server has of this incarnation.
    pub last_sequence: u64,
    /// The number of the user's last change.
    pub head: u64,
    /// The server's clock.
    pub server_time: String,
    /// `registered` the first time, `known` after.
    #[schema(example = "registered")]
    pub status: String,
}

/// One replica, as its user sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReplicaStatus {
    /// The device.
    pub device_id: String,
    /// Which life of it.
    pub incarnation: u64,
    /// The highest change that it has stored for certain.
    pub acked: u64,
    /// How many changes it lacks.
    pub lag: u64,
    /// The number of its last upload.
    pub last_sequence: u64,
    /// When it was heard of.
    pub last_seen: String,
    /// For how long it is silent, seconds.
    pub silent_seconds: i64,
    /// How far its clock is ahead, milliseconds, if it told its time.
    pub clock_offset_ms: Option<i64>,
    /// It must register again.
    pub retired: bool,
}

/// How a device stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StatusAnswer {
    /// Its latest incarnation.
    #[serde(flatten)]
    pub replica: ReplicaStatus,
    /// Whose it is.
    pub user_id: String,
    /// Which history of the server.
    pub epoch: String,
    /// The number of the user's last change.
    pub head: u64,
    /// Changes up to this one are trimmed from the log.
    pub horizon: u64,
    /// `synced`, `behind` or `retired`.
    pub status: &'static str,
    /// The server's clock.
    pub server_time: String,
    /// All replicas of the user.
    pub devices: Vec<ReplicaStatus>,
}

/// What a device has counted and observed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClockAnswer {
    /// The device.
    pub device_id: String,
    /// For each device how many of its events are known.
    pub vector_clock: BTreeMap<String, u64>,
    /// How the clock before compares with what was observed: before, after, equal or concurrent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_is: Option<String>,
}

pub(super) fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn status_of(replica: &Replica, head: u64, now: DateTime<Utc>) -> ReplicaStatus {
    ReplicaStatus {
        device_id: replica.device_id.clone(),
        incarnation: replica.incarnation,
        acked: replica.acked,
        lag: head.saturating_sub(replica.acked),
        last_sequence: replica.last_sequence,
        last_seen: rfc3339(replica.last_seen),
        silent_seconds: (now - replica.last_seen).num_seconds().max(0),
        clock_offset_ms: replica.notes.clock_offset_ms,
        retired: replica.retired,
    }
}

impl SyncService {
    /// Registers a device: the same answer however often, but for `reissue`, which begins another
    /// incarnation each time (once for each `Idempotency-Key`).
    ///
    /// # Errors
    /// 409 if the device is another user's.
    pub async fn register(
        &self,
        request: &RegisterRequest,
        key: Option<&str>,
    ) -> Result<(bool, String), Problem> {
        check_id("device_id", &request.device_id)?;
        check_id("user_id", &request.user_id)?;
        let Some(key) = key else { return self.register_now(request).await };
        let asked = serde_json::to_vec(request).unwrap_or_default();
        let hash = digest(&[&asked]).to_vec();
        let store = &self.inner.store;
        if let Some(stored) = store.recall("register", key).await? {
            let code = "idempotency_key_reused";
            return Ok((false, Self::given_before(&stored, &hash, code)?));
        }
        let (new, answer) = self.register_now(request).await?;
        let identity =
            Identity { scope: "register".into(), id: key.to_owned(), hash: hash.clone(), answer };
        if store.remember(&identity).await? {
            return Ok((new, identity.answer));
        }
        let stored = store.recall("register", key).await?.unwrap_or(identity);
        Ok((false, Self::given_before(&stored, &hash, "idempotency_key_reused")?))
    }

    async fn register_now(&self, request: &RegisterRequest) -> Result<(bool, String), Problem> {
        let RegisterRequest { device_id, user_id, reissue } = request;
        let store = &self.inner.store;
        loop {
            let device = store.device(device_id).await?;
            if let Some(device) = &device {
                if device.user.user_id != *user_id {
                    let detail = format!("Device {device_id} is registered for another user.");
                    return Err(Problem::conflict("device_of_other_user", detail));
                }
                let last = replica_of(&device.replicas, None)?;
                if !reissue && !last.retired {
                    return Ok((false, self.registered(&device.user, last, "known")?));
                }
            }
            let now = self.now();
            let last = device.as_ref().and_then(|device| device.replicas.last());
            let replica = Replica {
                device_id: device_id.clone(),
                incarnation: last.map_or(0, |last| last.incarnation) + 1,
                registered_at: now,
                last_seen: now,
                acked: 0,
                last_sequence: 0,
                retired: false,
                notes: Notes {
                    clock: last.map(|last| last.notes.clock.clone()).unwrap_or_default(),
                    ..Notes::default()
                },
            };
            if !store.add_replica(user_id, &replica).await? {
                // Somebody registered it at the same moment: look again.
                continue;
            }
            let user = store.user(user_id).await?;
            let user = user.ok_or_else(|| super::unknown_user(user_id))?;
            return Ok((true, self.registered(&user, &replica, "registered")?));
        }
    }

    fn registered(
        &self,
        user: &crate::store::User,
        replica: &Replica,
        status: &str,
    ) -> Result<String, Problem> {
        let Replica { device_id, incarnation, .. } = replica;
        let answer = Registered {
            device_id: device_id.clone(),
            user_id: user.user_id.clone(),
            token: self.inner.secret.token(device_id, &user.user_id, *incarnation),
            incarnation: *incarnation,
            epoch: user.epoch.clone(),
            last_sequence: replica.last_sequence,
            head: user.head.seq,
            server_time: rfc3339(self.now()),
            status: status.to_owned(),
        };
        serde_json::to_string(&answer).map_err(|error| Problem::internal(&error))
    }

    /// How a device and its user's others stand.
    ///
    /// # Errors
    /// 404 for an unknown device, 401 for a token of another.
    pub async fn status(
        &self,
        device_id: &str,
        bearer: Bearer<'_>,
    ) -> Result<StatusAnswer, Problem> {
        let caller = self.caller(device_id, bearer).await?;
        let user = &caller.device.user;
        let replica = replica_of(&caller.device.replicas, caller.incarnation)?;
        let now = self.now();
        let all = self.inner.store.replicas_of(&user.user_id).await?;
        let replica = status_of(replica, user.head.seq, now);
        let status = match &replica {
            ReplicaStatus { retired: true, .. } => "retired",
            ReplicaStatus { lag: 0, .. } => "synced",
            _ => "behind",
        };
        Ok(StatusAnswer {
            replica,
            user_id: user.user_id.clone(),
            epoch: user.epoch.clone(),
            head: user.head.seq,
            horizon: user.horizon.seq,
            status,
            server_time: rfc3339(now),
            devices: all.iter().map(|one| status_of(one, user.head.seq, now)).collect(),
        })
    }

    /// A device's vector clock.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub async fn vector_clock(
        &self,
        device_id: &str,
        bearer: Bearer<'_>,
    ) -> Result<ClockAnswer, Problem> {
        let caller = self.caller(device_id, bearer).await?;
        let replica = replica_of(&caller.device.replicas, caller.incarnation)?;
        let vector_clock = replica.notes.clock.clone();
        Ok(ClockAnswer { device_id: device_id.to_owned(), vector_clock, observed_is: None })
    }

    /// Counts one more event of a device, after taking in what it observed of others.
    ///
    /// # Errors
    /// As [`status`](Self::status); 422 at the limit of a counter.
    pub async fn increment_clock(
        &self,
        device_id: &str,
        bearer: Bearer<'_>,
        observed: &BTreeMap<String, u64>,
        key: Option<&str>,
    ) -> Result<String, Problem> {
        let caller = self.caller(device_id, bearer).await?;
        for device in observed.keys() {
            check_id("observed", device)?;
        }
        let user_id = caller.device.user.user_id.clone();
        let asked = serde_json::to_vec(&(device_id, observed)).unwrap_or_default();
        let hash = digest(&[&asked]).to_vec();
        let scope = format!("clock:{user_id}");
        if let Some(key) = key
            && let Some(stored) = self.inner.store.recall(&scope, key).await?
        {
            return Self::given_before(&stored, &hash, "idempotency_key_reused");
        }
        let mut turn = self.turn(&user_id).await;
        loop {
            let caller = self.caller(device_id, bearer).await?;
            let mut replica = replica_of(&caller.device.replicas, caller.incarnation)?.clone();
            let (clock, observed_is) = counted(&replica.notes.clock, device_id, observed)?;
            replica.notes.clock = clock.clone();
            replica.last_seen = self.now();
            let answer =
                ClockAnswer { device_id: device_id.to_owned(), vector_clock: clock, observed_is };
            let answer =
                serde_json::to_string(&answer).map_err(|error| Problem::internal(&error))?;
            let mut commit = Commit::of(&caller.device.user);
            commit.replicas.push(replica);
            commit.identities.extend(key.map(|key| Identity {
                scope: scope.clone(),
                id: key.to_owned(),
                hash: hash.clone(),
                answer: answer.clone(),
            }));
            if turn.commit(&commit).await? {
                return Ok(answer);
            }
            if let Some(key) = key
                && let Some(stored) = self.inner.store.recall(&scope, key).await?
            {
                return Self::given_before(&stored, &hash, "idempotency_key_reused");
            }
        }
    }
}

/// The clock after one more event, and how it compared with what was observed.
fn counted(
    entries: &BTreeMap<String, u64>,
    device_id: &str,
    observed: &BTreeMap<String, u64>,
) -> Result<(BTreeMap<String, u64>, Option<String>), Problem> {
    let refused = |error: potter_crdt::Error| {
        Problem::unprocessable("invalid_vector_clock", format!("{error}."))
    };
    let clock_of = |entries: &BTreeMap<String, u64>| -> potter_crdt::Result<VectorClock> {
        entries.iter().map(|(actor, seen)| Ok((ActorId::new(actor)?, *seen))).collect()
    };
    let mut clock = clock_of(entries).map_err(refused)?;
    let mut compared = None;
    if !observed.is_empty() {
        let theirs = clock_of(observed).map_err(refused)?;
        compared = Some(match theirs.compare(&clock) {
            Causality::Before => "before",
            Causality::After => "after",
            Causality::Equal => "equal",
            Causality::Concurrent => "concurrent",
        });
        potter_crdt::Join::join(&mut clock, &theirs).map_err(refused)?;
    }
    let actor = ActorId::new(device_id).map_err(refused)?;
    let mut writer = Writer::open(actor, &clock);
    clock.increment(&mut writer).map_err(refused)?;
    let entries: BTreeMap<_, _> =
        clock.iter().map(|(actor, seen)| (actor.to_string(), seen)).collect();
    if entries.len() > CLOCK_DEVICES_MAX {
        let detail = format!("A vector clock has at most {CLOCK_DEVICES_MAX} devices.");
        return Err(Problem::unprocessable("invalid_vector_clock", detail));
    }
    Ok((entries, compared.map(ToOwned::to_owned)))
}
