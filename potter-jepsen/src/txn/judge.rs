//! From facts to verdicts: each level, the anomalies by name, and the proof of each.

use super::cycle::{Class, Cycle, Cycles};
use super::edges::Facts;
use super::graph::rel;
use super::serial::{self, Keep};
use super::solve::{self, Kind, Solved};
use super::{Level, Options, weak};
use crate::budget::{Budget, Meter};
use crate::verdict::{Analysis, Counterexample, CycleEdge, Reason, ReasonKind, Verdict, Witness};

const DATA: u8 = rel::WW | rel::WR | rel::RW;

pub(super) fn judge(name: &str, facts: &Facts<'_>, options: &Options, budget: &Budget) -> Analysis {
    let mut judge =
        Judge { facts, options, meter: budget.start(), serial: None, decided: Vec::new() };
    let mut levels: Vec<(Level, Verdict)> = Vec::new();
    let mut all: Vec<Level> = Level::ALL.to_vec();
    if options.sessions_only {
        all.retain(|level| {
            !matches!(level, Level::StrictSerializable | Level::StrongSnapshotIsolation)
        });
    }
    // From strong to weak: what holds in the strongest holds in all.
    let strongest = all[all.len() - 1];
    let first = judge.level(strongest);
    if first.is_valid() {
        levels.extend(all.iter().map(|&level| (level, first.clone())));
    } else {
        for &level in all.iter().take(all.len() - 1) {
            let verdict = judge.level(level);
            levels.push((level, verdict));
        }
        levels.push((strongest, first));
    }
    let wanted = levels.iter().find(|(level, _)| *level == options.level);
    let verdict = match wanted {
        Some((_, verdict)) => verdict.clone(),
        None => Verdict::unknown(ReasonKind::NoEvidence, "a history of sessions has no real time"),
    };
    let mut analysis = Analysis::new(name, verdict);
    analysis.anomalies = judge.anomalies(&levels);
    analysis.levels = levels;
    analysis.notes.clone_from(&facts.notes);
    analysis.notes.extend(facts.ambiguous.clone());
    analysis
}

struct Judge<'f, 'h> {
    facts: &'f Facts<'h>,
    options: &'f Options,
    meter: Meter,
    /// An order that explains everything without regard to sessions and time.
    serial: Option<Vec<u32>>,
    /// Levels that were decided before.
    decided: Vec<(Level, Verdict)>,
}

impl Judge<'_, '_> {
    /// What is beside ww, wr and rw in the graph of a level. Where sessions are all that is known of
    /// time, they count at every level, as in the literature on such histories.
    fn extra(&self, level: Level) -> u8 {
        match level {
            Level::StrictSerializable | Level::StrongSnapshotIsolation => {
                rel::PROCESS | rel::REALTIME
            }
            Level::StrongSessionSerializable | Level::StrongSessionSnapshotIsolation => {
                rel::PROCESS
            }
            _ if self.options.sessions_only => rel::PROCESS,
            _ => 0,
        }
    }

    fn level(&mut self, level: Level) -> Verdict {
        if let Some((_, verdict)) = self.decided.iter().find(|(known, _)| *known == level) {
            return verdict.clone();
        }
        let verdict = self.decide(level);
        self.decided.push((level, verdict.clone()));
        verdict
    }

    fn decide(&mut self, level: Level) -> Verdict {
        if let Some((_, found)) = self.facts.anomalies.iter().find(|(weakest, _)| *weakest <= level)
        {
            return Verdict::invalid(found.clone());
        }
        let decided = match level {
            Level::ReadUncommitted => self.cyclic(0, rel::WW, Class::G0),
            Level::ReadCommitted if !self.options.sessions_only => {
                self.cyclic(0, rel::WW | rel::WR, Class::G1c)
            }
            Level::ReadCommitted | Level::ReadAtomic | Level::Causal => self.weak(level),
            Level::SnapshotIsolation
            | Level::StrongSessionSnapshotIsolation
            | Level::StrongSnapshotIsolation => self.snapshot(level),
            // Without predicates there is no other G2 than that of items.
            Level::RepeatableRead => return self.level(Level::Serializable),
            _ => self.serializable(level),
        };
        let verdict = decided.unwrap_or_else(|reason| Verdict::Unknown { reason });
        match (&verdict, &self.facts.ambiguous) {
            // A serial order that was replayed is a proof whatever was not understood before.
            (Verdict::Valid { witness: Witness::Checked(_) }, Some(why)) => {
                Verdict::unknown(ReasonKind::Ambiguous, why.clone())
            }
            _ => verdict,
        }
    }

    fn cyclic(&mut self, extra: u8, mask: u8, class: Class) -> Result<Verdict, Reason> {
        self.meter.check()?;
        let graph = self.facts.graph(mask | extra);
        let cycles = Cycles { graph: &graph, extra };
        if cycles.components(mask).acyclic() {
            let text = format!("{} dependencies, no cycle of this kind", graph.edges());
            return Ok(Verdict::Valid { witness: Witness::Checked(text) });
        }
        match cycles
            .find(class, &mut self.meter)
            .or_else(|| cycles.find(Class::G0, &mut self.meter))
        {
            Some(cycle) => self.invalid(&cycle),
            None => Err(weak::undecided()),
        }
    }

    fn weak(&mut self, level: Level) -> Result<Verdict, Reason> {
        Ok(match weak::check(self.facts, level, self.options.sessions_only, &mut self.meter)? {
            None => {
                let text = format!("{} reads, no cycle of commits", self.facts.reads.len());
                Verdict::Valid { witness: Witness::Checked(text) }
            }
            Some(cycle) => {
                let name = match level {
                    Level::ReadCommitted => "non-monotonic-read",
                    Level::ReadAtomic => "fractured-read",
                    _ => "causality-violation",
                };
                let message = format!("{}; no order of commits allows it", weak::in_words(level));
                let mut found = Counterexample::new(name, message);
                found.operations = cycle.iter().map(|edge| self.facts.op(edge.0)).collect();
                found.cycle = cycle.iter().map(|&edge| self.edge(edge, true)).collect();
                Verdict::invalid(found)
            }
        })
    }

    fn snapshot(&mut self, level: Level) -> Result<Verdict, Reason> {
        let extra = self.extra(level);
        let graph = self.facts.graph(DATA | extra);
        let cycles = Cycles { graph: &graph, extra };
        let split = cycles.nonadjacent();
        if !split.acyclic() {
            let tries = [Class::G0, Class::G1c, Class::GSingle, Class::GNonadjacent];
            for class in tries {
                let found = cycles.find(class, &mut self.meter);
                if let Some(cycle) = found.filter(|cycle| Class::of(cycle) != Class::G2Item) {
                    return self.invalid(&cycle);
                }
            }
            return Err(weak::undecided());
        }
        if !self.facts.order_open {
            let text = "all version orders are known, and no cycle lacks two rw in a row";
            return Ok(Verdict::Valid { witness: Witness::Checked(text.into()) });
        }
        // What is serializable is also possible under snapshot isolation, and so with the order of
        // processes and of time.
        let serial = match level {
            Level::StrongSnapshotIsolation => Level::StrictSerializable,
            Level::StrongSessionSnapshotIsolation => Level::StrongSessionSerializable,
            _ => Level::Serializable,
        };
        let serial = self.level(serial);
        if serial.is_valid() {
            return Ok(serial);
        }
        match solve::solve(self.facts, &graph, Kind::Snapshot, &mut self.meter)? {
            Solved::Order(_) => {
                let text = "an order of all versions was found that allows it";
                Ok(Verdict::Valid { witness: Witness::Checked(text.into()) })
            }
            Solved::Cycle(cycle, why) => Ok(self.forced(&cycle, why)),
        }
    }

    fn serializable(&mut self, level: Level) -> Result<Verdict, Reason> {
        self.meter.check()?;
        let keep = match level {
            Level::StrongSessionSerializable => Keep::Sessions,
            Level::StrictSerializable => Keep::RealTime,
            _ if self.options.sessions_only => Keep::Sessions,
            _ => Keep::Nothing,
        };
        let weakest = level <= Level::Serializable;
        if let Some(order) = self.serial.clone().filter(|_| weakest) {
            return Ok(self.in_order(&order));
        }
        let extra = self.extra(level);
        let graph = self.facts.graph(DATA | extra);
        let cycles = Cycles { graph: &graph, extra };
        if !cycles.components(DATA).acyclic() {
            let classes =
                [Class::G0, Class::G1c, Class::GSingle, Class::GNonadjacent, Class::G2Item];
            for class in classes {
                if let Some(cycle) = cycles.find(class, &mut self.meter) {
                    return self.invalid(&cycle);
                }
            }
            return Err(weak::undecided());
        }
        let guess = match self.facts.trunks.is_some() {
            true => serial::topological(self.facts, &graph),
            false => serial::greedy(self.facts, &graph),
        };
        if let Some(order) = guess
            && serial::replay(self.facts, &order, keep).is_ok()
        {
            if weakest {
                self.serial = Some(order.clone());
            }
            return Ok(self.in_order(&order));
        }
        if self.facts.trunks.is_some() {
            let why = "the order that the dependencies give could not be replayed";
            return Err(Reason::new(ReasonKind::NotVerified, why));
        }
        match solve::solve(self.facts, &graph, Kind::Serial, &mut self.meter)? {
            Solved::Cycle(cycle, why) => Ok(self.forced(&cycle, why)),
            Solved::Order(order) => match serial::replay(self.facts, &order, keep) {
                Ok(()) => Ok(self.in_order(&order)),
                Err(why) => Err(Reason::new(ReasonKind::NotVerified, why)),
            },
        }
    }

    fn in_order(&self, order: &[u32]) -> Verdict {
        let ops = order.iter().map(|&txn| self.facts.op(txn)).collect();
        Verdict::Valid { witness: Witness::SerialOrder(ops) }
    }

    /// A cycle is believed if every edge of it can be explained from the two operations alone.
    fn invalid(&self, cycle: &Cycle) -> Result<Verdict, Reason> {
        let found = self.describe(cycle);
        if found.cycle.iter().any(|edge| edge.why.is_empty()) {
            let why = "an edge of a cycle could not be explained from its operations";
            return Err(Reason::new(ReasonKind::NotVerified, why));
        }
        Ok(Verdict::invalid(found))
    }

    fn describe(&self, cycle: &Cycle) -> Counterexample {
        let class = Class::of(cycle);
        let realtime = cycle.iter().any(|edge| edge.2 == rel::REALTIME);
        let process = cycle.iter().any(|edge| edge.2 == rel::PROCESS);
        let suffix = match (realtime, process) {
            (true, _) => "-realtime",
            (_, true) => "-process",
            _ => "",
        };
        let name = format!("{}{suffix}", class.name());
        let message = format!(
            "{} transactions each come before the next one and the last before the first",
            cycle.len()
        );
        let mut found = Counterexample::new(name, message);
        found.operations = cycle.iter().map(|edge| self.facts.op(edge.0)).collect();
        found.cycle = cycle.iter().map(|&edge| self.edge(edge, false)).collect();
        found
    }

    fn forced(&self, cycle: &Cycle, why: Vec<String>) -> Verdict {
        let class = if cycle.is_empty() { Class::G2Item } else { Class::of(cycle) };
        let message = "whichever order the writes had, transactions come before themselves";
        let mut found = Counterexample::new(class.name(), message);
        found.operations = cycle.iter().map(|edge| self.facts.op(edge.0)).collect();
        found.cycle = cycle.iter().map(|&edge| self.edge(edge, true)).collect();
        found.details = why;
        Verdict::invalid(found)
    }

    fn edge(&self, (from, to, relation): (u32, u32, u8), forced: bool) -> CycleEdge {
        let why = super::explain::explain(self.facts, from, to, relation).unwrap_or_else(|| {
            if forced {
                "the other way round there would be a cycle too".to_owned()
            } else {
                String::new()
            }
        });
        let relation = match relation {
            rel::WW => "ww",
            rel::WR => "wr",
            rel::RW => "rw",
            rel::PROCESS => "process",
            _ => "realtime",
        };
        CycleEdge { from: self.facts.op(from), to: self.facts.op(to), relation, why }
    }

    /// All kinds that were found, one example each: what is no cycle, and the cycles of each class,
    /// with process and real-time edges only where there is none without.
    fn anomalies(&mut self, levels: &[(Level, Verdict)]) -> Vec<Counterexample> {
        let mut all: Vec<Counterexample> =
            self.facts.anomalies.iter().map(|(_, found)| found.clone()).collect();
        let strongest = levels.last().map_or(Level::StrictSerializable, |(level, _)| *level);
        if levels.iter().all(|(_, verdict)| verdict.is_valid()) {
            return all;
        }
        let mut seen: Vec<Class> = Vec::new();
        for extra in [0, rel::PROCESS, self.extra(strongest)] {
            let graph = self.facts.graph(DATA | extra);
            let cycles = Cycles { graph: &graph, extra };
            if cycles.components(DATA).acyclic() {
                continue;
            }
            let classes =
                [Class::G0, Class::G1c, Class::GSingle, Class::GNonadjacent, Class::G2Item];
            for class in classes {
                if seen.contains(&class) {
                    continue;
                }
                let Some(cycle) = cycles.find(class, &mut self.meter) else { continue };
                let class = Class::of(&cycle);
                if seen.contains(&class) {
                    continue;
                }
                seen.push(class);
                all.push(self.describe(&cycle));
            }
            if !seen.is_empty() {
                break;
            }
        }
        for (_, verdict) in levels {
            let Some(found) = verdict.counterexample() else { continue };
            // Cycles that need time or processes say nothing new where there are others.
            let weaker =
                found.anomaly.ends_with("-realtime") || found.anomaly.ends_with("-process");
            let known = |known: &Counterexample| known.anomaly == found.anomaly;
            if !all.iter().any(known) && (!weaker || seen.is_empty()) {
                all.push(found.clone());
            }
        }
        all
    }
}
