//! One meeting with the server.

use async_trait::async_trait;

use super::{Local, OpState};
use crate::document::Refused;
use crate::service::{Downloaded, RegisterRequest, Registered, UploadAnswer, UploadRequest};

/// How often a meeting begins again because the device or the server was restored.
const RESTARTS_MAX: u32 = 5;

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server refused.
    Refused {
        /// The HTTP status.
        status: u16,
        /// Stable, snake_case.
        code: String,
        /// In words.
        detail: String,
    },
    /// No answer came: whether the server did it is unknown.
    Unreachable(String),
    /// The device's own store failed.
    Keeping(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { status, code, detail } => write!(f, "{status} {code}: {detail}"),
            Self::Unreachable(why) => write!(f, "the server did not answer: {why}"),
            Self::Keeping(why) => write!(f, "the device's own store failed: {why}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused { status: 0, code: refused.code.to_owned(), detail: refused.detail }
    }
}

/// The way to the server.
#[async_trait]
pub trait Transport: Send + Sync {
    /// POST `/sync/register-device`.
    async fn register(&self, request: &RegisterRequest) -> Result<Registered, Failure>;
    /// POST `/sync/upload`.
    async fn upload(&self, request: &UploadRequest, token: &str) -> Result<UploadAnswer, Failure>;
    /// GET `/sync/download`.
    async fn download(
        &self,
        device_id: &str,
        cursor: Option<&str>,
        token: &str,
    ) -> Result<Downloaded, Failure>;
}

/// The device's own store: all that is dirty, in one transaction.
#[async_trait]
pub trait Keeper: Send {
    /// Stores `local.meta` and what `local.dirty` names, and clears that.
    async fn keep(&mut self, local: &mut Local) -> Result<(), Failure>;
}

/// What a meeting did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Operations that the server took.
    pub sent: usize,
    /// Of these, those that it knew before.
    pub known: usize,
    /// Of these, those whose stamp was set back.
    pub clamped: usize,
    /// Operations that it set aside, with the reasons.
    pub rejected: Vec<String>,
    /// Changes that came.
    pub received: usize,
    /// Why the device began another incarnation, if it did.
    pub reborn: Option<String>,
}

enum Step {
    Done,
    /// Begin again: the code of the refusal.
    Again(String),
}

/// Uploads all that is not sent, then downloads all that is new. Everything is stored before the
/// server hears of it, so it may be killed at any point and called again.
///
/// # Errors
/// When the server can't be reached, or refuses for a reason that another life does not help.
pub async fn sync(
    local: &mut Local,
    transport: &dyn Transport,
    keeper: &mut dyn Keeper,
) -> Result<Synced, Failure> {
    let mut synced = Synced::default();
    if local.meta.token.is_empty() {
        register(local, transport, keeper, None).await?;
    }
    for _ in 0..RESTARTS_MAX {
        let step = match upload(local, transport, keeper, &mut synced).await? {
            Step::Done => download(local, transport, keeper, &mut synced).await?,
            again => again,
        };
        match step {
            Step::Done => return Ok(synced),
            Step::Again(code) => {
                if code == "cursor_expired" {
                    local.forget_cursor();
                    keeper.keep(local).await?;
                } else {
                    register(local, transport, keeper, Some(&code)).await?;
                    synced.reborn = Some(code);
                }
            }
        }
    }
    Err(Failure::Refused {
        status: 409,
        code: "restarts".to_owned(),
        detail: format!("gave up after {RESTARTS_MAX} restarts"),
    })
}

async fn register(
    local: &mut Local,
    transport: &dyn Transport,
    keeper: &mut dyn Keeper,
    why: Option<&str>,
) -> Result<(), Failure> {
    let request = RegisterRequest {
        device_id: local.meta.device_id.clone(),
        user_id: local.meta.user_id.clone(),
        // A new file of a name that is known is another life of it too: its operations are counted
        // from 1.
        reissue: true,
    };
    let answer = transport.register(&request).await?;
    local.reborn(&answer);
    match why {
        Some("epoch_changed") => local.resend(&answer.server_time),
        Some("device_retired") => local.forget_cursor(),
        _ => {}
    }
    keeper.keep(local).await
}

/// What another incarnation or a new download cures.
fn again(failure: Failure) -> Result<Step, Failure> {
    match failure {
        Failure::Refused { code, .. }
            if matches!(
                code.as_str(),
                "stale_incarnation" | "epoch_changed" | "device_retired" | "cursor_expired"
            ) =>
        {
            Ok(Step::Again(code))
        }
        other => Err(other),
    }
}

async fn upload(
    local: &mut Local,
    transport: &dyn Transport,
    keeper: &mut dyn Keeper,
    synced: &mut Synced,
) -> Result<Step, Failure> {
    while local.freeze() {
        keeper.keep(local).await?;
        let answer = match transport.upload(&local.batch(), &local.meta.token).await {
            Ok(answer) => answer,
            Err(failure) => return again(failure),
        };
        let before: Vec<u64> = rejected(local).collect();
        local.uploaded(&answer);
        let new = rejected(local).filter(|number| !before.contains(number));
        for number in new.collect::<Vec<_>>() {
            if let Some(OpState::Rejected(why)) = local.ops.get(&number).map(|op| &op.state) {
                synced.rejected.push(why.clone());
            }
        }
        use crate::ingest::Status;
        let of = |status| answer.results.iter().filter(|one| one.status == status).count();
        synced.sent += answer.accepted;
        synced.known += of(Status::Duplicate);
        synced.clamped += of(Status::Clamped);
        keeper.keep(local).await?;
    }
    Ok(Step::Done)
}

fn rejected(local: &Local) -> impl Iterator<Item = u64> {
    let rejected = local.ops.iter().filter(|(_, op)| matches!(op.state, OpState::Rejected(_)));
    rejected.map(|(number, _)| *number)
}

async fn download(
    local: &mut Local,
    transport: &dyn Transport,
    keeper: &mut dyn Keeper,
    synced: &mut Synced,
) -> Result<Step, Failure> {
    loop {
        let (device, cursor) = (&local.meta.device_id, local.meta.cursor.as_deref());
        let page = match transport.download(device, cursor, &local.meta.token).await {
            Ok(page) => page,
            Err(failure) => return again(failure),
        };
        if page.epoch != local.meta.epoch {
            return Ok(Step::Again("epoch_changed".to_owned()));
        }
        local.downloaded(&page)?;
        synced.received += page.changes.len();
        keeper.keep(local).await?;
        if !page.has_more {
            return Ok(Step::Done);
        }
    }
}
