// Are all indices in 0 … n − 1, or, if there is such a thing, `ignored`? The first that is not is written down where the host finds it, in its own memory,
// when it next waits: nobody waits for the answer here.
#include "layout.cuh"

// The same as `Mistake` in `crates/cuda/src/ops/index_check.rs`.
struct Mistake {
    i64 value, n;
    u32 op, made;
};

extern "C" __global__ void index_check(const i64* index, Layout<1> at, i64 n, i64 ignored, i32 ignores, u32 op, Mistake* mistake) {
    for (i64 i = thread_in_grid(); i < at.numel; i += threads_in_grid()) {
        i64 from[1];
        at.find(i, from);
        i64 value = index[from[0]];
        if (value >= 0 && value < n || ignores && value == ignored) continue;
        if (atomicCAS(&mistake->made, 0u, 1u) != 0u) return;
        mistake->value = value;
        mistake->n = n;
        mistake->op = op;
    }
}
