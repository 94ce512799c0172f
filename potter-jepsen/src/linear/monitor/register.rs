//! Registers whose writes are all different (Gibbons & Korach, "Testing shared memories", 1997).
//!
//! The operations of one value must stand together in every order. From the first completion among
//! them to the last invocation is their zone. If that runs forward, the value is certainly there
//! all the time: two such zones may not overlap. If it runs backward, all operations of the value
//! fit into any one point of it: such a zone may not lie inside of a forward one.

use super::super::problem::Problem;
use super::super::{Outcome, Stuck};
use super::Cluster;

#[derive(Clone, Copy)]
struct Zone {
    cluster: usize,
    /// The earliest completion, and whose.
    min_end: u32,
    min_op: u32,
    /// The latest invocation, and whose.
    max_begin: u32,
    max_op: u32,
    initial: bool,
}

impl Zone {
    fn forward(&self) -> bool {
        self.initial || self.min_end < self.max_begin
    }

    /// Both ends of a forward zone as points in time; the initial value was there before all.
    fn start(&self) -> u64 {
        if self.initial { 0 } else { u64::from(self.min_end) + 1 }
    }

    fn stop(&self) -> u64 {
        u64::from(self.max_begin) + 1
    }
}

pub(super) fn decide<O>(problem: &Problem<O>, clusters: &[Cluster]) -> Outcome {
    let ops = &problem.ops;
    let mut zones = Vec::with_capacity(clusters.len());
    for (place, cluster) in clusters.iter().enumerate() {
        let all = || cluster.put.iter().chain(&cluster.seen).copied();
        if cluster.put.is_some_and(|n| ops[n as usize].crashed()) && cluster.seen.is_empty() {
            continue;
        }
        let Some(min_op) = all().min_by_key(|&n| ops[n as usize].end) else { continue };
        let Some(max_op) = all().max_by_key(|&n| ops[n as usize].begin) else { continue };
        let zone = Zone {
            cluster: place,
            min_end: ops[min_op as usize].end,
            min_op,
            max_begin: ops[max_op as usize].begin,
            max_op,
            initial: cluster.initial,
        };
        if let Some(stuck) = misread(problem, cluster, &zone) {
            return Outcome::Stuck(stuck);
        }
        zones.push(zone);
    }
    let core = |zones: &[&Zone]| -> Vec<u32> {
        let of = |zone: &&Zone| [Some(zone.min_op), Some(zone.max_op), clusters[zone.cluster].put];
        zones.iter().flat_map(of).flatten().collect()
    };
    // When the value of a zone was there, in words.
    let there = |zone: &Zone| {
        let id = |n: u32| ops[n as usize].id;
        let (from, to) = (id(zone.min_op), id(zone.max_op));
        match (zone.initial, zone.forward()) {
            (true, _) => format!("the value before everything was there until op {to} began"),
            (_, true) => {
                format!("from the end of op {from} until op {to} began, their value was there")
            }
            _ if from == to => format!("the value of op {to} was there while it ran"),
            _ => format!("op {to} and op {from} are of one value, and ran at the same time"),
        }
    };
    let mut forward: Vec<&Zone> = zones.iter().filter(|zone| zone.forward()).collect();
    forward.sort_unstable_by_key(|zone| (zone.start(), zone.stop()));
    for pair in forward.windows(2) {
        if pair[0].stop() > pair[1].start() {
            let late = if pair[0].stop() < pair[1].stop() { pair[0] } else { pair[1] };
            let at = if ops[late.max_op as usize].crashed() { late.min_op } else { late.max_op };
            let headline = "two values would have to be there at the same time".to_owned();
            let why = vec![headline, there(pair[0]), there(pair[1])];
            return Outcome::Stuck(Stuck { at, why, core: core(pair), ..Stuck::default() });
        }
    }
    // (point, after the forward zone that ends there, cluster)
    let mut points: Vec<(u64, bool, usize)> = Vec::with_capacity(zones.len());
    for zone in &zones {
        if zone.forward() {
            points.push((zone.start(), false, zone.cluster));
            continue;
        }
        let begin = zone.stop();
        let before = forward.partition_point(|other| other.start() < begin);
        let around = forward[..before].last().filter(|other| other.stop() > begin);
        match around {
            None => points.push((begin, true, zone.cluster)),
            // Completions and invocations are different events, so the points differ.
            Some(other) if other.stop() < u64::from(zone.min_end) + 1 => {
                points.push((other.stop(), true, zone.cluster));
            }
            Some(other) => {
                let headline = "a value must have come and gone while another was there";
                let why = vec![headline.to_owned(), there(zone), there(other)];
                let core = core(&[zone, other]);
                return Outcome::Stuck(Stuck { at: zone.min_op, why, core, ..Stuck::default() });
            }
        }
    }
    points.sort_unstable();
    Outcome::Order(order(problem, clusters, &points))
}

/// A read of a value that nobody wrote, or that nobody had begun to write.
fn misread<O>(problem: &Problem<O>, cluster: &Cluster, zone: &Zone) -> Option<Stuck> {
    if cluster.initial {
        return None;
    }
    let stuck = |at, core, why: &str| {
        Some(Stuck { at, core, why: vec![why.to_owned()], ..Stuck::default() })
    };
    let Some(put) = cluster.put else {
        return stuck(zone.min_op, vec![zone.min_op], "nobody wrote what was read");
    };
    if zone.min_end < problem.ops[put as usize].begin {
        let core = vec![zone.min_op, put];
        return stuck(zone.min_op, core, "it was read before anybody began to write it");
    }
    None
}

/// Every operation takes effect at the point of its value, or later in the zone when it begins.
fn order<O>(problem: &Problem<O>, clusters: &[Cluster], points: &[(u64, bool, usize)]) -> Vec<u32> {
    let mut order = Vec::with_capacity(problem.ops.len());
    for &(_, _, place) in points {
        let cluster = &clusters[place];
        order.extend(cluster.put);
        // By invocation, as they stand in the problem.
        order.extend(&cluster.seen);
    }
    order
}
