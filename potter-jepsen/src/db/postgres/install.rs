//! PostgreSQL's programs, the user that they run as, and the directories that they need.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::nemesis::{Journal, blocking, delete_with_journal};

/// A directory is only deleted if this is in it.
const MARK: &str = ".potter-cluster";

/// Whom the servers run as.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerUser {
    pub(super) user: u32,
    pub(super) group: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Install {
    bin: PathBuf,
    /// `None`: whoever runs the test.
    pub(super) user: Option<ServerUser>,
}

fn setup(message: String) -> Error {
    Error::new(ErrorKind::Setup, message)
}

impl Install {
    /// The programs of `POTTER_POSTGRES_BIN`, or the newest of Debian's places, or of the PATH.
    pub(super) fn find() -> Result<Self> {
        let mut places: Vec<PathBuf> = Vec::new();
        if let Some(named) = std::env::var_os("POTTER_POSTGRES_BIN") {
            places.push(named.into());
        } else {
            let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
            let mut versions: Vec<_> = versions.map(|entry| entry.path()).collect();
            let number = |path: &PathBuf| -> u32 {
                path.file_name().and_then(|n| n.to_str()?.parse().ok()).unwrap_or(0)
            };
            versions.sort_by_key(number);
            places.extend(versions.iter().rev().map(|version| version.join("bin")));
            places.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        }
        let complete = |place: &PathBuf| {
            let needed = ["initdb", "postgres", "pg_basebackup", "pg_isready"];
            needed.iter().all(|program| place.join(program).is_file())
        };
        let bin = places.into_iter().find(complete).ok_or_else(|| {
            let message = "PostgreSQL is not installed (Debian: apt-get install postgresql), or set \
                           POTTER_POSTGRES_BIN to the directory with initdb";
            Error::new(ErrorKind::Unavailable, message)
        })?;
        Ok(Self { bin, user: server_user()? })
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    pub(super) fn ready(&self, port: u16) -> Vec<OsString> {
        let words = ["-q", "-h", "127.0.0.1", "-d", "postgres", "-U", "postgres", "-p"];
        let mut ready: Vec<OsString> = vec![self.program("pg_isready").into()];
        ready.extend(words.map(OsString::from));
        ready.push(port.to_string().into());
        ready
    }

    /// Makes an empty cluster.
    pub(super) async fn initdb(&self, data: &Path, more: Option<&str>) -> Result<()> {
        let words = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"];
        let words = words.into_iter().chain(more).chain(["-D"]);
        self.run("initdb", words.map(OsString::from).collect(), data).await
    }

    /// Makes the log of a new cluster one file that takes no room until it is written to. `initdb`
    /// leaves whole files of it for later, in which a server could go on while its disk is full.
    pub(super) async fn thin_log(&self, data: &Path) -> Result<()> {
        self.run("pg_resetwal", vec!["-D".into()], data).await?;
        let log = data.join("pg_wal");
        blocking(move || {
            let thin = || -> std::io::Result<()> {
                for entry in fs::read_dir(&log)? {
                    let entry = entry?;
                    if !entry.file_type()?.is_file() {
                        continue;
                    }
                    let bytes = fs::read(entry.path())?;
                    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                    let file = fs::File::options().write(true).open(entry.path())?;
                    file.set_len(used as u64)?;
                    file.set_len(bytes.len() as u64)?;
                }
                Ok(())
            };
            thin().map_err(|error| {
                setup(format!("{} can't be rewritten", log.display())).with_source(error)
            })
        })
        .await
    }

    /// Copies a running server. The copy follows it over the same connection.
    pub(super) async fn copy(&self, data: &Path, from: SocketAddr, name: &str) -> Result<()> {
        let source = format!(
            "host={} port={} user=postgres dbname=postgres sslmode=disable application_name={name}",
            from.ip(),
            from.port()
        );
        let words = ["-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", &source, "-D"];
        self.run("pg_basebackup", words.map(OsString::from).into(), data).await
    }

    async fn run(&self, program: &str, words: Vec<OsString>, data: &Path) -> Result<()> {
        let mut command = Command::new(self.program(program));
        command.args(words).arg(data).current_dir("/").stdin(Stdio::null());
        #[cfg(unix)]
        if let Some(ServerUser { user, group }) = self.user {
            use std::os::unix::process::CommandExt as _;
            command.uid(user).gid(group);
        }
        // Settings that are meant for another server must not reach this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        let program = program.to_owned();
        blocking(move || {
            let failed = |said: &str| setup(format!("{program} failed: {}", said.trim()));
            let output = command.output().map_err(|error| failed(&error.to_string()))?;
            if output.status.success() {
                return Ok(());
            }
            Err(failed(&String::from_utf8_lossy(&output.stderr)))
        })
        .await
    }
}

/// PostgreSQL refuses to run as root: as root somebody who may do nothing else.
fn server_user() -> Result<Option<ServerUser>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(ServerUser { user: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
    };
    find("postgres").or_else(|| find("nobody")).map(Some).ok_or_else(|| {
        let message =
            "as root PostgreSQL runs as the user 'postgres' or 'nobody', and there is none";
        Error::new(ErrorKind::Unavailable, message)
    })
}

/// A new directory that the servers' user owns, and that goes away on every exit.
pub(super) fn make_directory(
    journal: &Arc<Journal>,
    directory: &Path,
    user: Option<ServerUser>,
) -> Result<PathBuf> {
    let failed = |error: std::io::Error| {
        setup(format!("the directory {} can't be made", directory.display())).with_source(error)
    };
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new(".")).canonicalize().map_err(failed)?;
    let name = directory.file_name().unwrap_or_default();
    let directory = parent.join(name);
    delete_with_journal(journal, &directory, MARK, || {
        fs::create_dir(&directory)?;
        fs::write(directory.join(MARK), "")?;
        #[cfg(unix)]
        if let Some(ServerUser { user, group }) = user {
            std::os::unix::fs::chown(&directory, Some(user), Some(group))?;
        }
        Ok(())
    })
    .map_err(|error| setup(format!("the directory {}: {error}", directory.display())))?;
    Ok(directory)
}

pub(super) fn delete_directory(directory: &Path) -> Result<()> {
    if !directory.join(MARK).exists() {
        return Ok(());
    }
    fs::remove_dir_all(directory).map_err(|error| {
        setup(format!("the directory {} can't be deleted", directory.display())).with_source(error)
    })
}
