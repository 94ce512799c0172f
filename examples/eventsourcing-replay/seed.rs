//! Orders to have a history.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use potter_core::{Metadata, derived_id};
use potter_eventsourcing::{EventStore, Repository};

use crate::cli::Failure;
use crate::order::{Command, Order};

/// Makes `orders` orders of 50 customers; of five, three are completed and one is cancelled. Answers
/// how many events that were. Orders that are there already are passed over.
pub(crate) async fn seed(store: &Arc<dyn EventStore>, orders: u64) -> Result<u64, Failure> {
    let repository = Repository::<Order>::new(Arc::clone(store));
    let made = stream::iter(0..orders).map(|n| {
        let repository = repository.clone();
        async move {
            let id = derived_id(&["eventsourcing-replay", &n.to_string()]).to_string();
            let amount = 500 + i64::try_from(n * 37 % 10_000).unwrap_or(0);
            let customer_id = format!("customer-{}", n % 50);
            let then = match n % 5 {
                0..=2 => Some(Command::Complete),
                3 => Some(Command::Cancel),
                _ => None,
            };
            let mut events = 0;
            let commands = [Some(Command::Create { customer_id, amount }), then];
            for command in commands.into_iter().flatten() {
                match repository.execute(&id, &command, Metadata::new()).await {
                    Ok(done) => events += done.events.len() as u64,
                    Err(error) if error.rejected().is_some() => {}
                    Err(error) => return Err(Failure::from(error)),
                }
            }
            Ok(events)
        }
    });
    made.buffer_unordered(32).try_fold(0, |sum, events| async move { Ok(sum + events) }).await
}
