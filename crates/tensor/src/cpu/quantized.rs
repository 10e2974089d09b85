//! Products with quantised weights.

pub mod q8_0;

use super::gemm::{MatRef, gemm};
use crate::cpu::parallel::*;
use crate::storage::CpuBuffer;
use crate::{QuantizedTensor, Tensor};

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
