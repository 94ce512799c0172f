//! Gossip in a bad network, from a seed: messages are lost, doubled, delayed and overtaken,
//! replicas are cut off and restarted, clocks are wrong. At the end the network heals, and all must
//! agree. Nothing is kept in memory across a message: states travel and restart as bytes or JSON.

use std::fmt::Debug;

#[allow(clippy::wildcard_imports, reason = "nearly all of it")]
use potter_crdt::*;

use crate::worlds::{Nested, Node, Subject, world};

/// splitmix64
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// What a type brings along beside [`Subject`].
trait Simulated: Subject<Summary: Clone> {
    fn seen(&self) -> Option<&Context> {
        None
    }
    fn reclaim_stable(&mut self, _: &Context) {}
    /// What a user sees: the same for all even if some have reclaimed and others not.
    fn view(&self) -> String;
}

macro_rules! simulated {
    ($type:ty, $view:expr) => {
        impl Simulated for $type {
            fn seen(&self) -> Option<&Context> {
                Some(self.context())
            }

            fn reclaim_stable(&mut self, stable: &Context) {
                self.reclaim(stable);
            }

            fn view(&self) -> String {
                let view: fn(&Self) -> String = $view;
                view(self)
            }
        }
    };
}

simulated!(OrSet<String>, |set| {
    let mut all: Vec<_> = set.iter().collect();
    all.sort();
    format!("{all:?}")
});
simulated!(MvRegister<u64>, |register| {
    let mut all: Vec<_> = register.values().collect();
    all.sort();
    format!("{all:?}")
});
simulated!(LwwMap<String, u64>, |map| format!("{:?}", map.iter().collect::<Vec<_>>()));
simulated!(OrMap<String, CounterStore>, |map| {
    format!("{:?}", map.iter().map(|(key, counter)| (key, counter.value())).collect::<Vec<_>>())
});
simulated!(Nested, |map| {
    let inner = |map: &MapStore<u64, LwwStore<String>>| {
        map.iter().map(|(key, register)| (*key, register.get().cloned())).collect::<Vec<_>>()
    };
    format!("{:?}", map.iter().map(|(key, map)| (key, inner(map))).collect::<Vec<_>>())
});
simulated!(Rga, ToString::to_string);

impl Simulated for PnCounter {
    fn view(&self) -> String {
        self.value().to_string()
    }
}

impl Simulated for LwwRegister<String> {
    fn view(&self) -> String {
        format!("{:?}", self.get())
    }
}

struct Message<C: Delta> {
    from: usize,
    to: usize,
    delta: Vec<u8>,
    json: Option<String>,
    summary: C::Summary,
    seen: Option<Context>,
}

struct Network<C: Simulated> {
    nodes: Vec<Node<C>>,
    /// What each has heard last from each other: the base of its deltas, and what is stable.
    heard: Vec<Vec<Option<C::Summary>>>,
    stable: Vec<Vec<Context>>,
    flying: Vec<Message<C>>,
    cut: u64,
    random: Random,
}

impl<C: Simulated> Network<C> {
    fn new(seed: u64) -> Self {
        let nodes = world::<C>();
        let n = nodes.len();
        Self {
            heard: (0..n).map(|_| vec![None; n]).collect(),
            stable: vec![vec![Context::new(); n]; n],
            nodes,
            flying: Vec::new(),
            cut: 0,
            random: Random(seed),
        }
    }

    fn connected(&self, a: usize, b: usize) -> bool {
        (self.cut >> a) & 1 == (self.cut >> b) & 1
    }

    fn send(&mut self, from: usize, to: usize) {
        let state = &self.nodes[from].state;
        let delta = match &self.heard[from][to] {
            Some(summary) => state.delta(summary),
            None => state.clone(),
        };
        let json = self.random.below(2) == 0;
        self.flying.push(Message {
            from,
            to,
            json: json.then(|| delta.to_json()),
            delta: delta.to_bytes(),
            summary: state.summary(),
            seen: state.seen().cloned(),
        });
    }

    fn deliver(&mut self, message: &Message<C>) {
        let delta = match &message.json {
            Some(json) => C::from_json(json).unwrap(),
            None => C::from_bytes(&message.delta).unwrap(),
        };
        let (from, to) = (message.from, message.to);
        self.nodes[to].state.validate(&delta).unwrap();
        self.nodes[to].state.join(&delta).unwrap();
        self.heard[to][from] = Some(message.summary.clone());
        if let Some(seen) = &message.seen {
            self.stable[to][from].join(seen).unwrap();
        }
    }

    fn reclaim(&mut self, n: usize) {
        let Some(own) = self.nodes[n].state.seen().cloned() else { return };
        let others = (0..self.nodes.len()).filter(|&other| other != n);
        let stable = others.fold(own, |stable, other| stable.meet(&self.stable[n][other]));
        self.nodes[n].state.reclaim_stable(&stable);
    }

    fn step(&mut self) {
        let n = self.nodes.len();
        let at = self.random.index(n);
        match self.random.below(20) {
            0..8 => {
                let (kind, x) = (self.random.byte(), self.random.byte());
                self.nodes[at].wall += self.random.below(3);
                C::write(&mut self.nodes[at], kind, x);
            }
            8..12 => {
                let to = self.random.index(n);
                self.send(at, to);
            }
            12..16 if !self.flying.is_empty() => {
                let which = self.random.index(self.flying.len());
                let message = self.flying.swap_remove(which);
                let connected = self.connected(message.from, message.to);
                let fate = self.random.below(10);
                if connected && fate < 8 {
                    self.deliver(&message);
                }
                if fate == 0 || !connected && fate < 5 {
                    self.flying.push(message); // comes again, or later
                }
            }
            16 => self.cut = self.random.below(1 << n),
            17 => self.nodes[at].wall += self.random.below(100_000), // a jump of the clock
            18 => {
                // A crash: the state comes back from its bytes, the writer from its number.
                let node = &mut self.nodes[at];
                node.state = C::from_bytes(&node.state.to_bytes()).unwrap();
                let actor = node.writer.actor().clone();
                node.writer = Writer::resume(actor, node.writer.seq());
                self.heard[at] = vec![None; n];
            }
            _ => self.reclaim(at),
        }
    }

    fn heal(&mut self) {
        self.cut = 0;
        let n = self.nodes.len();
        for message in std::mem::take(&mut self.flying) {
            self.deliver(&message); // the last stragglers
        }
        // Round and round: once to learn, once to tell.
        for _ in 0..2 {
            for (from, to) in (0..n).flat_map(|a| (0..n).map(move |b| (a, b))) {
                self.send(from, to);
                let message = self.flying.pop().unwrap();
                self.deliver(&message);
            }
        }
        let first = self.nodes[0].state.view();
        for node in &self.nodes {
            assert_eq!(node.state.view(), first, "all see the same");
        }
        // All know that all know all: what is kept for others goes, and the bytes are the same.
        for at in 0..n {
            self.reclaim(at);
            assert_eq!(self.nodes[at].state.view(), first, "reclaiming is not seen");
        }
        for node in &self.nodes {
            assert_eq!(node.state.to_bytes(), self.nodes[0].state.to_bytes());
        }
    }
}

fn simulate<C: Simulated + Debug>(seed: u64) {
    let mut network = Network::<C>::new(seed);
    for _ in 0..150 {
        network.step();
    }
    network.heal();
}

/// Seeds from 0 on; a failure prints the seed, and one seed is one schedule.
fn seeds<C: Simulated + Debug>(count: u64) {
    for seed in 0..count {
        let run = std::panic::catch_unwind(|| simulate::<C>(seed));
        assert!(run.is_ok(), "seed {seed} of {}", C::TYPE);
    }
}

#[test]
fn a_thousand_seeds_converge() {
    std::thread::scope(|scope| {
        scope.spawn(|| seeds::<OrSet<String>>(150));
        scope.spawn(|| seeds::<MvRegister<u64>>(100));
        scope.spawn(|| seeds::<LwwMap<String, u64>>(150));
        scope.spawn(|| seeds::<OrMap<String, CounterStore>>(150));
        scope.spawn(|| seeds::<Nested>(100));
        scope.spawn(|| seeds::<Rga>(150));
        scope.spawn(|| seeds::<PnCounter>(100));
        scope.spawn(|| seeds::<LwwRegister<String>>(100));
    });
}
