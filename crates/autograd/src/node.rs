//! The graph: leaves, and nodes that remember how a value was made.

use crate::function::{Function, Saved};
use ferrograd_tensor::{DType, Shape, Tensor};
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
#[derive(Clone)]
pub(crate) struct Meta {
    pub shape: Shape,
    pub dtype: DType,
}

impl Meta {
    pub(crate) fn of(t: &Tensor) -> Meta {
        Meta { shape: t.shape().clone(), dtype: t.dtype() }
    }
}

/// What is attached to a node's outputs after the fact.
#[derive(Default)]
pub(crate) struct Attached {
    pub hooks: Vec<(usize, Hook)>,
    pub retained: Vec<usize>,
}

/// One application of a [`Function`]: an edge bundle of the graph.
pub struct Node {
    pub(crate) id: u64,
    pub(crate) op: Arc<dyn Function>,
    pub(crate) inputs: Few<Source>,
    pub(crate) outputs: Single<Meta>,
    pub(crate) location: &'static Location<'static>,
    saved: Mutex<Option<Saved>>,
    attached: Mutex<Option<Box<Attached>>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

impl Node {
    pub(crate) fn new(
        op: Arc<dyn Function>,
        inputs: Few<Source>,
        outputs: Single<Meta>,
        saved: Saved,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        let saved = Mutex::new(Some(saved));
        Arc::new(Node { id: next_id(), op, inputs, outputs, location, saved, attached: Mutex::new(None) })
    }
    /// The operation's name.
    pub fn name(&self) -> &'static str {
        self.op.name()
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
    /// What forward saved: left in place if `keep`, else taken out and so freed after use.
    pub(crate) fn saved(&self, keep: bool) -> Option<Saved> {
        let mut saved = lock(&self.saved);
        if keep { saved.clone() } else { saved.take() }
    }
    pub(crate) fn attach(&self, change: impl FnOnce(&mut Attached)) {
        change(lock(&self.attached).get_or_insert_default());
    }
    /// Hooks of output `i`, and whether its gradient is to be kept.
    pub(crate) fn attached(&self, i: usize) -> (Vec<Hook>, bool) {
        match &*lock(&self.attached) {
            None => (Vec::new(), false),
            Some(a) => {
                let hooks = a.hooks.iter().filter(|(o, _)| *o == i).map(|(_, h)| h.clone()).collect();
                (hooks, a.retained.contains(&i))
            }
        }
    }
}

/// Drops a chain of any length without recursion.
impl Drop for Node {
    fn drop(&mut self) {
        let mut doomed: Vec<Node> = Vec::new();
        let doom = |inputs: &mut Few<Source>, doomed: &mut Vec<Node>| {
            for source in inputs.drain(..) {
                if let Source::Node(node, _) = source
                    && let Some(node) = Arc::into_inner(node)
                {
                    doomed.push(node);
                }
            }
        };
        doom(&mut self.inputs, &mut doomed);
        while let Some(mut node) = doomed.pop() {
            doom(&mut node.inputs, &mut doomed);
        }
    }
}
