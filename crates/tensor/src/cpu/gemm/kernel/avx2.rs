//! AVX2 with FMA: tiles of 6 rows × 2 vectors. 12 of the 16 registers hold the tile, 2 a row of `B`, 1 an element of `A`.

use super::simd::{simd_kernel, simd_ops};

simd_ops!(
    ymm_f32,
    "avx2,fma,f16c",
    f32,
    __m256,
    __m256i,
    8,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
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
    _mm256_fmadd_pd,
    _mm256_add_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    |n| _mm256_cmpgt_epi64(_mm256_set1_epi64x(n as i64), _mm256_setr_epi64x(0, 1, 2, 3)),
    |p, m| _mm256_maskload_pd(p, m),
    |p, m, v| _mm256_maskstore_pd(p, m, v)
);
simd_kernel!(f32, "avx2,fma,f16c", ymm_f32, 6, [1 2 3 4 5 6], [0 1 2 3 4 5], avx2_f32);
simd_kernel!(f64, "avx2,fma,f16c", ymm_f64, 6, [1 2 3 4 5 6], [0 1 2 3 4 5], avx2_f64);
