//! The usual schedule of faults: quiet, a fault, heal, quiet, …

use std::time::Duration;

use super::{Context, Generator, Next};
use crate::nemesis::Fault;
use crate::random::Random;
use crate::runner::Op;

/// See [`fault_windows`].
#[derive(Clone, Debug)]
pub struct FaultWindows {
    faults: Vec<Fault>,
    /// Those that still have their turn in this round.
    round: Vec<Fault>,
    quiet: Duration,
    active: Duration,
    random: Random,
    /// When the next step is due, and whether it is the heal.
    next: Option<(Duration, bool)>,
}

/// For ever: `quiet`, then one of `faults`, for `active`, then everything healed. They are drawn by lot
/// and not put back: each has its turn before one of them comes again. Only for the nemesis. Without
/// faults it is done at once.
pub fn fault_windows(
    faults: impl IntoIterator<Item = Fault>,
    quiet: Duration,
    active: Duration,
) -> FaultWindows {
    let faults = faults.into_iter().collect();
    FaultWindows { faults, round: Vec::new(), quiet, active, random: Random::new(0), next: None }
}

impl Generator for FaultWindows {
    fn seed(&mut self, random: &mut Random) {
        self.random = random.fork();
    }

    fn op(&mut self, context: &Context) -> Next {
        let (due, heals) = *self.next.get_or_insert((context.now + self.quiet, false));
        if context.now < due {
            return Next::Pending(Some(due));
        }
        if context.free.is_empty() {
            return Next::Pending(None);
        }
        if heals {
            self.next = Some((context.now + self.quiet, false));
            return Next::Op(Op::heal());
        }
        self.next = Some((context.now + self.active, true));
        if self.round.is_empty() {
            self.round.clone_from(&self.faults);
        }
        if self.round.is_empty() {
            return Next::Done;
        }
        let at = self.random.index(self.round.len());
        Next::Op(Op::inject(self.round.swap_remove(at)))
    }
}
