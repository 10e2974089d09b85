//! What a recorded operation on small tensors costs in allocations.

use ferrograd_autograd::Var;
use ferrograd_tensor::Tensor;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting.
struct Counting;

// SAFETY: every call goes to `System`, which keeps the promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations per node of a chain of `op`, forward and backward, when a chain as long has been there before.
fn allocations(op: impl Fn(&Var, &Var) -> Var) -> [f64; 2] {
    const NODES: usize = 1000;
    let x = Var::leaf(Tensor::scalar(0.5f32));
    let mut counts = [0.0; 2];
    for _ in 0..2 {
        let start = ALLOCATIONS.load(Ordering::Relaxed);
        let y = (0..NODES).fold(x.clone(), |y, _| op(&y, &x));
        let middle = ALLOCATIONS.load(Ordering::Relaxed);
        y.backward();
        let end = ALLOCATIONS.load(Ordering::Relaxed);
        counts = [middle - start, end - middle].map(|n| n as f64 / NODES as f64);
    }
    counts
}

#[test]
fn a_node_takes_few_allocations() {
    let check = |op: &str, [forward, backward]: [f64; 2], most: [f64; 2]| {
        // A few belong to the chain as a whole.
        let fits = forward < most[0] + 0.1 && backward < most[1] + 0.1;
        assert!(fits, "{op}: {forward} forward and {backward} backward, at most {most:?}");
    };
    // Forward: the list of outputs, the result, an operation's own numbers, what backward will read. Backward: the list of
    // gradients and each new one, which for a product is what two operations cost.
    check("y + x", allocations(|y, x| y + x), [2.0, 1.0]);
    check("y + 1", allocations(|y, _| y + 1.0), [3.0, 1.0]);
    check("tanh y", allocations(|y, _| y.tanh()), [3.0, 2.0]);
    check("y x", allocations(|y, x| y * x), [3.0, 5.0]);
}
