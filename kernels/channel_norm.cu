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

// The planes, and which of them are a set.
struct Sets {
    i64 size, channels;
    // Neighbouring planes that are a set; 0 where the planes of a channel are.
    i64 together;

    __device__ __forceinline__ i64 set(i64 plane) const { return together > 0 ? plane / together : plane % channels; }
};

// Calls y = f(numbers of the plane, inputs) for each element; `of(plane)` looks the numbers up. The last operand of `at` is y.
template <int N, class X, class OF, class F>
__device__ __forceinline__ void each_element(const X* const (&from)[N], X* y, const Layout<N + 1>& at, const Sets& sets, OF of, F f) {
    constexpr int LENGTH = 16 / sizeof(X);
    for (i64 v = thread_in_grid(); v * LENGTH < at.numel; v += threads_in_grid()) {
        i64 first = v * LENGTH, places[N + 1];
        int count = at.numel - first < LENGTH ? int(at.numel - first) : LENGTH;
        bool whole = at.placement == IN_A_RUN && count == LENGTH;
        Vector<X> in[N], out;
        for (int o = 0; o < N; o++)
            if (whole) in[o] = ((const Vector<X>*)from[o])[v];
#pragma unroll
        for (int j = 0; j < LENGTH; j++) {
            if (whole) continue;
            at.find(first + (j < count ? j : 0), places);
            for (int o = 0; o < N; o++) in[o].at[j] = from[o][places[o]];
        }
        i64 plane = at.numel <= 0xffffffffll ? (u32)first / (u32)sets.size : first / sets.size;
        i64 left = sets.size - (first - plane * sets.size);
        auto numbers = of(plane);
#pragma unroll
        for (int j = 0; j < LENGTH; j++) {
            if (left == 0 && j < count) {
                numbers = of(++plane);
                left = sets.size;
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

typedef TYPE X;
typedef compute_t<X> C;

// What is the same for all elements of a plane.
struct Forward { C mean, scale, shift; };
struct Backward { C mean, rstd, weight, a, b; };

// Weight and bias of each channel: null where there is none.
extern "C" __global__ void apply(const X* x, X* y, Layout<2> at, Sets sets, const C* mean, const C* rstd, const X* weight, const X* bias) {
    auto of = [&](i64 plane) {
        i64 set = sets.set(plane), c = plane % sets.channels;
        C scale = weight ? rstd[set] * load(weight[c]) : rstd[set];
        return Forward{mean[set], scale, bias ? load(bias[c]) : C(0)};
    };
    each_element<1>({x}, y, at, sets, of, [](const Forward& p, C x) { return (x - p.mean) * p.scale + p.shift; });
}

// `means` are mean(g·w) and mean(g·w·x̂) of each set; null for statistics that did not come from x.
extern "C" __global__ void backward(const X* x, const X* g, X* dx, Layout<3> at, Sets sets, const C* mean, const C* rstd,
                                    const X* weight, const Two<C>* means) {
    auto of = [&](i64 plane) {
        i64 set = sets.set(plane);
        Two<C> m = means ? means[set] : Two<C>{C(0), C(0)};
        return Backward{mean[set], rstd[set], weight ? load(weight[plane % sets.channels]) : C(1), m.a, m.b};
    };
    each_element<2>({x, g}, dx, at, sets, of, [](const Backward& p, C x, C g) {
        return p.rstd * (g * p.weight - p.a - (x - p.mean) * p.rstd * p.b);
    });
}

// This thread's share of Σ g and Σ g·x̂ of line `o`, of which these are the statistics; who adds what is as in reduce.cu.
__device__ __forceinline__ Two<C> share(const X* x, const X* g, const Layout<2>& kept, const Layout<2>& reduced, i64 part, i64 o, u32 first,
                                        u32 step, C mean, C rstd) {
    i64 at[2], base[2];
    kept.find(o, base);
    i64 start = blockIdx.y * part, end = start + part < reduced.numel ? start + part : reduced.numel;
    Two<C> sum = SumTwo<C>::identity();
    for (i64 r = start + first; r < end; r += step) {
        reduced.find(r, at);
        C v = load(g[base[1] + at[1]]);
        sum = SumTwo<C>::combine(sum, {v, v * ((load(x[base[0] + at[0]]) - mean) * rstd)});
    }
    return sum;
}

#define SUMS(name, LINE, FIRST, STEP, REDUCE, WRITES)                                                                   \
    extern "C" __global__ void name(const X* x, const X* g, Two<C>* y, Layout<2> kept, Layout<2> reduced, i64 part,     \
                                    const C* mean, const C* rstd, i64 together) {                                       \
        i64 o = LINE;                                                                                                   \
        if (o >= kept.numel) return;                                                                                    \
        Two<C> sum = REDUCE(share(x, g, kept, reduced, part, o, FIRST, STEP, mean[o / together], rstd[o / together]));           \
        if (WRITES) y[blockIdx.y * kept.numel + o] = sum;                                                               \
    }
SUMS(by_block, blockIdx.x, threadIdx.x, blockDim.x, block_reduce<SumTwo<C>>, threadIdx.x == 0)
SUMS(by_warp, (i64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, threadIdx.x % WARP, WARP, warp_reduce<SumTwo<C>>, threadIdx.x % WARP == 0)
SUMS(by_thread, thread_in_grid(), 0, 1, , true)

// The means of each set, from the sums of its `together` neighbouring lines; a set has n elements.
extern "C" __global__ void means(const Two<C>* sums, Two<C>* means, i64 sets, i64 together, i64 channels, const X* weight, i64 n) {
    for (i64 s = thread_in_grid(); s < sets; s += threads_in_grid()) {
        Two<C> mean = SumTwo<C>::identity();
        for (i64 line = s * together; line < (s + 1) * together; line++) {
            C w = weight ? load(weight[line % channels]) : C(1);
            mean = SumTwo<C>::combine(mean, {w * sums[line].a, w * sums[line].b});
        }
        means[s] = {mean.a / C(n), mean.b / C(n)};
    }
}
