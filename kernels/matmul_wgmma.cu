// C = A · B and its epilogue (epilogue.cuh) on Hopper's tensor cores: 16-bit numbers, -DTYPE=bf16 or -DTYPE=f16, or -DTYPE=f32, of
// which the copy engine makes TF32; sums are f32. One program for each way in which the operands lie in memory: -DA_ALONG_K=1 if A's
// rows are runs of memory, 0 if its columns are; -DB_ALONG_K=1 if B's columns are, 0 if its rows. The tensor cores take f32 along K only.
//
// Two machines do the work and threads only keep them busy. The copy engine brings slices of DEPTH numbers along K into a
// ring in shared memory; one warpgroup of the block, the producer, has a single thread that asks for them and needs hardly
// any registers, which it gives away (`setmaxnreg`). The tensor cores multiply what lies there; two warpgroups, the
// consumers, ask for that, and hold 64 rows each of the block's tile of C in their registers. Barriers tell the consumers
// that a place of the ring is full, and the producer that it is empty.
//
// What limits it is how fast shared memory is filled. So two blocks of a cluster, whose tiles lie below each other, share
// the columns of B: each loads half of them, into both. And blocks stay: they make one tile after another, and while
// the consumers round one and store it, the producer loads for the next.
#include "hopper.cuh"
#include "matmul.cuh"
#include "panels.cuh"
#include "reduction.cuh"
#include "tensor_core.cuh"

// Of K in each place of the ring, and of it in one instruction: a panel's line and a quarter of it, 64 and 16 numbers of 16 bits.
constexpr int DEPTH = LINE_BYTES / sizeof(TYPE), STEP = DEPTH / 4;
static_assert(sizeof(TYPE) == 2 || (A_ALONG_K && B_ALONG_K), "f32 lies along K");
constexpr int CONSUMERS = 2, WARPS = 4 * CONSUMERS, THREADS = (1 + CONSUMERS) * WARPGROUP;
constexpr int ROWS = 64 * CONSUMERS;

// d += or = the product of 64 × STEP numbers of A and STEP × N of B.
#define MULTIPLY(n, count, T)                                                                            \
    __device__ __forceinline__ void multiply(f32 (&d)[count], u64 a, u64 b, bool accumulate, T) {        \
        wgmma_m64n##n##k16_##T<!A_ALONG_K, !B_ALONG_K>(d, a, b, accumulate);                             \
    }
MULTIPLY(128, 64, f16)
MULTIPLY(128, 64, bf16)
MULTIPLY(256, 128, f16)
MULTIPLY(256, 128, bf16)
__device__ __forceinline__ void multiply(f32 (&d)[64], u64 a, u64 b, bool accumulate, f32) { wgmma_m64n128k8_tf32(d, a, b, accumulate); }
__device__ __forceinline__ void multiply(f32 (&d)[128], u64 a, u64 b, bool accumulate, f32) { wgmma_m64n256k8_tf32(d, a, b, accumulate); }

// Matrices of the batch are numbered in two dimensions, the inner one of this extent; an operand that is the same for all
// along one of them has a 0 there, and else a 1.
struct Batch { i32 inner, a_inner, a_outer, b_inner, b_outer; };

// The operands as the copy engine knows them: [the contiguous dimension, the other one, batch inner, batch outer].
struct Operands { const TensorMap *a, *b, *c; };

// A block that makes ROWS × COLUMNS of C at a time, in clusters of so many.
template <class T, int COLUMNS, int STAGES, int CLUSTER> struct Block {
    static constexpr int A_PANELS = ROWS / 64, B_PANELS = COLUMNS / 64, STAGE_BYTES = (A_PANELS + B_PANELS) * PANEL_BYTES;
    typedef f32 Sums[COLUMNS / 2];
    typedef T Panel[PANEL_BYTES / sizeof(T)];
    struct Stage { Panel a[A_PANELS], b[B_PANELS]; };
    struct Memory {
        Stage ring[STAGES];
        // Two panels of C for each consumer: one is filled while the other is stored.
        Panel c[CONSUMERS][2];
        Mbarrier full[STAGES], empty[STAGES];
    };

    __device__ static __forceinline__ u32 tiles(const Shape& s) {
        constexpr int HEIGHT = ROWS * CLUSTER;
        return (u32)((s.m + HEIGHT - 1) / HEIGHT * ((s.n + COLUMNS - 1) / COLUMNS) * s.batches * ((s.k + s.part - 1) / s.part));
    }
    // This block's share of the tile of this number that the cluster makes; matrices are counted through all parts of K.
    __device__ static __forceinline__ Place own(const Shape& s, u32 tile) {
        Place at = place<ROWS * CLUSTER, COLUMNS>(s, tile);
        return {at.matrix, at.row + rank() * ROWS, at.column};
    }
    __device__ static __forceinline__ u32 rank() { return CLUSTER == 1 ? 0 : cluster_rank(); }

    __device__ static __forceinline__ Part part_of(const Shape& s, const Place& at) { return Part(s, at.matrix / (u32)s.batches); }

    // One thread: loads slice after slice, as places become empty.
    __device__ static __forceinline__ void produce(Memory& memory, const Operands& x, const Shape& s, const Batch& batch) {
        Turn<STAGES> turn;
        for (u32 tile = blockIdx.x / CLUSTER; tile < tiles(s); tile += gridDim.x / CLUSTER) {
            Place at = own(s, tile);
            Part part = part_of(s, at);
            i32 matrix = at.matrix % (u32)s.batches, inner = matrix % batch.inner, outer = matrix / batch.inner;
            i32 end = (i32)part.start + part.depth;
            for (i32 k = (i32)part.start; k < end; k += DEPTH, turn.next()) {
                Stage& stage = memory.ring[turn.stage];
                Mbarrier* full = &memory.full[turn.stage];
                // Of the first round's barriers, the phase before the first is over.
                mbarrier_wait(&memory.empty[turn.stage], turn.parity ^ 1);
                mbarrier_arrive_expect_tx(full, STAGE_BYTES);
                for (int p = 0; p < A_PANELS; p++) {
                    i32 row = at.row + 64 * p;
                    tma_load_4d(stage.a[p], x.a, full, A_ALONG_K ? k : row, A_ALONG_K ? row : k, inner * batch.a_inner,
                                outer * batch.a_outer);
                }
                for (int p = rank(); p < B_PANELS; p += CLUSTER) {
                    i32 column = at.column + 64 * p, x0 = B_ALONG_K ? k : column, x1 = B_ALONG_K ? column : k;
                    i32 x2 = inner * batch.b_inner, x3 = outer * batch.b_outer;
                    if (CLUSTER == 1)
                        tma_load_4d(stage.b[p], x.b, full, x0, x1, x2, x3);
                    else
                        tma_load_4d_multicast(stage.b[p], x.b, full, (1 << CLUSTER) - 1, x0, x1, x2, x3);
                }
            }
        }
    }

    // This warp has done with a place: it says so to every block that writes there.
    __device__ static __forceinline__ void release(Memory& memory, int stage) {
        u32 lane = lane_id();
        if (CLUSTER == 1 && lane == 0)
            mbarrier_arrive(&memory.empty[stage]);
        else if (CLUSTER > 1 && lane < CLUSTER)
            mbarrier_arrive_cluster(&memory.empty[stage], lane);
    }

    // d = the consumer's 64 rows of A times the block's columns of B, `depth` numbers along K.
    __device__ static __forceinline__ void product(Sums& d, Memory& memory, Turn<STAGES>& turn, int consumer, i32 depth) {
        // From STEP numbers along K to the next: within the lines, or two groups of lines on.
        constexpr u32 ALONG = STEP * sizeof(T), A_STEP = A_ALONG_K ? ALONG : 2 * GROUP_BYTES, B_STEP = B_ALONG_K ? ALONG : 2 * GROUP_BYTES;
        int before = 0;
#pragma unroll 1
        for (i32 k = 0; k < depth; k += DEPTH, turn.next()) {
            Stage& stage = memory.ring[turn.stage];
            mbarrier_wait(&memory.full[turn.stage], turn.parity);
            u64 a = matrix_descriptor(stage.a[consumer], GROUP_BYTES, PANEL_BYTES);
            u64 b = matrix_descriptor(stage.b, GROUP_BYTES, PANEL_BYTES);
            wgmma_hold(d);
            wgmma_fence();
#pragma unroll
            for (int step = 0; step < DEPTH / STEP; step++)
                multiply(d, advance(a, step * A_STEP), advance(b, step * B_STEP), k > 0 || step > 0, T{});
            wgmma_commit();
            // The tensor cores have these to do while this thread goes on to the next slice; those of the one before are done.
            wgmma_wait<1>();
            if (k > 0) release(memory, before);
            before = turn.stage;
        }
        wgmma_wait<0>();
        wgmma_hold(d);
        release(memory, before);
    }

    // Rounds 64 columns of the sums, from `column` of the tile on, into a panel.
    __device__ static __forceinline__ void round(T* panel, const f32* d, const T* bias, i64 column, i64 columns) {
        int lane = lane_id(), line = threadIdx.x % WARPGROUP / WARP * 16 + lane % 16;
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
            u32 r[4];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                i64 x = column + 8 * (j + half) + lane % 4 * 2;
                f32 low = bias && x < columns ? load(bias[x]) : 0, high = bias && x + 1 < columns ? load(bias[x + 1]) : 0;
                const f32* sums = d + 4 * (j + half);
                r[2 * half] = pack(sums[0] + low, sums[1] + high, T{});
                r[2 * half + 1] = pack(sums[2] + low, sums[3] + high, T{});
            }
            // Rows 0…7 and 8…15 of one chunk, then of the next.
            stmatrix_x4(chunk_at(panel, line, j + lane / 16), r);
        }
    }

    // Where C's rows begin at no multiple of 16 bytes, the copy engine cannot store them.
    __device__ static __forceinline__ void store(T* c, T* panel, i64 row, i64 column, const Shape& s) {
        for (int i = threadIdx.x % WARPGROUP; i < PANEL; i += WARPGROUP) {
            int line = i / 64, x = i % 64;
            if (row + line < s.m && column + x < s.n)
                c[(row + line) * s.n + column + x] = chunk_at(panel, line, x / 8)[x % 8];
        }
    }

    // The consumer's part of a tile, panel by panel: rounded into shared memory, and from there stored.
    __device__ static __forceinline__ void finish(
            const Sums& d, Panel (&panels)[2], const TensorMap* map, const T* bias, T* c, const Shape& s, const Place& at, int consumer) {
        bool first = threadIdx.x % WARPGROUP == 0;
        i64 row = (i64)at.row + 64 * consumer;
#pragma unroll
        for (int p = 0; p < COLUMNS / 64; p++) {
            i64 column = (i64)at.column + 64 * p;
            // The panel's last store, the last but one, has read it.
            if (first) bulk_wait_read<1>();
            bar_sync(1 + consumer, WARPGROUP);
            round(panels[p % 2], d + 32 * p, bias, column, s.n);
            fence_proxy_async();
            bar_sync(1 + consumer, WARPGROUP);
            if (s.n % 8 != 0)
                store(c + (i64)at.matrix * s.m * s.n, panels[p % 2], row, column, s);
            else if (first)
                tma_store_3d(map, panels[p % 2], (i32)column, (i32)row, at.matrix), bulk_commit();
        }
    }

    // The same of f32, or with an epilogue of more than a bias: 64 columns at a time, as they are, go through shared memory, the one of two panels.
    __device__ static __forceinline__ void finish(
            const Sums& d, Panel (&panels)[2], const Output<T>& out, const Shape& s, const Place& at, int consumer) {
        f32* tile = reinterpret_cast<f32*>(panels);
        // Groups of 8 columns: four rows of a group are written at a time, and one row of all of them is read.
        auto find = [&](int i, int j) { return tile + i * 64 + (j / 8 ^ i % 8) * 8 + j % 8; };
        int line = threadIdx.x % WARPGROUP / WARP * 16 + lane_id() / 4;
#pragma unroll 1
        for (u32 p = 0; p < COLUMNS / 64; p++) {
            // All have done with the 64 before.
            bar_sync(1 + consumer, WARPGROUP);
#pragma unroll
            for (int q = 0; q < COLUMNS / 64; q++) {
                // Registers have no numbers at run time.
                if (q != p) continue;
#pragma unroll
                for (int j = 0; j < 16; j++) {
                    const f32* sums = d + 32 * q + 2 * j;
                    store_pair(find(line + j % 2 * 8, j / 2 * 8 + lane_id() % 4 * 2), sums[0], sums[1]);
                }
            }
            bar_sync(1 + consumer, WARPGROUP);
            Place part = {at.matrix, at.row + 64 * consumer, at.column + 64 * p};
            finish_tile<64, 64, WARPGROUP>(out, s, part, threadIdx.x % WARPGROUP, find);
        }
    }

    // Sums of a part of K go to memory as they are, from registers.
    __device__ static __forceinline__ void store_sums(f32* parts, const Sums& d, const Shape& s, const Place& at, int consumer) {
        i64 row = (i64)at.row + 64 * consumer + threadIdx.x % WARPGROUP / WARP * 16 + lane_id() / 4;
        i64 column = (i64)at.column + lane_id() % 4 * 2;
        int left = (int)(s.n - column);
        parts += (at.matrix * s.m + row) * s.n + column;
#pragma unroll
        for (int half = 0; half < 2; half++, row += 8, parts += 8 * s.n) {
            if (row >= s.m) break;
#pragma unroll
            for (int j = 0; j < COLUMNS / 8; j++) {
                const f32* sums = d + 4 * j + 2 * half;
                ::store_sums(parts + 8 * j, s.n, left - 8 * j, sums[0], sums[1]);
            }
        }
    }

    __device__ static __forceinline__ void consume(
            Memory& memory, const Operands& x, const Output<T>& out, const Shape& s, int consumer) {
        Turn<STAGES> turn;
        for (u32 tile = blockIdx.x / CLUSTER; tile < tiles(s); tile += gridDim.x / CLUSTER) {
            Sums d;
            product(d, memory, turn, consumer, part_of(s, own(s, tile)).depth);
            Place at = own(s, tile);
            if (out.parts) {
                store_sums(out.parts, d, s, at, consumer);
                continue;
            }
            if constexpr (sizeof(T) == 2)
                if (out.epilogue.is_bias()) {
                    finish(d, memory.c[consumer], x.c, out.epilogue.bias, out.c, s, at, consumer);
                    continue;
                }
            finish(d, memory.c[consumer], out, s, at, consumer);
        }
        // Shared memory stays until it has been read.
        if (threadIdx.x % WARPGROUP == 0) bulk_wait_read<0>();
    }

    // All blocks of the cluster are here.
    __device__ static __forceinline__ void meet() {
        if (CLUSTER == 1) return __syncthreads();
        cluster_arrive();
        cluster_wait();
    }

    __device__ static __forceinline__ void run(const Operands& x, const Output<T>& out, const Shape& s, const Batch& batch) {
        DYNAMIC_SHARED(Memory, memory);
        // Panels are swizzled by their addresses; elsewhere products would be silently wrong.
        if (shared_address(memory) % 1024 != 0) __trap();
        if (threadIdx.x == 0) {
            for (int stage = 0; stage < STAGES; stage++) {
                mbarrier_init(&memory->full[stage], 1);
                mbarrier_init(&memory->empty[stage], WARPS * CLUSTER);
            }
            fence_mbarrier_init();
            prefetch_tensor_map(x.a);
            prefetch_tensor_map(x.b);
        }
        meet();
        int consumer = warpgroup() - 1;
        if (consumer < 0) {
            setmaxnreg_dec<40>();
            if (threadIdx.x == 0) produce(*memory, x, s, batch);
        } else {
            setmaxnreg_inc<232>();
            consume(*memory, x, out, s, consumer);
        }
        // Nobody leaves while another block may write to its shared memory.
        if (CLUSTER > 1) meet();
    }
};

#define KERNEL(name, COLUMNS, STAGES, CLUSTER)                                                                        \
    extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1) name(                    \
            const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap map, \
            Output<TYPE> out, Shape s, Batch batch) {                                                                 \
        Block<TYPE, COLUMNS, STAGES, CLUSTER>::run({&a, &b, &map}, out, s, batch);                                    \
    }
KERNEL(matmul_large, 256, 4, 2)
KERNEL(matmul_small, 128, 6, 1)
