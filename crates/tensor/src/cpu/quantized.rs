//! Products with quantised weights, and the kernels of the format q8_0.

use super::gemm::{GemmElement, MatRef, gemm};
use super::simd::simd_fn;
use crate::storage::CpuBuffer;
use crate::{QuantizedTensor, Tensor};
use half::f16;
use rayon::prelude::*;

/// Weights of a block of q8_0.
pub const Q8_0_LEN: usize = 32;
/// Its bytes: the scale and the weights.
pub const Q8_0_BYTES: usize = 2 + Q8_0_LEN;

/// Rows of activations for which the weights are used as they are: each costs what decoding costs once.
const FEW_ROWS: usize = 4;
/// Weights that are worth a task of their own.
const TASK: usize = 1 << 16;
/// Bytes of a panel of decoded weights: a part of the cache that all threads share.
const PANEL_BYTES: usize = 4 << 20;

/// `x Wᵀ`: `[M, K] × [N, K] → [M, N]`, f32.
pub fn matmul(x: &Tensor, w: &QuantizedTensor) -> Tensor {
    let ([m, k], n) = (x.dims_of("matmul_quantized"), w.shape()[0]);
    let x = x.contiguous();
    let (x, blocks, format) = (x.contiguous_slice::<f32>(), w.blocks().contiguous_slice::<u8>(), w.format());
    let mut out = CpuBuffer::scratch::<f32>(m * n);
    let y = out.as_mut_slice::<f32>();
    // Neither slice is cut into pieces of nothing below.
    if m * n * k == 0 {
        y.fill(0.0);
        return Tensor::from_cpu(out, [m, n], crate::DType::F32);
    }
    let row = blocks.len() / n;
    if m <= FEW_ROWS {
        let strip = TASK.div_ceil(k).min(n);
        // The strip's rows of weights stay in the cache for every row of x: `[strips, M, strip]`.
        let task = |(t, y): (usize, &mut [f32])| {
            let rows = &blocks[t * strip * row..][..y.len() / m * row];
            for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(y.len() / m)) {
                format.matvec(rows, x, y);
            }
        };
        let run = |y: &mut [f32]| {
            if n * k < 2 * TASK || rayon::current_num_threads() == 1 {
                y.chunks_mut(m * strip).enumerate().for_each(task);
            } else {
                y.par_chunks_mut(m * strip).enumerate().for_each(task);
            }
        };
        if m == 1 {
            run(y);
        } else {
            let mut strips = CpuBuffer::scratch::<f32>(m * n);
            let strips = strips.as_mut_slice::<f32>();
            run(strips);
            for (t, part) in strips.chunks(m * strip).enumerate() {
                let width = part.len() / m;
                for (y, part) in y.chunks_exact_mut(n).zip(part.chunks_exact(width)) {
                    y[t * strip..][..width].copy_from_slice(part);
                }
            }
        }
    } else {
        let rows = (PANEL_BYTES / (k * size_of::<f32>())).clamp(1, n).next_multiple_of(32).min(n);
        let mut panel = CpuBuffer::scratch::<f32>(rows * k);
        let panel = panel.as_mut_slice::<f32>();
        for j in (0..n).step_by(rows) {
            let rows = rows.min(n - j);
            let (panel, blocks) = (&mut panel[..rows * k], &blocks[j * row..][..rows * row]);
            let piece = TASK.div_ceil(k);
            let pieces = panel.par_chunks_mut(piece * k).zip(blocks.par_chunks(piece * row));
            pieces.for_each(|(panel, blocks)| format.dequantize(blocks, panel));
            let w = MatRef::row_major(panel, k).t();
            gemm(m, rows, k, MatRef::row_major(x, k), w, &mut y[j..], n, false, true);
        }
    }
    Tensor::from_cpu(out, [m, n], crate::DType::F32)
}

/// Whole blocks of finite numbers.
pub fn q8_0_quantize(x: &[f32], out: &mut [u8]) -> Result<(), String> {
    for (x, out) in x.chunks_exact(Q8_0_LEN).zip(out.chunks_exact_mut(Q8_0_BYTES)) {
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

/// A block's scale and weights.
#[inline(always)]
fn q8_0_block(block: &[u8]) -> (f32, &[u8; Q8_0_LEN]) {
    let scale = f16::from_le_bytes([block[0], block[1]]).widen();
    (scale, block[2..].try_into().expect("a whole block"))
}

simd_fn! {
    /// Whole blocks.
    pub fn q8_0_dequantize[S](blocks: &[u8], out: &mut [f32]) {
        for (block, out) in blocks.chunks_exact(Q8_0_BYTES).zip(out.chunks_exact_mut(Q8_0_LEN)) {
            let (scale, q) = q8_0_block(block);
            for (o, &q) in out.iter_mut().zip(q) {
                *o = scale * q as i8 as f32;
            }
        }
    }
}

simd_fn! {
    /// `y[i] = Σ_blocks d · Σ q·x`: the weights become numbers in registers, and are scaled once a block and lane.
    pub fn q8_0_matvec[S](rows: &[u8], x: &[f32], y: &mut [f32]) {
        const LANES: usize = Q8_0_LEN / 2;
        let bytes = x.len() / Q8_0_LEN * Q8_0_BYTES;
        for (i, y) in y.iter_mut().enumerate() {
            let mut sums = [0f32; LANES];
            let blocks = rows[i * bytes..][..bytes].chunks_exact(Q8_0_BYTES);
            for (block, x) in blocks.zip(x.chunks_exact(Q8_0_LEN)) {
                let (scale, q) = q8_0_block(block);
                for l in 0..LANES {
                    let first = q[l] as i8 as f32 * x[l];
                    let both = S::mul_add(q[LANES + l] as i8 as f32, x[LANES + l], first);
                    sums[l] = S::mul_add(scale, both, sums[l]);
                }
            }
            let mut width = LANES / 2;
            while width > 0 {
                for l in 0..width {
                    sums[l] += sums[l + width];
                }
                width /= 2;
            }
            *y = sums[0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::level::Level;
    use crate::cpu::testing::{close, noise};

    #[test]
    fn every_level_and_number_of_blocks() {
        for level in Level::ALL {
            for (n, blocks) in [(1, 1), (3, 2), (5, 3), (2, 17), (4, 40)] {
                let k = blocks * Q8_0_LEN;
                let (w, x) = (noise::<f32>(n * k, 1), noise::<f32>(k, 2));
                let mut bytes = vec![0; n * blocks * Q8_0_BYTES];
                q8_0_quantize(&w, &mut bytes).unwrap();
                // Exact: 11 bits times 7.
                let want: Vec<f64> = bytes
                    .chunks(Q8_0_BYTES)
                    .flat_map(|b| b[2..].iter().map(|&q| f16::from_le_bytes([b[0], b[1]]).to_f64() * q as i8 as f64))
                    .collect();
                let mut got = vec![0f32; n * k];
                q8_0_dequantize(level, &bytes, &mut got);
                close(&got, &want, 0.0, 0.0);
                let dot = |w: &[f64]| w.iter().zip(&x).map(|(w, &x)| w * x as f64).sum::<f64>();
                let mut y = vec![0f32; n];
                q8_0_matvec(level, &bytes, &x, &mut y);
                close(&y, &want.chunks(k).map(dot).collect::<Vec<_>>(), 0.0, k as f64 * 6e-8);
            }
        }
    }
}
