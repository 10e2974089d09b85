// Layer norm of each row, y = (x − mean)·rstd·weight + bias with rstd = 1/√(variance + eps); where CENTERED is false, RMS norm: the same
// with a mean of 0. With -DADDED, of the rows of sum = x + residual, which are written as well: a pre-norm transformer's next layer
// adds to them.
//
// One read and one write of each element (rows.cuh): the variance is that of the row in registers, from the mean. Weight and bias
// come from L1 and L2.
#pragma once
#include "rows.cuh"

#ifdef ADDED
constexpr int OPERANDS = 4;
#define RESIDUAL const X *residual, X *sum,
#define ADD_RESIDUAL row.add({residual + at[1], rows.strides[1]}, {sum + at[2], rows.strides[2]});
#else
constexpr int OPERANDS = 2;
#define RESIDUAL
#define ADD_RESIDUAL
#endif

// Of one dtype with x; null where there is none.
template <class X> struct Affine {
    const X *weight, *bias;
};

template <class ROW, class X = typename ROW::Element, class C = typename ROW::C>
__device__ __forceinline__ void norm(ROW& row, const Affine<X>& affine, const Line<X>& y, C share, C eps, C& mean, C& rstd) {
    mean = CENTERED ? row.sum([](C x) { return x; }) * share : C(0);
    C m = mean, r = rstd = rsqrt(row.sum([&](C x) { return (x - m) * (x - m); }) * share + eps);
    row.each([&](i64 i, const typename ROW::Chunk(&x)[1], int) {
        typename ROW::Chunk out, weight, bias;
        if (affine.weight) weight = read<ROW::LENGTH>(Line<const X>{affine.weight, 1}, i);
        if (affine.bias) bias = read<ROW::LENGTH>(Line<const X>{affine.bias, 1}, i);
#pragma unroll
        for (int j = 0; j < ROW::LENGTH; j++) {
            C v = (load(x[0].at[j]) - m) * r;
            if (affine.weight) v *= load(weight.at[j]);
            if (affine.bias) v += load(bias.at[j]);
            out.at[j] = store<X>(v);
        }
        write<ROW::LENGTH>(y, i, out);
    });
}

#define KERNEL(name, TEAM, ROW, LENGTH)                                                                                 \
    extern "C" __global__ void __launch_bounds__(ROW<TEAM, X, LENGTH, 1>::THREADS, 1)                                   \
    name(const X* x, RESIDUAL X* y, Rows<OPERANDS> rows, const X* weight, const X* bias, C* means, C* rstds,            \
         f64 eps) {                                                                                                     \
        i64 at[OPERANDS], r = TEAM::row(), n = rows.find(r, at);                                                        \
        ROW<TEAM, X, LENGTH, 1> row({{x + at[0], rows.strides[0]}}, n);                                                 \
        ADD_RESIDUAL                                                                                                    \
        C mean, rstd;                                                                                                   \
        norm(row, Affine<X>{weight, bias}, Line<X>{y + at[OPERANDS - 1], rows.strides[OPERANDS - 1]}, C(rows.share),    \
             C(eps), mean, rstd);                                                                                       \
        if (!rows.has(r) || TEAM::rank() > 0) return;                                                                   \
        if (CENTERED) means[r] = mean;                                                                                  \
        rstds[r] = rstd;                                                                                                \
    }
KERNELS(KERNEL)
