//! The dependency graph as flat arrays: a million transactions fit into a few dozen megabytes.

/// The kinds of edges, as bits of a mask.
pub(super) mod rel {
    /// Overwrote.
    pub(crate) const WW: u8 = 1;
    /// Read from.
    pub(crate) const WR: u8 = 2;
    /// Was overwritten after it was read.
    pub(crate) const RW: u8 = 4;
    /// Was earlier in the same process or session.
    pub(crate) const PROCESS: u8 = 8;
    /// Completed before the other was invoked.
    pub(crate) const REALTIME: u8 = 16;
    /// From a helper node: goes on as the edge before it.
    pub(crate) const PASS: u8 = 32;
}

/// Nodes below `txns` are transactions; the others are helpers that stand for many edges.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) txns: usize,
    nodes: usize,
    building: Building,
    list: Vec<(u32, u32, u8)>,
    starts: Vec<u32>,
    to: Vec<u32>,
    rels: Vec<u8>,
}

/// What becomes of an edge that is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Building {
    #[default]
    Listed,
    /// Only the number of edges that leave each node is wanted.
    Counted,
    /// Edges go to their places; `starts[n]` is where the next one of `n` goes.
    Placed,
}

impl Graph {
    pub(super) fn new(txns: usize) -> Self {
        Self { txns, nodes: txns, ..Self::default() }
    }

    /// A graph of the edges that `fill` adds. It is called twice and has to do the same both times:
    /// the edges of a large graph are never held in a list beside the graph.
    pub(super) fn filled(txns: usize, fill: impl Fn(&mut Self)) -> Self {
        let mut graph = Self::new(txns);
        graph.building = Building::Counted;
        fill(&mut graph);
        graph.starts.resize(graph.nodes + 1, 0);
        let mut sum = 0;
        for start in &mut graph.starts {
            sum += std::mem::replace(start, sum);
        }
        graph.to = vec![0; sum as usize];
        graph.rels = vec![0; sum as usize];
        graph.nodes = txns;
        graph.building = Building::Placed;
        fill(&mut graph);
        // Each start has moved to the end of its edges, which is the start of the next node's.
        graph.starts.rotate_right(1);
        graph.starts[0] = 0;
        graph
    }

    pub(super) fn helper(&mut self) -> u32 {
        self.nodes += 1;
        u32::try_from(self.nodes - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn add(&mut self, from: u32, to: u32, rel: u8) {
        if from == to {
            return;
        }
        let node = from as usize;
        match self.building {
            Building::Listed => self.list.push((from, to, rel)),
            Building::Counted => {
                if self.starts.len() <= node {
                    self.starts.resize(node + 1, 0);
                }
                self.starts[node] += 1;
            }
            Building::Placed => {
                let at = self.starts[node] as usize;
                self.starts[node] += 1;
                self.to[at] = to;
                self.rels[at] = rel;
            }
        }
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    pub(super) fn is_helper(&self, node: u32) -> bool {
        node as usize >= self.txns
    }

    /// Sorts the edges by where they begin (by counting, so in linear time).
    pub(super) fn finish(&mut self) {
        let mut starts = vec![0_u32; self.nodes + 1];
        for &(from, ..) in &self.list {
            starts[from as usize + 1] += 1;
        }
        for n in 1..starts.len() {
            starts[n] += starts[n - 1];
        }
        let mut place = starts.clone();
        self.to = vec![0; self.list.len()];
        self.rels = vec![0; self.list.len()];
        for &(from, to, rel) in &self.list {
            let at = place[from as usize] as usize;
            place[from as usize] += 1;
            self.to[at] = to;
            self.rels[at] = rel;
        }
        self.starts = starts;
        self.list = Vec::new();
    }

    /// The positions of the edges that leave `node`.
    pub(super) fn range(&self, node: u32) -> std::ops::Range<usize> {
        self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize
    }

    pub(super) fn edge(&self, at: usize) -> (u32, u8) {
        (self.to[at], self.rels[at])
    }

    /// The edges that leave `node`.
    pub(super) fn out(&self, node: u32) -> impl Iterator<Item = (u32, u8)> + '_ {
        self.range(node).map(|at| self.edge(at))
    }

    pub(super) fn edges(&self) -> usize {
        self.to.len()
    }
}
