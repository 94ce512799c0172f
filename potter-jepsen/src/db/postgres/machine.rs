//! What this machine has: PostgreSQL's programs, and who may run them.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, ErrorKind, Result};

/// PostgreSQL as it is installed here.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    bin: PathBuf,
    /// Whom servers run as, if we are root: they refuse root.
    pub(super) user: Option<(u32, u32)>,
}

const PROGRAMS: [&str; 5] = ["postgres", "initdb", "pg_basebackup", "pg_isready", "psql"];
const VERSION_MIN: u32 = 15;

impl Machine {
    pub(super) fn find() -> Result<Self> {
        let newest = candidates()
            .into_iter()
            .filter(|dir| PROGRAMS.iter().all(|program| dir.join(program).is_file()))
            .filter_map(|dir| version(&dir).map(|version| (version, dir)))
            .filter(|(version, _)| *version >= VERSION_MIN)
            .max();
        let Some((_, bin)) = newest else {
            let message = format!(
                "PostgreSQL {VERSION_MIN} or later is missing: apt-get install postgresql, or set \
                 POTTER_POSTGRES_BIN to the folder that has initdb and postgres"
            );
            return Err(Error::new(ErrorKind::Unavailable, message));
        };
        Ok(Self { bin, user: server_user()? })
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A program, run as the servers' user.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program(name));
        // The user may not be allowed to be where we are.
        command.current_dir("/");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// Makes a folder that belongs to the servers.
    pub(super) fn make(&self, directory: &Path) -> Result<()> {
        let make = || -> std::io::Result<()> {
            std::fs::create_dir(directory)?;
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
            match self.user {
                Some((user, group)) => chown(directory, Some(user), Some(group)),
                None => Ok(()),
            }
        };
        make().map_err(|error| {
            let message = format!("{} can't be made", directory.display());
            Error::new(ErrorKind::Setup, message).with_source(error)
        })
    }
}

pub(super) fn remove(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let message = format!("{} can't be deleted", directory.display());
            Err(Error::new(ErrorKind::Setup, message).with_source(error))
        }
        _ => Ok(()),
    }
}

/// Folders that may have the programs.
fn candidates() -> Vec<PathBuf> {
    if let Some(only) = std::env::var_os("POTTER_POSTGRES_BIN") {
        return vec![only.into()];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for (root, below) in [
        ("/usr/lib/postgresql", "bin"),
        ("/usr", "bin"),
        ("/opt/homebrew/opt", "bin"),
        ("/usr/local/opt", "bin"),
    ] {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        all.extend(entries.map(|entry| entry.path().join(below)));
    }
    // A link's own folder may lack the other programs.
    let real = all.iter().filter_map(|dir| dir.join("postgres").canonicalize().ok());
    let real: Vec<PathBuf> = real.filter_map(|file| file.parent().map(Path::to_owned)).collect();
    all.extend(real);
    all
}

/// 15 of "postgres (PostgreSQL) 15.18 (Debian …)".
fn version(bin: &Path) -> Option<u32> {
    let said = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let digits: String =
        said.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// `None` if we are not root.
fn server_user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut parts = line.split(':').skip(2);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    match of("postgres").or_else(|| of("nobody")) {
        Some(user) => Ok(Some(user)),
        None => {
            let message = "PostgreSQL refuses to run as root, and there is no user postgres or \
                           nobody to run it as";
            Err(Error::new(ErrorKind::Unavailable, message))
        }
    }
}

/// Runs a command and returns what it printed; an error has the end of its complaint.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(std::process::Stdio::null()).output().map_err(|error| {
        Error::new(ErrorKind::Setup, format!("{name} can't be started")).with_source(error)
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let last: Vec<&str> = complaint.lines().rev().take(3).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    let message = format!("{name} ended with {}: {}", output.status, last.join(" | "));
    Err(Error::new(ErrorKind::Setup, message))
}
