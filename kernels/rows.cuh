// Rows of numbers, each spread over a team of threads: what softmax, the norms and cross-entropy are written in.
//
// Bandwidth is the limit, so a row is read once, 16 bytes at a time where it lies in one run at multiples of 16 bytes, and kept in
// registers until its sums are known. The team is a warp for short rows and a block for longer ones; a row too long for
// a block's registers is read again for each pass, mostly from L2. Rows that lie side by side, element next to element,
// are taken 32 at a time, one for each lane, their elements shared out among the warps.
#pragma once
#include "layout.cuh"
#include "reduction.cuh"

// Bytes of each operand that a thread keeps; `crates/cuda/src/ops/rows.rs` chooses the kernel by it. In vectors the half types
// stay packed; by itself, each number takes a register of 4 bytes.
#ifndef KEPT
#define KEPT 64
#endif
template <class X, int LENGTH> constexpr int CHUNKS_KEPT = KEPT / (LENGTH * sizeof(X) > 4 ? LENGTH * sizeof(X) : 4);

// A row's first element, and how far apart they are.
template <class X> struct Line {
    X* start;
    i64 stride;
};

template <int LENGTH, class X> __device__ __forceinline__ Chunk<X, LENGTH> read(const Line<const X>& x, i64 i) {
    if constexpr (LENGTH == 1) return Chunk<X, 1>{{x.start[i * x.stride]}};
    else return read_chunk<LENGTH>(x.start + i);
}
template <int LENGTH, class X> __device__ __forceinline__ void write(const Line<X>& y, i64 i, const Chunk<X, LENGTH>& chunk) {
    if constexpr (LENGTH == 1) y.start[i * y.stride] = chunk.at[0];
    else write_chunk(y.start + i, chunk);
}

// ---- who shares a row ---------------------------------------------------------------------------------------------

struct ByWarp {
    static constexpr int THREADS = 256;
    __device__ static __forceinline__ u32 rank() { return threadIdx.x % WARP; }
    __device__ static __forceinline__ u32 size() { return WARP; }
    __device__ static __forceinline__ i64 row() { return (i64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP; }
    template <class OP, class T> __device__ static __forceinline__ T reduce(T x) { return warp_reduce<OP>(x); }
};

struct ByBlock {
    static constexpr int THREADS = 1024;
    __device__ static __forceinline__ u32 rank() { return threadIdx.x; }
    __device__ static __forceinline__ u32 size() { return blockDim.x; }
    __device__ static __forceinline__ i64 row() { return blockIdx.x; }
    template <class OP, class T> __device__ static __forceinline__ T reduce(T x) { return block_reduce<OP>(x); }
};

// The threads of one lane, of every warp of the block.
struct ByLane {
    static constexpr u32 WARPS = 8;
    static constexpr int THREADS = WARPS * WARP;
    __device__ static __forceinline__ u32 rank() { return threadIdx.x / WARP; }
    __device__ static __forceinline__ u32 size() { return WARPS; }
    __device__ static __forceinline__ i64 row() { return (i64)blockIdx.x * WARP + threadIdx.x % WARP; }
    template <class OP, class T> __device__ static __forceinline__ T reduce(T x) {
        __shared__ T parts[WARPS][WARP];
        u32 lane = threadIdx.x % WARP;
        __syncthreads();
        parts[rank()][lane] = x;
        __syncthreads();
        x = parts[0][lane];
        for (u32 warp = 1; warp < size(); warp++) x = OP::combine(x, parts[warp][lane]);
        return x;
    }
};

// ---- where it is kept ---------------------------------------------------------------------------------------------

// What both kinds of row can do, once they can call f(i, chunks, k) for each of this thread's chunks: `i` is the chunk's first element,
// there is a chunk of each operand, and it is the thread's k-th. Functions of elements take as many numbers as there are operands.
template <class ROW, class TEAM, class X, int ELEMENTS, int N> struct Passes {
    static constexpr int LENGTH = ELEMENTS;
    typedef TEAM Team;
    typedef X Element;
    typedef compute_t<X> C;
    typedef ::Chunk<X, LENGTH> Chunk;

    template <class F> __device__ static __forceinline__ C call(F f, const Chunk (&chunks)[N], int j) {
        if constexpr (N == 1) return f(load(chunks[0].at[j]));
        else return f(load(chunks[0].at[j]), load(chunks[1].at[j]));
    }
    template <class OP, class F> __device__ __forceinline__ C fold(F f) {
        C all = OP::identity();
        ((ROW*)this)->each([&](i64, const Chunk(&chunks)[N], int) {
#pragma unroll
            for (int j = 0; j < LENGTH; j++) all = OP::combine(all, call(f, chunks, j));
        });
        return TEAM::template reduce<OP>(all);
    }
    // Σ f(x) over the row.
    template <class F> __device__ __forceinline__ C sum(F f) { return fold<Sum<C>>(f); }
    __device__ __forceinline__ C max() {
        return fold<Max<C>>([](C x) { return x; });
    }
    // The one operand becomes its sum with another, rounded as it is written.
    __device__ __forceinline__ void add(const Line<const X>& other, const Line<X>& sum) {
        ((ROW*)this)->each([&](i64 i, Chunk(&chunks)[N], int) {
            Chunk more = read<LENGTH>(other, i);
#pragma unroll
            for (int j = 0; j < LENGTH; j++) chunks[0].at[j] = store<X>(load(chunks[0].at[j]) + load(more.at[j]));
            write<LENGTH>(sum, i, chunks[0]);
        });
        ((ROW*)this)->lies_in(sum);
    }
    // y = f(x)
    template <class F> __device__ __forceinline__ void map(const Line<X>& y, F f) {
        ((ROW*)this)->each([&](i64 i, const Chunk(&chunks)[N], int) {
            Chunk out;
#pragma unroll
            for (int j = 0; j < LENGTH; j++) out.at[j] = store<X>(call(f, chunks, j));
            write<LENGTH>(y, i, out);
        });
    }
};

template <class TEAM, class X, int LENGTH, int N>
struct InRegisters : Passes<InRegisters<TEAM, X, LENGTH, N>, TEAM, X, LENGTH, N> {
    static constexpr int CHUNKS = CHUNKS_KEPT<X, LENGTH>;
    // Most of a block: with doubles, and addresses of single numbers, a thread needs more than the 64 registers that 1024 can have.
    static constexpr int MOST = LENGTH == 1 ? 384 : sizeof(X) == 8 ? 512 : 1024, THREADS = TEAM::THREADS < MOST ? TEAM::THREADS : MOST;
    i64 n;
    Chunk<X, LENGTH> chunks[CHUNKS][N];

    __device__ static __forceinline__ u32 place(int k) { return (k * TEAM::size() + TEAM::rank()) * LENGTH; }
    __device__ __forceinline__ InRegisters(const Line<const X> (&from)[N], i64 n) : n(n) {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++)
            if (place(k) < n)
                for (int o = 0; o < N; o++) chunks[k][o] = read<LENGTH>(from[o], place(k));
    }
    template <class F> __device__ __forceinline__ void each(F f) {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++)
            if (place(k) < n) {
                // Else numbers of half types would be kept widened from one pass to the next, in twice the registers.
                if constexpr (sizeof(X) == 2 && LENGTH > 1)
                    for (int w = 0; w < N * LENGTH / 2; w++) forget(reinterpret_cast<u32*>(chunks[k])[w]);
                f((i64)place(k), chunks[k], k);
            }
    }
    __device__ __forceinline__ void lies_in(const Line<X>&) {}
};

template <class TEAM, class X, int LENGTH, int N>
struct InMemory : Passes<InMemory<TEAM, X, LENGTH, N>, TEAM, X, LENGTH, N> {
    static constexpr int THREADS = TEAM::THREADS > 512 ? 512 : TEAM::THREADS;
    i64 n;
    Line<const X> from[N];

    __device__ __forceinline__ InMemory(const Line<const X> (&from)[N], i64 n) : n(n) {
        for (int o = 0; o < N; o++) this->from[o] = from[o];
    }
    template <class F> __device__ __forceinline__ void each(F f) {
        int k = 0;
        for (i64 i = (i64)TEAM::rank() * LENGTH; i < n; i += (i64)TEAM::size() * LENGTH, k++) {
            Chunk<X, LENGTH> chunks[N];
            for (int o = 0; o < N; o++) chunks[o] = read<LENGTH>(from[o], i);
            f(i, chunks, k);
        }
    }
    // What is read from now on. An element is always the same thread's, which may have just written it.
    __device__ __forceinline__ void lies_in(const Line<X>& line) { from[0] = {line.start, line.stride}; }
};

// ---- which rows there are -----------------------------------------------------------------------------------------

// Fewer than 2³² rows of `n` elements in each of N operands; `crates/cuda/src/ops/rows.rs` fills it in.
template <int N> struct Rows {
    Layout<N> starts;
    i64 n;
    i64 strides[N];
    // 1/n
    f64 share;

    __device__ __forceinline__ bool has(i64 row) const { return row < starts.numel; }
    // Where the row begins in each operand. A row that is not there is empty: its threads come to the barriers all the same.
    __device__ __forceinline__ i64 find(i64 row, i64 (&at)[N]) const {
        starts.find_near(has(row) ? (u32)row : 0, at);
        return has(row) ? n : 0;
    }
};

// Every kernel of an operation, for rows of the program's type: KERNEL(name, TEAM, ROW, LENGTH) for each team and place.
typedef TYPE X;
typedef compute_t<X> C;
#define KERNELS(KERNEL)                                                 \
    KERNEL(by_warp, ByWarp, InRegisters, 1)                             \
    KERNEL(by_warp_in_vectors, ByWarp, InRegisters, 16 / sizeof(X))     \
    KERNEL(by_block, ByBlock, InRegisters, 1)                           \
    KERNEL(by_block_in_vectors, ByBlock, InRegisters, 16 / sizeof(X))   \
    KERNEL(by_block_again, ByBlock, InMemory, 1)                        \
    KERNEL(by_block_again_in_vectors, ByBlock, InMemory, 16 / sizeof(X)) \
    KERNEL(by_lane, ByLane, InRegisters, 1)                             \
    KERNEL(by_lane_again, ByLane, InMemory, 1)
