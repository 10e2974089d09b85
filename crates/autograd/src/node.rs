//! The graph: leaves, and nodes that remember how a value was made.

use crate::function::{Function, Kept};
use crate::var::Var;
use ferrograd_tensor::{DType, Shape, Tensor};
use std::cell::RefCell;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Called with each gradient that arrives at a value.
pub(crate) type Hook = Arc<dyn Fn(&Tensor) + Send + Sync>;

/// Ids grow with creation, so a node's id is larger than those of all it was made from: reverse order of id is a
/// valid order for backward, without a topological sort.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Maps and sets by id. Ids are numbers in a row: spread over the table by one multiplication (Knuth, TAOCP 3, §6.4).
pub(crate) type IdMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<IdHasher>>;
pub(crate) type IdSet<K> = std::collections::HashSet<K, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
pub(crate) struct IdHasher(u64);
impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u64(b as u64));
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
}

/// A value that gradients are collected for: the identity of a user's variable or of a parameter.
pub struct Leaf {
    pub(crate) id: u64,
    pub(crate) hooks: Mutex<Vec<Hook>>,
}

impl Leaf {
    /// A new identity.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Leaf {
        Leaf { id: next_id(), hooks: Mutex::default() }
    }
}

/// Where a value comes from.
#[derive(Clone)]
pub(crate) enum Source {
    /// Nowhere: no gradient is needed.
    Constant,
    /// It is a leaf.
    Leaf(Arc<Leaf>),
    /// It is this output of this node.
    Node(Arc<Node>, u32),
}

impl Source {
    /// Identity for looking up gradients: unique over leaves and outputs.
    pub(crate) fn key(&self) -> Option<(u64, usize)> {
        match self {
            Source::Constant => None,
            Source::Leaf(leaf) => Some((leaf.id, usize::MAX)),
            Source::Node(node, output) => Some((node.id, *output as usize)),
        }
    }
}

/// A list that is short nearly always: of an operation's inputs. Up to two need no allocation.
pub(crate) type Few<T> = smallvec::SmallVec<[T; 2]>;

/// A list of one nearly always: of an operation's outputs.
pub(crate) type Single<T> = smallvec::SmallVec<[T; 1]>;

/// What a value's gradient must look like.
pub(crate) struct Meta {
    pub shape: Shape,
    pub dtype: DType,
}

impl Meta {
    fn of(t: &Tensor) -> Meta {
        Meta { shape: t.shape().clone(), dtype: t.dtype() }
    }
    fn describes(&self, t: &Tensor) -> bool {
        self.shape == *t.shape() && self.dtype == t.dtype()
    }
}

/// What the gradients of an operation's inputs must look like: mostly all alike, which needs no allocation.
enum Metas {
    Same(Meta),
    Each(Box<[Meta]>),
}

impl Default for Metas {
    fn default() -> Metas {
        Metas::Each(Box::default())
    }
}

impl Metas {
    fn of(inputs: &[&Var]) -> Metas {
        if let [first, others @ ..] = inputs {
            let first = Meta::of(first.tensor());
            if others.iter().all(|x| first.describes(x.tensor())) {
                return Metas::Same(first);
            }
        }
        Metas::Each(inputs.iter().map(|x| Meta::of(x.tensor())).collect())
    }
}

/// What is attached to a node's outputs after the fact.
#[derive(Default)]
pub(crate) struct Attached {
    pub hooks: Vec<(usize, Hook)>,
    pub retained: Vec<usize>,
}

/// What may change after a node is made.
#[derive(Default)]
struct State {
    /// What forward kept; `None` when backward has been through and freed it.
    kept: Option<Box<[Kept]>>,
    attached: Option<Box<Attached>>,
}

/// One application of a [`Function`]: an edge bundle of the graph. As small as can be: a graph of many small operations
/// spends most of its time on the memory that it touches.
pub struct Node {
    pub(crate) id: u64,
    /// `None` in a spare node.
    op: Option<Box<dyn Function>>,
    pub(crate) inputs: Few<Source>,
    metas: Metas,
    pub(crate) outputs: usize,
    pub(crate) location: &'static Location<'static>,
    state: Mutex<State>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

impl Node {
    pub(crate) fn new(
        op: Box<dyn Function>,
        inputs: &[&Var],
        outputs: usize,
        kept: Box<[Kept]>,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        let mut sources = Few::new();
        inputs.iter().for_each(|x| sources.push(x.source.clone()));
        let node = Node {
            id: next_id(),
            op: Some(op),
            inputs: sources,
            metas: Metas::of(inputs),
            outputs,
            location,
            state: Mutex::new(State { kept: Some(kept), attached: None }),
        };
        match SPARE.try_with(|spare| spare.borrow_mut().pop()) {
            Ok(Some(mut shared)) => {
                *Arc::get_mut(&mut shared).expect("nobody else holds a spare node") = node;
                shared
            }
            _ => Arc::new(node),
        }
    }
    pub(crate) fn op(&self) -> &dyn Function {
        self.op.as_deref().expect("a spare node is in no graph")
    }
    /// The operation's name.
    pub fn name(&self) -> &'static str {
        self.op().name()
    }
    /// The nodes that made this one's inputs.
    pub fn parents(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.inputs.iter().filter_map(|s| match s {
            Source::Node(node, _) => Some(node),
            _ => None,
        })
    }
    /// The source line that applied the operation.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }
    /// What the gradient of input `i` must look like.
    pub(crate) fn meta(&self, i: usize) -> &Meta {
        match &self.metas {
            Metas::Same(meta) => {
                assert!(i < self.inputs.len(), "{} has no input {i}", self.name());
                meta
            }
            Metas::Each(metas) => &metas[i],
        }
    }
    /// What forward kept: left in place if `keep`, else taken out and so freed after use.
    pub(crate) fn kept(&self, keep: bool) -> Option<Box<[Kept]>> {
        let kept = &mut lock(&self.state).kept;
        if keep { kept.clone() } else { kept.take() }
    }
    pub(crate) fn attach(&self, change: impl FnOnce(&mut Attached)) {
        change(lock(&self.state).attached.get_or_insert_default());
    }
    /// Hooks of output `i`, and whether its gradient is to be kept.
    pub(crate) fn attached(&self, i: usize) -> (Vec<Hook>, bool) {
        match &lock(&self.state).attached {
            None => (Vec::new(), false),
            Some(a) => {
                let hooks = a.hooks.iter().filter(|(o, _)| *o == i).map(|(_, h)| h.clone()).collect();
                (hooks, a.retained.contains(&i))
            }
        }
    }
}

thread_local! {
    /// Nodes that nobody holds any more, empty, for the next ones of this thread. Without them a graph of many small
    /// operations faults its memory in at every step: allocators give what is freed at the end of the heap back to the
    /// system.
    static SPARE: RefCell<Vec<Arc<Node>>> = const { RefCell::new(Vec::new()) };
}

/// A thread keeps at most this many spare nodes: 12 MiB.
const SPARES: usize = 1 << 16;

/// Empties a node that nobody else holds, and keeps it for later.
fn keep_spare(mut shared: Arc<Node>) {
    let Some(node) = Arc::get_mut(&mut shared) else { return };
    (node.op, node.inputs, node.metas, node.state) = (None, Few::new(), Metas::default(), Mutex::default());
    // A thread that ends keeps nothing.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARES {
            spare.push(shared);
        }
    });
}

/// Drops a chain of any length without recursion.
impl Drop for Node {
    fn drop(&mut self) {
        let mut doomed = std::mem::take(&mut self.inputs);
        while let Some(source) = doomed.pop() {
            let Source::Node(mut shared, _) = source else { continue };
            if let Some(node) = Arc::get_mut(&mut shared) {
                doomed.append(&mut node.inputs);
                keep_spare(shared);
            } else if let Some(mut node) = Arc::into_inner(shared) {
                // Another thread has let go of it in between.
                doomed.append(&mut node.inputs);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_node_is_small() {
        assert!(size_of::<Node>() <= 160, "{}", size_of::<Node>());
    }

    #[test]
    fn spare_nodes_are_used_again_and_limited_in_number() {
        let spares = || SPARE.with_borrow(Vec::len);
        let x = Var::leaf(Tensor::scalar(1.0f32));
        let chain = |n| (0..n).fold(x.clone(), |y, _| y + &x);
        drop(chain(100));
        let before = spares();
        assert!(before >= 99, "{before}");
        let y = chain(50);
        assert_eq!(spares(), before - 50);
        let (a, b) = (y.node().unwrap().id, y.node().unwrap().parents().next().unwrap().id);
        assert!(a > b, "ids are new: {a}, {b}");
        drop(chain(SPARES + 1000));
        assert_eq!(spares(), SPARES);
    }
}
