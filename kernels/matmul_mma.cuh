// Products on tensor cores, of numbers of -DTYPE: the tiles that a block multiplies, and how they get there. See matmul_mma.cu, and conv_mma.cu, whose
// operands lie otherwise.
#pragma once
#include "matmul.cuh"
#include "reduction.cuh"
#include "tensor_core.cuh"

typedef TYPE T;
// Numbers in 16 bytes, which is what one copy and one row of `ldmatrix` move.
constexpr int CHUNK = 16 / sizeof(T);
// A matrix instruction takes 16 rows of A and 8 columns of B, and two chunks along K. What is called a fragment is 16 rows of either.
constexpr int FRAGMENT = 16, STEP = 2 * CHUNK;
constexpr int DEPTH = 2 * STEP, STAGES = 4;

// A slice of one operand in shared memory: of A its rows, of B its columns (both are called rows), by DEPTH along K. Lines
// are what is contiguous in global memory: rows, or what several rows have at one place of K.
//
// It lies there in panels of two chunks along the lines, so that from fragment to fragment addresses differ by
// constants. Shared memory has 32 banks of 4 bytes, eight chunks in all: `ldmatrix` reads eight chunks below each other,
// 2 lines apart of what the banks hold, and so each second four lines swap their two chunks; a copy writes along the lines,
// so panels are shifted against each other.
template <class X, int ROWS, bool ALONG_K> struct Slice {
    static constexpr int LINES = ALONG_K ? ROWS : DEPTH, LENGTH = ALONG_K ? DEPTH : ROWS, CHUNKS = LENGTH / CHUNK;
    // From line to line, and from panel to panel.
    static constexpr int LINE = STEP, PANEL = LINES * LINE + (ALONG_K ? 4 : 2) * CHUNK, SIZE = CHUNKS / 2 * PANEL;

    __device__ static __forceinline__ int offset(int line, int chunk) {
        return chunk / 2 * PANEL + line * LINE + ((chunk ^ line / 4) & 1) * CHUNK;
    }
    // Where this lane finds its share of the fragment of 16 rows from `row` on and of the first STEP numbers along K: its row of
    // one of four matrices of 8 rows and a chunk, which are rows 0…7 and 8…15 of the first half of K, then of the second.
    __device__ static __forceinline__ int share(int row) {
        int lane = lane_id();
        return ALONG_K ? offset(row + lane % 16, lane / 16) : offset(lane / 16 * 8 + lane % 8, row / CHUNK + lane / 8 % 2);
    }
    // The fragment that is i times 16 rows and k times STEP numbers along K from there.
    __device__ static __forceinline__ void fragment(u32 (&r)[4], const X* share, int i, int k) {
        if (ALONG_K)
            ldmatrix_x4(r, share + k * PANEL + i * FRAGMENT * LINE);
        else
            ldmatrix_x4_trans(r, share + i * PANEL + k * STEP * LINE);
        if (sizeof(X) == 4)
            for (int e = 0; e < 4; e++) r[e] = f32_to_tf32(__uint_as_float(r[e]));
    }
};

// `ldmatrix` transposes numbers of 16 bits only. Those of 32 are read one by one: 8 neighbours of each of four lines, which lie in all
// 32 banks if lines are 8 banks apart.
template <int ROWS> struct Slice<f32, ROWS, false> {
    static constexpr int LINES = DEPTH, CHUNKS = ROWS / CHUNK, LINE = ROWS + 8, SIZE = LINES * LINE;

    __device__ static __forceinline__ int offset(int line, int chunk) { return line * LINE + chunk * CHUNK; }
    __device__ static __forceinline__ int share(int row) { return lane_id() % 4 * LINE + row + lane_id() / 4; }
    __device__ static __forceinline__ void fragment(u32 (&r)[4], const f32* share, int i, int k) {
        share += i * FRAGMENT + k * STEP * LINE;
#pragma unroll
        for (int e = 0; e < 4; e++) r[e] = f32_to_tf32(share[e / 2 * CHUNK * LINE + e % 2 * 8]);
    }
};

// The first `count` numbers of a chunk, and zeros.
template <bool WHOLE> __device__ __forceinline__ void copy_chunk(T* to, const T* from, bool there, int count) {
    if constexpr (WHOLE) {
        // All or nothing.
        cp_async_16(to, from, there ? 16 : 0);
    } else {
        // No asynchronous copy is as small as one number.
        Vector<T> chunk;
        for (int i = 0; i < CHUNK; i++) chunk.at[i] = there && i < count ? from[i] : T{0};
        *reinterpret_cast<Vector<T>*>(to) = chunk;
    }
}

// The way of a matrix into shared memory: the chunks that this thread copies, the same of every slice; WHOLE if every run begins
// and ends at a multiple of 16 bytes.
template <int ROWS, bool ALONG_K, bool WHOLE, int THREADS> struct Feed {
    typedef Slice<T, ROWS, ALONG_K> S;
    // All threads copy so many lines at a time, so often for a slice.
    static constexpr int LINES = THREADS / S::CHUNKS, PASSES = S::LINES / LINES;
    static_assert(LINES % 8 == 0, "each pass swaps the same chunks");
    // The first chunk: how many rows are left there, and its place along K.
    const T* from;
    i64 pitch;
    int to, rows, k;

    // `x` points to the tile's first row, of which `all` are left; lines are `pitch` numbers apart.
    __device__ __forceinline__ Feed(const T* x, i64 pitch, i64 all) : pitch(pitch) {
        int line = threadIdx.x / S::CHUNKS, place = threadIdx.x % S::CHUNKS * CHUNK;
        from = x + line * pitch + place;
        to = S::offset(line, place / CHUNK);
        rows = (all < ROWS ? (int)all : ROWS) - (ALONG_K ? line : place);
        k = ALONG_K ? place : line;
        // Who has no row copies nothing, as if it were behind the end of K.
        if (rows <= 0) k = 1 << 30;
    }
    // Copies the next slice, of which `depth` numbers along K are left.
    __device__ __forceinline__ void copy(T* slice, int depth) {
#pragma unroll
        for (int p = 0; p < PASSES; p++) {
            bool there = ALONG_K ? k < depth && p * LINES < rows : k + p * LINES < depth;
            copy_chunk<WHOLE>(slice + to + p * LINES * S::LINE, from + p * LINES * pitch, there, ALONG_K ? depth - k : rows);
        }
        from += ALONG_K ? DEPTH : DEPTH * pitch;
    }
};

// A block that makes ROWS × COLUMNS of C, each warp WARP_ROWS × WARP_COLUMNS of it.
template <int ROWS, int COLUMNS, int WARP_ROWS, int WARP_COLUMNS, bool A_RUNS_ALONG_K, bool B_RUNS_ALONG_K> struct Block {
    static constexpr int WARPS_ALONG = COLUMNS / WARP_COLUMNS, THREADS = ROWS / WARP_ROWS * WARPS_ALONG * WARP;
    static constexpr int A_FRAGMENTS = WARP_ROWS / FRAGMENT, B_FRAGMENTS = WARP_COLUMNS / FRAGMENT;
    typedef Slice<T, ROWS, A_RUNS_ALONG_K> A;
    typedef Slice<T, COLUMNS, B_RUNS_ALONG_K> B;
    static constexpr int STAGE = A::SIZE + B::SIZE;

    // A warp goes through a slice in steps: at each place along K, the one half of its fragments of A and then the other.
    static constexpr int HALF = A_FRAGMENTS / 2, STEPS = 2 * DEPTH / STEP;
    // The fragments of a step, and those of the next.
    struct Fragments { u32 a[2][HALF][4], b[2][B_FRAGMENTS][4]; };
    // Each fragment of B is two of what an instruction takes: d[i][2 j] and d[i][2 j + 1].
    typedef typename SumOf<T>::type Sum;
    typedef Sum Sums[A_FRAGMENTS][2 * B_FRAGMENTS][4];

    // Of this warp's tile in the block's.
    __device__ static __forceinline__ int first_row() { return threadIdx.x / WARP / WARPS_ALONG * WARP_ROWS; }
    __device__ static __forceinline__ int first_column() { return threadIdx.x / WARP % WARPS_ALONG * WARP_COLUMNS; }

    __device__ static __forceinline__ void load(Fragments& f, const T* share_a, const T* share_b, int step) {
        int k = step / 2, half = step % 2;
#pragma unroll
        for (int i = 0; i < HALF; i++) A::fragment(f.a[half][i], share_a, half * HALF + i, k);
        if (half == 1) return;
#pragma unroll
        for (int j = 0; j < B_FRAGMENTS; j++) B::fragment(f.b[k % 2][j], share_b, j, k);
    }

    __device__ static __forceinline__ void multiply(Sums& d, const Fragments& f, int step) {
        int half = step % 2;
#pragma unroll
        for (int i = 0; i < HALF; i++)
#pragma unroll
            for (int j = 0; j < B_FRAGMENTS; j++) {
                const u32(&a)[4] = f.a[half][i], (&b)[4] = f.b[step / 2 % 2][j];
                mma(d[half * HALF + i][2 * j], a, {b[0], b[2]}, T{});
                mma(d[half * HALF + i][2 * j + 1], a, {b[1], b[3]}, T{});
            }
    }

    // d = the tile's rows of A times its columns of B, which `feed_a` and `feed_b` copy slice after slice, `k` numbers along K.
    template <class FEED_A, class FEED_B>
    __device__ static __forceinline__ void product(Sums& d, T* ring, FEED_A& feed_a, FEED_B& feed_b, int k) {
        int slices = (k + DEPTH - 1) / DEPTH;
        // Past the end nothing is copied; the group is counted all the same, so that every wait is for the same number.
        auto fetch = [&](int slice) {
            T* stage = ring + slice % STAGES * STAGE;
            if (slice < slices) {
                feed_a.copy(stage, k - slice * DEPTH);
                feed_b.copy(stage + A::SIZE, k - slice * DEPTH);
            }
            cp_async_commit();
        };
#pragma unroll 1
        for (int slice = 0; slice < STAGES - 1; slice++) fetch(slice);
        cp_async_wait<STAGES - 2>();
        __syncthreads();

        const T *share_a = ring + A::share(first_row()), *share_b = ring + A::SIZE + B::share(first_column());
        Fragments f;
        load(f, share_a, share_b, 0);
#pragma unroll 1
        for (int slice = 0; slice < slices; slice++) {
            // The slice before has been read by all since the barrier: its place in the ring is free.
            fetch(slice + STAGES - 1);
            int now = slice % STAGES * STAGE, next = (slice + 1) % STAGES * STAGE;
#pragma unroll
            for (int step = 0; step < STEPS - 1; step++) {
                load(f, share_a + now, share_b + now, step + 1);
                multiply(d, f, step);
            }
            // Behind the last slice nobody uses what is loaded.
            cp_async_wait<STAGES - 2>();
            __syncthreads();
            load(f, share_a + next, share_b + next, 0);
            multiply(d, f, STEPS - 1);
        }
    }

    // Sums, those of a part of K or of integers, go to memory as they are.
    __device__ static __forceinline__ void store_sums(Sum* parts, const Sums& d, const Shape& s, const Place& at) {
        i64 row = (i64)at.row + first_row() + lane_id() / 4, column = (i64)at.column + first_column() + lane_id() % 4 * 2;
        int left = (int)(s.n - column);
        parts += (at.matrix * s.m + row) * s.n + column;
#pragma unroll
        for (int i = 0; i < 2 * A_FRAGMENTS; i++, row += 8, parts += 8 * s.n) {
            if (row >= s.m) break;
#pragma unroll
            for (int j = 0; j < 2 * B_FRAGMENTS; j++) {
                const Sum* sums = &d[i / 2][j][i % 2 * 2];
                ::store_sums(parts + j * 8, s.n, left - j * 8, sums[0], sums[1]);
            }
        }
    }

    // Where a chunk of 16 bytes of a tile of X lies in shared memory: eight rows are written, and chunks of one row read, at a time.
    template <class X = T> __device__ static __forceinline__ int offset(int row, int chunk) {
        return row * COLUMNS + (chunk ^ row % 8) * (16 / sizeof(X));
    }

    // Adds the bias and rounds, into a tile in shared memory: from there whole rows go to C, and not two numbers at a time.
    template <class X> __device__ static __forceinline__ void round(X* tile, const Sums& d, const T* bias, const Shape& s, const Place& at) {
        constexpr int CHUNK = 16 / sizeof(X);
        int g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
        for (int j = 0; j < 2 * B_FRAGMENTS; j++) {
            int column = first_column() + j * 8 + 2 * t;
            f32 low = bias && at.column + column < s.n ? ::load(bias[at.column + column]) : 0;
            f32 high = bias && at.column + column + 1 < s.n ? ::load(bias[at.column + column + 1]) : 0;
#pragma unroll
            for (int i = 0; i < 2 * A_FRAGMENTS; i++) {
                int row = first_row() + i * 8 + g;
                const f32* sums = &d[i / 2][j][i % 2 * 2];
                store_pair(tile + offset<X>(row, column / CHUNK) + column % CHUNK, sums[0] + low, sums[1] + high);
            }
        }
    }

    // The epilogue of the sums, which go through a tile in shared memory as they are.
    __device__ static __forceinline__ void finish(const Output<T>& out, f32* tile, const Sums& d, const Shape& s, const Place& at) {
        static_assert(ROWS * COLUMNS * sizeof(f32) <= STAGES * STAGE * sizeof(T), "the tile fits into the ring");
        round(tile, d, nullptr, s, at);
        __syncthreads();
        finish_tile<ROWS, COLUMNS, THREADS>(out, s, at, threadIdx.x, [&](int i, int j) { return tile + offset<f32>(i, j / 4) + j % 4; });
    }

    __device__ static __forceinline__ void store(T* c, const T* tile, const Shape& s, const Place& at) {
        constexpr int CHUNKS = COLUMNS / CHUNK;
        c += (i64)at.matrix * s.m * s.n;
        for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
            i64 row = (i64)at.row + i / CHUNKS, column = (i64)at.column + i % CHUNKS * CHUNK;
            if (row >= s.m) break;
            const T* chunk = tile + offset(i / CHUNKS, i % CHUNKS);
            if (s.n % CHUNK == 0 && column < s.n)
                *reinterpret_cast<Vector<T>*>(c + row * s.n + column) = *reinterpret_cast<const Vector<T>*>(chunk);
            else
                for (int e = 0; e < CHUNK && column + e < s.n; e++) c[row * s.n + column + e] = chunk[e];
        }
    }
};
