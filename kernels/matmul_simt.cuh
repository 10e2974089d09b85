// Products in f32 and f64 without tensor cores: the tiles that a block multiplies, and how they get there. See matmul_simt.cu, and
// conv_simt.cu, whose operands lie otherwise.
#pragma once
#include "matmul.cuh"
#include "reduction.cuh"

constexpr int DEPTH = 8, STAGES = 4, THREADS = 256;
// For Blackwell the compiler loads further ahead than for the cards before.
#if __CUDA_ARCH__ >= 1000
constexpr int UNROLLED = 2;
#else
constexpr int UNROLLED = 4;
#endif

__device__ __forceinline__ void copy_one(f32* to, const f32* from, bool there) { cp_async_4(to, from, there ? 4 : 0); }
__device__ __forceinline__ void copy_one(f64* to, const f64* from, bool there) { cp_async_8(to, from, there ? 8 : 0); }

// A slice of one operand: for each place along K the tile's rows of A, or its columns of B (both are called rows). A line is
// 16 bytes longer than its numbers: threads that copy along K write to different banks.
template <class T, int ROWS> struct Slice { T at[DEPTH][ROWS + Vector<T>::LENGTH]; };

// The way of a matrix into shared memory: the numbers that this thread copies, the same of every slice. Neighbouring
// threads copy neighbours in memory, whole vectors if they can.
template <class T, int ROWS> struct Feed {
    static constexpr int LENGTH = Vector<T>::LENGTH, PASSES = ROWS * DEPTH / THREADS;
    static_assert(ROWS * DEPTH / LENGTH <= THREADS, "at most one vector for each thread");
    enum Way { VECTORS, ALONG_ROWS, ALONG_K } way;
    // The first of them: how many rows are left there, and its place in the slice.
    const T* from;
    int rows, row, k;
    i64 row_stride, k_stride;

    // `x` points to the tile's first row, of which `all` are left.
    __device__ __forceinline__ Feed(const T* x, i64 row_stride, i64 k_stride, i64 all) : row_stride(row_stride), k_stride(k_stride) {
        bool vectors = row_stride == 1 && k_stride % LENGTH == 0 && (u64)x % 16 == 0;
        way = vectors ? VECTORS : k_stride == 1 ? ALONG_K : ALONG_ROWS;
        int t = threadIdx.x;
        row = way == VECTORS ? t % (ROWS / LENGTH) * LENGTH : way == ALONG_K ? t / DEPTH : t % ROWS;
        k = way == VECTORS ? t / (ROWS / LENGTH) : way == ALONG_K ? t % DEPTH : t / ROWS;
        from = x + row * row_stride + k * k_stride;
        rows = (all < ROWS ? (int)all : ROWS) - row;
    }

    // Copies the next slice, of which `depth` numbers along K are left.
    __device__ __forceinline__ void copy(Slice<T, ROWS>& slice, int depth) {
        T* to = &slice.at[k][row];
        if (way == VECTORS) {
            int there = k < depth ? rows < 0 ? 0 : rows < LENGTH ? rows : LENGTH : 0;
            if (k < DEPTH) cp_async_16(to, from, there * (int)sizeof(T));
        } else if (way == ALONG_K) {
            constexpr int STEP = THREADS / DEPTH;
            for (int p = 0; p < PASSES; p++) copy_one(to + p * STEP, from + p * STEP * row_stride, p * STEP < rows && k < depth);
        } else {
            constexpr int STEP = THREADS / ROWS, LINE = sizeof(slice.at[0]) / sizeof(T);
            for (int p = 0; p < PASSES; p++) copy_one(to + p * STEP * LINE, from + p * STEP * k_stride, rows > 0 && k + p * STEP < depth);
        }
        from += DEPTH * k_stride;
    }
};

template <class T, int EACH> struct Block {
    static constexpr int TILE = 16 * EACH, LENGTH = Vector<T>::LENGTH;
    typedef T Sums[EACH][EACH];
    struct Stage { Slice<T, TILE> a, b; };

    // A warp makes 4 × 8 threads' worth of the tile. A thread's numbers come in vectors, side by side with those of its
    // neighbours: number i of its EACH is `step(i, 4)` rows below its first.
    __device__ static __forceinline__ int row() { return threadIdx.x / WARP / 2 * 4 * EACH + lane_id() / 8 * LENGTH; }
    __device__ static __forceinline__ int column() { return threadIdx.x / WARP % 2 * 8 * EACH + lane_id() % 8 * LENGTH; }
    // From the first of a thread's numbers to its i-th, with so many threads side by side.
    __device__ static __forceinline__ int step(int i, int side_by_side) { return i / LENGTH * side_by_side * LENGTH + i % LENGTH; }

    __device__ static __forceinline__ void load(T (&x)[EACH], const T* line, int side_by_side) {
#pragma unroll
        for (int i = 0; i < EACH; i += LENGTH)
            *reinterpret_cast<Vector<T>*>(x + i) = *reinterpret_cast<const Vector<T>*>(line + step(i, side_by_side));
    }

    __device__ static __forceinline__ void multiply(Sums& sums, const Stage& stage) {
// Unrolled further, it loads so much ahead that registers run out.
#pragma unroll UNROLLED
        for (int k = 0; k < DEPTH; k++) {
            alignas(16) T a[EACH], b[EACH];
            load(a, stage.a.at[k] + row(), 4);
            load(b, stage.b.at[k] + column(), 8);
#pragma unroll
            for (int i = 0; i < EACH; i++)
#pragma unroll
                for (int j = 0; j < EACH; j++) sums[i][j] += a[i] * b[j];
        }
    }

    __device__ static __forceinline__ void store(T* c, const Sums& sums, const T* bias, const Shape& s, const Place& at) {
        i64 y = (i64)at.row + row(), x = (i64)at.column + column();
        T* line = c + ((i64)at.matrix * s.m + y) * s.n + x;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                int right = step(j, 8);
                if (y < s.m && x + right < s.n) line[right] = bias ? sums[i][j] + bias[x + right] : sums[i][j];
            }
            int down = step(i + 1, 4) - step(i, 4);
            y += down, line += down * s.n;
        }
    }

    __device__ static __forceinline__ Stage* ring() {
        __shared__ __align__(16) Stage stages[STAGES];
        return stages;
    }

    // The epilogue of a thread's sums. They go through shared memory, as many rows at a time as the ring has room for, so that it is
    // there in a loop, and not unrolled for each of them.
    __device__ static __forceinline__ void finish(const Output<T>& out, const Sums& sums, const Shape& s, const Place& at) {
        constexpr int FIT = STAGES * sizeof(Stage) / (THREADS * EACH * sizeof(T)), ROWS = FIT < EACH ? FIT : EACH;
        static_assert(EACH % ROWS == 0, "whole rounds");
        T(*own)[THREADS] = reinterpret_cast<T(*)[THREADS]>(ring());
        // All have done with the ring.
        __syncthreads();
#pragma unroll
        for (int first = 0; first < EACH; first += ROWS) {
#pragma unroll
            for (int e = 0; e < ROWS * EACH; e++) own[e][threadIdx.x] = sums[first + e / EACH][e % EACH];
#pragma unroll 1
            for (int e = 0; e < ROWS * EACH; e++) {
                i64 y = (i64)at.row + row() + step(first + e / EACH, 4), x = (i64)at.column + column() + step(e % EACH, 8);
                T sum[1] = {own[e][threadIdx.x]};
                if (y < s.m && x < s.n) out.epilogue.finish(out.c, sum, (at.matrix * s.m + y) * s.n + x, x);
            }
        }
    }

    // The tile's rows of A times its columns of B, which `feed_a` and `feed_b` copy slice after slice, `depth` numbers along K.
    template <class FEED_A, class FEED_B>
    __device__ static __forceinline__ void product(Sums& sums, FEED_A& feed_a, FEED_B& feed_b, int depth) {
        Stage* ring = Block::ring();
        int slices = (depth + DEPTH - 1) / DEPTH;
        // Past the end of K nothing is copied; the group is counted all the same.
        auto fetch = [&](int slice) {
            Stage& stage = ring[slice % STAGES];
            if (slice < slices) {
                feed_a.copy(stage.a, depth - slice * DEPTH);
                feed_b.copy(stage.b, depth - slice * DEPTH);
            }
            cp_async_commit();
        };
#pragma unroll 1
        for (int slice = 0; slice < STAGES - 1; slice++) fetch(slice);
#pragma unroll 1
        for (int slice = 0; slice < slices; slice++) {
            cp_async_wait<STAGES - 2>();
            __syncthreads();
            // All have done with the slice before: its place is free.
            fetch(slice + STAGES - 1);
            multiply(sums, ring[slice % STAGES]);
        }
    }
};
