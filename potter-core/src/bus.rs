//! In-process buses: commands and queries to their one handler, events to every subscriber.
//!
//! Nothing here is durable: what is queued is lost with the process. What must survive a crash
//! goes through the transactional outbox instead.
//!
//! ```
//! use potter_core::Metadata;
//! use potter_core::bus::{Command, CommandBus};
//!
//! struct PlaceOrder { customer: String }
//!
//! impl Command for PlaceOrder {
//!     const NAME: &'static str = "place_order";
//!     type Output = u64;
//!     type Error = String;
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), potter_core::Error> {
//! let bus = CommandBus::new();
//! bus.register_fn(|command: PlaceOrder, _metadata| async move {
//!     if command.customer.is_empty() { Err("an order needs a customer".to_owned()) } else { Ok(1) }
//! })?;
//!
//! let number = bus.send(PlaceOrder { customer: "ada".into() }, Metadata::correlated()).await;
//! assert_eq!(number.unwrap(), 1);
//! let refused = bus.send(PlaceOrder { customer: String::new() }, Metadata::new()).await;
//! assert_eq!(refused.unwrap_err().into_handler().unwrap(), "an order needs a customer");
//! # Ok(()) }
//! ```

mod command;
mod dead_letter;
mod dispatch;
mod error;
mod event;
mod middleware;
mod query;
mod subscriber;

pub use command::{Command, CommandBus, CommandBusBuilder, CommandHandler};
pub use dead_letter::DeadLetter;
pub use error::BusError;
pub use event::{Event, EventBus, EventBusBuilder};
pub use middleware::{
    Answer, ConcurrencyLimit, Envelope, HandlerFailure, Logging, MessageKind, Metrics, Middleware,
    Next, Reply, TimeLimit,
};
pub use query::{Query, QueryBus, QueryBusBuilder, QueryHandler};
pub use subscriber::{Delivery, EventHandler, HandlerError, Subscription};

#[cfg(test)]
mod tests;
