// The softmax of scores that come a tile at a time; see attention.cu.
#pragma once
#include "attention_scores.cuh"

// A number for each row of which a lane has a part.
typedef Real OfRows[FRAGMENTS][2];

// Of a warp's queries so far: the largest score m, and the sum l of 2^(s − m), of which a lane knows its own columns' share.
struct Softmax {
    OfRows m, l;

    __device__ __forceinline__ void begin() {
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                m[f][i] = smallest_of(Real(0));
                l[f][i] = 0;
            }
    }

    // Scores become weights relative to the new maximum; earlier ones are to be multiplied by `decay`. A NaN is no maximum, but
    // makes a NaN of l.
    __device__ __forceinline__ void step(Scores& s, Real factor, OfRows& decay) {
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                Real top = m[f][i];
#pragma unroll
                for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                    for (int e = 2 * i; e < 2 * i + 2; e++) top = fmax(top, s[f][n][e]);
                top = over_row<Max<Real>>(top);
                Real shift = shift_of(top, factor), sum = 0;
                decay[f][i] = power_of_two(m[f][i] * factor - shift);
#pragma unroll
                for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                    for (int e = 2 * i; e < 2 * i + 2; e++) {
                        s[f][n][e] = power_of_two(s[f][n][e] * factor - shift);
                        sum += s[f][n][e];
                    }
                m[f][i] = top;
                l[f][i] = l[f][i] * decay[f][i] + sum;
            }
    }

    // Sums of values become the answers; L goes to memory, where the block's first of so many queries has its own. A query that sees
    // nothing has zeros and −∞, whatever the values are.
    __device__ __forceinline__ void finish(Sums& o, const Attention& a, Real* lse, int queries) const {
        Real kept = a.kept != 0 ? Real(a.kept) : Real(1);
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                Real sum = over_row<Sum<Real>>(l[f][i]);
                int row = first_row() + row_of(f, 2 * i);
                if (lane_id() % 4 == 0 && row < queries) lse[row] = logsumexp(m[f][i], sum, Real(a.factor));
                Real share = kept / sum;
#pragma unroll
                for (int n = 0; n < HEAD / 8; n++)
#pragma unroll
                    for (int e = 2 * i; e < 2 * i + 2; e++) o[f][n][e] = sum == 0 ? Real(0) : o[f][n][e] * share;
            }
    }
};

__device__ __forceinline__ void rescale(Sums& o, const OfRows& factors) {
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int n = 0; n < HEAD / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) o[f][n][e] *= factors[f][e / 2];
}
