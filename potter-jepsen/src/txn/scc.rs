//! Strongly connected components (Tarjan, 1972) without recursion: a chain of a million nodes needs
//! no more stack than one of ten.

/// A graph whose nodes are numbered and whose edges can be taken by position.
pub(super) trait Successors {
    fn nodes(&self) -> usize;
    /// The `n`th edge of `node`: `None` after the last, `Some(None)` if it does not count here.
    fn nth(&self, node: u32, n: u32) -> Option<Option<u32>>;
}

const NEW: u32 = u32::MAX;

/// The component of every node; components are numbered so that edges go from higher to lower.
#[derive(Debug)]
pub(super) struct Components {
    pub(super) of: Vec<u32>,
    pub(super) sizes: Vec<u32>,
}

impl Components {
    pub(super) fn acyclic(&self) -> bool {
        self.sizes.iter().all(|&size| size == 1)
    }

    pub(super) fn together(&self, a: u32, b: u32) -> bool {
        self.of[a as usize] == self.of[b as usize]
    }
}

pub(super) fn components(graph: &impl Successors) -> Components {
    let count = graph.nodes();
    let mut order = vec![NEW; count];
    let mut low = vec![0_u32; count];
    let mut of = vec![NEW; count];
    let mut sizes = Vec::new();
    let mut open: Vec<u32> = Vec::new();
    let mut path: Vec<(u32, u32)> = Vec::new();
    let mut time = 0;
    for root in 0..u32::try_from(count).unwrap_or(u32::MAX) {
        if order[root as usize] != NEW {
            continue;
        }
        path.push((root, 0));
        while let Some((node, at)) = path.pop() {
            let here = node as usize;
            if at == 0 {
                order[here] = time;
                low[here] = time;
                time += 1;
                open.push(node);
            }
            let mut at = at;
            let mut down = None;
            while let Some(edge) = graph.nth(node, at) {
                at += 1;
                let Some(next) = edge else { continue };
                let there = next as usize;
                if order[there] == NEW {
                    down = Some(next);
                    break;
                }
                if of[there] == NEW {
                    low[here] = low[here].min(order[there]);
                }
            }
            if let Some(next) = down {
                path.push((node, at));
                path.push((next, 0));
                continue;
            }
            if low[here] == order[here] {
                let component = u32::try_from(sizes.len()).unwrap_or(u32::MAX);
                let mut size = 0;
                while let Some(member) = open.pop() {
                    of[member as usize] = component;
                    size += 1;
                    if member == node {
                        break;
                    }
                }
                sizes.push(size);
            }
            if let Some(&(parent, _)) = path.last() {
                low[parent as usize] = low[parent as usize].min(low[here]);
            }
        }
    }
    Components { of, sizes }
}
