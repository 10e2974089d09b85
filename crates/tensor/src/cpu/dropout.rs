//! Dropout on the CPU: a mask of one byte per element, then one pass over the operand, whatever its strides.

use super::random::fill_bernoulli;
use super::strided::{Source, for_chunks};
use crate::storage::CpuBuffer;
use crate::{DType, Tensor};
use half::{bf16, f16};

/// `x / (1 − p)` with probability `1 − p`, else 0.
pub fn dropout(x: &Tensor, p: f64, seed: u64, offset: u64) -> Tensor {
    let keep = 1.0 - p;
    let mut mask = CpuBuffer::scratch::<u8>(x.numel());
    fill_bernoulli(mask.as_mut_slice::<u8>(), keep, seed, offset);
    let mask = mask.as_slice::<u8>();
    let scale = 1.0 / keep;
    let buffer = match x.dtype() {
        DType::F64 => apply::<f64>(x, mask, |v| v * scale),
        DType::F16 => apply::<f16>(x, mask, |v| f16::from_f32(v.to_f32() * scale as f32)),
        DType::BF16 => apply::<bf16>(x, mask, |v| bf16::from_f32(v.to_f32() * scale as f32)),
        _ => apply::<f32>(x, mask, |v| v * scale as f32),
    };
    Tensor::from_cpu(buffer, x.shape(), x.dtype())
}

/// A dropped element is 0 whatever it was, NaN included.
fn apply<T: bytemuck::Pod + Send + Sync>(x: &Tensor, mask: &[u8], scaled: impl Fn(T) -> T + Sync) -> CpuBuffer {
    let source = Source::<T>::new(x);
    let mut buffer = CpuBuffer::scratch::<T>(x.numel());
    for_chunks(buffer.as_mut_slice::<T>(), |range, out| {
        let mut scratch = [T::zeroed(); super::strided::CHUNK];
        let x = source.chunk(range.clone(), &mut scratch);
        for ((y, &x), &keep) in out.iter_mut().zip(x).zip(&mask[range]) {
            *y = if keep != 0 { scaled(x) } else { T::zeroed() };
        }
    });
    buffer
}
