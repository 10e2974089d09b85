//! Rotary position embedding (J. Su et al. 2021, arXiv:2104.09864).

use super::level::level;
use super::math::Real;
use super::rows::for_rows;
use super::simd::simd_fn;
use super::strided::Source;
use super::widen::widened;
use crate::ops::rope::RotaryPairs;
use crate::storage::CpuBuffer;
use crate::{DType, Tensor};
use bytemuck::Pod;

simd_fn! {
    fn turn_kernel[S]<T: Real>(
        x: &[T], cos: &[T], sin: &[T], y: &mut [T], d: usize, p: usize, pairs: RotaryPairs, inverse: bool,
    ) {
        let sign = if inverse { -T::ONE } else { T::ONE };
        let tables = cos.chunks_exact(p).zip(sin.chunks_exact(p));
        for ((x, y), (cos, sin)) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(tables) {
            y[2 * p..].copy_from_slice(&x[2 * p..]);
            let (x, y) = (&x[..2 * p], &mut y[..2 * p]);
            match pairs {
                RotaryPairs::Halves => {
                    let ((xa, xb), (ya, yb)) = (x.split_at(p), y.split_at_mut(p));
                    for i in 0..p {
                        (ya[i], yb[i]) = turned(xa[i], xb[i], cos[i], sign * sin[i]);
                    }
                }
                RotaryPairs::Interleaved => {
                    let pairs = x.chunks_exact(2).zip(y.chunks_exact_mut(2));
                    for ((x, y), (&cos, &sin)) in pairs.zip(cos.iter().zip(sin)) {
                        (y[0], y[1]) = turned(x[0], x[1], cos, sign * sin);
                    }
                }
            }
        }
    }
}

/// A point of the plane, turned.
#[inline(always)]
fn turned<T: Real>(a: T, b: T, cos: T, sin: T) -> (T, T) {
    (a * cos - b * sin, b * cos + a * sin)
}

/// [`rope`](crate::Tensor::rope) of `x` `[…, T, D]` by the angles whose cosines and sines are `[…, T, P]`, back by them if
/// `inverse`.
pub fn rope(x: &Tensor, tables: [&Tensor; 2], pairs: RotaryPairs, inverse: bool) -> Tensor {
    widened([x], |[x]| {
        let buffer = match x.dtype() {
            DType::F64 => turn::<f64>(x, tables, pairs, inverse),
            _ => turn::<f32>(x, tables, pairs, inverse),
        };
        Tensor::from_cpu(buffer, x.shape(), x.dtype())
    })
}

fn turn<T: Real + Pod>(x: &Tensor, tables: [&Tensor; 2], pairs: RotaryPairs, inverse: bool) -> CpuBuffer {
    let (level, d, p) = (level(), x.dim(-1), tables[0].dim(-1));
    let mut buffer = CpuBuffer::scratch::<T>(x.numel());
    let [x, cos, sin] = [x, tables[0], tables[1]].map(Source::<T>::new);
    for_rows(buffer.as_mut_slice::<T>(), d, |row, y| {
        let rows = y.len() / d;
        let (mut a, mut b, mut c) = (x.scratch(rows * d), cos.scratch(rows * p), sin.scratch(rows * p));
        let x = x.chunk(row * d..(row + rows) * d, &mut a);
        let angles = row * p..(row + rows) * p;
        let (cos, sin) = (cos.chunk(angles.clone(), &mut b), sin.chunk(angles, &mut c));
        turn_kernel(level, x, cos, sin, y, d, p, pairs, inverse);
    });
    buffer
}
