//! Orders: three events, and the sum of them.

use potter_eventsourcing::{Aggregate, domain_events};
use serde::{Deserialize, Serialize};

/// It was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Created {
    /// For whom.
    pub(crate) customer_id: String,
    /// What it costs, in cents.
    pub(crate) amount: i64,
}

domain_events! {
    /// What happens to an order.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) enum OrderEvent {
        /// It was created.
        Created(Created) => "order.created" v 1,
        /// It was completed.
        Completed => "order.completed" v 1,
        /// It was called off.
        Cancelled => "order.cancelled" v 1,
    }
}

/// What an order can be asked to do.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Create { customer_id: String, amount: i64 },
    Complete,
    Cancel,
}

/// Why it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the order is {0}")]
pub(crate) struct Refused(&'static str);

/// An order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) customer_id: Option<String>,
    pub(crate) amount: i64,
    pub(crate) status: Option<String>,
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Command = Command;
    type Event = OrderEvent;
    type Error = Refused;

    fn decide(&self, command: &Command) -> Result<Vec<OrderEvent>, Refused> {
        match (command, self.status.as_deref()) {
            (Command::Create { customer_id, amount }, None) => {
                let created = Created { customer_id: customer_id.clone(), amount: *amount };
                Ok(vec![OrderEvent::Created(created)])
            }
            (Command::Complete, Some("created")) => Ok(vec![OrderEvent::Completed]),
            (Command::Cancel, Some("created")) => Ok(vec![OrderEvent::Cancelled]),
            (_, None) => Err(Refused("not there")),
            (_, Some(_)) => Err(Refused("there, and in another state")),
        }
    }

    fn evolve(&mut self, event: &OrderEvent) {
        let status = match event {
            OrderEvent::Created(created) => {
                self.customer_id = Some(created.customer_id.clone());
                self.amount = created.amount;
                "created"
            }
            OrderEvent::Completed => "completed",
            OrderEvent::Cancelled => "cancelled",
        };
        self.status = Some(status.to_owned());
    }
}
