// A recurrent network over a whole sequence, forward or backward, in one launch. The input's products with W_ih and those that give
// the weights' gradients have no recurrence in them: they are made elsewhere, for all of time at once. What is left is, at each step,
// W_hh times a state of few rows, and reading W_hh would be all that it costs. So a block reads its part of W_hh once, into shared memory
// (persistent RNN: G. Diamos et al. 2016), and keeps it through time.
//
// A block has some rows of the batch and some units of the state, with all gates of these; a thread has one row and one unit, whose h
// and c stay in its registers. Rows do not need each other; the units of a row do, at every step. Where one block has all of them, a
// step ends with a barrier of the block. Elsewhere the blocks of the same rows ("slices" of the units) run at the same time; they
// exchange states through L2 and wait for each other.
//
// What limits it: multiplications, as shared memory is read for four rows at once; and where blocks meet, the way to L2 and back.
// -DNETWORK=Lstm, Gru, Rnn<Tanh> or Rnn<Relu>.
#include "recurrence.cuh"
#include "reduction.cuh"

// Threads of a block, most. Four neighbours have the same unit in four rows, and divide the terms of the product among them.
constexpr int THREADS = 512, QUAD = 4;

// How the work is divided; the same as in `recurrence.rs`.
struct Division {
    // Of a block: rows, a multiple of 4, and units, of 8. Blocks that share rows.
    i32 rows, units, slices;
    // The first row of all blocks.
    i32 first;
    // Where several blocks have the same rows: what they exchange, [2, rows of all blocks, pitch], at first zero, and how many have
    // come so far, for each set of rows.
    void* exchanged;
    u32* arrived;
};

// The matrix of the recurrent product: element (term, unit, output), a gate of a unit's, or its only one.
template <class T> struct Matrix {
    const T* data;
    i64 term, unit, output;
};

// Numbers that a thread reads at once: of what is exchanged they are 16 bytes.
template <class T> struct alignas(sizeof(T) < 4 ? 8 : 16) Chunk {
    static constexpr int LENGTH = 16 / sizeof(compute_t<T>);
    T at[LENGTH];
};

// From a row of a tile to the next: its terms end with zeros, and four threads of two rows read 128 bytes of different banks.
__device__ __forceinline__ int pitch_of(int terms) {
    int sixteens = (terms + 15) / 16;
    return 16 * (sixteens + (sixteens % 2 == 0));
}

// Each of four lanes has a part of four sums; it gets the whole of the one that has its own number.
template <class C> __device__ __forceinline__ C sum_of_quad(const C (&part)[QUAD]) {
    bool odd = lane_id() & 1, upper = lane_id() & 2;
    C a = (upper ? part[2] : part[0]) + other_lane(upper ? part[0] : part[2], 2);
    C b = (upper ? part[3] : part[1]) + other_lane(upper ? part[1] : part[3], 2);
    return (odd ? b : a) + other_lane(odd ? a : b, 1);
}

// The recurrent product: of what all units of a row give and a matrix, OUTPUTS sums for each unit.
template <class T, int OUTPUTS> struct Product {
    typedef compute_t<T> C;
    const Division& division;
    int terms, pitch, group;
    // [OUTPUTS, units, pitch]; [rows, pitch], twice where the block is alone.
    T* weights;
    C* tile;

    __device__ __forceinline__ Product(const Matrix<T>& matrix, const Division& division, int terms, int hidden)
        : division(division), terms(terms), pitch(pitch_of(terms)), group(blockIdx.x / division.slices) {
        DYNAMIC_SHARED(unsigned char, memory);
        weights = (T*)memory;
        tile = (C*)(weights + OUTPUTS * division.units * pitch);
        keep(matrix, hidden);
        for (int i = threadIdx.x; i < (alone() ? 2 : 1) * division.rows * pitch; i += blockDim.x) tile[i] = C(0);
        __syncthreads();
    }
    __device__ __forceinline__ bool alone() const { return division.slices == 1; }
    __device__ __forceinline__ int own_row() const { return threadIdx.x / (QUAD * division.units) * QUAD + threadIdx.x % QUAD; }
    __device__ __forceinline__ int own_unit() const { return threadIdx.x / QUAD % division.units; }
    __device__ __forceinline__ int row() const { return division.first + group * division.rows + own_row(); }
    __device__ __forceinline__ int unit() const { return blockIdx.x % division.slices * division.units + own_unit(); }

    // The block's part of the matrix. Neighbouring threads read neighbours in memory.
    __device__ __forceinline__ void keep(const Matrix<T>& matrix, int hidden) {
        int first = unit() - own_unit(), units = division.units;
        for (int i = threadIdx.x; i < OUTPUTS * units * pitch; i += blockDim.x) {
            int u, k, o;
            if (matrix.term == 1)
                k = i % pitch, u = i / pitch % units, o = i / pitch / units;
            else
                u = i % units, k = i / units % pitch, o = i / units / pitch;
            bool there = k < terms && first + u < hidden;
            T w = there ? matrix.data[k * matrix.term + (first + u) * matrix.unit + o * matrix.output] : store<T>(C(0));
            weights[(o * units + u) * pitch + k] = w;
        }
    }

    // The block's rows of what is exchanged, in the turns of this parity.
    __device__ __forceinline__ C* exchanged(int turn) const {
        if (alone()) return tile + turn % 2 * division.rows * pitch;
        int groups = gridDim.x / division.slices;
        return (C*)division.exchanged + (i64)(turn % 2 * groups + group) * division.rows * pitch;
    }
    // Term `k` of this thread's row.
    __device__ __forceinline__ void give(int turn, int k, C x) const { exchanged(turn)[own_row() * pitch + k] = x; }

    // Until all have given. What was given two turns ago is overwritten next, and has been read by then: who reads it comes here later
    // only after that.
    __device__ __forceinline__ void meet(int turn) const {
        __syncthreads();
        if (alone()) return;
        if (threadIdx.x == 0) {
            u32* arrived = division.arrived + group;
            red_release_add(arrived, 1);
            while (ld_acquire(arrived) < (u32)(turn + 1) * division.slices) {}
        }
        __syncthreads();
        const Vector<C>* from = (const Vector<C>*)exchanged(turn);
        for (int i = threadIdx.x; i < division.rows * pitch / Vector<C>::LENGTH; i += blockDim.x)
            cp_async_16((Vector<C>*)tile + i, from + i);
        cp_async_wait_all();
        __syncthreads();
    }

    // The sums of this thread's row and unit. A weight that is read serves four rows.
    __device__ __forceinline__ void multiply(int turn, C (&sums)[OUTPUTS]) const {
        constexpr int LENGTH = Chunk<T>::LENGTH;
        int quarter = threadIdx.x % QUAD;
        const C* x = (alone() ? exchanged(turn) : tile) + (own_row() - quarter) * pitch;
        const T* w = weights + own_unit() * pitch;
        C parts[OUTPUTS][QUAD] = {};
#pragma unroll 1
        for (int k = LENGTH * quarter; k < terms; k += LENGTH * QUAD) {
            Chunk<T> of[OUTPUTS];
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++) of[o] = *(const Chunk<T>*)(w + o * division.units * pitch + k);
#pragma unroll
            for (int row = 0; row < QUAD; row++) {
                Chunk<C> by = *(const Chunk<C>*)(x + row * pitch + k);
#pragma unroll
                for (int o = 0; o < OUTPUTS; o++)
#pragma unroll
                    for (int j = 0; j < LENGTH; j++) parts[o][row] += load(of[o].at[j]) * by.at[j];
            }
        }
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) sums[o] = sum_of_quad(parts[o]);
    }
};

template <class CELL, class T>
__device__ __forceinline__ void forward(const ForwardPass<T>& pass, const Matrix<T>& matrix, const Division& division) {
    const auto& s = pass.sequence;
    Product<T, CELL::GATES> product(matrix, division, s.hidden, s.hidden);
    UnitForward<CELL, T> own(pass, product.row(), product.unit());
    own.start();
    for (int n = 0; n < s.steps; n++) {
        if (own.there) product.give(n, own.unit, own.mask * own.h);
        own.fetch(s.time(n));
        product.meet(n);
        compute_t<T> y[CELL::GATES];
        product.multiply(n, y);
        own.step(s.time(n), y);
    }
    own.finish();
}

template <class CELL, class T>
__device__ __forceinline__ void backward(const BackwardPass<T>& pass, const Matrix<T>& matrix, const Division& division) {
    constexpr int GATES = CELL::GATES, SUMS = CELL::SUMS;
    const auto& s = pass.sequence;
    Product<T, 1> product(matrix, division, GATES * s.hidden, s.hidden);
    UnitBackward<CELL, T> own(pass, product.row(), product.unit());
    own.start();
    if (s.steps > 0) own.fetch(s.time(s.steps - 1));
    for (int n = s.steps - 1, turn = 0; n >= 0; n--, turn++) {
        compute_t<T> d[SUMS], back[1];
        own.step(s.time(n), d);
        if (own.there)
            for (int g = 0; g < GATES; g++) product.give(turn, g * s.hidden + own.unit, d[SUMS - GATES + g]);
        // Of the step after this one; meanwhile the others come.
        if (n > 0) own.fetch(s.time(n - 1));
        product.meet(turn);
        product.multiply(turn, back);
        own.gain(s.time(n), back[0]);
    }
    own.finish();
}

#define KERNEL(T)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS)                                               \
        recurrence_forward_##T(ForwardPass<T> pass, Matrix<T> matrix, Division division) {              \
        forward<NETWORK>(pass, matrix, division);                                                       \
    }                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS)                                               \
        recurrence_backward_##T(BackwardPass<T> pass, Matrix<T> matrix, Division division) {            \
        backward<NETWORK>(pass, matrix, division);                                                      \
    }
KERNEL(f32)
KERNEL(f64)
KERNEL(f16)
KERNEL(bf16)
