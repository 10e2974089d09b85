// A recurrent network step by step, where its weights do not fit on the chip: a matrix product for each step, and then one of these
// for what is left of it. The weights are read again at each step, which is the limit. -DNETWORK=Lstm, Gru, Rnn<Tanh> or Rnn<Relu>.
#include "layout.cuh"
#include "recurrence.cuh"

// The states [B, H] between two launches: h and c, or their gradients; c where there is a cell. And, forward, the operand of the next
// product: the masked state, as the product's type has it.
template <class T> struct States {
    compute_t<T> *h, *c;
    T* masked;
};

// Step `n`: from the product of the masked state and W_hhᵀ, [B, GATES·H]. After the last step, the end.
template <class CELL, class T>
__device__ __forceinline__ void step_forward(const ForwardPass<T>& pass, const States<T>& states, const T* product, i32 n) {
    typedef compute_t<T> C;
    constexpr int GATES = CELL::GATES;
    const Sequence<C>& s = pass.sequence;
    i64 i = thread_in_grid();
    if (i >= (i64)s.batch * s.hidden) return;
    UnitForward<CELL, T> own(pass, (i32)(i / s.hidden), (i32)(i % s.hidden));
    own.h = states.h[i];
    if (CELL::HAS_CELL) own.c = states.c[i];
    if (n == s.steps) return own.finish(pass);
    i32 t = s.time(n);
    own.fetch(pass, t);
    C y[GATES];
    for (int g = 0; g < GATES; g++) y[g] = load(product[own.place(s, 0, GATES, g)]);
    own.step(pass, t, y);
    states.h[i] = own.h;
    if (CELL::HAS_CELL) states.c[i] = own.c;
    states.masked[i] = store<T>(own.mask * own.h);
}

// Step `n`, the last one first: from the product of the gradients at step n + 1 and W_hh, [B, H]. After step 0, the end.
template <class CELL, class T>
__device__ __forceinline__ void step_backward(const BackwardPass<T>& pass, const States<T>& states, const T* product, i32 n) {
    typedef compute_t<T> C;
    const Sequence<C>& s = pass.sequence;
    i64 i = thread_in_grid();
    if (i >= (i64)s.batch * s.hidden) return;
    UnitBackward<CELL, T> own(pass, (i32)(i / s.hidden), (i32)(i % s.hidden));
    if (n == s.steps - 1) {
        own.start(pass);
    } else {
        own.dh = states.h[i];
        if (CELL::HAS_CELL) own.dc = states.c[i];
        own.gain(s.time(n + 1), load(product[i]));
    }
    if (n < 0) return own.finish(pass);
    i32 t = s.time(n);
    C d[CELL::SUMS];
    own.fetch(pass, t);
    own.step(pass, t, d);
    states.h[i] = own.dh;
    if (CELL::HAS_CELL) states.c[i] = own.dc;
}

#define KERNEL(T)                                                                                                    \
    extern "C" __global__ void recurrence_step_forward_##T(ForwardPass<T> pass, States<T> states, const T* product, i32 n) {   \
        step_forward<NETWORK>(pass, states, product, n);                                                             \
    }                                                                                                                \
    extern "C" __global__ void recurrence_step_backward_##T(BackwardPass<T> pass, States<T> states, const T* product, i32 n) { \
        step_backward<NETWORK>(pass, states, product, n);                                                            \
    }
KERNEL(f32)
KERNEL(f64)
KERNEL(f16)
KERNEL(bf16)
