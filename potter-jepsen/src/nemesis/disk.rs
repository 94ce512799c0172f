//! A full disk: a small file system of the test's own, and a file that takes all its room.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::journal::{Journal, Ticket};
use super::undo::{Undo, is_mounted};
use super::{Fault, Healed, Injected, Nemesis, Probe, blocking, no_params, no_such_fault};
use crate::error::{Error, ErrorKind, Result};

/// A file system that is larger is not filled: it is somebody's, not the test's.
pub const DISK_BYTES_MAX: u64 = 4 << 30;
const BALLAST: &str = ".potter-ballast";
const CHUNK: usize = 1 << 20;
const SMALL: usize = 4096;
const NO_MOUNT: &str = "no file system can be mounted: that takes root (CAP_SYS_ADMIN)";

/// A file system of a test; as a [`Nemesis`] it makes this fault:
///
/// | kind | effect | parameters |
/// |---|---|---|
/// | `disk-full` | every write that needs room is an error, ENOSPC | none |
#[derive(Debug)]
pub struct Disk {
    journal: Arc<Journal>,
    path: PathBuf,
    full: Arc<Mutex<Option<Ticket>>>,
    mounted: Mutex<Option<Ticket>>,
}

impl Disk {
    /// Mounts an empty file system in memory of so many bytes on `path`, which is made and must not
    /// exist. Everybody may write to it. It is unmounted when the disk is dropped, and on every exit
    /// of the runner. Only root can do this.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when it can't be mounted, [`ErrorKind::InvalidFault`] when the
    /// path exists or the size is not from 1 MiB to [`DISK_BYTES_MAX`].
    #[cfg(target_os = "linux")]
    pub fn in_memory(journal: Arc<Journal>, path: impl Into<PathBuf>, bytes: u64) -> Result<Self> {
        use rustix::mount::{MountFlags, mount};
        let path = path.into();
        if !(1 << 20..=DISK_BYTES_MAX).contains(&bytes) {
            let message = format!("a disk has from 1 MiB to {DISK_BYTES_MAX} bytes, not {bytes}");
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        let at = path.display();
        fs::create_dir(&path).map_err(|error| {
            let message = format!("{at} must not be there, and its directory must");
            Error::new(ErrorKind::InvalidFault, message).with_source(error)
        })?;
        let path = path.canonicalize().map_err(|error| fault(&path, error))?;
        let (mounted, ()) = journal.make(Undo::Unmount { path: path.clone() }, || {
            let options = std::ffi::CString::new(format!("size={bytes},mode=1777"));
            let options = options.unwrap_or_default();
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            mount("tmpfs", &path, "tmpfs", flags, Some(options.as_c_str())).map_err(|error| {
                Error::new(ErrorKind::Unavailable, NO_MOUNT).with_source(io::Error::from(error))
            })
        })?;
        Ok(Self { journal, path, full: Arc::default(), mounted: Mutex::new(Some(mounted)) })
    }

    /// A file system that is there, and that only the test uses: a mount point with at most
    /// [`DISK_BYTES_MAX`] bytes. Without root, a container can be given one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFault`] when `path` is no mount point of that kind.
    #[cfg(unix)]
    pub fn existing(journal: Arc<Journal>, path: impl AsRef<Path>) -> Result<Self> {
        const SHARED: [&str; 6] = ["/", "/tmp", "/var/tmp", "/dev/shm", "/run", "/home"];
        let given = path.as_ref();
        let path = given.canonicalize().map_err(|error| fault(given, error))?;
        let stat = rustix::fs::statvfs(&path).map_err(|error| fault(&path, error.into()))?;
        let bytes = stat.f_blocks.saturating_mul(stat.f_frsize);
        let shared = SHARED.iter().any(|shared| path == Path::new(shared));
        if shared || !is_mounted(&path) || bytes > DISK_BYTES_MAX {
            let message = format!(
                "{} is not filled: it is no mount point of its own with at most {DISK_BYTES_MAX} \
                 bytes",
                path.display()
            );
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        Ok(Self { journal, path, full: Arc::default(), mounted: Mutex::default() })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether [`in_memory`](Self::in_memory) can mount one here.
    pub fn can_mount() -> Probe {
        // What the kernel asks of whoever mounts (linux/capability.h).
        const CAP_SYS_ADMIN: u32 = 21;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        if effective.is_some_and(|bits| bits >> CAP_SYS_ADMIN & 1 == 1) {
            Probe::Available
        } else {
            Probe::Unavailable(NO_MOUNT.to_owned())
        }
    }

    /// Empties the file system, and unmounts it if it was mounted here: what dropping does too, for
    /// those who want to know whether it worked.
    ///
    /// # Errors
    /// [`ErrorKind::Fault`] when it can't be unmounted. It stays written down in the journal.
    pub fn remove(&self) -> Result<()> {
        for ticket in [&*self.full, &self.mounted] {
            let mut ticket = ticket.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(made) = *ticket {
                self.journal.undo(made)?;
                *ticket = None;
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::error!(%error, "the journal's end tries again");
        }
    }
}

fn fault(path: &Path, error: io::Error) -> Error {
    let message = format!("the disk {} can't be used", path.display());
    Error::new(ErrorKind::Fault, message).with_source(error)
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}

/// Writes until there is no room for another block.
fn fill(path: &Path) -> Result<()> {
    let failed = |error| fault(path, error);
    let mut file = File::create(path).map_err(failed)?;
    let chunk = vec![0x5a_u8; CHUNK];
    for size in [CHUNK, SMALL, 1] {
        loop {
            match file.write(&chunk[..size]) {
                Ok(_) => {}
                Err(error) if is_full(&error) => break,
                Err(error) => return Err(failed(error)),
            }
        }
    }
    file.sync_all().map_err(failed)
}

/// Whether a new file of one block can be written.
fn has_room(directory: &Path) -> Result<bool> {
    let path = directory.join(".potter-room");
    let write = || {
        let mut file = File::create(&path)?;
        file.write_all(&[0; SMALL])?;
        file.sync_all()
    };
    let written = write();
    _ = fs::remove_file(&path);
    match written {
        Ok(()) => Ok(true),
        Err(error) if is_full(&error) => Ok(false),
        Err(error) => Err(fault(directory, error)),
    }
}

#[async_trait]
impl Nemesis for Disk {
    fn name(&self) -> &str {
        "disk"
    }

    fn faults(&self) -> Vec<String> {
        vec!["disk-full".to_owned()]
    }

    async fn probe(&self) -> Probe {
        let path = self.path.clone();
        match blocking(move || has_room(&path)).await {
            Ok(true) => Probe::Available,
            Ok(false) => Probe::Unavailable(format!("{} is full already", self.path.display())),
            Err(error) => Probe::Unavailable(error.to_string()),
        }
    }

    async fn inject(&self, fault: &Fault) -> Result<Injected> {
        if fault.kind != "disk-full" {
            return Err(no_such_fault(self, fault));
        }
        no_params(fault, &[])?;
        if !fault.targets.is_empty() {
            let message = "'disk-full' takes no targets: there is one disk";
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        let (journal, path, full) =
            (Arc::clone(&self.journal), self.path.clone(), Arc::clone(&self.full));
        blocking(move || {
            let mut full = full.lock().unwrap_or_else(PoisonError::into_inner);
            let ballast = path.join(BALLAST);
            if full.is_none() {
                // Written down without making it: filling takes long, and a signal must not wait.
                let undo = Undo::RemoveFile { path: ballast.clone() };
                *full = Some(journal.make(undo, || Ok(()))?.0);
            }
            fill(&ballast)?;
            Ok(if has_room(&path)? {
                Injected::unverified(format!("{} still has room", path.display()))
            } else {
                Injected::verified(format!("a write to {} was refused: ENOSPC", path.display()))
            })
        })
        .await
    }

    async fn heal(&self) -> Result<Healed> {
        let (journal, path, full) =
            (Arc::clone(&self.journal), self.path.clone(), Arc::clone(&self.full));
        blocking(move || {
            let mut full = full.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(ticket) = *full {
                journal.undo(ticket)?;
                *full = None;
            }
            Ok(if has_room(&path)? {
                Healed::verified(format!("{} has room", path.display()))
            } else {
                Healed::unverified(format!("{} is still full", path.display()))
            })
        })
        .await
    }
}
