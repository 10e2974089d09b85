//! Random tensors of every distribution and dtype, from the Philox streams of [`random`](super::random).

use super::random::{Random, fill_bernoulli, fill_normal, fill_u32, fill_uniform};
use super::strided::for_chunks;
use crate::backend::Distribution;
use crate::dtype::Element;
use crate::storage::CpuBuffer;
use crate::{DType, Shape, Tensor, dispatch};

/// `shape` numbers of `dtype` from stream `offset` of `seed`. The half types round f32's numbers, but for the uniform
/// distribution's bound, which stays excluded.
pub fn random(distribution: Distribution, shape: &Shape, dtype: DType, seed: u64, offset: u64) -> Tensor {
    let n = shape.numel();
    let f32_or_f64 = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    match distribution {
        Distribution::Uniform { low, high } => {
            let below = dtype.largest_below(high);
            let buffer = match f32_or_f64 {
                DType::F64 => uniform::<f64>(n, low, high, below, seed, offset),
                _ => uniform::<f32>(n, low, high, below, seed, offset),
            };
            Tensor::from_cpu(buffer, shape, f32_or_f64).to_dtype(dtype)
        }
        Distribution::Normal { mean, std } => {
            let buffer = match f32_or_f64 {
                DType::F64 => normal::<f64>(n, mean, std, seed, offset),
                _ => normal::<f32>(n, mean, std, seed, offset),
            };
            Tensor::from_cpu(buffer, shape, f32_or_f64).to_dtype(dtype)
        }
        Distribution::Bernoulli { p } => {
            let (buffer, made) = match dtype {
                DType::F32 => {
                    let mut buffer = CpuBuffer::scratch::<f32>(n);
                    fill_bernoulli(buffer.as_mut_slice::<f32>(), p, seed, offset);
                    (buffer, DType::F32)
                }
                DType::F64 => {
                    let mut buffer = CpuBuffer::scratch::<f64>(n);
                    fill_bernoulli(buffer.as_mut_slice::<f64>(), p, seed, offset);
                    (buffer, DType::F64)
                }
                _ => {
                    let mut buffer = CpuBuffer::scratch::<u8>(n);
                    fill_bernoulli(buffer.as_mut_slice::<u8>(), p, seed, offset);
                    (buffer, DType::Bool)
                }
            };
            Tensor::from_cpu(buffer, shape, made).to_dtype(dtype)
        }
        Distribution::Integers { low, high } => {
            let buffer = dispatch!(dtype, T => integers::<T>(n, low, high, seed, offset));
            Tensor::from_cpu(buffer, shape, dtype)
        }
    }
}

fn uniform<T: Random + bytemuck::Pod>(n: usize, low: f64, high: f64, below: f64, seed: u64, offset: u64) -> CpuBuffer {
    let mut buffer = CpuBuffer::scratch::<T>(n);
    let out = buffer.as_mut_slice::<T>();
    fill_uniform(out, seed, offset);
    let (low, width, below) = (T::from_f64(low), T::from_f64(high - low), T::from_f64(below));
    for_chunks(out, |_, out| {
        for v in out {
            let x = low + *v * width;
            *v = if x > below { below } else { x };
        }
    });
    buffer
}

fn normal<T: Random + bytemuck::Pod>(n: usize, mean: f64, std: f64, seed: u64, offset: u64) -> CpuBuffer {
    let mut buffer = CpuBuffer::scratch::<T>(n);
    let out = buffer.as_mut_slice::<T>();
    fill_normal(out, seed, offset);
    if (mean, std) != (0.0, 1.0) {
        let (mean, std) = (T::from_f64(mean), T::from_f64(std));
        for_chunks(out, |_, out| out.iter_mut().for_each(|v| *v = mean + *v * std));
    }
    buffer
}

/// `low + ⌊u (high − low) / 2⁶⁴⌋` with u element i of the 64-bit stream; a value's probability is off by 2⁻⁶⁴ at most.
fn integers<T: Element>(n: usize, low: i64, high: i64, seed: u64, offset: u64) -> CpuBuffer {
    let mut words = vec![0u32; 2 * n];
    fill_u32(&mut words, seed, offset);
    let width = high.wrapping_sub(low) as u64 as u128;
    let mut buffer = CpuBuffer::scratch::<T::Stored>(n);
    for_chunks(buffer.as_mut_slice::<T::Stored>(), |range, out| {
        for (i, slot) in range.zip(out) {
            let u = ((words[2 * i + 1] as u64) << 32) | words[2 * i] as u64;
            *slot = T::from_i64(low.wrapping_add(((u as u128 * width) >> 64) as i64)).store();
        }
    });
    buffer
}
