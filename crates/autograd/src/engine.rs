//! Backward: walks the graph in reverse order of creation.
//!
//! Iterative, so a chain of a million operations needs no stack; gradients that meet are added; what a node saved is
//! freed as soon as the node is done.

use crate::function::{Saved, check_finite, check_gradient};
use crate::gradients::Gradients;
use crate::mode::{self, no_grad};
use crate::node::{IdMap, IdSet, Leaf, Node, Single, Source};
use crate::ops::identity;
use crate::var::Var;
use ferrograd_tensor::{Tensor, ensure, fail};
use std::collections::BinaryHeap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// How [`grad_with`] works.
#[derive(Default, Clone)]
pub struct GradOptions {
    /// The result has history itself and can be differentiated again. Keeps the graph.
    pub create_graph: bool,
    /// Keep what the graph saved, for another backward through it.
    pub retain_graph: bool,
    /// An input that the outputs do not depend on gets zeros instead of an error.
    pub allow_unused: bool,
    /// `∂L/∂output` of each output, in place of ones for scalar outputs.
    pub grad_outputs: Option<Vec<Var>>,
}

impl GradOptions {
    /// Options for a derivative that will be differentiated again.
    pub fn create_graph() -> Self {
        GradOptions { create_graph: true, ..Self::default() }
    }
}

/// The derivatives of the scalar `output` with respect to `inputs`, without history.
///
/// Keeps the graph, so that it can be called again. With history: [`grad_with`] and [`GradOptions::create_graph`].
///
/// ```
/// use ferrograd_autograd::{GradOptions, Var, grad, grad_with};
/// use ferrograd_tensor::Tensor;
/// let x = Var::leaf(Tensor::scalar(3.0));
/// let y = x.powi(3);
/// let dy = grad_with(&[&y], &[&x], GradOptions::create_graph()); // 3x²
/// let d2y = grad(&dy[0], &[&x]);                                 // 6x
/// assert_eq!((dy[0].item::<f64>(), d2y[0].item::<f64>()), (27.0, 18.0));
/// ```
#[track_caller]
pub fn grad(output: &Var, inputs: &[&Var]) -> Vec<Var> {
    grad_with(&[output], inputs, GradOptions { retain_graph: true, ..GradOptions::default() })
}

/// The derivatives of `Σ outputs · grad_outputs` with respect to `inputs`.
///
/// # Panics
/// If an output is not a scalar and has no `grad_outputs`, or if an input is a constant or (without `allow_unused`)
/// does not influence the outputs.
#[track_caller]
pub fn grad_with(outputs: &[&Var], inputs: &[&Var], options: GradOptions) -> Vec<Var> {
    for (i, x) in inputs.iter().enumerate() {
        ensure!(x.requires_grad(), Derivative, "grad", "input {i} is a constant (make it with Var::leaf)");
    }
    let seeds = outputs
        .iter()
        .enumerate()
        .map(|(i, y)| match &options.grad_outputs {
            Some(g) => {
                ensure!(
                    g.len() == outputs.len() && g[i].shape() == y.shape(),
                    Shape,
                    "grad",
                    "grad_outputs must match the outputs in number and shape"
                );
                g[i].to_dtype(y.dtype())
            }
            None => Var::constant(ones("grad", y)),
        })
        .collect::<Vec<_>>();
    let targets: Vec<(u64, usize)> = inputs.iter().filter_map(|x| x.source.key()).collect();
    let walk = Walk {
        create_graph: options.create_graph,
        keep: options.create_graph || options.retain_graph,
        targets: Some(targets.iter().copied().collect()),
        boundary: false,
    };
    let found = walk.run(outputs.iter().copied().zip(seeds));
    inputs
        .iter()
        .zip(&targets)
        .enumerate()
        .map(|(i, (x, key))| match found.get(key) {
            Some(g) => g.clone(),
            None if options.allow_unused => Var::constant(x.tensor().zeros_like()),
            None => fail!(Derivative, "grad", "the outputs do not depend on input {i} (set allow_unused for zeros)"),
        })
        .collect()
}

/// `∂L/∂x` for every leaf `x`.
#[track_caller]
pub(crate) fn backward(loss: &Var, seed: Option<Tensor>, keep: bool) -> Gradients {
    ensure!(loss.requires_grad(), Derivative, "backward", "the value depends on no leaf: nothing to differentiate");
    let seed = match seed {
        Some(s) => {
            ensure!(s.shape() == loss.shape(), Shape, "backward", "weights {} for a value {}", s.shape(), loss.shape());
            s.to_dtype(loss.dtype())
        }
        None => ones("backward", loss),
    };
    let walk = Walk { create_graph: false, keep, targets: None, boundary: false };
    let found = no_grad(|| walk.run([(loss, Var::constant(seed))].into_iter()));
    Gradients::from_iter(found.into_iter().map(|(key, g)| (key, g.into_tensor())))
}

#[track_caller]
fn ones(op: &'static str, y: &Var) -> Tensor {
    ensure!(
        y.numel() == 1,
        Shape,
        op,
        "needs a single element to start from, got shape {} (reduce it, or say with what weights to sum it)",
        y.shape()
    );
    y.tensor().ones_like()
}

type Found = IdMap<(u64, usize), Var>;

/// One walk through the graph.
struct Walk {
    create_graph: bool,
    keep: bool,
    /// What is asked for; `None` for every leaf.
    targets: Option<IdSet<(u64, usize)>>,
    /// The targets end the walk: what made them is another walk's business, and so are their hooks.
    boundary: bool,
}

/// A node that gradients are on their way to.
struct Pending {
    node: Arc<Node>,
    grads: Single<Option<Var>>,
}

impl Walk {
    #[track_caller]
    fn run<'a>(&self, seeds: impl Iterator<Item = (&'a Var, Var)>) -> Found {
        let seeds: Vec<_> = seeds.collect();
        let useful = self.targets.as_ref().map(|targets| useful_nodes(seeds.iter().map(|(y, _)| &y.source), targets));
        let mut state =
            State { found: Found::default(), leaves: Vec::new(), pending: IdMap::default(), queue: BinaryHeap::new() };
        for (y, g) in seeds {
            self.deliver(&mut state, &y.source, g, useful.as_ref());
        }
        while let Some(id) = state.queue.pop() {
            let Some(Pending { node, grads }) = state.pending.remove(&id) else { continue };
            self.finish(&mut state, &node, &grads);
            if useful.as_ref().is_some_and(|u| !u.contains(&id)) {
                continue;
            }
            let input_grads = self.step(&node, &grads);
            // So that sums of what backward passed on unchanged are made in place.
            drop(grads);
            for (source, g) in node.inputs.iter().zip(input_grads) {
                if let Some(g) = g {
                    self.deliver(&mut state, source, g, useful.as_ref());
                }
            }
        }
        if self.boundary {
            return state.found;
        }
        for leaf in &state.leaves {
            let hooks = leaf.hooks.lock().unwrap_or_else(|e| e.into_inner()).clone();
            hooks.iter().for_each(|hook| hook(state.found[&(leaf.id, usize::MAX)].tensor()));
        }
        state.found
    }

    /// Adds `g` to what has arrived at `source`.
    fn deliver(&self, state: &mut State, source: &Source, g: Var, useful: Option<&IdSet<u64>>) {
        match source {
            Source::Constant => {}
            Source::Leaf(leaf) => {
                let key = (leaf.id, usize::MAX);
                if self.targets.as_ref().is_some_and(|t| !t.contains(&key)) {
                    return;
                }
                if self.collect(state, key, g) {
                    state.leaves.push(leaf.clone());
                }
            }
            Source::Node(node, i) => {
                let i = *i as usize;
                let wanted = self.targets.as_ref().is_some_and(|t| t.contains(&(node.id, i)));
                if wanted && self.boundary {
                    self.collect(state, (node.id, i), g);
                    return;
                }
                if !wanted && useful.is_some_and(|u| !u.contains(&node.id)) {
                    return;
                }
                let pending = state.pending.entry(node.id).or_insert_with(|| {
                    state.queue.push(node.id);
                    Pending { node: node.clone(), grads: Single::from_elem(None, node.outputs) }
                });
                match &mut pending.grads[i] {
                    Some(sum) => accumulate(sum, g, self.create_graph),
                    empty => *empty = Some(g),
                }
            }
        }
    }

    /// Adds `g` to the result `key`. True if it is the first.
    fn collect(&self, state: &mut State, key: (u64, usize), g: Var) -> bool {
        match state.found.entry(key) {
            Entry::Occupied(sum) => {
                accumulate(sum.into_mut(), g, self.create_graph);
                false
            }
            Entry::Vacant(slot) => {
                slot.insert(g);
                true
            }
        }
    }

    /// All gradients of `node`'s outputs are complete: hooks, and results that were asked for.
    fn finish(&self, state: &mut State, node: &Arc<Node>, grads: &[Option<Var>]) {
        for (i, g) in grads.iter().enumerate() {
            let Some(g) = g else { continue };
            let (hooks, retained) = node.attached(i);
            hooks.iter().for_each(|hook| hook(g.tensor()));
            let key = (node.id, i);
            let asked = match &self.targets {
                Some(targets) => targets.contains(&key),
                None => retained,
            };
            if asked {
                state.found.insert(key, g.clone());
            }
        }
    }

    /// One node's vector–Jacobian product.
    #[track_caller]
    fn step(&self, node: &Arc<Node>, grads: &[Option<Var>]) -> Vec<Option<Var>> {
        let name = node.name();
        let Some(kept) = node.kept(self.keep) else {
            fail!(
                Derivative,
                name,
                "backward went through this graph already and freed it (use backward_retaining the first time); \
                 the operation was called at {}",
                node.location
            )
        };
        let saved = Saved::of(node, &kept, self.create_graph);
        let result = mode::in_backward(self.create_graph, || match self.create_graph {
            true => step_with_history(node, &saved, grads),
            false => node.op().backward(&saved, grads),
        });
        ensure!(
            result.len() == node.inputs.len(),
            Derivative,
            name,
            "backward gave {} gradients for {} inputs",
            result.len(),
            node.inputs.len()
        );
        for (i, g) in result.iter().enumerate() {
            if let Some(g) = g {
                check_gradient(name, i, node.meta(i), g.tensor());
                if mode::anomaly() {
                    check_finite(name, &format!("the gradient of input {i}"), g.tensor(), node.location);
                }
            }
        }
        result
    }
}

struct State {
    found: Found,
    leaves: Vec<Arc<Leaf>>,
    pending: IdMap<u64, Pending>,
    queue: BinaryHeap<u64>,
}

/// A derivative that can be differentiated again: through `composed` if the operation has it (and saved its inputs),
/// else through `backward`, whose result must then have history.
#[track_caller]
fn step_with_history(node: &Arc<Node>, saved: &Saved, grads: &[Option<Var>]) -> Vec<Option<Var>> {
    if let Some(inputs) = saved.all_inputs() {
        // Fresh identities, so that the walk below stops at this operation's inputs.
        let inputs: Vec<Var> = inputs.iter().map(|x| if x.requires_grad() { identity(x) } else { x.clone() }).collect();
        if let Some(outputs) = node.op().composed(&inputs) {
            let (outputs, seeds): (Vec<Var>, Vec<Var>) =
                outputs.into_iter().zip(grads).filter_map(|(y, g)| Some((y, g.clone()?))).unzip();
            return differentiate_up_to(&inputs.iter().collect::<Vec<_>>(), &outputs, seeds, true);
        }
    }
    // A history on every incoming gradient, to see whether backward carries it on.
    let with_history = |g: &Var| if g.requires_grad() { g.clone() } else { identity(&Var::leaf(g.tensor().clone())) };
    let grads: Vec<Option<Var>> = grads.iter().map(|g| g.as_ref().map(with_history)).collect();
    let result = node.op().backward(saved, &grads);
    for (i, g) in result.iter().enumerate() {
        ensure!(
            g.as_ref().is_none_or(Var::requires_grad),
            Derivative,
            node.name(),
            "the second derivative is not defined: backward computes the gradient of input {i} on raw tensors \
             (write it in Var operations, or give the operation a `composed` form and save all its inputs)"
        );
    }
    result
}

/// The vector–Jacobian product of `outputs`, computed from `inputs` by recorded operations. Nothing that made the inputs
/// is touched; `None` for those that the outputs do not depend on.
pub(crate) fn differentiate_up_to(
    inputs: &[&Var],
    outputs: &[Var],
    grads: Vec<Var>,
    create_graph: bool,
) -> Vec<Option<Var>> {
    let targets = Some(inputs.iter().filter_map(|x| x.source.key()).collect());
    let walk = Walk { create_graph, keep: create_graph, targets, boundary: true };
    let found = walk.run(outputs.iter().zip(grads));
    inputs.iter().map(|x| found.get(&x.source.key()?).cloned()).collect()
}

/// The nodes from which a target can be reached. Ids grow with creation, so nothing older than the oldest target can.
fn useful_nodes<'a>(roots: impl Iterator<Item = &'a Source>, targets: &IdSet<(u64, usize)>) -> IdSet<u64> {
    let oldest = targets.iter().map(|&(id, _)| id).min().unwrap_or(u64::MAX);
    let mut nodes: IdMap<u64, &Arc<Node>> = IdMap::default();
    let mut stack: Vec<&Arc<Node>> = Vec::new();
    let visit = |source: &'a Source, stack: &mut Vec<&'a Arc<Node>>| {
        if let Source::Node(node, _) = source
            && node.id >= oldest
        {
            stack.push(node);
        }
    };
    roots.for_each(|source| visit(source, &mut stack));
    while let Some(node) = stack.pop() {
        if nodes.insert(node.id, node).is_none() {
            node.inputs.iter().for_each(|source| visit(source, &mut stack));
        }
    }
    let mut ids: Vec<u64> = nodes.keys().copied().collect();
    ids.sort_unstable();
    let mut useful = IdSet::default();
    for id in ids {
        let reaches = nodes[&id].inputs.iter().any(|source| {
            source.key().is_some_and(|key| targets.contains(&key))
                || matches!(source, Source::Node(parent, _) if useful.contains(&parent.id))
        });
        if reaches {
            useful.insert(id);
        }
    }
    useful
}

/// `sum += g`, in place where nobody else sees it.
fn accumulate(sum: &mut Var, g: Var, create_graph: bool) {
    if create_graph {
        *sum = &*sum + &g;
    } else {
        sum.value.add_assign(&g.value);
    }
}
