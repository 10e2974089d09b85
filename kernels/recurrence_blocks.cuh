// A recurrent network over a whole sequence, forward or backward, in one launch. The input's products with W_ih and those that give
// the weights' gradients have no recurrence in them: they are made elsewhere, for all of time at once. What is left is, at each step,
// W_hh times a state of few rows, and reading W_hh would be all that it costs. So a block reads its part of W_hh once and keeps it on
// the chip through time (persistent RNN: G. Diamos et al. 2016).
//
// A block has some rows of the batch and some units of the state, with all gates of these; a thread has a unit in one row or in
// several, whose h and c stay in its registers. Rows do not need each other; the units of a row do, at every step. Where one block has all of
// them, a step ends with a barrier of the block. Elsewhere the blocks of the same rows ("slices" of the units) run at the same time;
// they exchange states through L2 and wait for each other.
//
// The product is a class of its own: recurrence_mma.cu has it on tensor cores, recurrence_simt.cu exactly.
#pragma once
#include "recurrence.cuh"

// How the work is divided; the same as in `recurrence.rs`.
struct Division {
    // Of a block: rows and units. Blocks that share rows.
    i32 rows, units, slices;
    // The first row of all blocks.
    i32 first;
    // Where several blocks have the same rows: what they exchange, two tiles for each set of rows, at first zero, and how many have
    // come so far, for each set of rows.
    void* exchanged;
    u32* arrived;

    __device__ __forceinline__ bool alone() const { return slices == 1; }
    // The block's set of rows, and its first row and unit.
    __device__ __forceinline__ int group() const { return blockIdx.x / slices; }
    __device__ __forceinline__ int first_row() const { return first + group() * rows; }
    __device__ __forceinline__ int first_unit() const { return blockIdx.x % slices * units; }
};

// The matrix of the recurrent product: a unit's element (term, output), where the output is a gate or the only one. Outside, zeros.
template <class T> struct Matrix {
    const T* data;
    i64 term, unit, output;
    i32 terms, units;

    __device__ __forceinline__ T at(int k, int u, int o) const {
        return k < terms && u < units ? data[k * term + u * unit + o * output] : store<T>(compute_t<T>(0));
    }
};

// What all units of a block's rows give to the product, row by row; behind the last one, zeros. It is where the block's dynamic shared
// memory begins.
template <class X> struct Tile {
    const Division& division;
    // From a row to the next, in numbers: a multiple of 16 bytes.
    int pitch;
    X* data;

    __device__ __forceinline__ Tile(const Division& division, int pitch) : division(division), pitch(pitch) {
        DYNAMIC_SHARED(X, memory);
        data = memory;
        for (X* x = data + threadIdx.x; x < end(); x += blockDim.x) *x = X{};
    }
    // A block that is alone has two: in one turn it reads the one, and writes to the other for the next.
    __device__ __forceinline__ X* end() const { return data + (division.alone() ? 2 : 1) * division.rows * pitch; }

    // Where rows are given in a turn, and where they are read once all have met.
    __device__ __forceinline__ X* given(int turn) const {
        int groups = gridDim.x / division.slices, size = division.rows * pitch;
        if (division.alone()) return data + turn % 2 * size;
        return (X*)division.exchanged + (i64)(turn % 2 * groups + division.group()) * size;
    }
    __device__ __forceinline__ const X* read(int turn) const { return division.alone() ? given(turn) : data; }

    // Until all have given. What was given two turns ago is overwritten next, and has been read by then: who reads it comes here later
    // only after that.
    __device__ __forceinline__ void meet(int turn) const {
        __syncthreads();
        if (division.alone()) return;
        if (threadIdx.x == 0) {
            u32* arrived = division.arrived + division.group();
            red_release_add(arrived, 1);
            while (ld_acquire(arrived) < (u32)(turn + 1) * division.slices) {}
        }
        __syncthreads();
        const Vector<X>* from = (const Vector<X>*)given(turn);
        for (int i = threadIdx.x; i < division.rows * pitch / Vector<X>::LENGTH; i += blockDim.x)
            cp_async_16((Vector<X>*)data + i, from + i);
        cp_async_wait_all();
        __syncthreads();
    }
};

// ---- the way through time -----------------------------------------------------------------------------------------------
// A PRODUCT knows the units of its thread, OWN of them, in one row or several; it takes what they give, some numbers each, and has for
// each of them its sums of what all units of the row gave.

template <class CELL, class PRODUCT, class T>
__device__ __forceinline__ void forward(const ForwardPass<T>& pass, const Matrix<T>& matrix, const Division& division) {
    constexpr int OWN = PRODUCT::OWN;
    const auto& s = pass.sequence;
    PRODUCT product(matrix, division);
    UnitForward<CELL, T> own[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        own[i] = UnitForward<CELL, T>(pass, product.row(i), product.unit(i));
        own[i].start(pass);
    }
    for (int n = 0; n < s.steps; n++) {
        i32 t = s.time(n);
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            if (own[i].there) product.give(n, i, own[i].unit, own[i].mask * own[i].h);
            // What this step needs comes while the others do.
            own[i].fetch(pass, t);
        }
        product.meet(n);
        compute_t<T> y[OWN][CELL::GATES];
        product.multiply(n, y);
#pragma unroll
        for (int i = 0; i < OWN; i++) own[i].step(pass, t, y[i]);
    }
#pragma unroll
    for (int i = 0; i < OWN; i++) own[i].finish(pass);
}

template <class CELL, class PRODUCT, class T>
__device__ __forceinline__ void backward(const BackwardPass<T>& pass, const Matrix<T>& matrix, const Division& division) {
    constexpr int OWN = PRODUCT::OWN, GATES = CELL::GATES, SUMS = CELL::SUMS;
    const auto& s = pass.sequence;
    PRODUCT product(matrix, division);
    UnitBackward<CELL, T> own[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        own[i] = UnitBackward<CELL, T>(pass, product.row(i), product.unit(i));
        own[i].start(pass);
        if (s.steps > 0) own[i].fetch(pass, s.time(s.steps - 1));
    }
    for (int n = s.steps - 1, turn = 0; n >= 0; n--, turn++) {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            compute_t<T> d[SUMS];
            own[i].step(pass, s.time(n), d);
            if (own[i].there)
                for (int g = 0; g < GATES; g++) product.give(turn, i, g * s.hidden + own[i].unit, d[SUMS - GATES + g]);
            // Of the step after this one.
            if (n > 0) own[i].fetch(pass, s.time(n - 1));
        }
        product.meet(turn);
        compute_t<T> back[OWN][1];
        product.multiply(turn, back);
#pragma unroll
        for (int i = 0; i < OWN; i++) own[i].gain(s.time(n), back[i][0]);
    }
#pragma unroll
    for (int i = 0; i < OWN; i++) own[i].finish(pass);
}
