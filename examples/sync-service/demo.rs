//! The program without a port: two devices, told as a story.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use examples_common::{Problem, StartError, env_text};
use potter_core::{SystemClock, new_id};
use potter_crdt::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::open;
use crate::client::{Failure, Keeper, Local, Synced, Transport, sync};
use crate::document::{Kind, Operation};
use crate::service::{
    DownloadRequest, Downloaded, Options, RegisterRequest, Registered, SyncService, UploadAnswer,
    UploadRequest,
};
use crate::store::EntityKey;

/// A folder that goes away with this value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The service in the same process; it can lose an answer.
struct Direct {
    service: SyncService,
    loses_answer: AtomicBool,
}

fn refused(problem: Problem) -> Failure {
    Failure::Refused {
        status: problem.status,
        code: problem.code.into_owned(),
        detail: problem.detail,
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::Unreachable(error.to_string()))
}

#[async_trait]
impl Transport for Direct {
    async fn register(&self, request: &RegisterRequest) -> Result<Registered, Failure> {
        let (_, answer) = self.service.register(request, None).await.map_err(refused)?;
        read(&answer)
    }

    async fn upload(&self, request: &UploadRequest, token: &str) -> Result<UploadAnswer, Failure> {
        let answer = self.service.upload(request, Some(token), None).await.map_err(refused)?;
        if self.loses_answer.swap(false, Ordering::Relaxed) {
            return Err(Failure::Unreachable("the answer got lost on its way".to_owned()));
        }
        read(&answer)
    }

    async fn download(
        &self,
        device_id: &str,
        cursor: Option<&str>,
        token: &str,
    ) -> Result<Downloaded, Failure> {
        let request = DownloadRequest {
            device_id: device_id.to_owned(),
            cursor: cursor.map(ToOwned::to_owned),
            ..DownloadRequest::default()
        };
        let answer = self.service.download(&request, Some(token)).await.map_err(refused)?;
        read(&answer)
    }
}

/// A device whose store is its memory.
struct Memory;

#[async_trait]
impl Keeper for Memory {
    async fn keep(&mut self, local: &mut Local) -> Result<(), Failure> {
        local.dirty = Default::default();
        Ok(())
    }
}

struct Story<'a> {
    out: &'a mut dyn Write,
    transport: Direct,
    seconds: i64,
}

impl Story<'_> {
    fn say(&mut self, text: &str) -> Result<(), StartError> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// A device does something, offline.
    fn act(
        &mut self,
        device: &mut Local,
        entity: &str,
        kind: Kind,
        op: &str,
        value: &Value,
    ) -> Result<(), StartError> {
        // Each a second after the one before, in the recent past.
        self.seconds += 1;
        let wall = Timestamp::from_unix(chrono::Utc::now().timestamp() - 100 + self.seconds, 0)?;
        let operation =
            Operation { kind: op.to_owned(), value: Some(value.clone()), ..Operation::default() };
        device
            .record(&key(entity), kind, operation, new_id().to_string(), wall)
            .map_err(|refused| refused.detail)?;
        let name = device.meta.device_id.clone();
        self.say(&format!("  {name:<8}{op} {value} on {entity} ({})", kind.name()))
    }

    async fn meet(&mut self, device: &mut Local) -> Result<(), StartError> {
        let name = device.meta.device_id.clone();
        let line = match sync(device, &self.transport, &mut Memory).await {
            Ok(done) => told(&done),
            Err(failure) => failure.to_string(),
        };
        self.say(&format!("  {name:<8}syncs: {line}"))
    }

    fn show(&mut self, devices: &[&Local], entity: &str) -> Result<(), StartError> {
        for device in devices {
            let shown = device.show(&key(entity));
            let value = shown.as_ref().map_or(Value::Null, |shown| shown.value.clone());
            let more = if shown.is_some_and(|shown| shown.conflict) { "  (conflict)" } else { "" };
            let name = device.meta.device_id.clone();
            self.say(&format!("  {name:<8}shows {entity} = {value}{more}"))?;
        }
        Ok(())
    }
}

fn told(done: &Synced) -> String {
    let mut line = format!("{} sent", done.sent);
    if done.known > 0 {
        line.push_str(&format!(" ({} known before)", done.known));
    }
    line.push_str(&format!(", {} received", done.received));
    if let Some(why) = &done.reborn {
        line.push_str(&format!("; {why}: goes on as another incarnation"));
    }
    line
}

fn key(entity: &str) -> EntityKey {
    EntityKey { entity_type: "document".to_owned(), entity_id: entity.to_owned() }
}

/// Tells the story to `out`. The database is a temporary file unless `DATABASE_URL` says otherwise.
///
/// # Errors
/// When the database can't be used, or `out` can't be written to.
pub fn demo(out: &mut dyn Write) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = Folder(std::env::temp_dir().join(format!("sync-service-demo-{}", new_id())));
    let (url, place) = match env_text(&["DATABASE_URL", "POSTGRES_URL"]) {
        Some((variable, url)) => (url, format!("the one of {variable}")),
        None => {
            let file = folder.0.join("demo.db");
            (format!("sqlite://{}", file.display()), "a temporary SQLite file".to_owned())
        }
    };
    runtime.block_on(async {
        let store = open(&url).await?;
        let service = SyncService::open(store, Arc::new(SystemClock), Options::default()).await?;
        let transport = Direct { service, loses_answer: AtomicBool::new(false) };
        let mut story = Story { out, transport, seconds: 0 };
        story.say(
            "Two devices of one user, offline most of the time, and a service between them.",
        )?;
        story.say(&format!("The database is {place}."))?;
        tell(&mut story).await
    })
}

async fn tell(story: &mut Story<'_>) -> Result<(), StartError> {
    // A name of their own: the database may have been used before.
    let user = format!("ada-{}", new_id().simple());
    let mut phone = Local::new("phone", &user);
    let mut tablet = Local::new("tablet", &user);
    if env_text(&["DATABASE_URL", "POSTGRES_URL"]).is_some() {
        phone.meta.device_id = format!("phone-{}", &user[user.len() - 6..]);
        tablet.meta.device_id = format!("tablet-{}", &user[user.len() - 6..]);
    }
    story.say("\nBoth write while they can't talk")?;
    story.act(&mut phone, "title", Kind::LwwRegister, "set", &json!("Shopping"))?;
    story.act(&mut phone, "list", Kind::OrSet, "add", &json!("milk"))?;
    story.act(&mut phone, "visits", Kind::PnCounter, "increment", &json!(2))?;
    story.act(&mut tablet, "title", Kind::LwwRegister, "set", &json!("Groceries"))?;
    story.act(&mut tablet, "list", Kind::OrSet, "add", &json!("bread"))?;
    story.act(&mut tablet, "visits", Kind::PnCounter, "increment", &json!(3))?;
    story.meet(&mut phone).await?;
    story.meet(&mut tablet).await?;
    story.meet(&mut phone).await?;
    for entity in ["title", "list", "visits"] {
        story.show(&[&phone, &tablet], entity)?;
    }

    story.say("\nWho reads and then writes wins, and the conflict is over")?;
    story.act(&mut phone, "title", Kind::LwwRegister, "set", &json!("Weekend shopping"))?;
    story.meet(&mut phone).await?;
    story.meet(&mut tablet).await?;
    story.show(&[&phone, &tablet], "title")?;

    story.say("\nAn add wins over a remove that has not seen it")?;
    story.act(&mut phone, "list", Kind::OrSet, "remove", &json!("milk"))?;
    story.act(&mut tablet, "list", Kind::OrSet, "add", &json!("milk"))?;
    story.meet(&mut phone).await?;
    story.show(&[&phone], "list")?;
    story.meet(&mut tablet).await?;
    story.meet(&mut phone).await?;
    story.show(&[&phone, &tablet], "list")?;

    story.say("\nThe answer to an upload gets lost: the retry is counted once")?;
    story.act(&mut phone, "visits", Kind::PnCounter, "increment", &json!(10))?;
    story.transport.loses_answer.store(true, Ordering::Relaxed);
    story.meet(&mut phone).await?;
    story.meet(&mut phone).await?;
    story.meet(&mut tablet).await?;
    story.show(&[&phone, &tablet], "visits")?;

    story.say("\nThe phone's storage is copied to a new phone; both go on, under one name")?;
    let mut copy = Local {
        meta: phone.meta.clone(),
        entities: phone.entities.clone(),
        ops: phone.ops.clone(),
        dirty: Default::default(),
    };
    story.act(&mut phone, "visits", Kind::PnCounter, "increment", &json!(100))?;
    story.act(&mut copy, "visits", Kind::PnCounter, "increment", &json!(1000))?;
    story.meet(&mut phone).await?;
    story.meet(&mut copy).await?;
    story.meet(&mut phone).await?;
    story.show(&[&phone, &copy], "visits")
}
