//! The device's side: what it holds, what it did while it was away, and how the two come to agree with
//! the server. It does no I/O of its own: a [`Transport`] sends, a [`Keeper`] stores.
//!
//! # Invariants
//! - The base (`entities`) is what was downloaded, up to `seq`, and nothing else. What a user sees is
//!   the base with the device's own operations laid over it that are not in it yet.
//! - An operation is stored before anybody sees it, with its own `op_id`. It leaves the overlay when
//!   the base has reached the number that its upload was answered with.
//! - A batch is frozen (which operations, under which number) and stored before it is sent, and its
//!   bytes follow from that: a retry after a lost answer or a crash sends the same.
//! - A page and its cursor are stored together, before the cursor is sent back.
//! - Upload comes before download: a cursor that is sent back says that nothing older is unsent.
//! - Operations that the server has acknowledged are kept (the last [`KEPT_MAX`]) so that they can be
//!   sent to a server that was restored from a backup.

mod local;
mod sync;

pub use local::{BATCH_MAX, Dirty, KEPT_MAX, Local, LocalOp, Meta, OpState, RESEND_MAX, Shown};
pub use sync::{Failure, Keeper, Synced, Transport, sync};
