//! The dependencies of a workflow as integers.
//!
//! petgraph checks a graph while it is built (cycles, and the witness that a person needs); what the scheduler walks is
//! two flat arrays of compressed rows, so that the completion of a task costs its downstream and no more.

use petgraph::{graph::DiGraph, graph::NodeIndex, visit::EdgeRef};

use crate::id::InstanceIndex;

/// A directed acyclic graph over `0..len`, in compressed rows both ways.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Graph {
    upstream: Rows,
    downstream: Rows,
    order: Vec<InstanceIndex>,
}

/// A cycle, as the positions along it; the last one points back to the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle(pub Vec<InstanceIndex>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rows {
    offsets: Vec<u32>,
    targets: Vec<InstanceIndex>,
}

impl Rows {
    fn build(len: usize, edges: impl Iterator<Item = (InstanceIndex, InstanceIndex)> + Clone) -> Self {
        let mut offsets = vec![0_u32; len + 1];
        for (from, _) in edges.clone() {
            offsets[from as usize + 1] += 1;
        }
        for at in 1..offsets.len() {
            offsets[at] += offsets[at - 1];
        }
        let mut next = offsets.clone();
        let mut targets = vec![0; offsets[len] as usize];
        for (from, to) in edges {
            let slot = &mut next[from as usize];
            targets[*slot as usize] = to;
            *slot += 1;
        }
        Self { offsets, targets }
    }

    /// Returns the rows of the other direction. They ascend, because the rows here are walked in order.
    fn turned(&self, len: usize) -> Self {
        Self::build(len, (0..).take(len).flat_map(|from| self.of(from).iter().map(move |to| (*to, from))))
    }

    /// Drops what a row holds twice; the rows ascend.
    fn dedup(&mut self) {
        let (mut start, mut kept) = (0, 0);
        for offset in &mut self.offsets[1..] {
            let end = std::mem::replace(offset, 0) as usize;
            let row = kept;
            for at in start..end {
                let target = self.targets[at];
                if kept == row || self.targets[kept - 1] != target {
                    self.targets[kept] = target;
                    kept += 1;
                }
            }
            start = end;
            *offset = u32::try_from(kept).unwrap_or(u32::MAX);
        }
        self.targets.truncate(kept);
    }

    fn of(&self, index: InstanceIndex) -> &[InstanceIndex] {
        let at = index as usize;
        match (self.offsets.get(at), self.offsets.get(at + 1)) {
            (Some(from), Some(to)) => &self.targets[*from as usize..*to as usize],
            _ => &[],
        }
    }
}

impl Graph {
    /// Builds the graph over `0..len` from edges `(upstream, downstream)`; repeated edges count once.
    ///
    /// # Errors
    /// Gives one cycle, if there is any.
    ///
    /// # Panics
    /// Where an edge names a position outside `0..len`: the caller resolved names to positions.
    pub fn new(len: usize, edges: &[(InstanceIndex, InstanceIndex)]) -> Result<Self, Cycle> {
        // Turning rows twice sorts them by counting, in time linear in the edges.
        let mut downstream = Rows::build(len, edges.iter().map(|(from, to)| (*to, *from))).turned(len);
        downstream.dedup();
        let upstream = downstream.turned(len);
        match topological(len, &upstream, &downstream) {
            Some(order) => Ok(Self { upstream, downstream, order }),
            None => Err(cycle_witness(edges)),
        }
    }

    /// Returns the number of tasks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Tells whether there is no task.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Returns the direct upstream tasks, ascending.
    #[must_use]
    pub fn upstream(&self, index: InstanceIndex) -> &[InstanceIndex] {
        self.upstream.of(index)
    }

    /// Returns the direct downstream tasks, ascending.
    #[must_use]
    pub fn downstream(&self, index: InstanceIndex) -> &[InstanceIndex] {
        self.downstream.of(index)
    }

    /// Returns all positions so that each comes after its upstream; ties in ascending order.
    #[must_use]
    pub fn order(&self) -> &[InstanceIndex] {
        &self.order
    }

    /// Returns all tasks before `index`, ascending.
    #[must_use]
    pub fn ancestors(&self, index: InstanceIndex) -> Vec<InstanceIndex> {
        let mut seen = vec![false; self.len()];
        let mut stack = vec![index];
        while let Some(at) = stack.pop() {
            for up in self.upstream(at) {
                if !std::mem::replace(&mut seen[*up as usize], true) {
                    stack.push(*up);
                }
            }
        }
        (0..).zip(seen).filter_map(|(at, is_seen)| is_seen.then_some(at)).collect()
    }
}

fn topological(len: usize, upstream: &Rows, downstream: &Rows) -> Option<Vec<InstanceIndex>> {
    let all = 0..InstanceIndex::try_from(len).unwrap_or(InstanceIndex::MAX);
    let mut unmet: Vec<usize> = all.clone().map(|at| upstream.of(at).len()).collect();
    let mut order: Vec<InstanceIndex> = all.filter(|at| unmet[*at as usize] == 0).collect();
    let mut next = 0;
    while let Some(at) = order.get(next).copied() {
        next += 1;
        for down in downstream.of(at) {
            let left = &mut unmet[*down as usize];
            *left -= 1;
            if *left == 0 {
                order.push(*down);
            }
        }
    }
    (order.len() == len).then_some(order)
}

/// Finds one cycle: a component that petgraph calls strongly connected has one, and walking inside it finds it.
///
/// By Kosaraju's search, which keeps its own stack: petgraph's Tarjan recurses, and a long cycle in a document would end
/// the process.
fn cycle_witness(edges: &[(InstanceIndex, InstanceIndex)]) -> Cycle {
    let graph = DiGraph::<(), (), InstanceIndex>::from_edges(edges);
    let component = petgraph::algo::kosaraju_scc(&graph)
        .into_iter()
        .find(|nodes| nodes.len() > 1 || nodes.iter().any(|node| graph.contains_edge(*node, *node)))
        .unwrap_or_default();
    let mut is_inside = vec![false; graph.node_count()];
    component.iter().for_each(|node| is_inside[node.index()] = true);
    let mut position = vec![None; graph.node_count()];
    let mut path: Vec<NodeIndex<InstanceIndex>> = component.iter().min().copied().into_iter().collect();
    while let Some(at) = path.last().copied() {
        if let Some(start) = position[at.index()].replace(path.len() - 1) {
            // The last one was there before: the cycle lies between.
            path.pop();
            path.drain(..start);
            break;
        }
        let inside = graph.edges(at).map(|edge| edge.target()).filter(|to| is_inside[to.index()]).min();
        path.extend(inside);
    }
    Cycle(path.into_iter().map(|node| InstanceIndex::try_from(node.index()).unwrap_or_default()).collect())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn rows_are_the_edges_in_order(pairs in vec((0..20_u32, 0..20_u32), 0..200)) {
            let mut edges: Vec<_> = pairs.into_iter().filter(|(from, to)| from < to).collect();
            let graph = Graph::new(20, &edges).unwrap();
            edges.sort_unstable();
            edges.dedup();
            for at in 0..20 {
                let ups: Vec<_> = edges.iter().filter(|(_, to)| *to == at).map(|(from, _)| *from).collect();
                let downs: Vec<_> = edges.iter().filter(|(from, _)| *from == at).map(|(_, to)| *to).collect();
                prop_assert_eq!(graph.upstream(at), ups);
                prop_assert_eq!(graph.downstream(at), downs);
            }
        }
    }

    #[test]
    fn rows_hold_both_directions() {
        let graph = Graph::new(4, &[(0, 1), (0, 2), (1, 3), (2, 3), (2, 3)]).unwrap();
        assert_eq!(graph.downstream(0), [1, 2]);
        assert_eq!(graph.upstream(3), [1, 2]);
        assert_eq!(graph.order(), [0, 1, 2, 3]);
        assert_eq!(graph.ancestors(3), [0, 1, 2]);
    }

    #[test]
    fn a_cycle_is_shown_as_a_path() {
        assert_eq!(Graph::new(4, &[(0, 1), (1, 2), (2, 3), (3, 1)]), Err(Cycle(vec![1, 2, 3])));
        assert_eq!(Graph::new(2, &[(1, 1)]), Err(Cycle(vec![1])));
    }
}
