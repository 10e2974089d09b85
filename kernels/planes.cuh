// Planes, the last two dimensions of [N, C, H, W], and what an output at one place of an axis reads of it, for pooling and
// interpolation.
#pragma once
#include "layout.cuh"

// ⌊a / b⌋ of numbers that are not negative, in 32 bits where that will do.
__device__ __forceinline__ i64 quotient(i64 a, i64 b) { return ((a | b) >> 32) == 0 ? (u32)a / (u32)b : a / b; }
__device__ __forceinline__ i64 quotient_up(i64 a, i64 b) { return quotient(a + b - 1, b); }

// Element `o` of row-major planes of `h` × `w`.
struct Pixel { i64 plane, i, j; };
__device__ __forceinline__ Pixel pixel(i64 o, i64 h, i64 w) {
    i64 row = quotient(o, w), plane = quotient(row, h);
    return {plane, row - plane * h, o - row * w};
}

// Planes that lie anywhere: where each begins, and the strides in it. `crates/cuda/src/ops/plane.rs` fills it in.
struct Planes {
    Layout<1> starts;
    i64 row, column;

    template <class X> __device__ __forceinline__ const X* plane(const X* x, i64 plane) const {
        i64 at[1];
        starts.find(plane, at);
        return x + at[0];
    }
};

// Below, an axis has `n` inputs and `out` outputs. Output i takes its inputs `first`, `first + step`, … below `end`, each with a
// `weight`, and divides their sum by `divisor`. The outputs that take input u are all in `readers(u)`, though others may be as well.
struct Range {
    i64 first, end;
    __device__ __forceinline__ bool has(i64 u) const { return first <= u && u < end; }
};

// Of a mean, and of what is only moved.
template <class C> struct Mean : Range {
    i64 step, count;
    __device__ __forceinline__ Mean(i64 first, i64 end, i64 step, i64 count) : Range{first, end}, step(step), count(count) {}
    __device__ __forceinline__ C weight(i64) const { return C(1); }
    __device__ __forceinline__ i64 divisor() const { return count; }
};

// (1 − t)·x[first] + t·x[first + 1]; at the end of the axis there is nothing to mix with.
template <class C> struct Mix : Range {
    static constexpr i64 step = 1;
    C t;
    __device__ __forceinline__ Mix(i64 first, i64 end, C t) : Range{first, end}, t(t) {}
    __device__ __forceinline__ C weight(i64 u) const { return u > first ? t : first + 1 < end ? C(1) - t : C(1); }
    __device__ __forceinline__ i64 divisor() const { return 1; }
};

// Windows of `kernel` taps, `dilation` apart, of which those inside the axis count.
struct Windows {
    i64 n, out, kernel, stride, padding, dilation, count_include_pad;

    template <class C> __device__ __forceinline__ Mean<C> reads(i64 i) const {
        i64 start = i * stride - padding, span = (kernel - 1) * dilation + 1;
        i64 end = start + span < n ? start + span : n;
        i64 first = start < 0 ? start + quotient_up(-start, dilation) * dilation : start;
        i64 inside = end > first ? end - first : 0, padded = start + span < n + padding ? span : n + padding - start;
        i64 count = count_include_pad ? padded : inside;
        return {first, end, dilation, count > 1 ? count : 1};
    }
    // Of windows without dilation: i·stride − padding ≤ u < i·stride − padding + kernel.
    __device__ __forceinline__ Range readers(i64 u) const {
        i64 from = u + padding - kernel + 1, end = quotient(u + padding, stride) + 1;
        return {from > 0 ? quotient_up(from, stride) : 0, end < out ? end : out};
    }
};

// Bins, as many as outputs: ⌊i·n/out⌋ … ⌈(i + 1)·n/out⌉ − 1. Who reads whom is the same the other way round.
struct Bins {
    i64 n, out;

    __device__ __forceinline__ static Range bin(i64 i, i64 n, i64 out) { return {quotient(i * n, out), quotient_up((i + 1) * n, out)}; }
    template <class C> __device__ __forceinline__ Mean<C> reads(i64 i) const {
        Range taps = bin(i, n, out);
        return {taps.first, taps.end, 1, taps.end - taps.first};
    }
    __device__ __forceinline__ Range readers(i64 u) const { return bin(u, out, n); }
};

// The input ⌊i·n/out⌋.
struct Nearest {
    i64 n, out;

    template <class C> __device__ __forceinline__ Mean<C> reads(i64 i) const {
        i64 u = quotient(i * n, out);
        return {u, u + 1, 1, 1};
    }
    // u ≤ i·n/out < u + 1
    __device__ __forceinline__ Range readers(i64 u) const { return {quotient_up(u * out, n), quotient_up((u + 1) * out, n)}; }
};

// The two inputs on either side of i·scale + shift; `scale` is (n − 1)/(out − 1) if the corners' centres stay in place, else n/out.
struct Bilinear {
    i64 n, out, align_corners;
    f64 scale;

    __device__ __forceinline__ f64 position(i64 i) const {
        if (align_corners) return out > 1 ? f64(i * (n - 1)) / f64(out - 1) : 0;
        f64 at = (f64(i) + 0.5) * scale - 0.5;
        return at > 0 ? at : 0;
    }
    template <class C> __device__ __forceinline__ Mix<C> reads(i64 i) const {
        f64 at = position(i);
        i64 first = i64(at) < n - 1 ? i64(at) : n - 1;
        f64 t = at - f64(first);
        return {first, first + 2 < n ? first + 2 : n, C(t < 1 ? t : 1)};
    }
    // Positions in u − 1 … u + 1, and a little more on both sides for roundings; what lies before the axis is held at its begin.
    __device__ __forceinline__ Range readers(i64 u) const {
        if (scale == 0) return {0, out};
        f64 shift = align_corners ? 0 : 0.5 * scale - 0.5;
        f64 low = floor((f64(u) - 1 - shift) / scale) - 1, high = ceil((f64(u) + 1 - shift) / scale) + 2;
        return {u == 0 || low < 0 ? 0 : i64(low), u == n - 1 || high > f64(out) ? out : i64(high)};
    }
};
