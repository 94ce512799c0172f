//! What the seven programs about projections share: users and orders as events, read models in
//! the same database, flags, start, Ctrl-C, and what they print.
//!
//! No HTTP, no telemetry: a program here is `clap`, the crate, and lines on a terminal.

mod domain;
mod flags;
mod program;
mod read_model;
mod report;
mod seed;
mod stop;

pub use domain::{OrderEvent, OrderPlaced, UserCreated, UserEvent};
pub use flags::{Common, Usage, in_range};
pub use program::{Failure, Program, run};
pub use read_model::{
    Activity, Applied, Revenue, Users, activity_total, revenue_cents, user_emails, user_totals,
};
pub use report::{dollars, progress, say, short, summary};
pub use seed::{append_order, append_user, new_user, sample_user, seed_users, users_in_log};
pub use stop::Stop;
