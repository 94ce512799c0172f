//! MongoDB, or what speaks its protocol.

mod connecting;
mod documents;
mod proxy;
mod racing;
mod snapshots;
mod subscribers;
