// y = x / (1 − p) where a random number says so, else 0: element i is kept if word i of the stream is below `threshold`, which may
// be 2³² (random.cu).
//
// One read and one write of each element, 16 bytes at a time; a thread takes what whole blocks of four words decide.
#include "layout.cuh"
#include "philox.cuh"

template <class X> __device__ __forceinline__ void dropout(const X* x, X* y, const Layout<2>& at, compute_t<X> scale, RandomStream stream, u64 threshold) {
    constexpr int LENGTH = sizeof(X) == 2 ? 8 : 4;
    struct alignas(16) Run { X at[LENGTH]; };
    for (i64 b = thread_in_grid(); b * LENGTH < at.numel; b += threads_in_grid()) {
        i64 first = b * LENGTH;
        int count = at.numel - first < LENGTH ? int(at.numel - first) : LENGTH;
        bool whole = at.placement == IN_A_RUN && count == LENGTH;
        Run run;
        if (whole) run = ((const Run*)x)[b];
#pragma unroll
        for (int i = 0; i < LENGTH; i++) {
            if (whole) continue;
            i64 from[2];
            at.find(first + (i < count ? i : 0), from);
            run.at[i] = x[from[0]];
        }
        Words words[LENGTH / 4];
#pragma unroll
        for (int k = 0; k < LENGTH / 4; k++) words[k] = philox(stream, b * (LENGTH / 4) + k);
        // A dropped element is 0 whatever it was, NaN included.
#pragma unroll
        for (int i = 0; i < LENGTH; i++)
            run.at[i] = store<X>(words[i / 4].at[i % 4] < threshold ? load(run.at[i]) * scale : compute_t<X>(0));
        if (whole) ((Run*)y)[b] = run;
#pragma unroll
        for (int i = 0; i < LENGTH; i++)
            if (!whole && i < count) y[first + i] = run.at[i];
    }
}

#define KERNEL(X)                                                                                                       \
    extern "C" __global__ void dropout_##X(const X* x, X* y, Layout<2> at, f64 scale, RandomStream stream, u64 threshold) { \
        dropout<X>(x, y, at, compute_t<X>(scale), stream.now(), threshold);                                             \
    }
KERNEL(f32)
KERNEL(f64)
KERNEL(f16)
KERNEL(bf16)
