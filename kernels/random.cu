// Random numbers: element i depends on (seed, offset, i) alone. Each thread makes what a block of four words gives.
#include "layout.cuh"
#include "philox.cuh"

// low + u · width, u in [0, 1), at most `below`.
extern "C" __global__ void uniform_f32(f32* y, i64 n, RandomStream at, f32 low, f32 width, f32 below) {
    RandomStream stream = at.now();
    for (i64 b = thread_in_grid(); b * 4 < n; b += threads_in_grid()) {
        Words w = philox(stream, b);
        for (int i = 0; i < 4 && b * 4 + i < n; i++) {
            f32 u = (f32)(w.at[i] >> 8) * (1.0f / 16777216.0f), x = __fadd_rn(low, __fmul_rn(u, width));
            y[b * 4 + i] = x > below ? below : x;
        }
    }
}
extern "C" __global__ void uniform_f64(f64* y, i64 n, RandomStream at, f64 low, f64 width, f64 below) {
    RandomStream stream = at.now();
    for (i64 b = thread_in_grid(); b * 2 < n; b += threads_in_grid()) {
        Words w = philox(stream, b);
        for (int i = 0; i < 2 && b * 2 + i < n; i++) {
            f64 u = (f64)(pair_of(w, i) >> 11) * (1.0 / 9007199254740992.0), x = __dadd_rn(low, __dmul_rn(u, width));
            y[b * 2 + i] = x > below ? below : x;
        }
    }
}

// mean + std · r cos θ and mean + std · r sin θ (G. E. P. Box, M. E. Muller 1958).
extern "C" __global__ void normal_f32(f32* y, i64 n, RandomStream at, f32 mean, f32 std) {
    RandomStream stream = at.now();
    for (i64 b = thread_in_grid(); b * 4 < n; b += threads_in_grid()) {
        Words w = philox(stream, b);
        for (int i = 0; i < 4; i += 2) {
            f32 u = (f32)w.at[i] * (1.0f / 4294967296.0f) + 0.5f / 4294967296.0f, r = sqrtf(-2.0f * logf(u));
            f32 angle = (f32)(i32)w.at[i + 1] * (3.14159265358979323846f / 2147483648.0f);
            if (b * 4 + i < n) y[b * 4 + i] = mean + std * (r * cosf(angle));
            if (b * 4 + i + 1 < n) y[b * 4 + i + 1] = mean + std * (r * sinf(angle));
        }
    }
}
extern "C" __global__ void normal_f64(f64* y, i64 n, RandomStream at, f64 mean, f64 std) {
    RandomStream stream = at.now();
    constexpr f64 SCALE = 1.0 / 18446744073709551616.0;
    for (i64 b = thread_in_grid(); b * 2 < n; b += threads_in_grid()) {
        Words w = philox(stream, b);
        f64 u = (f64)pair_of(w, 0) * SCALE + 0.5 * SCALE, r = sqrt(-2.0 * log(u));
        f64 angle = (f64)(i64)pair_of(w, 1) * (2.0 * SCALE * 3.14159265358979323846);
        y[b * 2] = mean + std * (r * cos(angle));
        if (b * 2 + 1 < n) y[b * 2 + 1] = mean + std * (r * sin(angle));
    }
}

// Whether word i of the stream is below `threshold`, which may be 2³².
extern "C" __global__ void bernoulli(u8* y, i64 n, RandomStream at, u64 threshold) {
    RandomStream stream = at.now();
    for (i64 b = thread_in_grid(); b * 4 < n; b += threads_in_grid()) {
        Words w = philox(stream, b);
        for (int i = 0; i < 4 && b * 4 + i < n; i++) y[b * 4 + i] = w.at[i] < threshold;
    }
}

// low + ⌊u · width / 2⁶⁴⌋
extern "C" __global__ void integers(i64* y, i64 n, RandomStream at, i64 low, u64 width) {
    RandomStream stream = at.now();
    for (i64 b = thread_in_grid(); b * 2 < n; b += threads_in_grid()) {
        Words w = philox(stream, b);
        for (int i = 0; i < 2 && b * 2 + i < n; i++) y[b * 2 + i] = (i64)((u64)low + __umul64hi(pair_of(w, i), width));
    }
}
