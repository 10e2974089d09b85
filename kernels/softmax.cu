// y = e^{x − max x} / Σ e^{x − max x} along a dimension, or its logarithm: -DFUNCTION=softmax or -DFUNCTION=log_softmax.
//
// One read and one write of each element (rows.cuh); the exponential is computed twice, which costs less than keeping it.
#include "exponentials.cuh"

template <class ROW> __device__ __forceinline__ void softmax(ROW& row, const Line<typename ROW::Element>& y) {
    typedef typename ROW::C C;
    auto e = exponentials(row);
    C scale = C(1) / e.sum;
    row.map(y, [&](C x) { return exp(x - e.max) * scale; });
}

template <class ROW> __device__ __forceinline__ void log_softmax(ROW& row, const Line<typename ROW::Element>& y) {
    typedef typename ROW::C C;
    auto e = exponentials(row);
    C log_sum = log(e.sum);
    row.map(y, [&](C x) { return (x - e.max) - log_sum; });
}

#define KERNEL(name, TEAM, ROW, LENGTH)                                                                                 \
    extern "C" __global__ void __launch_bounds__(ROW<TEAM, X, LENGTH, 1>::THREADS, 1) name(const X* x, X* y, Rows<2> rows) { \
        i64 at[2], n = rows.find(TEAM::row(), at);                                                                      \
        ROW<TEAM, X, LENGTH, 1> row({{x + at[0], rows.strides[0]}}, n);                                                 \
        FUNCTION(row, Line<X>{y + at[1], rows.strides[1]});                                                             \
    }
KERNELS(KERNEL)
