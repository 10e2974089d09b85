// The 2-norm of many tensors as one vector, and many tensors times one number: what clipping gradients needs.
//
// Bandwidth is the limit: the norm reads every gradient once, the scaling reads and writes it once. Each block sums the squares
// of its chunk; one block adds the sums up, always in the same order. Squares are formed in f64, where those of f32 do not
// overflow.
#include "reduction.cuh"
#include "tensors.cuh"

template <class X> struct SumOfSquares {
    const X* x;
    f64 sum;
    template <int N> __device__ __forceinline__ void operator()(i64 i, Length<N>) {
        struct alignas(N * sizeof(X)) Run { X at[N]; };
        Run run = ((const Run*)x)[i];
        for (int j = 0; j < N; j++) {
            f64 v = load(run.at[j]);
            sum += v * v;
        }
    }
};

// sums[block] = Σ x² over the block's chunk.
template <class X> __device__ __forceinline__ void sums_of_squares(const Tensors& tensors, f64* sums) {
    Chunk chunk = chunk_of(tensors);
    SumOfSquares<X> squares = {(const X*)tensors.at[chunk.tensor][0], 0};
    // By reference: what it has summed is wanted.
    each_run<X, SumOfSquares<X>&>(chunk, (u64)squares.x % 16 == 0, squares);
    f64 sum = block_reduce<Sum<f64>>(squares.sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// norm = √Σ sums, by one block.
extern "C" __global__ void root_of_sum(const f64* sums, i64 n, f64* norm) {
    f64 sum = 0;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) sum += sums[i];
    sum = block_reduce<Sum<f64>>(sum);
    if (threadIdx.x == 0) *norm = sqrt(sum);
}

template <class X> struct Scale {
    X* x;
    compute_t<X> factor;
    template <int N> __device__ __forceinline__ void operator()(i64 i, Length<N>) {
        struct alignas(N * sizeof(X)) Run { X at[N]; };
        Run run = ((const Run*)x)[i];
        for (int j = 0; j < N; j++) run.at[j] = store<X>(load(run.at[j]) * factor);
        ((Run*)x)[i] = run;
    }
};

template <class X> __device__ __forceinline__ void scale(const Tensors& tensors, const f64* factor) {
    Chunk chunk = chunk_of(tensors);
    Scale<X> scale = {(X*)tensors.at[chunk.tensor][0], compute_t<X>(*factor)};
    each_run<X>(chunk, (u64)scale.x % 16 == 0, scale);
}

#define KERNEL(X)                                                                                                       \
    extern "C" __global__ void sums_of_squares_##X(const __grid_constant__ Tensors tensors, f64* sums) { sums_of_squares<X>(tensors, sums); }   \
    extern "C" __global__ void scale_##X(const __grid_constant__ Tensors tensors, const f64* factor) { scale<X>(tensors, factor); }
KERNEL(f32)
KERNEL(f64)
KERNEL(f16)
KERNEL(bf16)
