// Attention of a single query, Tq = 1, as a model that writes needs it for each token.
//
// Each number of a key or value takes part in two operations, so that reading them is all there is to do, and the B · H queries alone
// would leave most of a card without work. So the keys are cut into splits ("Flash-Decoding": T. Dao, D. Haziza, F. Massa,
// G. Sizov 2023), each of them a block's, which leaves the largest of its scores m, the sum l of 2^(s − m), and the sum o of those
// times V. Of several such parts
//
//     m = max mᵢ,   l = Σ 2^(mᵢ − m) lᵢ,   o = Σ 2^(mᵢ − m) oᵢ
//
// and o / l is the answer: the same for the groups of lanes of a block, and for the splits in a kernel of their own.
#include "attention_operands.cuh"

// So many lanes share a row, each with EACH chunks of it; a block's groups of lanes take neighbouring keys, AHEAD of them on their way.
constexpr int THREADS = 128, LANES = CHUNKS < WARP ? CHUNKS : WARP, EACH = CHUNKS / LANES, GROUPS = THREADS / LANES, AHEAD = 4;
// A part in memory: m, l, o.
constexpr int PART = HEAD + 2;

// A lane's numbers of a row.
struct Share { Vector<TYPE> chunks[EACH]; };

__device__ __forceinline__ Share read(const TYPE* row, i64 width, bool there) {
    Share share = {};
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        int first = (e * LANES + threadIdx.x % LANES) * CHUNK;
        if (there && first < width) share.chunks[e] = *reinterpret_cast<const Vector<TYPE>*>(row + first);
    }
    return share;
}

// What a group has seen so far.
struct Running {
    Real m = smallest_of(Real(0)), l = 0, o[EACH][CHUNK] = {};

    __device__ __forceinline__ void add(const Real (&s)[AHEAD], const Share (&values)[AHEAD], Real factor) {
        Real top = m;
#pragma unroll
        for (int u = 0; u < AHEAD; u++) top = s[u] > top ? s[u] : top;
        Real shift = shift_of(top, factor), decay = power_of_two(m * factor - shift);
        m = top;
        l *= decay;
#pragma unroll
        for (int e = 0; e < EACH; e++)
            for (int c = 0; c < CHUNK; c++) o[e][c] *= decay;
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            Real weight = power_of_two(s[u] * factor - shift);
            l += weight;
#pragma unroll
            for (int e = 0; e < EACH; e++)
                for (int c = 0; c < CHUNK; c++) o[e][c] += weight * load(values[u].chunks[e].at[c]);
        }
    }
    __device__ __forceinline__ void leave(Real* part) const {
        int lane = threadIdx.x % LANES;
        if (lane == 0) part[0] = m, part[1] = l;
#pragma unroll
        for (int e = 0; e < EACH; e++)
            for (int c = 0; c < CHUNK; c++) part[2 + (e * LANES + lane) * CHUNK + c] = o[e][c];
    }
};

// The block brings `count` parts together: where to, if there are more of them, or as the answer.
__device__ __forceinline__ void together(const Real* parts, int count, Real* to, TYPE* out, i64 width, Real* lse, Real factor) {
    Real m = smallest_of(Real(0)), l = 0;
    for (int i = 0; i < count; i++) m = parts[i * PART] > m ? parts[i * PART] : m;
    Real shift = shift_of(m, factor);
    for (int i = 0; i < count; i++) l += power_of_two(parts[i * PART] * factor - shift) * parts[i * PART + 1];
    for (int d = threadIdx.x; d < HEAD; d += THREADS) {
        Real o = 0;
        for (int i = 0; i < count; i++) o += power_of_two(parts[i * PART] * factor - shift) * parts[i * PART + 2 + d];
        if (to) to[2 + d] = o;
        else if (d < width) out[d] = store<TYPE>(l == 0 ? Real(0) : o / l);
    }
    if (threadIdx.x > 0) return;
    if (to) to[0] = m, to[1] = l;
    else *lse = logsumexp(m, l, factor);
}

// scale · q · k + mask, in every lane of the group.
__device__ __forceinline__ Real score(const Real (&query)[EACH][CHUNK], const Share& key, const Attention& a, i64 place, bool there) {
    Real s = 0;
#pragma unroll
    for (int e = 0; e < EACH; e++)
        for (int c = 0; c < CHUNK; c++) s += query[e][c] * load(key.chunks[e].at[c]);
    for (int bit = LANES / 2; bit > 0; bit /= 2) s += other_lane(s, bit);
    s *= Real(a.scale);
    if (there && a.kind == Attention::ADDITIVE) s += static_cast<const Real*>(a.mask)[place];
    if (there && a.kind == Attention::BOOLEAN) there = static_cast<const boolean*>(a.mask)[place].bits;
    return there ? s : smallest_of(s);
}

// A block for each split of each query; with several splits, what they leave in `parts`.
extern "C" __global__ void __launch_bounds__(THREADS, 4)
    attention_decode(Rows q, Rows k, Rows v, Rows out, Real* lse, Real* parts, i32 splits, const Attention a) {
    __shared__ Real of_groups[GROUPS][PART];
    i64 row = blockIdx.x / splits;
    int split = blockIdx.x % splits, head = row % a.heads, batch = row / a.heads, key_head = head / (a.heads / a.key_heads);
    int end = min(a.offset + 1, a.keys(batch)), begin = max(a.offset + 1 - a.window, 0), length = (end - begin + splits - 1) / splits;
    int first = begin + split * length, last = min(first + length, end);
    i64 matrix = batch * a.mask_batch + head * a.mask_head;
    Share own = read(q.row(batch, head, 0), q.width, true);
    Real query[EACH][CHUNK], factor = Real(a.factor);
#pragma unroll
    for (int e = 0; e < EACH; e++)
        for (int c = 0; c < CHUNK; c++) query[e][c] = load(own.chunks[e].at[c]);
    Running running;
#pragma unroll 1
    for (int j = first; j < last; j += GROUPS * AHEAD) {
        Share keys[AHEAD], values[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            int key = j + u * GROUPS + threadIdx.x / LANES;
            keys[u] = read(k.row(batch, key_head, key), k.width, key < last);
            values[u] = read(v.row(batch, key_head, key), v.width, key < last);
        }
        Real s[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            int key = j + u * GROUPS + threadIdx.x / LANES;
            s[u] = score(query, keys[u], a, matrix + (i64)key * a.mask_key, key < last);
        }
        running.add(s, values, factor);
    }
    running.leave(of_groups[threadIdx.x / LANES]);
    __syncthreads();
    Real* to = splits > 1 ? parts + (i64)blockIdx.x * PART : nullptr;
    together(of_groups[0], GROUPS, to, out.row(batch, head, 0), out.width, lse + row, factor);
}

// A block for each query.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_combine(const Real* parts, Rows out, Real* lse, i32 splits, const Attention a) {
    i64 row = blockIdx.x;
    TYPE* to = out.row(row / a.heads, row % a.heads, 0);
    together(parts + row * splits * PART, splits, nullptr, to, out.width, lse + row, Real(a.factor));
}
