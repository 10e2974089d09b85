// A recurrent network's way through time (recurrence_blocks.cuh) with products on tensor cores: 16-bit numbers, or f32 as TF32, and
// sums in f32.
//
// The weights are the left side, W_hh hᵀ: a matrix instruction takes 16 of their rows and only 8 of the batch, so that a small batch
// is cut into as many blocks as there are eights in it. Its 16 rows are 8 units' two gates, or 16 units where there is but one sum for
// each, and a lane gets all sums of its units in two rows of the batch: what a step needs, with no exchange. The registers that hold
// the weights are the same at every step. So a thread keeps as many of them as it can, and only what is left lies in shared memory.
//
// What limits it: the gates' functions; the tensor cores, in states of more than a hundred units; and where blocks meet, the way to L2
// and back. -DTYPE=bf16, f16 or f32, -DNETWORK=Lstm, Gru, Rnn<Tanh> or Rnn<Relu>.
#include "recurrence_blocks.cuh"
#include "reduction.cuh"
#include "tensor_core.cuh"

typedef TYPE T;
// Operands are read as words of 4 bytes: a chunk of 16 bytes has four, and an instruction takes two chunks along the terms.
constexpr int IN_WORD = 4 / sizeof(T), CHUNK = 4, STEP = 2 * CHUNK;
// An instruction's rows of the batch, and units if two gates have its 16 rows.
constexpr int EIGHT = 8;

__device__ __forceinline__ u32 word(const bf16 (&x)[2]) { return x[0].bits | (u32)x[1].bits << 16; }
__device__ __forceinline__ u32 word(const f16 (&x)[2]) { return x[0].bits | (u32)x[1].bits << 16; }
__device__ __forceinline__ u32 word(const f32 (&x)[1]) { return f32_to_tf32(x[0]); }

// A number as the product takes it.
__device__ __forceinline__ bf16 operand(f32 x, bf16) { return store<bf16>(x); }
__device__ __forceinline__ f16 operand(f32 x, f16) { return store<f16>(x); }
__device__ __forceinline__ f32 operand(f32 x, f32) { return __uint_as_float(f32_to_tf32(x)); }

// From a row to the next, in words, of rows of so many steps: an odd number of chunks, so that `ldmatrix` finds eight of them below
// each other in different banks.
__device__ __forceinline__ int pitch_of(int steps) { return STEP * steps + CHUNK; }

// OUTPUTS sums for each unit.
template <int OUTPUTS> struct Product {
    // Units of a warp; matrix instructions for a step along the terms; sums at the same time, as each has to wait for the one before.
    static constexpr int UNITS = OUTPUTS == 1 ? 16 : 8, TILES = (OUTPUTS + 1) / 2, PARTS = 4 / TILES;
    // Units in rows that a lane has.
    static constexpr int OWN = UNITS / 4;
    // Threads of a block, most; registers of each that hold weights, so that none spills; the steps that these are enough for.
    static constexpr int THREADS = OUTPUTS == 1 ? 256 : 512, REGISTERS = OUTPUTS == 1 ? 96 : 56, KEPT = REGISTERS / (4 * TILES);
    typedef u32 Fragment[4];

    const Division& division;
    int steps, pitch;
    Tile<T> tile;
    // [OUTPUTS, units, pitch], of the steps that are not kept; at first, of one that is.
    u32* weights;
    Fragment kept[KEPT][TILES];

    __device__ __forceinline__ Product(const Matrix<T>& matrix, const Division& division)
        : division(division), steps((matrix.terms + STEP * IN_WORD - 1) / (STEP * IN_WORD)), pitch(pitch_of(max(steps - KEPT, 1))),
          tile(division, pitch_of(steps) * IN_WORD), weights((u32*)tile.end()) {
        keep(matrix);
    }
    // Warps along the units come first.
    __device__ __forceinline__ int strip() const { return threadIdx.x / WARP % (division.units / UNITS) * UNITS; }
    __device__ __forceinline__ int rows() const { return threadIdx.x / WARP / (division.units / UNITS) * EIGHT; }
    __device__ __forceinline__ int own_row(int i) const { return rows() + lane_id() % 4 * 2 + i % 2; }
    __device__ __forceinline__ int row(int i) const { return division.first_row() + own_row(i); }
    __device__ __forceinline__ int unit(int i) const { return division.first_unit() + strip() + i / 2 * EIGHT + lane_id() / 4; }

    // The weights of steps from `from` on, to shared memory. Neighbouring threads read neighbours in memory.
    __device__ __forceinline__ void copy(const Matrix<T>& matrix, int from, int count) {
        int units = division.units, words = count * STEP;
        for (int i = threadIdx.x; i < OUTPUTS * units * words; i += blockDim.x) {
            int u, w, gate;
            if (matrix.term == 1)
                w = i % words, u = i / words % units, gate = i / words / units;
            else
                u = i % units, w = i / units % words, gate = i / units / words;
            T x[IN_WORD];
            for (int e = 0; e < IN_WORD; e++)
                x[e] = matrix.at((from * STEP + w) * IN_WORD + e, division.first_unit() + u, gate);
            weights[(gate * units + u) * pitch + w] = word(x);
        }
    }
    // A step's weights, from where such a step of them lies. Of a gate that there is not, those of the one before it: nobody looks at the
    // sums.
    __device__ __forceinline__ void load(Fragment (&w)[TILES], int step) const {
        int half = lane_id() / 8 % 2, chunk = lane_id() / 16;
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            int gate = OUTPUTS == 1 ? 0 : min(2 * n + half, OUTPUTS - 1);
            int u = strip() + lane_id() % 8 + (OUTPUTS == 1 ? half * EIGHT : 0);
            ldmatrix_x4(w[n], weights + (gate * division.units + u) * pitch + step * STEP + chunk * CHUNK);
        }
    }
    // Steps that are kept pass through shared memory one by one.
    __device__ __forceinline__ void keep(const Matrix<T>& matrix) {
#pragma unroll
        for (int k = 0; k < KEPT; k++)
            if (k < steps) {
                copy(matrix, k, 1);
                __syncthreads();
                load(kept[k], 0);
                __syncthreads();
            }
        copy(matrix, KEPT, steps - KEPT);
        __syncthreads();
    }

    // Term `k` of this thread's unit `i`.
    __device__ __forceinline__ void give(int turn, int i, int k, f32 x) const {
        tile.given(turn)[own_row(i) * tile.pitch + k] = operand(x, T{});
    }
    __device__ __forceinline__ void meet(int turn) const { tile.meet(turn); }

    // d += weights times the rows, along one step of the terms.
    __device__ static __forceinline__ void multiply(f32 (&d)[TILES][4], const Fragment (&w)[TILES], const u32* x) {
        u32 b[2];
        ldmatrix_x2(b, x);
#pragma unroll
        for (int n = 0; n < TILES; n++) mma(d[n], w[n], b, T{});
    }

    // The sums of this thread's units.
    __device__ __forceinline__ void multiply(int turn, f32 (&sums)[OWN][OUTPUTS]) const {
        const u32* x = (const u32*)(tile.read(turn) + (rows() + lane_id() % 8) * tile.pitch) + lane_id() / 8 % 2 * CHUNK;
        f32 d[PARTS][TILES][4] = {};
#pragma unroll
        for (int k = 0; k < KEPT; k++)
            if (k < steps) multiply(d[k % PARTS], kept[k], x + k * STEP);
#pragma unroll 1
        for (int first = KEPT; first < steps; first += PARTS)
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
                if (first + part >= steps) break;
                Fragment w[TILES];
                load(w, first + part - KEPT);
                multiply(d[part], w, x + (first + part) * STEP);
            }
#pragma unroll
        for (int i = 0; i < OWN; i++)
#pragma unroll
            for (int gate = 0; gate < OUTPUTS; gate++) {
                int half = OUTPUTS == 1 ? i / 2 : gate % 2;
                sums[i][gate] = 0;
                for (int part = 0; part < PARTS; part++) sums[i][gate] += d[part][gate / 2][half * 2 + i % 2];
            }
    }
};
typedef Product<NETWORK::GATES> Forward;
typedef Product<1> Backward;

extern "C" __global__ void __launch_bounds__(Forward::THREADS, 1)
    recurrence_forward(ForwardPass<T> pass, Matrix<T> matrix, Division division) {
    forward<NETWORK, Forward>(pass, matrix, division);
}
extern "C" __global__ void __launch_bounds__(Backward::THREADS, 1)
    recurrence_backward(BackwardPass<T> pass, Matrix<T> matrix, Division division) {
    backward<NETWORK, Backward>(pass, matrix, division);
}
