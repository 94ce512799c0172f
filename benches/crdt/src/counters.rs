//! A million increments.

use crdts::CmRDT;
use potter_crdt::{ActorId, GCounter, Writer};

use crate::{Case, NS, time, times};

const N: u64 = 1_000_000;

fn potter(actors: Vec<ActorId>) -> Case<'static> {
    let run = move || {
        let mut counter = GCounter::new();
        let mut writers: Vec<_> = actors.iter().cloned().map(Writer::new).collect();
        let n = writers.len();
        time(|| {
            for at in 0..N as usize {
                counter.increment(&mut writers[at % n], 1).unwrap();
            }
            assert_eq!(counter.value(), u128::from(N));
        })
    };
    ("potter", Box::new(run))
}

fn crdts<A: Ord + Clone + std::fmt::Debug + 'static>(actors: Vec<A>) -> Case<'static>
where
    crdts::VClock<A>: Clone,
{
    let run = move || {
        let mut counter = crdts::GCounter::new();
        let n = actors.len();
        time(|| {
            for at in 0..N as usize {
                let op = counter.inc(actors[at % n].clone());
                counter.apply(op);
            }
        })
    };
    ("crdts", Box::new(run))
}

pub fn run() {
    let ids = |n: u64| (0..n).map(ActorId::from).collect::<Vec<_>>();
    let names = |n: u64| (0..n).map(|at| format!("replica-{at:08}")).collect::<Vec<_>>();
    let named = |n: u64| names(n).iter().map(|name| ActorId::new(name).unwrap()).collect::<Vec<_>>();
    times("GCounter, 1 M increments, one u64 actor, ns each", 9, NS / N as f64, vec![
        potter(ids(1)),
        crdts(vec![0u64]),
    ]);
    times("GCounter, 1 M increments, one String actor, ns each", 9, NS / N as f64, vec![
        potter(named(1)),
        crdts(names(1)),
    ]);
    times("GCounter, 1 M increments by 1,000 String actors in turn, ns each", 9, NS / N as f64, vec![
        potter(named(1_000)),
        crdts(names(1_000)),
    ]);
}
