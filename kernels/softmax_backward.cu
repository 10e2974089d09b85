// The gradient of softmax, y·(g − Σ g·y), or of its logarithm, g − eʸ·Σ g, along a dimension, from the result y and the gradient g
// that reached it: -DFUNCTION=softmax or -DFUNCTION=log_softmax.
//
// Two reads and one write of each element (rows.cuh).
#include "rows.cuh"

template <class ROW> __device__ __forceinline__ void softmax(ROW& row, const Line<typename ROW::Element>& dx) {
    typedef typename ROW::C C;
    C dot = row.sum([](C y, C g) { return y * g; });
    row.map(dx, [&](C y, C g) { return y * (g - dot); });
}

template <class ROW> __device__ __forceinline__ void log_softmax(ROW& row, const Line<typename ROW::Element>& dx) {
    typedef typename ROW::C C;
    C sum = row.sum([](C, C g) { return g; });
    row.map(dx, [&](C y, C g) { return g - exp(y) * sum; });
}

#define KERNEL(name, TEAM, ROW, LENGTH)                                                                                 \
    extern "C" __global__ void __launch_bounds__(ROW<TEAM, X, LENGTH, 2>::THREADS, 1) name(const X* y, const X* g, X* dx, Rows<3> rows) { \
        i64 at[3], n = rows.find(TEAM::row(), at);                                                                      \
        ROW<TEAM, X, LENGTH, 2> row({{y + at[0], rows.strides[0]}, {g + at[1], rows.strides[1]}}, n);                   \
        FUNCTION(row, Line<X>{dx + at[2], rows.strides[2]});                                                            \
    }
KERNELS(KERNEL)
