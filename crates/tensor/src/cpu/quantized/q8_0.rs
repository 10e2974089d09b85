//! The kernels of the format q8_0: blocks of an f16 scale and 32 integers of 8 bits.
//!
//! The compiler unrolls loops over a block and then finds no vectors in them, so these are written out.

use crate::cpu::gemm::GemmElement;
use crate::cpu::level::Level;
use half::f16;

/// Weights of a block.
pub const LEN: usize = 32;
/// Its bytes: the scale and the weights.
pub const BYTES: usize = 2 + LEN;

/// Whole blocks of finite numbers.
pub fn quantize(x: &[f32], out: &mut [u8]) -> Result<(), String> {
    for (x, out) in x.chunks_exact(LEN).zip(out.chunks_exact_mut(BYTES)) {
        let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let d = largest / 127.0;
        let scale = f16::from_f32(d);
        if !scale.is_finite() {
            return Err(format!("a block's largest magnitude is {largest:e}, beyond 127 × 65504, the largest f16"));
        }
        out[..2].copy_from_slice(&scale.to_le_bytes());
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        for (q, x) in out[2..].iter_mut().zip(x) {
            *q = (x * inverse).round() as i8 as u8;
        }
    }
    Ok(())
}

/// Whole blocks, at a level; one that the machine lacks is lowered to one that it has.
pub fn dequantize(level: Level, blocks: &[u8], out: &mut [f32]) {
    match level.usable() {
        // SAFETY: `usable` returns what the machine has.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::avx512::dequantize(blocks, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::avx2::dequantize(blocks, out) },
        _ => {
            for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
                let (scale, w) = numbers(block);
                out.iter_mut().zip(w).for_each(|(o, w)| *o = scale * w);
            }
        }
    }
}

/// `y[i] = Σ_blocks d · Σ q·x` for rows that lie one after another: the weights become numbers in registers, and are scaled
/// once a block and lane.
pub fn matvec(level: Level, rows: &[u8], x: &[f32], y: &mut [f32]) {
    let bytes = x.len() / LEN * BYTES;
    let x = x.as_chunks::<LEN>().0;
    for (i, y) in y.iter_mut().enumerate() {
        let row = rows[i * bytes..][..bytes].as_chunks::<BYTES>().0;
        *y = match level.usable() {
            // SAFETY: `usable` returns what the machine has.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { x86::avx512::dot(row, x) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { x86::avx2::dot(row, x) },
            _ => portable_dot(row, x),
        };
    }
}

/// A block's scale and integers.
fn numbers(block: &[u8; BYTES]) -> (f32, [f32; LEN]) {
    let scale = f16::from_le_bytes([block[0], block[1]]).widen();
    (scale, std::array::from_fn(|l| block[2 + l] as i8 as f32))
}

fn portable_dot(row: &[[u8; BYTES]], x: &[[f32; LEN]]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    for (block, x) in row.iter().zip(x) {
        let (scale, w) = numbers(block);
        for l in 0..LANES {
            let products = (l..LEN).step_by(LANES).map(|i| w[i] * x[i]);
            sums[l] += scale * products.sum::<f32>();
        }
    }
    fold(sums)
}

/// The sum of the lanes, in halves.
fn fold<const LANES: usize>(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            sums[l] += sums[l + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{BYTES, LEN, fold};
    use std::arch::x86_64::*;

    /// Defines the kernels for one vector type: `widen` makes numbers of the bytes at a pointer, `scale` a vector of the
    /// f16 whose bits it gets.
    macro_rules! kernels {
        ($name:ident, $features:literal, $lanes:literal, $zero:ident, $load:ident, $store:ident, $mul:ident, $fma:ident,
         |$p:ident| $widen:expr, |$bits:ident| $scale:expr) => {
            pub mod $name {
                use super::*;

                #[target_feature(enable = $features)]
                pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
                    for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
                        let $bits = i16::from_le_bytes([block[0], block[1]]);
                        let scale = $scale;
                        for l in (0..LEN).step_by($lanes) {
                            let $p = block[2 + l..].as_ptr();
                            // SAFETY: the lanes from `l` on are integers of this block and numbers of `out`.
                            unsafe { $store(out.as_mut_ptr().add(l), $mul(scale, $widen)) };
                        }
                    }
                }

                #[target_feature(enable = $features)]
                pub fn dot(row: &[[u8; BYTES]], x: &[[f32; LEN]]) -> f32 {
                    let mut sum = $zero();
                    for (block, x) in row.iter().zip(x) {
                        let $bits = i16::from_le_bytes([block[0], block[1]]);
                        let scale = $scale;
                        let mut products = $zero();
                        for l in (0..LEN).step_by($lanes) {
                            let $p = block[2 + l..].as_ptr();
                            // SAFETY: the lanes from `l` on are integers of this block and numbers of `x`.
                            products = unsafe { $fma($widen, $load(x.as_ptr().add(l)), products) };
                        }
                        sum = $fma(scale, products, sum);
                    }
                    let mut lanes = [0.0; $lanes];
                    // SAFETY: `lanes` is one vector long.
                    unsafe { $store(lanes.as_mut_ptr(), sum) };
                    fold(lanes)
                }
            }
        };
    }
    kernels!(
        avx512,
        "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c",
        16,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps,
        |p| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))),
        |bits| _mm512_cvtph_ps(_mm256_set1_epi16(bits))
    );
    kernels!(
        avx2,
        "avx2,fma,f16c",
        8,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps,
        |p| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))),
        |bits| _mm256_cvtph_ps(_mm_set1_epi16(bits))
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{close, noise};

    #[test]
    fn every_level_and_number_of_blocks() {
        for level in Level::ALL {
            for (n, blocks) in [(1, 1), (3, 2), (5, 3), (2, 17), (4, 40)] {
                let k = blocks * LEN;
                let (w, x) = (noise::<f32>(n * k, 1), noise::<f32>(k, 2));
                let mut bytes = vec![0; n * blocks * BYTES];
                quantize(&w, &mut bytes).unwrap();
                // Exact: 11 bits times 7.
                let want: Vec<f64> = bytes
                    .chunks(BYTES)
                    .flat_map(|b| b[2..].iter().map(|&q| f16::from_le_bytes([b[0], b[1]]).to_f64() * q as i8 as f64))
                    .collect();
                let mut got = vec![0f32; n * k];
                dequantize(level, &bytes, &mut got);
                close(&got, &want, 0.0, 0.0);
                let dot = |w: &[f64]| w.iter().zip(&x).map(|(w, &x)| w * x as f64).sum::<f64>();
                let mut y = vec![0f32; n];
                matvec(level, &bytes, &x, &mut y);
                close(&y, &want.chunks(k).map(dot).collect::<Vec<_>>(), 0.0, k as f64 * 6e-8);
            }
        }
    }
}
