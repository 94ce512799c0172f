//! The primary's data on a disk that can be filled.
//!
//! A server whose disk is full refuses what needs room, and dies when it can't write its log: no
//! fault of a process, so nobody but the disk's heal starts it again. It may be dying just then, in a
//! recovery that began while there was no room: the heal looks on until it answers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::PRIMARY;
use crate::error::{Error, ErrorKind, Result};
use crate::nemesis::{Disk, Fault, Healed, Injected, Journal, Nemesis, Probe, Processes};

/// The servers' settings on such a disk. Each page of the log needs room when it is written, and not
/// once for a whole file of it: a full disk is felt at once. And the log does not fill it by itself.
pub(super) const SETTINGS: [(&str, &str); 5] = [
    ("wal_init_zero", "off"),
    ("wal_recycle", "off"),
    ("wal_keep_size", "64MB"),
    ("max_wal_size", "64MB"),
    ("min_wal_size", "2MB"),
];
/// In megabytes, for `initdb`.
pub(super) const WAL_SEGMENT: &str = "--wal-segsize=1";
/// What an empty server and its log need.
const BYTES_MIN: u64 = 256 << 20;

/// # Errors
/// When nothing but the server would fill it.
pub(super) fn check_size(bytes: u64) -> Result<()> {
    if bytes >= BYTES_MIN {
        return Ok(());
    }
    let message = format!("a disk of {bytes} bytes; PostgreSQL needs {BYTES_MIN}");
    Err(Error::new(ErrorKind::InvalidTest, message))
}

#[derive(Debug)]
pub(super) struct DataDisk {
    disk: Disk,
    processes: Arc<Processes>,
    /// It was, and the server may have died of it.
    filled: AtomicBool,
}

impl DataDisk {
    #[cfg(target_os = "linux")]
    pub(super) fn new(
        journal: &Arc<Journal>,
        processes: &Arc<Processes>,
        place: &Path,
        bytes: u64,
    ) -> Result<Self> {
        let disk = Disk::in_memory(Arc::clone(journal), place, bytes)?;
        Ok(Self { disk, processes: Arc::clone(processes), filled: AtomicBool::new(false) })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn new(_: &Arc<Journal>, _: &Arc<Processes>, _: &Path, _: u64) -> Result<Self> {
        Err(Error::new(ErrorKind::Unavailable, "disks are only filled on Linux"))
    }

    pub(super) fn path(&self) -> &Path {
        self.disk.path()
    }

    pub(super) fn remove(&self) -> Result<()> {
        self.disk.remove()
    }
}

#[async_trait]
impl Nemesis for DataDisk {
    fn name(&self) -> &str {
        "disk"
    }

    fn faults(&self) -> Vec<String> {
        self.disk.faults()
    }

    async fn probe(&self) -> Probe {
        self.disk.probe().await
    }

    async fn inject(&self, fault: &Fault) -> Result<Injected> {
        let others: Vec<_> = fault.targets.iter().filter(|name| *name != PRIMARY).collect();
        if let Some(other) = others.first() {
            let message = format!("'{other}' has no disk that can be filled; {PRIMARY} has");
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        self.filled.store(true, Ordering::Release);
        self.disk.inject(&Fault { targets: Vec::new(), ..fault.clone() }).await
    }

    async fn heal(&self) -> Result<Healed> {
        let room = self.disk.heal().await?;
        if !self.filled.load(Ordering::Acquire) {
            return Ok(room);
        }
        let runs = self.processes.start_again(PRIMARY).await?;
        self.filled.store(false, Ordering::Release);
        let detail = format!("{}; {}", room.detail, runs.detail);
        Ok(Healed { verified: room.verified && runs.verified, detail })
    }
}
