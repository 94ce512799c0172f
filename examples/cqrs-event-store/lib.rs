//! Commands, events, read models and time travel over HTTP: the whole of an event-sourced service.

pub mod account;
pub mod aggregates;
mod api;
pub mod command;
mod command_log;
mod demo;
pub mod order;
mod read_models;
mod rebuilds;
pub mod refused;
pub mod service;
mod warehouse;

pub use api::app;
pub use demo::demo;
