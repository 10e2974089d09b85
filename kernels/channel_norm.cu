// Normalisation by channel: batch norm and group norm of x = [B, C, S], seen as B·C planes of S elements. They differ in which planes
// share their mean and rstd, a set: those of a channel, or neighbours. The statistics are those of moments.cu.
//
//     y = (x − mean)·rstd·weight + bias
//
// and back, with x̂ = (x − mean)·rstd and means over the set,
//
//     dx = rstd·(g·w − mean(g·w) − x̂·mean(g·w·x̂)),    dweight = Σ g·x̂ and dbias = Σ g over the channel.
//
// Bandwidth is the limit: each pass reads and writes 16 bytes at a time where memory allows, and the numbers of a plane are looked up
// once for a run of its elements. There are two passes each way, as a set may be larger than what a block can keep.
#include "layout.cuh"
#include "reduction.cuh"

struct Planes {
    i64 size, channels;
    // Neighbouring planes that are a set; 0 where the planes of a channel are.
    i64 together;

    __device__ __forceinline__ i64 set(i64 plane) const { return together > 0 ? plane / together : plane % channels; }
};

// Calls y = f(numbers of the plane, inputs) for each element; `of(plane)` looks the numbers up. The last operand of `at` is y.
template <int N, class X, class OF, class F>
__device__ __forceinline__ void each_element(const X* const (&from)[N], X* y, const Layout<N + 1>& at, const Planes& planes, OF of, F f) {
    constexpr int LENGTH = 16 / sizeof(X);
    for (i64 v = thread_in_grid(); v * LENGTH < at.numel; v += threads_in_grid()) {
        i64 first = v * LENGTH, places[N + 1];
        int count = at.numel - first < LENGTH ? int(at.numel - first) : LENGTH;
        bool whole = at.vectors && count == LENGTH;
        Vector<X> in[N], out;
        for (int o = 0; o < N; o++)
            if (whole) in[o] = ((const Vector<X>*)from[o])[v];
#pragma unroll
        for (int j = 0; j < LENGTH; j++) {
            if (whole) continue;
            at.find(first + (j < count ? j : 0), places);
            for (int o = 0; o < N; o++) in[o].at[j] = from[o][places[o]];
        }
        i64 plane = at.numel <= 0xffffffffll ? (u32)first / (u32)planes.size : first / planes.size;
        i64 left = planes.size - (first - plane * planes.size);
        auto numbers = of(plane);
#pragma unroll
        for (int j = 0; j < LENGTH; j++) {
            if (left == 0 && j < count) {
                numbers = of(++plane);
                left = planes.size;
            }
            left--;
            if constexpr (N == 1) out.at[j] = store<X>(f(numbers, load(in[0].at[j])));
            else out.at[j] = store<X>(f(numbers, load(in[0].at[j]), load(in[1].at[j])));
        }
        if (whole) ((Vector<X>*)y)[v] = out;
#pragma unroll
        for (int j = 0; j < LENGTH; j++) {
            if (whole || j >= count) continue;
            at.find(first + j, places);
            y[places[N]] = out.at[j];
        }
    }
}

// Weight and bias of each channel; null where there is none.
template <class X> struct Affine {
    const X *weight, *bias;
};
// Of each set.
template <class C> struct Statistics {
    const C *mean, *rstd;
};

template <class C> struct Forward { C mean, scale, shift; };
template <class C> struct Backward { C mean, rstd, weight, a, b; };

template <class X, class C = compute_t<X>>
__device__ __forceinline__ void apply(const X* x, X* y, const Layout<2>& at, const Planes& planes, Statistics<C> s, Affine<X> affine) {
    auto of = [&](i64 plane) {
        i64 set = planes.set(plane), c = plane % planes.channels;
        C scale = affine.weight ? s.rstd[set] * load(affine.weight[c]) : s.rstd[set];
        return Forward<C>{s.mean[set], scale, affine.bias ? load(affine.bias[c]) : C(0)};
    };
    each_element<1>({x}, y, at, planes, of, [](const Forward<C>& p, C x) { return (x - p.mean) * p.scale + p.shift; });
}

// `means` are mean(g·w) and mean(g·w·x̂) of each set; null for statistics that did not come from x.
template <class X, class C = compute_t<X>>
__device__ __forceinline__ void backward(const X* x, const X* g, X* dx, const Layout<3>& at, const Planes& planes, Statistics<C> s, const X* weight, const Two<C>* means) {
    auto of = [&](i64 plane) {
        i64 set = planes.set(plane);
        Two<C> m = means ? means[set] : Two<C>{C(0), C(0)};
        return Backward<C>{s.mean[set], s.rstd[set], weight ? load(weight[plane % planes.channels]) : C(1), m.a, m.b};
    };
    each_element<2>({x, g}, dx, at, planes, of, [](const Backward<C>& p, C x, C g) {
        return p.rstd * (g * p.weight - p.a - (x - p.mean) * p.rstd * p.b);
    });
}

// This thread's share of Σ g and Σ g·x̂ of line `o`, which has the statistics `set`; who adds what is as in reduce.cu.
template <class X, class C = compute_t<X>>
__device__ __forceinline__ Two<C> share(const X* x, const X* g, const Layout<2>& kept, const Layout<2>& reduced, i64 part, i64 o, u32 first, u32 step, Statistics<C> s, i64 set) {
    i64 at[2], base[2];
    kept.find(o, base);
    i64 start = blockIdx.y * part, end = start + part < reduced.numel ? start + part : reduced.numel;
    C mean = s.mean[set], rstd = s.rstd[set];
    Two<C> sum = SumTwo<C>::identity();
    for (i64 r = start + first; r < end; r += step) {
        reduced.find(r, at);
        C v = load(g[base[1] + at[1]]);
        sum = SumTwo<C>::combine(sum, {v, v * ((load(x[base[0] + at[0]]) - mean) * rstd)});
    }
    return sum;
}

#define SUMS(name, X, LINE, FIRST, STEP, REDUCE, WRITES)                                                                \
    extern "C" __global__ void name(const X* x, const X* g, Two<compute_t<X>>* y, Layout<2> kept, Layout<2> reduced,    \
                                    i64 part, const compute_t<X>* mean, const compute_t<X>* rstd, i64 together) {       \
        i64 o = LINE;                                                                                                   \
        if (o >= kept.numel) return;                                                                                    \
        auto sum = share<X>(x, g, kept, reduced, part, o, FIRST, STEP, {mean, rstd}, o / together);                     \
        sum = REDUCE(sum);                                                                                              \
        if (WRITES) y[blockIdx.y * kept.numel + o] = sum;                                                               \
    }
#define KERNELS(X)                                                                                                      \
    extern "C" __global__ void apply_##X(const X* x, X* y, Layout<2> at, Planes planes, const compute_t<X>* mean,       \
                                         const compute_t<X>* rstd, const X* weight, const X* bias) {                    \
        apply<X>(x, y, at, planes, {mean, rstd}, {weight, bias});                                                       \
    }                                                                                                                   \
    extern "C" __global__ void backward_##X(const X* x, const X* g, X* dx, Layout<3> at, Planes planes,                 \
                                            const compute_t<X>* mean, const compute_t<X>* rstd, const X* weight,        \
                                            const Two<compute_t<X>>* means) {                                           \
        backward<X>(x, g, dx, at, planes, {mean, rstd}, weight, means);                                                 \
    }                                                                                                                   \
    SUMS(by_block_##X, X, blockIdx.x, threadIdx.x, blockDim.x, block_reduce<SumTwo<compute_t<X>>>, threadIdx.x == 0)    \
    SUMS(by_warp_##X, X, (i64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, threadIdx.x % WARP, WARP,          \
         warp_reduce<SumTwo<compute_t<X>>>, threadIdx.x % WARP == 0)                                                    \
    SUMS(by_thread_##X, X, thread_in_grid(), 0, 1, , true)                                                              \
    /* The means of each set, from the sums of its `together` neighbouring lines; a set has n elements. */              \
    extern "C" __global__ void means_##X(const Two<compute_t<X>>* sums, Two<compute_t<X>>* means, i64 sets,             \
                                         i64 together, i64 channels, const X* weight, i64 n) {                          \
        typedef compute_t<X> C;                                                                                         \
        for (i64 s = thread_in_grid(); s < sets; s += threads_in_grid()) {                                              \
            Two<C> mean = SumTwo<C>::identity();                                                                        \
            for (i64 line = s * together; line < (s + 1) * together; line++) {                                          \
                C w = weight ? load(weight[line % channels]) : C(1);                                                    \
                mean = SumTwo<C>::combine(mean, {w * sums[line].a, w * sums[line].b});                                  \
            }                                                                                                           \
            means[s] = {mean.a / C(n), mean.b / C(n)};                                                                  \
        }                                                                                                               \
    }
KERNELS(f32)
KERNELS(f64)
KERNELS(f16)
KERNELS(bf16)
