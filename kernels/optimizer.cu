// One step of an optimiser in place: parameters p and their states change, given the gradients g. The formulas are those of
// `crates/tensor/src/ops/optimizer.rs`. One program for each rule: -DRULE=adam -DSTATES=2.
//
// Bandwidth is the limit: everything is read once and written once, 16 bytes at a time, of many parameters in one launch.
#include "tensors.cuh"

// What `crates/cuda/src/ops/optimizer.rs` sends, in the order in which a rule takes it.
struct Numbers { f64 at[8]; };

// A rule changes p and its numbers s, of which there are STATES.
#define UPDATE(name) template <class T> __device__ __forceinline__ void name(const T (&a)[8], T& p, T g, T* s)

UPDATE(sgd) {
    T lr = a[0], l2 = a[1];
    p -= lr * (g + l2 * p);
}

UPDATE(sgd_momentum) {
    T lr = a[0], l2 = a[1], momentum = a[2], fresh = a[3], look_ahead = a[4];
    bool first = a[5] != T(0);
    g += l2 * p;
    // Whatever the buffer held at the first step, NaN included, is not in the sum.
    s[0] = first ? g : momentum * s[0] + fresh * g;
    p -= lr * (look_ahead != T(0) ? g + look_ahead * s[0] : s[0]);
}

// Both take p · keep (AdamW) and g + l2 · p (Adam): one of them changes nothing.
UPDATE(adam) {
    T step_size = a[0], keep = a[1], l2 = a[2], fresh1 = a[3], beta2 = a[4], fresh2 = a[5], scale2 = a[6], eps = a[7];
    g += l2 * p;
    s[0] += fresh1 * (g - s[0]);
    s[1] = beta2 * s[1] + fresh2 * g * g;
    p = p * keep - step_size * (s[0] / (sqrt(s[1]) * scale2 + eps));
}

UPDATE(amsgrad) {
    T step_size = a[0], keep = a[1], l2 = a[2], fresh1 = a[3], beta2 = a[4], fresh2 = a[5], scale2 = a[6], eps = a[7];
    g += l2 * p;
    s[0] += fresh1 * (g - s[0]);
    s[1] = beta2 * s[1] + fresh2 * g * g;
    // A NaN goes on into the maximum.
    s[2] = s[2] > s[1] ? s[2] : s[1];
    p = p * keep - step_size * (s[0] / (sqrt(s[2]) * scale2 + eps));
}

// √(v − a²), where rounding may take the difference below 0; NaN stays NaN.
template <class T> __device__ __forceinline__ T deviation(T v, T a) {
    T variance = v - a * a;
    return sqrt(variance < T(0) ? T(0) : variance);
}

UPDATE(rmsprop) {
    T lr = a[0], l2 = a[1], alpha = a[2], fresh = a[3], eps = a[4];
    g += l2 * p;
    s[0] = alpha * s[0] + fresh * g * g;
    p -= lr * (g / (sqrt(s[0]) + eps));
}

UPDATE(rmsprop_centered) {
    T lr = a[0], l2 = a[1], alpha = a[2], fresh = a[3], eps = a[4];
    g += l2 * p;
    s[0] = alpha * s[0] + fresh * g * g;
    s[1] = alpha * s[1] + fresh * g;
    p -= lr * (g / (deviation(s[0], s[1]) + eps));
}

UPDATE(rmsprop_momentum) {
    T lr = a[0], l2 = a[1], alpha = a[2], fresh = a[3], eps = a[4], momentum = a[5];
    g += l2 * p;
    s[0] = alpha * s[0] + fresh * g * g;
    s[1] = momentum * s[1] + g / (sqrt(s[0]) + eps);
    p -= lr * s[1];
}

UPDATE(rmsprop_centered_momentum) {
    T lr = a[0], l2 = a[1], alpha = a[2], fresh = a[3], eps = a[4], momentum = a[5];
    g += l2 * p;
    s[0] = alpha * s[0] + fresh * g * g;
    s[1] = alpha * s[1] + fresh * g;
    s[2] = momentum * s[2] + g / (deviation(s[0], s[1]) + eps);
    p -= lr * s[2];
}

UPDATE(adagrad) {
    T lr = a[0], l2 = a[1], eps = a[2];
    g += l2 * p;
    s[0] += g * g;
    p -= lr * (g / (sqrt(s[0]) + eps));
}

UPDATE(adadelta) {
    T lr = a[0], l2 = a[1], rho = a[2], fresh = a[3], eps = a[4];
    g += l2 * p;
    s[0] = rho * s[0] + fresh * g * g;
    T change = sqrt(s[1] + eps) / sqrt(s[0] + eps) * g;
    s[1] = rho * s[1] + fresh * change * change;
    p -= lr * change;
}

UPDATE(lion) {
    T lr = a[0], decay = a[1], beta1 = a[2], fresh1 = a[3], beta2 = a[4], fresh2 = a[5];
    T mixed = beta1 * s[0] + fresh1 * g;
    // 0 and NaN are their own signs.
    T sign = mixed > T(0) ? T(1) : mixed < T(0) ? T(-1) : mixed;
    p -= lr * (sign + decay * p);
    s[0] = beta2 * s[0] + fresh2 * g;
}

UPDATE(lerp) {
    T weight = a[0];
    p += weight * (g - p);
}

UPDATE(scale_add) {
    T keep = a[0], scale = a[1];
    p = keep * p + scale * g;
}

// Run i of LENGTH elements of p, g, then the states.
template <int LENGTH, class T> __device__ __forceinline__ void step(const T (&numbers)[8], void* const* operands, i64 i) {
    struct alignas(LENGTH * sizeof(T)) Run { T at[LENGTH]; };
    constexpr int COUNT = 2 + STATES;
    Run runs[COUNT];
    for (int k = 0; k < COUNT; k++) runs[k] = ((const Run*)operands[k])[i];
    for (int j = 0; j < LENGTH; j++) {
        T s[STATES + 1];
        for (int k = 2; k < COUNT; k++) s[k - 2] = runs[k].at[j];
        RULE(numbers, runs[0].at[j], runs[1].at[j], s);
        for (int k = 2; k < COUNT; k++) runs[k].at[j] = s[k - 2];
    }
    for (int k = 0; k < COUNT; k++)
        if (k != 1) ((Run*)operands[k])[i] = runs[k];
}

template <class T> struct Step {
    T numbers[8];
    void* const* operands;
    template <int N> __device__ __forceinline__ void operator()(i64 i, Length<N>) { step<N>(numbers, operands, i); }
};

// `live`: in a graph, where the numbers of this replay are; else null.
template <class T> __device__ __forceinline__ void step_all(const Tensors& tensors, const Numbers& numbers, const Numbers* live) {
    Chunk chunk = chunk_of(tensors);
    Step<T> step;
    for (int k = 0; k < 8; k++) step.numbers[k] = T(live ? live->at[k] : numbers.at[k]);
    step.operands = tensors.at[chunk.tensor];
    u64 places = 0;
    for (int k = 0; k < 2 + STATES; k++) places |= (u64)step.operands[k];
    each_run<T>(chunk, places % 16 == 0, step);
}

#define KERNEL(T)                                                                                                       \
    extern "C" __global__ void step_##T(const __grid_constant__ Tensors tensors, Numbers numbers, const Numbers* live) {                        \
        step_all<T>(tensors, numbers, live);                                                                            \
    }
KERNEL(f32)
KERNEL(f64)
