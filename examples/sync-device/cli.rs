//! The command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use example_sync_service::client::{Failure, Keeper, Local, OpState, Synced, sync};
use example_sync_service::document::{Kind, Operation};
use example_sync_service::store::EntityKey;
use potter_core::new_id;
use potter_crdt::Timestamp;
use serde_json::Value;

use crate::file::DeviceFile;
use crate::http::Http;

/// A device that goes offline: its own SQLite file, and sync-service when it can be reached.
#[derive(Debug, Parser)]
#[command(name = "sync-device", version)]
struct Arguments {
    /// The device's file; its name is the device's, unless --device says otherwise.
    #[arg(long, default_value = "data/phone.db", env = "SYNC_FILE")]
    file: PathBuf,
    /// The device's id, when its file is new.
    #[arg(long, env = "SYNC_DEVICE")]
    device: Option<String>,
    /// Whose device it is, when its file is new: devices of one user share everything.
    #[arg(long, default_value = "me", env = "SYNC_USER")]
    user: String,
    /// Where sync-service is.
    #[arg(long, default_value = "http://127.0.0.1:8091", env = "SYNC_SERVER")]
    server: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sets a register; the last writer wins. A value is JSON, or else a text.
    Set { id: String, value: String },
    /// Adds to a counter.
    Inc {
        id: String,
        #[arg(default_value_t = 1)]
        by: i64,
    },
    /// Subtracts from a counter.
    Dec {
        id: String,
        #[arg(default_value_t = 1)]
        by: i64,
    },
    /// Adds to a set.
    Add { id: String, value: String },
    /// Removes from a set what this device sees of it.
    Remove { id: String, value: String },
    /// Sets an entry of a map.
    Put { id: String, key: String, value: String },
    /// Deletes an entry of a map.
    Unset { id: String, key: String },
    /// Switches a flag on.
    On { id: String },
    /// Switches a flag off.
    Off { id: String },
    /// Shows one entity, or all.
    Show { id: Option<String> },
    /// Shows who the device is, and what is not sent.
    Status,
    /// Sends what was done here, and gets what was done elsewhere.
    Sync,
    /// Does so whenever there is something to send or to get, and shows what changes. Ctrl-C ends
    /// it.
    Watch {
        /// Between two looks at the device's own file, and at a server that does not answer,
        /// milliseconds.
        #[arg(long, default_value_t = 1000)]
        every_ms: u64,
    },
}

type Done<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Runs the program with these arguments, the first of which is its name; the exit status.
///
/// # Errors
/// When the file or `out` can't be used.
pub fn run(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
    out: &mut dyn Write,
) -> Done<u8> {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            write!(out, "{error}")?;
            return Ok(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(execute(&arguments, out));
    // Nobody waits for a wait.
    runtime.shutdown_background();
    done
}

async fn open(arguments: &Arguments) -> Done<(DeviceFile, Local)> {
    let stem = arguments.file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let device = arguments.device.clone().or(stem).unwrap_or_else(|| "device".to_owned());
    Ok(DeviceFile::open(Path::new(&arguments.file), &device, &arguments.user).await?)
}

async fn execute(arguments: &Arguments, out: &mut dyn Write) -> Done<u8> {
    if let Command::Watch { every_ms } = arguments.command {
        return watch(arguments, Duration::from_millis(every_ms.max(50)), out).await;
    }
    let (mut file, mut local) = open(arguments).await?;
    let done = match &arguments.command {
        Command::Show { id } => show(&local, id.as_deref(), out),
        Command::Status => status(&local, out),
        Command::Sync => meet(&mut local, &mut file, arguments, out).await,
        command => act(&mut local, &mut file, command, out).await,
    };
    file.close().await;
    done
}

fn key(id: &str) -> EntityKey {
    EntityKey { entity_type: "document".to_owned(), entity_id: id.to_owned() }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// The entity, its CRDT and the operation of a command.
fn operation(command: &Command) -> Option<(&str, Kind, Operation)> {
    let of = |kind: &str, value: Option<Value>, key: Option<&String>| Operation {
        kind: kind.to_owned(),
        value,
        key: key.cloned(),
        ..Operation::default()
    };
    Some(match command {
        Command::Set { id, value } => (id, Kind::LwwRegister, of("set", Some(json(value)), None)),
        Command::Inc { id, by } => {
            (id, Kind::PnCounter, of("increment", Some(Value::from(*by)), None))
        }
        Command::Dec { id, by } => {
            (id, Kind::PnCounter, of("decrement", Some(Value::from(*by)), None))
        }
        Command::Add { id, value } => (id, Kind::OrSet, of("add", Some(json(value)), None)),
        Command::Remove { id, value } => (id, Kind::OrSet, of("remove", Some(json(value)), None)),
        Command::Put { id, key, value } => {
            (id, Kind::LwwMap, of("set", Some(json(value)), Some(key)))
        }
        Command::Unset { id, key } => (id, Kind::LwwMap, of("delete", None, Some(key))),
        Command::On { id } => (id, Kind::EwFlag, of("enable", None, None)),
        Command::Off { id } => (id, Kind::EwFlag, of("disable", None, None)),
        Command::Show { .. } | Command::Status | Command::Sync | Command::Watch { .. } => {
            return None;
        }
    })
}

async fn act(
    local: &mut Local,
    file: &mut DeviceFile,
    command: &Command,
    out: &mut dyn Write,
) -> Done<u8> {
    let Some((id, kind, operation)) = operation(command) else { return Ok(2) };
    let now = chrono::Utc::now();
    let wall = Timestamp::from_unix(now.timestamp(), now.timestamp_subsec_micros() * 1000)?;
    let op_id = new_id().to_string();
    if let Err(refused) = local.record(&key(id), kind, operation, op_id, wall) {
        writeln!(out, "{}: {}", refused.code, refused.detail)?;
        return Ok(1);
    }
    file.keep(local).await?;
    show(local, Some(id), out)
}

fn show(local: &Local, id: Option<&str>, out: &mut dyn Write) -> Done<u8> {
    let keys = match id {
        Some(id) => vec![key(id)],
        None => local.keys().into_iter().collect(),
    };
    for key in &keys {
        let Some(shown) = local.show(key) else {
            writeln!(out, "there is no {}", key.entity_id)?;
            return Ok(1);
        };
        write!(out, "{} = {}", key.entity_id, shown.value)?;
        if shown.unsent > 0 {
            write!(out, "  ({} not synced)", shown.unsent)?;
        }
        if shown.conflict {
            write!(out, "  (conflict)")?;
        }
        writeln!(out)?;
    }
    Ok(0)
}

fn status(local: &Local, out: &mut dyn Write) -> Done<u8> {
    let meta = &local.meta;
    writeln!(out, "device       {} of {}", meta.device_id, meta.user_id)?;
    writeln!(out, "incarnation  {}", meta.incarnation)?;
    writeln!(out, "epoch        {}", if meta.epoch.is_empty() { "-" } else { &meta.epoch })?;
    writeln!(out, "has all to   {}", meta.seq)?;
    writeln!(out, "not sent     {}", local.ops.values().filter(|op| unsent(&op.state)).count())?;
    for op in local.ops.values() {
        if let OpState::Rejected(why) = &op.state {
            writeln!(out, "set aside    {} on {}: {why}", op.op.kind, op.entity_id)?;
        }
    }
    Ok(0)
}

fn told(done: &Synced) -> String {
    let mut line = format!("{} sent", done.sent);
    if done.known > 0 {
        line.push_str(&format!(" ({} known before)", done.known));
    }
    if done.clamped > 0 {
        line.push_str(&format!(", {} set back: this device's clock is ahead", done.clamped));
    }
    line.push_str(&format!(", {} received", done.received));
    if let Some(why) = &done.reborn {
        line.push_str(&format!("; {why}: this device goes on as another incarnation"));
    }
    line
}

async fn meet(
    local: &mut Local,
    file: &mut DeviceFile,
    arguments: &Arguments,
    out: &mut dyn Write,
) -> Done<u8> {
    match sync(local, &Http::new(&arguments.server), file).await {
        Ok(done) => {
            writeln!(out, "{}", told(&done))?;
            for why in &done.rejected {
                writeln!(out, "set aside: {why}")?;
            }
            Ok(0)
        }
        // Nothing is lost: what was done here is stored, and goes at the next sync.
        Err(failure @ Failure::Unreachable(_)) => {
            writeln!(out, "offline: {failure}")?;
            Ok(1)
        }
        Err(failure) => Err(failure.into()),
    }
}

/// A round whenever there is a reason. The file is free between two rounds, for commands in another
/// terminal; what those did is a reason, and so is news at the server, for which a thread waits.
async fn watch(arguments: &Arguments, every: Duration, out: &mut dyn Write) -> Done<u8> {
    let transport = Http::new(&arguments.server);
    // Listens from now on: also while a round is under way.
    let mut stopped = tokio::spawn(tokio::signal::ctrl_c());
    let mut before = Vec::new();
    let mut was_offline = false;
    let mut news: Option<tokio::task::JoinHandle<Result<bool, Failure>>> = None;
    loop {
        let (mut file, mut local) = open(arguments).await?;
        let met = sync(&mut local, &transport, &mut file).await;
        file.close().await;
        let offline = match met {
            Ok(done) => {
                if done.reborn.is_some() {
                    writeln!(out, "{}", told(&done))?;
                }
                false
            }
            Err(failure @ Failure::Unreachable(_)) => {
                if !was_offline {
                    writeln!(out, "offline: {failure}")?;
                }
                true
            }
            Err(failure) => return Err(failure.into()),
        };
        was_offline = offline;
        let mut now = Vec::new();
        show(&local, None, &mut now)?;
        if now != before {
            out.write_all(&now)?;
            out.flush()?;
            before = now;
        }
        loop {
            if !offline && news.is_none() {
                let (transport, meta) = (transport.clone(), local.meta.clone());
                news = Some(tokio::task::spawn_blocking(move || transport.wait_for_news(&meta)));
            }
            tokio::select! {
                () = tokio::time::sleep(every) => {
                    if offline || has_unsent(arguments).await? {
                        break;
                    }
                }
                done = joined(&mut news) => {
                    news = None;
                    match done {
                        // Nothing in this time.
                        Ok(Ok(false)) => {}
                        Ok(Ok(true)) => break,
                        // What it is, the next round finds; not at once, though.
                        _ => {
                            tokio::time::sleep(every).await;
                            break;
                        }
                    }
                }
                _ = &mut stopped => return Ok(0),
            }
        }
    }
}

/// The end of a wait, if there is one.
async fn joined<T>(
    news: &mut Option<tokio::task::JoinHandle<T>>,
) -> Result<T, tokio::task::JoinError> {
    match news {
        Some(news) => news.await,
        None => std::future::pending().await,
    }
}

async fn has_unsent(arguments: &Arguments) -> Done<bool> {
    let (file, local) = open(arguments).await?;
    file.close().await;
    Ok(local.ops.values().any(|op| unsent(&op.state)))
}

fn unsent(op: &OpState) -> bool {
    matches!(op, OpState::Pending | OpState::Sent(_))
}
