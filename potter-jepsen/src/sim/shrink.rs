//! A smaller simulation with the same anomaly: fewer operations, fewer clients.

use super::Scenario;
use crate::runner::Run;

/// What [`Scenario::shrink`] found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Smaller {
    /// The smaller scenario, with its seed, clients and operations.
    pub scenario: Scenario,
    /// Its run.
    pub run: Run,
    /// How many simulations were tried.
    pub tried: usize,
}

impl Smaller {
    /// Seed, clients and operations.
    pub fn numbers(&self) -> (u64, usize, u64) {
        self.scenario.limits()
    }
}

/// Seeds that are tried for each smaller size.
const SEEDS: u64 = 20;

impl Scenario {
    /// Looks for a smaller scenario that shows the same anomaly as this one: first the same seed with
    /// fewer operations, which is a prefix of the same plan; then fewer clients and operations with
    /// this and the next seeds. `None` if this one shows none.
    pub fn shrink(&self) -> Option<Smaller> {
        let first = self.run().ok()?;
        let anomaly = first.analysis.verdict.counterexample()?.anomaly.clone();
        let (mut best, mut run, mut tried) = (self.clone(), first, 1);
        let mut attempt = |smaller: &Scenario| {
            tried += 1;
            let run = smaller.run().ok()?;
            let same = run.analysis.verdict.counterexample()?.anomaly == anomaly;
            same.then_some(run)
        };
        // The operations up to the last one of the counterexample are enough.
        if let Some(last) = run.analysis.verdict.counterexample()?.operations.iter().max() {
            let enough = best.clone().max_operations(u64::from(*last) + 1);
            if let Some(smaller) = attempt(&enough) {
                (best, run) = (enough, smaller);
            }
        }
        loop {
            let (seed, clients, _) = best.limits();
            let operations = run.progress.operations;
            let sizes = [
                (clients.div_ceil(2), operations),
                (clients, operations / 2),
                (clients.saturating_sub(1), operations),
                (clients, operations - operations / 4),
                (clients, operations.saturating_sub(1)),
            ];
            let sizes = sizes
                .into_iter()
                .filter(|&(c, n)| c > 0 && n > 0 && (c < clients || n < operations));
            let found = sizes.into_iter().find_map(|(clients, operations)| {
                (0..SEEDS).find_map(|n| {
                    let smaller = best.clone().concurrency(clients).max_operations(operations);
                    let smaller = smaller.seed(seed.wrapping_add(n));
                    attempt(&smaller).map(|run| (smaller, run))
                })
            });
            match found {
                Some(smaller) => (best, run) = smaller,
                None => break,
            }
        }
        Some(Smaller { scenario: best, run, tried })
    }
}
