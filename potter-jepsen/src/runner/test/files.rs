//! What a test leaves on disk.

use std::path::Path;
use std::time::SystemTime;

use serde_json::json;

use super::Test;
use crate::error::{Error, ErrorKind, Result};
use crate::history::History;
use crate::report;
use crate::runner::store::Writer;
use crate::verdict::Analysis;

fn failed(path: &Path, error: std::io::Error) -> Error {
    let message = format!("{} can't be written: {error}", path.display());
    Error::new(ErrorKind::Write, message).with_source(error)
}

fn put(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| failed(path, error))
}

/// Where a node is, without user, password and parameters.
fn place(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    rest.rsplit_once('@').map_or(rest, |(_, place)| place)
}

/// Writes and syncs the manifest, before anything else happens, and opens the history.
pub(super) fn begin(test: &Test, directory: &Path) -> Result<Writer> {
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
    let path = directory.join("manifest.json");
    let limits = &test.limits;
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let started = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let nodes: Vec<_> = test
        .nodes
        .iter()
        .map(|node| json!({"name": node.name, "place": place(&node.url)}))
        .collect();
    let parameters: serde_json::Map<String, serde_json::Value> =
        test.parameters.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let manifest = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "name": test.name,
        "workload": test.workload.name(),
        "seed": limits.seed,
        "concurrency": limits.concurrency,
        "time_limit_ms": limits.time.map(millis),
        "max_operations": limits.operations,
        "op_timeout_ms": millis(limits.op_timeout),
        "pace_us": u64::try_from(limits.pace.as_micros()).unwrap_or(u64::MAX),
        "recovery_ms": millis(limits.recovery),
        "nemesis": test.nemesis.as_ref().map(|nemesis| nemesis.name().to_owned()),
        "nodes": nodes,
        "parameters": parameters,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "started_unix_s": started,
    });
    let write = || -> std::io::Result<()> {
        // Nobody's earlier test is overwritten.
        let mut file = std::fs::File::create_new(&path)?;
        std::io::Write::write_all(&mut file, format!("{manifest:#}\n").as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| failed(&path, error))?;
    Writer::create(&directory.join("history.jsonl"))
}

/// Writes the reports.
pub(super) fn reports(
    directory: &Path,
    title: &str,
    history: &History,
    analysis: &Analysis,
) -> Result<()> {
    put(&directory.join("analysis.json"), &report::json(history, analysis))?;
    put(&directory.join("report.txt"), &report::text(history, analysis))?;
    put(&directory.join("report.html"), &report::html(history, analysis, title))
}

/// Writes the system's logs; their names become file names.
pub(super) fn logs(directory: &Path, logs: &[(String, String)]) -> Result<()> {
    for (name, text) in logs {
        let safe: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        put(&directory.join(format!("log-{safe}.txt")), text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_manifest_has_no_password() {
        assert_eq!(super::place("postgres://me:secret@db:5432/x?password=y"), "db:5432/x");
        assert_eq!(super::place("127.0.0.1:99"), "127.0.0.1:99");
    }
}
