// A recurrent network's way through time (recurrence_blocks.cuh) with products in f32 or f64, weights in shared memory.
//
// What limits it: multiplications, as shared memory is read for four rows at once; and where blocks meet, the way to L2 and back.
// -DNETWORK=Lstm, Gru, Rnn<Tanh> or Rnn<Relu>.
#include "recurrence_blocks.cuh"
#include "reduction.cuh"

// Threads of a block, most. Four neighbours have the same unit in four rows, and divide the terms of the product among them.
constexpr int THREADS = 512, QUAD = 4;

// From a row of a tile to the next: its terms end with zeros, and four threads of two rows read 128 bytes of different banks.
__device__ __forceinline__ int pitch_of(int terms) {
    int sixteens = (terms + 15) / 16;
    return 16 * (sixteens + (sixteens % 2 == 0));
}

// Each of four lanes has a part of four sums; it gets the whole of the one that has its own number.
template <class T> __device__ __forceinline__ T sum_of_quad(const T (&part)[QUAD]) {
    bool odd = lane_id() & 1, upper = lane_id() & 2;
    T a = (upper ? part[2] : part[0]) + other_lane(upper ? part[0] : part[2], 2);
    T b = (upper ? part[3] : part[1]) + other_lane(upper ? part[1] : part[3], 2);
    return (odd ? b : a) + other_lane(odd ? a : b, 1);
}

// OUTPUTS sums for each unit.
template <class T, int OUTPUTS> struct Product {
    static constexpr int OWN = 1;
    const Division& division;
    int terms;
    Tile<T> tile;
    // [OUTPUTS, units, pitch].
    T* weights;

    __device__ __forceinline__ Product(const Matrix<T>& matrix, const Division& division)
        : division(division), terms(matrix.terms), tile(division, pitch_of(terms)), weights(tile.end()) {
        keep(matrix);
        __syncthreads();
    }
    __device__ __forceinline__ int own_row() const { return threadIdx.x / (QUAD * division.units) * QUAD + threadIdx.x % QUAD; }
    __device__ __forceinline__ int own_unit() const { return threadIdx.x / QUAD % division.units; }
    __device__ __forceinline__ int row(int) const { return division.first_row() + own_row(); }
    __device__ __forceinline__ int unit(int) const { return division.first_unit() + own_unit(); }

    // The block's part of the matrix. Neighbouring threads read neighbours in memory.
    __device__ __forceinline__ void keep(const Matrix<T>& matrix) {
        int units = division.units, pitch = tile.pitch;
        for (int i = threadIdx.x; i < OUTPUTS * units * pitch; i += blockDim.x) {
            int u, k, o;
            if (matrix.term == 1)
                k = i % pitch, u = i / pitch % units, o = i / pitch / units;
            else
                u = i % units, k = i / units % pitch, o = i / units / pitch;
            weights[(o * units + u) * pitch + k] = matrix.at(k, division.first_unit() + u, o);
        }
    }

    // Term `k` of this thread's row.
    __device__ __forceinline__ void give(int turn, int, int k, T x) const { tile.given(turn)[own_row() * tile.pitch + k] = x; }
    __device__ __forceinline__ void meet(int turn) const { tile.meet(turn); }

    // The sums of this thread's row and unit. A weight that is read serves four rows.
    __device__ __forceinline__ void multiply(int turn, T (&sums)[OWN][OUTPUTS]) const {
        constexpr int LENGTH = Vector<T>::LENGTH;
        int quarter = threadIdx.x % QUAD, pitch = tile.pitch;
        const T *x = tile.read(turn) + (own_row() - quarter) * pitch, *w = weights + own_unit() * pitch;
        T parts[OUTPUTS][QUAD] = {};
#pragma unroll 1
        for (int k = LENGTH * quarter; k < terms; k += LENGTH * QUAD) {
            Vector<T> of[OUTPUTS];
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++) of[o] = *(const Vector<T>*)(w + o * division.units * pitch + k);
#pragma unroll
            for (int row = 0; row < QUAD; row++) {
                Vector<T> by = *(const Vector<T>*)(x + row * pitch + k);
#pragma unroll
                for (int o = 0; o < OUTPUTS; o++)
#pragma unroll
                    for (int j = 0; j < LENGTH; j++) parts[o][row] += of[o].at[j] * by.at[j];
            }
        }
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) sums[0][o] = sum_of_quad(parts[o]);
    }
};

#define KERNEL(T)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                            \
        recurrence_forward_##T(ForwardPass<T> pass, Matrix<T> matrix, Division division) {              \
        forward<NETWORK, Product<T, NETWORK::GATES>>(pass, matrix, division);                           \
    }                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                            \
        recurrence_backward_##T(BackwardPass<T> pass, Matrix<T> matrix, Division division) {            \
        backward<NETWORK, Product<T, 1>>(pass, matrix, division);                                       \
    }
KERNEL(f32)
KERNEL(f64)
