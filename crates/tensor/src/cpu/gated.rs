//! Gated activations: one pass over operands of any strides.

use super::elementwise::{half2, unary_real};
use super::level::level;
use super::math::Real;
use super::simd::simd_fn;
use super::strided::{CHUNK, PARALLEL_FROM, Source, map2};
use crate::cpu::parallel::*;
use crate::storage::CpuBuffer;
use crate::{Activation, DType, Tensor};
use bytemuck::Pod;
use half::{bf16, f16};

/// `f(gate) · up`.
pub fn gated(gate: &Tensor, up: &Tensor, activation: Activation) -> Tensor {
    let buffer = match gate.dtype() {
        DType::F64 => map2(gate, up, |gate, up, y| forward::<f64>(activation, gate, up, y)),
        DType::F16 => half2::<f16>(gate, up, |gate, up, y| forward::<f32>(activation, gate, up, y)),
        DType::BF16 => half2::<bf16>(gate, up, |gate, up, y| forward::<f32>(activation, gate, up, y)),
        _ => map2(gate, up, |gate, up, y| forward::<f32>(activation, gate, up, y)),
    };
    Tensor::from_cpu(buffer, gate.shape(), gate.dtype())
}

fn forward<T: Real>(activation: Activation, gate: &[T], up: &[T], y: &mut [T]) {
    match activation.function() {
        Some(function) => unary_real(level(), function, gate, y),
        None => y.copy_from_slice(gate),
    }
    y.iter_mut().zip(up).for_each(|(y, &up)| *y *= up);
}

/// `(g·up·f'(gate), g·f(gate))`.
pub fn gated_backward(gate: &Tensor, up: &Tensor, activation: Activation, g: &Tensor) -> (Tensor, Tensor) {
    let (dtype, wide) = (gate.dtype(), gate.dtype().accumulator());
    let operands = [gate, up, g].map(|x| x.to_dtype(wide));
    let both = match wide {
        DType::F64 => backward::<f64>(activation, operands.each_ref()),
        _ => backward::<f32>(activation, operands.each_ref()),
    };
    let [dgate, dup] = both.map(|buffer| Tensor::from_cpu(buffer, gate.shape(), wide).to_dtype(dtype));
    (dgate, dup)
}

fn backward<T: Real + Pod>(activation: Activation, operands: [&Tensor; 3]) -> [CpuBuffer; 2] {
    let (level, n) = (level(), operands[0].numel());
    let [gate, up, g] = operands.map(Source::<T>::new);
    let piece = |(i, (dgate, dup)): (usize, (&mut [T], &mut [T]))| {
        let range = i * CHUNK..i * CHUNK + dgate.len();
        let [mut a, mut b, mut c] = [[T::ZERO; CHUNK]; 3];
        let (gate, up) = (gate.chunk(range.clone(), &mut a), up.chunk(range.clone(), &mut b));
        backward_kernel(level, activation, gate, up, g.chunk(range, &mut c), dgate, dup);
    };
    let [mut dgate, mut dup] = [0; 2].map(|_| CpuBuffer::scratch::<T>(n));
    let (dgates, dups) = (dgate.as_mut_slice::<T>(), dup.as_mut_slice::<T>());
    if n < PARALLEL_FROM {
        dgates.chunks_mut(CHUNK).zip(dups.chunks_mut(CHUNK)).enumerate().for_each(piece);
    } else {
        dgates.par_chunks_mut(CHUNK).zip(dups.par_chunks_mut(CHUNK)).enumerate().for_each(piece);
    }
    [dgate, dup]
}

simd_fn! {
    fn backward_kernel[S]<T: Real>(
        activation: Activation, gate: &[T], up: &[T], g: &[T], dgate: &mut [T], dup: &mut [T],
    ) {
        match activation {
            Activation::Identity => each(gate, up, g, dgate, dup, |x, g| (x, g)),
            // A closed gate lets no gradient through, not even an infinite one.
            Activation::Relu => each(gate, up, g, dgate, dup, |x, g| if x <= T::ZERO { (T::ZERO, T::ZERO) } else { (x, g) }),
            Activation::Gelu => each(gate, up, g, dgate, dup, |x, g| (x.gelu::<S>(), g * x.gelu_grad::<S>())),
            Activation::GeluTanh => each(gate, up, g, dgate, dup, |x, g| (x.gelu_tanh::<S>(), g * x.gelu_tanh_grad::<S>())),
            Activation::Silu => each(gate, up, g, dgate, dup, |x, g| (x.silu::<S>(), g * x.silu_grad::<S>())),
            Activation::Tanh => each(gate, up, g, dgate, dup, |x, g| {
                let y = x.tanh::<S>();
                (y, g * (T::ONE - y * y))
            }),
            Activation::Sigmoid => each(gate, up, g, dgate, dup, |x, g| {
                let y = x.sigmoid::<S>();
                (y, g * y * (T::ONE - y))
            }),
            Activation::Elu => each(gate, up, g, dgate, dup, |x, g| {
                if x > T::ZERO { (x, g) } else { (x.expm1::<S>(), g * x.exp::<S>()) }
            }),
            Activation::LeakyRelu => {
                let slope = T::from_f64(Activation::LEAK);
                each(gate, up, g, dgate, dup, |x, g| if x > T::ZERO { (x, g) } else { (slope * x, slope * g) })
            }
            Activation::Softplus => each(gate, up, g, dgate, dup, |x, g| (x.softplus::<S>(), g * x.sigmoid::<S>())),
        }
    }
}

/// Both gradients of each element from `f(x)` and `g·f'(x)`.
#[inline(always)]
fn each<T: Real>(gate: &[T], up: &[T], g: &[T], dgate: &mut [T], dup: &mut [T], f: impl Fn(T, T) -> (T, T)) {
    for ((((&x, &up), &g), dgate), dup) in gate.iter().zip(up).zip(g).zip(dgate).zip(dup) {
        let (y, of_gate) = f(x, g * up);
        (*dgate, *dup) = (of_gate, g * y);
    }
}
