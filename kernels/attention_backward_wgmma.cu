// The gradients of attention as in attention_backward.cu, on Hopper's tensor cores (FlashAttention-3: J. Shah et al. 2024,
// arXiv:2407.08608): 16-bit numbers, f32 sums, and five products instead of seven, since S is made once.
//
// A block keeps 128 keys and their values, 64 for each of two consumers, and walks over the queries that see them, of all heads that
// share them. The producer's first warp has the copy engine bring the rows of Q and dO, 64 or 128 of them in a step. Of each step a
// consumer asks for
//
//     Sᵀ = K Qᵀ   and   dPᵀ = V dOᵀ,   then   dV += (P ∘ M)ᵀ dO   and   dK += dSᵀ Q,
//
// whose left operands are registers: a lane holds of the first two what it has to bring for the others. Then both lay their dSᵀ into
// shared memory side by side, and each asks for one half of
//
//     dQ = dS K,   whose operands are read across their rows where they lie.
//
// To each row of dQ all blocks add whose keys it sees. They do so in turn, that with the last keys first, so that the same numbers
// give the same bits; and since blocks begin in this order, and with the first queries that see their keys, a causal block finds that
// the one before it has just added. The producer's second warp has the copy engine add, and waits for turns; consumers wait only when they
// are a step ahead of it.
//
// Sums of dQ are f32, in memory in the order in which lanes hold them; attention_backward_queries rounds them in the end.
// What limits this are the tensor cores.
#include "attention_wgmma.cuh"

// Steps whose operands are there or on their way. Since there are two, a step's place is also the parity of what happens once a step.
constexpr int STAGES = 2;
// A step's dQ has a panel for each consumer, so many below each other.
constexpr int PANELS = CONSUMERS / SLICES, QUERIES = 64 * PANELS;
static_assert(COLUMNS == 64, "scores are made for a panel at a time");
// The rows of a block, and of one step.
typedef Slices<ROWS> Own;
typedef Slices<QUERIES> Walked;
// dSᵀ of a step: keys below each other, for each panel of queries.
typedef TYPE Crossed[PANELS][ROWS * 64];
// dQ of a step: of a panel's 64 × 64 numbers a lane holds 32.
typedef float4 QuerySums[CONSUMERS][8][WARPGROUP];

// What rows of S need; see attention_backward.cu.
struct alignas(2 * sizeof(f32)) Statistics { f32 lse, delta; };

// What a block does: its keys, and the steps in which it walks over queries, head by head; in shared memory, since registers are needed
// for other things.
struct Work {
    Place at;
    int first_head, end_head, start, stop;

    __device__ __forceinline__ void plan(const Attention& a, int block) {
        at = place<true>(a, a.key_heads, a.tk, block);
        int group = a.heads / a.key_heads;
        // Queries before the first that sees any of these keys, and behind the last, do nothing here.
        i64 behind = (i64)at.row + ROWS - 1 + a.window - a.offset;
        start = max(at.row - a.offset, 0) / QUERIES * QUERIES;
        stop = behind < a.tq ? (int)behind : a.tq;
        first_head = at.head * group;
        end_head = start < stop && at.row < at.keys ? first_head + group : first_head;
    }
};

// A step: whose queries, and from which on.
struct Step {
    int head, row;

    __device__ __forceinline__ Step(const Work& work) : head(work.first_head), row(work.start) {}
    __device__ __forceinline__ bool is_there(const Work& work) const { return head < work.end_head; }
    __device__ __forceinline__ void next(const Work& work) {
        row += QUERIES;
        if (row >= work.stop) row = work.start, head++;
    }
    // Its number among all of the tensor.
    __device__ __forceinline__ i64 number(const Attention& a, const Work& work) const {
        return ((i64)work.at.batch * a.heads + head) * ((a.tq + QUERIES - 1) / QUERIES) + row / QUERIES;
    }
};

struct Memory {
    Own keys, values;
    Walked queries[STAGES], d_out[STAGES];
    // Of this step and the one before.
    Crossed crossed[STAGES];
    QuerySums sums;
    Statistics statistics[STAGES][QUERIES];
    Mbarrier own_there, full[STAGES], empty[STAGES], sums_full, sums_empty;
    Work work;
};

// What is loaded and stored, as the copy engine knows it: [width, T, H, B].
struct Operands { const TensorMap *q, *k, *v, *d_out; };

// For each step of each head: its rows' statistics, the sums of its dQ, and how many blocks have added to them.
struct Ledger {
    const Statistics* statistics;
    QuerySums* sums;
    u32* turns;
    // Which blocks have begun.
    u32* begun;
};

// ---- the producer -------------------------------------------------------------------------------------------------

// One thread: loads the keys and values, and then step after step, as places become empty.
__device__ __forceinline__ void produce(Memory& memory, const Operands& x, const Ledger& ledger, const Attention& a) {
    const Work& work = memory.work;
    const Place& at = work.at;
    Step step(work);
    if (!step.is_there(work)) return;
    mbarrier_arrive_expect_tx(&memory.own_there, 2 * sizeof(Own));
    load<ROWS>(memory.keys, x.k, &memory.own_there, at.row, at.head, at.batch);
    load<ROWS>(memory.values, x.v, &memory.own_there, at.row, at.head, at.batch);
    for (Turn<STAGES> turn; step.is_there(work); step.next(work), turn.next()) {
        Mbarrier* full = &memory.full[turn.stage];
        Statistics(&statistics)[QUERIES] = memory.statistics[turn.stage];
        // Of the first round's barriers, the phase before the first is over.
        mbarrier_wait(&memory.empty[turn.stage], turn.parity ^ 1);
        mbarrier_arrive_expect_tx(full, 2 * sizeof(Walked) + sizeof statistics);
        load<QUERIES>(memory.queries[turn.stage], x.q, full, step.row, step.head, at.batch);
        load<QUERIES>(memory.d_out[turn.stage], x.d_out, full, step.row, step.head, at.batch);
        bulk_load(statistics, ledger.statistics + step.number(a, work) * QUERIES, sizeof statistics, full);
    }
}

// One thread: adds each step's dQ when it is this block's turn.
__device__ __forceinline__ void add_queries(Memory& memory, const Ledger& ledger, const Attention& a) {
    const Work& work = memory.work;
    u32 parity = 0;
    for (Step step(work); step.is_there(work); step.next(work), parity ^= 1) {
        i64 number = step.number(a, work);
        u32* turns = &ledger.turns[number];
        // Before this block come those of later keys, up to the last that any of these queries sees.
        u32 turn = min(work.at.keys - 1, step.row + QUERIES - 1 + a.offset) / ROWS - work.at.row / ROWS;
        mbarrier_wait(&memory.sums_full, parity);
        while (ld_acquire(turns) != turn) {}
        fence_proxy_async_global();
        f32* sums = &ledger.sums[number][0][0][0].x;
        if (turn == 0) bulk_store(sums, memory.sums, sizeof(QuerySums));
        else bulk_add_f32(sums, &memory.sums[0][0][0].x, sizeof(QuerySums));
        bulk_commit();
        bulk_wait_read<0>();
        mbarrier_arrive(&memory.sums_empty);
        bulk_wait<0>();
        st_release(turns, turn + 1);
    }
}

// ---- the consumers ------------------------------------------------------------------------------------------------

// A warpgroup of the block.
struct Consumer {
    Memory& memory;
    const Attention& a;
    // If anybody wants it.
    f32* d_mask;
    const Work& work;
    const Place& at;
    int number;

    __device__ __forceinline__ Consumer(Memory& memory, const Attention& a, f32* d_mask)
        : memory(memory), a(a), d_mask(d_mask), work(memory.work), at(work.at), number(warpgroup()) {}

    // All threads of this consumer, or of all, are here.
    __device__ __forceinline__ void meet() { bar_sync(2 + number, WARPGROUP); }
    __device__ __forceinline__ void meet_all() { bar_sync(1, THREADS); }
    // Where this warp's keys begin, and where this consumer's rows in the block's.
    __device__ __forceinline__ int first() { return at.row + first_row(); }
    __device__ __forceinline__ int own() { return 64 * number; }

    // Behind this batch's keys there may be anything, and 0 · NaN is not 0.
    __device__ __forceinline__ void clear(Own& rows, int keys) {
        for (int p = 0; p < SLICES; p++)
            for (int chunk = max(keys, own()) * 8 + threadIdx.x % WARPGROUP; chunk < (own() + 64) * 8; chunk += WARPGROUP)
                reinterpret_cast<Vector<TYPE>*>(rows[p])[chunk] = Vector<TYPE>{};
    }

    // Scores become the weights P, of a panel of queries whose statistics are these.
    __device__ __forceinline__ void weigh(Scores& p, const Place& of, const Statistics* statistics) {
        if (needs_mask(a)) mask_rows<true>(p, a, of, of.row, first());
        if (needs_hiding(a, of, of.row, COLUMNS, first(), WARP_ROWS)) hide<true>(p, a, of, of.row, first());
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) p[0][n][e] = power_of_two(p[0][n][e] * f32(a.factor) - statistics[column_of(n, e)].lse);
    }

    // What number e of [0][n] of P is multiplied by.
    __device__ __forceinline__ f32 dropped(u64 kept, int n, int e) {
        return a.kept == 0 ? 1 : is_kept(kept, 0, n, e) ? f32(a.kept) : 0;
    }

    // P ∘ M, rounded.
    __device__ __forceinline__ void round_kept(Weights& weights, const Scores& p, u64 kept) {
        if (a.kept == 0) return round(weights, p);
        Scores some;
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) some[0][n][e] = p[0][n][e] * dropped(kept, n, e);
        round(weights, some);
    }

    // Products of V and dO become dS = P ∘ (M ∘ dP − Δ).
    __device__ __forceinline__ void scores_gradient(Scores& ds, const Scores& p, u64 kept, const Statistics* statistics) {
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                ds[0][n][e] = p[0][n][e] * (ds[0][n][e] * dropped(kept, n, e) - statistics[column_of(n, e)].delta);
    }

    // Asks for this consumer's panel of dQ = dS K.
    __device__ __forceinline__ void ask_for_queries(f32 (&dq)[32], const Crossed& crossed) {
        constexpr int BYTES = ROWS * LINE_BYTES;
        u64 ds = matrix_descriptor(crossed[number / SLICES], GROUP_BYTES, BYTES);
        u64 k = matrix_descriptor(memory.keys[number % SLICES], GROUP_BYTES, BYTES);
#pragma unroll
        for (int j = 0; j < ROWS; j += STEP) multiply_across(dq, advance(ds, j * LINE_BYTES), advance(k, j * LINE_BYTES), j > 0, TYPE{});
        wgmma_commit();
    }

    // What a lane has of it is added to dQ.
    __device__ __forceinline__ void give_queries(const f32 (&dq)[32], u32 parity) {
        mbarrier_wait(&memory.sums_empty, parity ^ 1);
#pragma unroll
        for (int i = 0; i < 8; i++)
            memory.sums[number][i][threadIdx.x % WARPGROUP] = make_float4(dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]);
        fence_proxy_async();
        __syncwarp();
        if (lane_id() == 0) mbarrier_arrive(&memory.sums_full);
    }

    __device__ __forceinline__ void differentiate(Sums& dk, Sums& dv, const Step& step, int stage) {
        const Walked &queries = memory.queries[stage], &d_out = memory.d_out[stage];
        Crossed& crossed = memory.crossed[stage];
        Scores p[PANELS], ds[PANELS];
        Weights weights[PANELS], gradients[PANELS];
        f32 dq[32];
        wgmma_fence();
        ask_for_scores<QUERIES / 2, ROWS, QUERIES>(flat(p), memory.keys, own(), queries);
        ask_for_scores<QUERIES / 2, ROWS, QUERIES>(flat(ds), memory.values, own(), d_out);
        wgmma_wait<1>();
        wgmma_hold(flat(p));
#pragma unroll
        for (int i = 0; i < PANELS; i++) {
            const Statistics* statistics = memory.statistics[stage] + 64 * i;
            Place of = {at.batch, step.head, step.row + 64 * i, at.keys};
            u64 bits = a.kept != 0 ? kept<true>(a, of, of.row, first()) : 0;
            weigh(p[i], of, statistics);
            round_kept(weights[i], p[i], bits);
            wgmma_hold(flat(dv));
            wgmma_fence();
            ask_for_sums<QUERIES>(dv, weights[i], d_out, 64 * i);
            if (i == 0) {
                wgmma_wait<1>();
                wgmma_hold(flat(ds));
            }
            scores_gradient(ds[i], p[i], bits, statistics);
            if (d_mask) store_mask<true>(d_mask, ds[i], a, of, of.row, first());
            store_rounded(crossed[i] + own() * 64, 0, flat(ds[i]));
            round(gradients[i], ds[i]);
        }
        // Behind this both have also done with dSᵀ of the step before, where that of the next one goes.
        meet_all();
        wgmma_hold(flat(dk));
        wgmma_fence();
        ask_for_queries(dq, crossed);
        for (int i = 0; i < PANELS; i++) ask_for_sums<QUERIES>(dk, gradients[i], queries, 64 * i);
        wgmma_wait<PANELS>();
        wgmma_hold(flat(dv));
        wgmma_hold(dq);
#pragma unroll
        for (int i = 0; i < PANELS; i++) wgmma_hold(weights[i]);
        give_queries(dq, stage);
        wgmma_wait<0>();
        wgmma_hold(flat(dk));
#pragma unroll
        for (int i = 0; i < PANELS; i++) wgmma_hold(gradients[i]);
    }

    // Rounds sums into where the rows were that nobody reads any more, and from there they go to memory.
    __device__ __forceinline__ void store(Sums& sums, Own& rows, const TensorMap* to) {
        store_rounded(rows[0] + own() * 64, ROWS * 64, flat(sums));
        meet();
        if (threadIdx.x % WARPGROUP != 0) return;
        for (int p = 0; p < SLICES; p++) tma_store_4d(to, rows[p] + own() * 64, 64 * p, at.row + own(), at.head, at.batch);
        bulk_commit();
    }

    __device__ __forceinline__ void run(const TensorMap* to_keys, const TensorMap* to_values, f32 by) {
        Sums dk = {}, dv = {};
        Step step(work);
        if (step.is_there(work)) {
            mbarrier_wait(&memory.own_there, 0);
            if (at.keys < a.tk && at.keys < at.row + ROWS) {
                clear(memory.keys, at.keys - at.row);
                clear(memory.values, at.keys - at.row);
                fence_proxy_async();
                meet();
            }
        }
#pragma unroll 1
        for (Turn<STAGES> turn; step.is_there(work); step.next(work), turn.next()) {
            mbarrier_wait(&memory.full[turn.stage], turn.parity);
            differentiate(dk, dv, step, turn.stage);
            // Behind the last reading of statistics there was the fence of `store_rounded`, as the copy engine that overwrites them wants.
            if (lane_id() == 0) mbarrier_arrive(&memory.empty[turn.stage]);
        }
#pragma unroll
        for (int i = 0; i < HEAD / 2; i++) flat(dk)[i] *= by;
        // Both have done with the keys.
        meet_all();
        store(dk, memory.keys, to_keys);
        store(dv, memory.values, to_values);
        bulk_wait_read<0>();
    }
};

extern "C" __global__ void __launch_bounds__(THREADS + WARPGROUP, 1) attention_backward(
        const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v,
        const __grid_constant__ TensorMap d_out, const __grid_constant__ TensorMap dk, const __grid_constant__ TensorMap dv,
        const Ledger ledger, f32* d_mask, f64 by, const Attention a) {
    DYNAMIC_SHARED(Memory, memory);
    // Panels are swizzled by their addresses; elsewhere products would be silently wrong.
    if (shared_address(memory) % 1024 != 0) __trap();
    if (threadIdx.x == 0) {
        mbarrier_init(&memory->own_there, 1);
        mbarrier_init(&memory->sums_full, WARPS);
        mbarrier_init(&memory->sums_empty, 1);
        for (int stage = 0; stage < STAGES; stage++) {
            mbarrier_init(&memory->full[stage], 1);
            mbarrier_init(&memory->empty[stage], WARPS);
        }
        fence_mbarrier_init();
        // Blocks are told their work in the order in which they begin, whatever their numbers are: so nobody's turn comes after that of
        // a block that has not begun.
        memory->work.plan(a, atomicAdd(ledger.begun, 1u));
    }
    __syncthreads();
    if (threadIdx.x >= THREADS) {
        setmaxnreg_dec<24>();
        if (threadIdx.x == THREADS) produce(*memory, {&q, &k, &v, &d_out}, ledger, a);
        if (threadIdx.x == THREADS + WARP) add_queries(*memory, ledger, a);
    } else {
        setmaxnreg_inc<240>();
        Consumer(*memory, a, d_mask).run(&dk, &dv, f32(by));
    }
}

// A block for each step of each head: scales and rounds the sums of dQ; those to which nobody added are zeros.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_backward_queries(const __grid_constant__ TensorMap dq, const QuerySums* sums, const u32* turns, f64 by, const Attention a) {
    DYNAMIC_SHARED(TYPE, panels);
    int part = warpgroup(), tiles = (a.tq + QUERIES - 1) / QUERIES, matrix = blockIdx.x / tiles;
    f32 d[32] = {};
    if (turns[blockIdx.x] > 0) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float4 four = sums[blockIdx.x][part][i][threadIdx.x % WARPGROUP];
            d[4 * i] = four.x * f32(by), d[4 * i + 1] = four.y * f32(by), d[4 * i + 2] = four.z * f32(by), d[4 * i + 3] = four.w * f32(by);
        }
    }
    TYPE* panel = panels + part * PANEL;
    store_rounded(panel, PANEL, d);
    bar_sync(1 + part, WARPGROUP);
    if (threadIdx.x % WARPGROUP != 0) return;
    int row = blockIdx.x % tiles * QUERIES + part / SLICES * 64;
    tma_store_4d(&dq, panel, part % SLICES * 64, row, matrix % a.heads, matrix / a.heads);
    bulk_commit();
    bulk_wait_read<0>();
}
