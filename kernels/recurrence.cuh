// One step of one unit of a recurrent network, forward and backward: h is the state, x the input's part of a gate's sum, W_ih xₜ + b_ih,
// and y the state's, W_hh hₜ₋₁ + b_hh. Whoever has the products calls these; see recurrence_blocks.cuh and recurrence_step.cu.
#pragma once
#include "functions.cuh"

// How a sequence is run through; the same as `Sequence` in `crates/cuda/src/ops/recurrence.rs`.
template <class C> struct Sequence {
    i32 steps, batch, hidden, reverse;
    // Of each row, or null: all steps. After its last, a row's outputs are zero and its state stays.
    const i32* lengths;
    // [B, H]: multiplies the state in every recurrent product. Or null.
    const C* mask;

    // The time of the n-th step.
    __device__ __forceinline__ i32 time(i32 n) const { return reverse ? steps - 1 - n : n; }
};

// ---- the networks ---------------------------------------------------------------------------------------------------
// GATES have weights; of them SUMS are kept, activated, and have gradients. The input has a part in the first GATES of the
// sums, and the state in the last.

// What the forward pass knew of a step, and the states that it went from and to.
template <class C, int SUMS> struct Step { C gates[SUMS], h, h_before, c, c_before; };

// [i f g o] = [σ σ tanh σ](x + y)      c = f c₋₁ + i g      h = o tanh c       (Hochreiter & Schmidhuber 1997; Gers et al. 2000)
struct Lstm {
    static constexpr int GATES = 4, SUMS = 4;
    static constexpr bool KEEPS_GATES = true, HAS_CELL = true;

    template <class C> __device__ static __forceinline__ void forward(const C (&x)[4], const C (&y)[4], C (&gates)[4], C& h, C& c) {
        C i = logistic(x[0] + y[0]), f = logistic(x[1] + y[1]), g = tanh(x[2] + y[2]), o = logistic(x[3] + y[3]);
        c = f * c + i * g;
        h = o * tanh(c);
        gates[0] = i, gates[1] = f, gates[2] = g, gates[3] = o;
    }
    // From the gradients of h and c to those of the sums; what is left in dh and dc goes to the states before by other ways.
    template <class C> __device__ static __forceinline__ void backward(const Step<C, 4>& s, C& dh, C& dc, C (&d)[4]) {
        C i = s.gates[0], f = s.gates[1], g = s.gates[2], o = s.gates[3], tanh_c = tanh(s.c);
        dc += dh * o * (C(1) - tanh_c * tanh_c);
        d[0] = dc * g * i * (C(1) - i);
        d[1] = dc * s.c_before * f * (C(1) - f);
        d[2] = dc * i * (C(1) - g * g);
        d[3] = dh * tanh_c * o * (C(1) - o);
        dc *= f;
        dh = C(0);
    }
};

// [r z] = σ(x + y)      n = tanh(xₙ + r yₙ)      h = (1 − z) n + z h₋₁      (Cho et al. 2014)
// Kept are r z n and yₙ, in this order; the sums whose gradients are found are n r z yₙ.
struct Gru {
    static constexpr int GATES = 3, SUMS = 4;
    static constexpr bool KEEPS_GATES = true, HAS_CELL = false;

    template <class C> __device__ static __forceinline__ void forward(const C (&x)[3], const C (&y)[3], C (&gates)[4], C& h, C&) {
        C r = logistic(x[0] + y[0]), z = logistic(x[1] + y[1]), n = tanh(x[2] + r * y[2]);
        h = (C(1) - z) * n + z * h;
        gates[0] = r, gates[1] = z, gates[2] = n, gates[3] = y[2];
    }
    template <class C> __device__ static __forceinline__ void backward(const Step<C, 4>& s, C& dh, C&, C (&d)[4]) {
        C r = s.gates[0], z = s.gates[1], n = s.gates[2], y = s.gates[3];
        C dn = dh * (C(1) - z) * (C(1) - n * n);
        d[0] = dn;
        d[1] = dn * y * r * (C(1) - r);
        d[2] = dh * (s.h_before - n) * z * (C(1) - z);
        d[3] = dn * r;
        dh *= z;
    }
};

// h = act(x + y)      (Elman 1990)
template <class ACTIVATION> struct Rnn {
    static constexpr int GATES = 1, SUMS = 1;
    static constexpr bool KEEPS_GATES = false, HAS_CELL = false;

    template <class C> __device__ static __forceinline__ void forward(const C (&x)[1], const C (&y)[1], C (&)[1], C& h, C&) {
        h = ACTIVATION::of(x[0] + y[0]);
    }
    template <class C> __device__ static __forceinline__ void backward(const Step<C, 1>& s, C& dh, C&, C (&d)[1]) {
        d[0] = ACTIVATION::backward(s.h, dh);
        dh = C(0);
    }
};
struct Tanh {
    template <class C> __device__ static __forceinline__ C of(C x) { return tanh(x); }
    template <class C> __device__ static __forceinline__ C backward(C y, C d) { return d * (C(1) - y * y); }
};
struct Relu {
    template <class C> __device__ static __forceinline__ C of(C x) { return x <= C(0) ? C(0) : x; }
    template <class C> __device__ static __forceinline__ C backward(C y, C d) { return y <= C(0) ? C(0) : d; }
};

// ---- a unit of a row of the batch -------------------------------------------------------------------------------------

// What a row's steps have in common. A unit that the state does not have, or a row that the batch does not, has no steps.
template <class C> struct Unit {
    i32 row, unit, length;
    bool there;
    C mask;

    Unit() = default;
    __device__ __forceinline__ Unit(const Sequence<C>& s, i32 row, i32 unit)
        : row(row), unit(unit), length(0), there(row < s.batch && unit < s.hidden), mask(C(1)) {
        if (!there) return;
        length = s.lengths ? s.lengths[row] : s.steps;
        if (s.mask) mask = s.mask[place(s)];
    }
    // Its place in [B, H], and in gate `g` of [T, B, width·H].
    __device__ __forceinline__ i64 place(const Sequence<C>& s) const { return (i64)row * s.hidden + unit; }
    __device__ __forceinline__ i64 place(const Sequence<C>& s, i32 t, int width, int g) const {
        return (((i64)t * s.batch + row) * width + g) * s.hidden + unit;
    }
};

// A pass over a sequence: the arrays; the same as in `recurrence.rs`. `T` is the dtype of what the caller sees.
template <class T> struct ForwardPass {
    typedef compute_t<T> C;
    Sequence<C> sequence;
    // W_ih x + b_ih [T, B, GATES·H]; b_hh [GATES·H] or null; [B, H], c0 null where there is none.
    const T *x, *bias, *h0, *c0;
    // [T, B, H], [B, H] twice.
    T *hs, *h_n, *c_n;
    // [T, B, SUMS·H] and [T, B, H].
    C *gates, *cells;
};
template <class T> struct BackwardPass {
    typedef compute_t<T> C;
    Sequence<C> sequence;
    const T *h0, *c0, *hs;
    const C *gates, *cells;
    // Of hs, h_n and c_n; null is zero.
    const T *d_hs, *d_hn, *d_cn;
    // Of the sums [T, B, SUMS·H], and what they are the gradients of a product with: the masked state before [T, B, H].
    // Both are zero where a row has ended.
    T *d, *before;
    T *d_h0, *d_c0;
};

template <class CELL, class T> struct UnitForward : Unit<compute_t<T>> {
    typedef compute_t<T> C;
    static constexpr int GATES = CELL::GATES, SUMS = CELL::SUMS;
    typedef ForwardPass<T> Pass;
    C h, c, bias[GATES], x[GATES];

    UnitForward() = default;
    __device__ __forceinline__ UnitForward(const Pass& pass, i32 row, i32 unit)
        : Unit<C>(pass.sequence, row, unit), h(C(0)), c(C(0)) {
        for (int g = 0; g < GATES; g++)
            bias[g] = this->there && pass.bias ? load(pass.bias[(i64)g * pass.sequence.hidden + unit]) : C(0);
    }
    __device__ __forceinline__ void start(const Pass& pass) {
        if (!this->there) return;
        h = load(pass.h0[this->place(pass.sequence)]);
        if (CELL::HAS_CELL) c = load(pass.c0[this->place(pass.sequence)]);
    }
    // Reads what step `t` needs, some time before it is needed.
    __device__ __forceinline__ void fetch(const Pass& pass, i32 t) {
        for (int g = 0; g < GATES; g++)
            x[g] = t < this->length ? load(pass.x[this->place(pass.sequence, t, GATES, g)]) : C(0);
    }
    // `y` is W_hh (mask ∘ h).
    __device__ __forceinline__ void step(const Pass& pass, i32 t, C (&y)[GATES]) {
        if (!this->there) return;
        const Sequence<C>& s = pass.sequence;
        bool active = t < this->length;
        if (active) {
            C gates[SUMS];
            for (int g = 0; g < GATES; g++) y[g] += bias[g];
            CELL::forward(x, y, gates, h, c);
            if (CELL::KEEPS_GATES)
                for (int g = 0; g < SUMS; g++) pass.gates[this->place(s, t, SUMS, g)] = gates[g];
        }
        pass.hs[this->place(s, t, 1, 0)] = store<T>(active ? h : C(0));
        if (CELL::HAS_CELL) pass.cells[this->place(s, t, 1, 0)] = active ? c : C(0);
    }
    __device__ __forceinline__ void finish(const Pass& pass) {
        if (!this->there) return;
        pass.h_n[this->place(pass.sequence)] = store<T>(h);
        if (CELL::HAS_CELL) pass.c_n[this->place(pass.sequence)] = store<T>(c);
    }
};

template <class CELL, class T> struct UnitBackward : Unit<compute_t<T>> {
    typedef compute_t<T> C;
    static constexpr int GATES = CELL::GATES, SUMS = CELL::SUMS;
    typedef BackwardPass<T> Pass;
    C dh, dc, d_out;
    Step<C, SUMS> saved;

    UnitBackward() = default;
    __device__ __forceinline__ UnitBackward(const Pass& pass, i32 row, i32 unit)
        : Unit<C>(pass.sequence, row, unit), dh(C(0)), dc(C(0)) {}
    __device__ __forceinline__ void start(const Pass& pass) {
        if (!this->there) return;
        if (pass.d_hn) dh = load(pass.d_hn[this->place(pass.sequence)]);
        if (pass.d_cn) dc = load(pass.d_cn[this->place(pass.sequence)]);
    }
    // The state before step `t`: the first one, or what the step before gave out.
    template <class X>
    __device__ __forceinline__ C before(const Sequence<C>& s, const T* first, const X* all, i32 t) const {
        i32 previous = s.reverse ? t + 1 : t - 1;
        bool is_first = previous < 0 || previous == this->length;
        return is_first ? load(first[this->place(s)]) : load(all[this->place(s, previous, 1, 0)]);
    }
    __device__ __forceinline__ void fetch(const Pass& pass, i32 t) {
        if (t >= this->length) return;
        const Sequence<C>& s = pass.sequence;
        i64 at = this->place(s, t, 1, 0);
        if (CELL::KEEPS_GATES)
            for (int g = 0; g < SUMS; g++) saved.gates[g] = pass.gates[this->place(s, t, SUMS, g)];
        else
            saved.h = load(pass.hs[at]);
        saved.h_before = before(s, pass.h0, pass.hs, t);
        if (CELL::HAS_CELL) saved.c = pass.cells[at], saved.c_before = before(s, pass.c0, pass.cells, t);
        d_out = pass.d_hs ? load(pass.d_hs[at]) : C(0);
    }
    // The sums' gradients, of which the last GATES go to the state before by way of the recurrent product.
    __device__ __forceinline__ void step(const Pass& pass, i32 t, C (&d)[SUMS]) {
        for (int g = 0; g < SUMS; g++) d[g] = C(0);
        if (!this->there) return;
        const Sequence<C>& s = pass.sequence;
        bool active = t < this->length;
        if (active) {
            dh += d_out;
            CELL::backward(saved, dh, dc, d);
        }
        for (int g = 0; g < SUMS; g++) pass.d[this->place(s, t, SUMS, g)] = store<T>(d[g]);
        pass.before[this->place(s, t, 1, 0)] = store<T>(active ? this->mask * saved.h_before : C(0));
    }
    // What that product brings.
    __device__ __forceinline__ void gain(i32 t, C product) {
        if (t < this->length) dh += this->mask * product;
    }
    __device__ __forceinline__ void finish(const Pass& pass) {
        if (!this->there) return;
        pass.d_h0[this->place(pass.sequence)] = store<T>(dh);
        if (CELL::HAS_CELL) pass.d_c0[this->place(pass.sequence)] = store<T>(dc);
    }
};
