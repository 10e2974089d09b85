// Attention as in attention.cu, on Hopper's tensor cores (FlashAttention-3: J. Shah, G. Bikshandi, Y. Zhang, V. Thakkar,
// P. Ramani, T. Dao 2024, arXiv:2407.08608): 16-bit numbers, f32 sums, -DSTAGES tiles of keys or values on their way.
//
// The block's last warpgroup, the producer, has one thread that asks the copy engine for tiles, in the order in which they are
// multiplied: K₀, K₁, V₀, K₂, V₁, … The other warpgroups, the consumers, have 64 queries each, and ask the tensor cores for
//
//     S = Q Kⱼ₊₁ᵀ   and   O += Pⱼ Vⱼ,
//
// both at once. While the second is made the first becomes the weights Pⱼ₊₁, so that powers are computed beside products, not
// between them; and consumers take turns in asking, so that one has its softmax while the tensor cores work for another. V is
// read across its rows where it lies, and P comes from registers, where a lane holds of S what it has to bring of P. Masks have
// programs of their own, -DMASKED=1, with fewer COLUMNS: a mask's numbers take registers too.
//
// What limits it are the tensor cores, and with 64 numbers in a row the powers as much; under a mask, reading that.
#include "attention_wgmma.cuh"
#include "attention_softmax.cuh"

// Rows of keys or values.
typedef Slices<COLUMNS> Tile;
// A consumer's queries, and in the end its answers.
typedef Slices<64> Queries;
struct Memory {
    Queries queries[CONSUMERS];
    Tile ring[STAGES];
    Mbarrier queries_there, full[STAGES], empty[STAGES];
};

// What is loaded, as the copy engine knows it: [width, T, H, B].
struct Operands { const TensorMap *q, *k, *v; };

// ---- the producer -------------------------------------------------------------------------------------------------

// One thread: loads the queries, and then tile after tile, as places become empty.
__device__ __forceinline__ void produce(Memory& memory, const Operands& x, const Attention& a, const Place& at) {
    int key_head = at.head / (a.heads / a.key_heads), start = first_seen(a, at), end = end_seen(a, at);
    mbarrier_arrive_expect_tx(&memory.queries_there, sizeof memory.queries);
    for (int c = 0; c < CONSUMERS; c++)
        load<64>(memory.queries[c], x.q, &memory.queries_there, at.row + 64 * c, at.head, at.batch);
    Turn<STAGES> turn;
    auto load_next = [&](const TensorMap* rows, int j) {
        Mbarrier* full = &memory.full[turn.stage];
        // Of the first round's barriers, the phase before the first is over.
        mbarrier_wait(&memory.empty[turn.stage], turn.parity ^ 1);
        mbarrier_arrive_expect_tx(full, sizeof(Tile));
        load<COLUMNS>(memory.ring[turn.stage], rows, full, j, key_head, at.batch);
        turn.next();
    };
    for (int j = start; j < end + COLUMNS; j += COLUMNS) {
        if (j < end) load_next(x.k, j);
        if (j > start) load_next(x.v, j - COLUMNS);
    }
}

// ---- the consumers ------------------------------------------------------------------------------------------------

// A warpgroup of the block, whose warps have queries from `first` on.
struct Consumer {
    Memory& memory;
    const Attention& a;
    const Place& at;
    int number, first;
    Turn<STAGES> turn;
    Softmax softmax;

    __device__ __forceinline__ Consumer(Memory& memory, const Attention& a, const Place& at)
        : memory(memory), a(a), at(at), number(warpgroup()), first(at.row + first_row()) {
        softmax.begin();
    }

    // The next tile, when it is there; its place, to be given back when it has been read.
    __device__ __forceinline__ int next_tile() {
        int stage = turn.stage;
        mbarrier_wait(&memory.full[stage], turn.parity);
        turn.next();
        return stage;
    }
    __device__ __forceinline__ void release(int stage) {
        if (lane_id() == 0) mbarrier_arrive(&memory.empty[stage]);
    }

    // All threads of this consumer are here.
    __device__ __forceinline__ void meet() { bar_sync(1 + CONSUMERS + number, WARPGROUP); }

    // One consumer after another: the first begins.
    __device__ __forceinline__ void await_turn(bool first_round) {
        if (number > 0 || !first_round) bar_sync(1 + number, 2 * WARPGROUP);
    }
    __device__ __forceinline__ void pass_turn(bool last_round) {
        if (number < CONSUMERS - 1 || !last_round) bar_arrive(1 + (number + 1) % CONSUMERS, 2 * WARPGROUP);
    }

    // Scores of the keys from j on become weights; earlier ones are to be multiplied by `decay`.
    __device__ __forceinline__ void weigh(Scores& s, int j, OfRows& decay) {
        if (MASKED) mask_rows<false>(s, a, at, first, j);
        if (needs_hiding(a, at, first, WARP_ROWS, j, COLUMNS)) hide<false>(s, a, at, first, j);
        softmax.step(s, Real(a.factor), decay);
        if (a.kept != 0) drop(s, kept<false>(a, at, first, j));
    }

    // Behind this batch's keys there may be anything, and 0 · NaN is not 0. Each consumer writes the same zeros.
    __device__ __forceinline__ void clear(Tile& values, int keys) {
        for (int p = 0; p < SLICES; p++)
            for (int chunk = keys * 8 + threadIdx.x % WARPGROUP; chunk < COLUMNS * 8; chunk += WARPGROUP)
                reinterpret_cast<Vector<TYPE>*>(values[p])[chunk] = Vector<TYPE>{};
        fence_proxy_async();
        meet();
    }

    // o = the sums of values, over the keys from `start` to before `end`.
    __device__ __forceinline__ void attend(Sums& o, int start, int end) {
        const Queries& queries = memory.queries[number];
        Scores s;
        Weights p;
        OfRows decay;
        int keys = next_tile();
        wgmma_fence();
        ask_for_scores<COLUMNS / 2, 64, COLUMNS>(flat(s), queries, 0, memory.ring[keys]);
        wgmma_wait<0>();
        wgmma_hold(flat(s));
        release(keys);
        weigh(s, start, decay);
        round(p, s);
#pragma unroll 1
        for (int j = start + COLUMNS; j < end; j += COLUMNS) {
            await_turn(j == start + COLUMNS);
            keys = next_tile();
            wgmma_hold(flat(s));
            wgmma_hold(flat(o));
            wgmma_fence();
            ask_for_scores<COLUMNS / 2, 64, COLUMNS>(flat(s), queries, 0, memory.ring[keys]);
            int values = next_tile();
            wgmma_fence();
            ask_for_sums<COLUMNS>(o, p, memory.ring[values], 0);
            pass_turn(j + COLUMNS >= end);
            wgmma_wait<1>();
            wgmma_hold(flat(s));
            release(keys);
            weigh(s, j, decay);
            wgmma_wait<0>();
            wgmma_hold(flat(o));
            wgmma_hold(p);
            release(values);
            rescale(o, decay);
            round(p, s);
        }
        int values = next_tile(), last = (end - 1) / COLUMNS * COLUMNS;
        if (at.keys < a.tk && at.keys < last + COLUMNS) clear(memory.ring[values], at.keys - last);
        wgmma_hold(flat(o));
        wgmma_fence();
        ask_for_sums<COLUMNS>(o, p, memory.ring[values], 0);
        wgmma_wait<0>();
        wgmma_hold(flat(o));
        release(values);
    }

    // Rounds the answers into where the queries were, and from there whole rows go to memory.
    __device__ __forceinline__ void store(Sums& o, const TensorMap* out) {
        // All have done with the queries.
        meet();
        store_rounded(memory.queries[number][0], PANEL, flat(o));
        meet();
        if (threadIdx.x % WARPGROUP != 0) return;
        for (int p = 0; p < SLICES; p++)
            tma_store_4d(out, memory.queries[number][p], 64 * p, at.row + 64 * number, at.head, at.batch);
        bulk_commit();
        bulk_wait_read<0>();
    }

    __device__ __forceinline__ void run(const TensorMap* out, f32* lse) {
        int start = first_seen(a, at), end = end_seen(a, at);
        Sums o = {};
        mbarrier_wait(&memory.queries_there, 0);
        if (start < end) attend(o, start, end);
        softmax.finish(o, a, lse + ((i64)at.batch * a.heads + at.head) * a.tq + at.row, a.tq - at.row);
        store(o, out);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS + WARPGROUP, 1) attention(
        const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v,
        const __grid_constant__ TensorMap out, f32* lse, const Attention a) {
    DYNAMIC_SHARED(Memory, memory);
    // Panels are swizzled by their addresses; elsewhere products would be silently wrong.
    if (shared_address(memory) % 1024 != 0) __trap();
    if (threadIdx.x == 0) {
        mbarrier_init(&memory->queries_there, 1);
        for (int stage = 0; stage < STAGES; stage++) {
            mbarrier_init(&memory->full[stage], 1);
            mbarrier_init(&memory->empty[stage], WARPS);
        }
        fence_mbarrier_init();
        prefetch_tensor_map(&q);
        prefetch_tensor_map(&k);
        prefetch_tensor_map(&v);
    }
    __syncthreads();
    Place at = place<true>(a, a.heads, a.tq, blockIdx.x);
    if (threadIdx.x >= THREADS) {
        setmaxnreg_dec<CONSUMERS == 3 ? 32 : 24>();
        if (threadIdx.x == THREADS) produce(*memory, {&q, &k, &v}, a, at);
    } else {
        setmaxnreg_inc<CONSUMERS == 3 ? 160 : 240>();
        Consumer(*memory, a, at).run(&out, lse);
    }
}
