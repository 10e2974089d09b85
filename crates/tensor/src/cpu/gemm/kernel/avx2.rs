//! AVX2 with FMA: tiles of 6 rows × 2 vectors. 12 of the 16 registers hold the tile, 2 a row of `B`, 1 an element of `A`.

use super::simd::{simd_dot, simd_kernel, simd_ops};

simd_ops!(
    ymm_f32,
    "avx2,fma,f16c",
    f32,
    __m256,
    __m256i,
    8,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    |a, b, c| _mm256_fmadd_ps(a, b, c),
    _mm256_add_ps,
    |p| _mm256_loadu_ps(p),
    |p, v| _mm256_storeu_ps(p, v),
    |n| _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
    |p, m| _mm256_maskload_ps(p, m),
    |p, m, v| _mm256_maskstore_ps(p, m, v)
);
simd_ops!(
    ymm_f64,
    "avx2,fma,f16c",
    f64,
    __m256d,
    __m256i,
    4,
    _mm256_setzero_pd,
    _mm256_set1_pd,
    |a, b, c| _mm256_fmadd_pd(a, b, c),
    _mm256_add_pd,
    |p| _mm256_loadu_pd(p),
    |p, v| _mm256_storeu_pd(p, v),
    |n| _mm256_cmpgt_epi64(_mm256_set1_epi64x(n as i64), _mm256_setr_epi64x(0, 1, 2, 3)),
    |p, m| _mm256_maskload_pd(p, m),
    |p, m, v| _mm256_maskstore_pd(p, m, v)
);
simd_dot!(dot_f32, f32, "avx2,fma,f16c", ymm_f32);
simd_dot!(dot_f64, f64, "avx2,fma,f16c", ymm_f64);
simd_kernel!(f32, "avx2,fma,f16c", ymm_f32, 6, [1 2 3 4 5 6], [0 1 2 3 4 5], Some(super::dot_f32::dot), avx2_f32);
simd_kernel!(f64, "avx2,fma,f16c", ymm_f64, 6, [1 2 3 4 5 6], [0 1 2 3 4 5], Some(super::dot_f64::dot), avx2_f64);

/// Packed pairs of 16-bit integers: the same tiles, with `pmaddwd`, which multiplies the pairs and adds both products.
pub mod words {
    use super::super::simd::{simd_kernel, simd_ops};

    simd_ops!(
        ops,
        "avx2,fma,f16c",
        i32,
        __m256i,
        __m256i,
        8,
        _mm256_setzero_si256,
        _mm256_set1_epi32,
        |a, b, c| _mm256_add_epi32(c, _mm256_madd_epi16(a, b)),
        _mm256_add_epi32,
        |p| _mm256_loadu_si256(p.cast()),
        |p, v| _mm256_storeu_si256(p.cast(), v),
        |n| _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
        |p, m| _mm256_maskload_epi32(p, m),
        |p, m, v| _mm256_maskstore_epi32(p, m, v)
    );
    simd_kernel!(i32, "avx2,fma,f16c", ops, 6, [1 2 3 4 5 6], [0 1 2 3 4 5], None, avx2_i32);
}
