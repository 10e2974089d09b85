//! Attention on tensors: dtypes, strides, masks and dropout on top of the slice kernels.

use super::attention::attention_forward;
use super::attention_backward::{AttentionGradients as Outputs, attention_backward};
use super::attention_tile::{Attention, AttentionElement, AttentionMask, AttentionShape, Operand, Output};
use super::gemm::GemmElement;
use super::level::level;
use super::random::{bernoulli_row, u32_at};
use super::{AttentionDropout, DropoutMask};
use crate::dtype::Element;
use crate::ops::attention::{AttentionArgs, AttentionGradients, DropoutStream};
use crate::storage::CpuBuffer;
use crate::{DType, Tensor};
use bytemuck::checked::try_cast_slice;
use half::bf16;
use num_traits::NumCast;
use std::borrow::Cow;

fn operand<T: bytemuck::Pod>(x: &Tensor) -> Operand<'_, T> {
    let layout = x.layout();
    let strides = std::array::from_fn(|d| layout.strides[d]);
    Operand { data: x.storage(), offset: layout.offset, strides }
}

impl DropoutMask for DropoutStream {
    fn keep(&self, index: u64) -> bool {
        // The same comparison as `fill_bernoulli`'s, which makes this mask as a tensor.
        (u32_at(self.state.seed, self.state.offset, index) as f64) < ((1.0 - self.p) * 4_294_967_296.0).round()
    }
    fn keep_row(&self, start: u64, out: &mut [bool]) {
        bernoulli_row(out, 1.0 - self.p, self.state.seed, self.state.offset, start);
    }
}

/// Calls `f` with the arguments in the kernels' form.
fn with_args<T: AttentionElement, R>(
    [q, k, v]: [&Tensor; 3],
    args: &AttentionArgs,
    f: impl FnOnce(&Attention<T>) -> R,
) -> R {
    let ([b, h, tq, d], [_, hk, tk, _]): ([usize; 4], [usize; 4]) = (q.dims_of("attention"), k.dims_of("attention"));
    let shape = AttentionShape { b, h, hk, tq, tk, d, dv: v.dim(3) };
    let allowed: Cow<[bool]>;
    let mask = match &args.mask {
        None => None,
        Some(mask) if mask.dtype() == DType::Bool => {
            let bytes = mask.storage::<u8>();
            allowed = match try_cast_slice(bytes) {
                Ok(allowed) => Cow::Borrowed(allowed),
                Err(_) => bytes.iter().map(|&byte| byte != 0).collect(),
            };
            let Operand { offset, strides, .. } = operand::<u8>(mask);
            Some(AttentionMask::Boolean(Operand { data: &allowed, offset, strides }))
        }
        Some(mask) => Some(AttentionMask::Additive(operand(mask))),
    };
    let key_lengths = args.key_lengths.as_ref().map(|lengths| {
        let there = lengths.to_vec::<i64>().into_iter().map(|n| n.clamp(0, tk as i64) as usize);
        there.collect::<Vec<_>>()
    });
    f(&Attention {
        shape,
        q: operand(q),
        k: operand(k),
        v: operand(v),
        scale: NumCast::from(args.scale).expect("an f64 converts to every float"),
        causal: args.causal.map(|n| n as isize),
        window: args.window,
        key_lengths: key_lengths.as_deref(),
        mask,
        dropout: args.dropout.as_ref().map(|stream| AttentionDropout { p: stream.p, mask: stream }),
    })
}

/// The dtype to compute in: bf16 only where the CPU multiplies it, f16 never.
fn kernel_dtype(dtype: DType) -> DType {
    match dtype {
        DType::BF16 if bf16::fast(level()) => dtype,
        dtype => dtype.accumulator(),
    }
}

/// Do the heads of a token of `x`, `[B, H, T, D]`, lie side by side, as a projection makes them?
fn time_first(x: &Tensor) -> bool {
    let strides = &x.layout().strides;
    x.dim(1) > 1 && strides[1] < strides[2]
}

/// A new `[B, H, T, D]` that `write` fills in, in the order in memory of `like`, so that what makes and takes views of all
/// heads need not copy.
fn output<T: AttentionElement + Element, R>(
    dims: [usize; 4],
    like: &Tensor,
    write: impl FnOnce(Output<T>) -> R,
) -> (Tensor, R) {
    let ([b, h, t, d], time_first) = (dims, time_first(like));
    let mut buffer = CpuBuffer::scratch::<T>(b * h * t * d);
    let result = write(Output::new(buffer.as_mut_slice(), dims, time_first));
    let x = match time_first {
        true => Tensor::from_cpu(buffer, [b, t, h, d], T::DTYPE).transpose(1, 2),
        false => Tensor::from_cpu(buffer, dims, T::DTYPE),
    };
    (x, result)
}

/// The output, and the logsumexp in the accumulator dtype.
pub fn forward(q: &Tensor, k: &Tensor, v: &Tensor, args: &AttentionArgs) -> (Tensor, Tensor) {
    let (dtype, inside) = (q.dtype(), kernel_dtype(q.dtype()));
    let [q, k, v] = [q, k, v].map(|x| x.to_dtype(inside));
    let (out, lse) = match inside {
        DType::F64 => forward_as::<f64>([&q, &k, &v], args),
        DType::BF16 => forward_as::<bf16>([&q, &k, &v], args),
        _ => forward_as::<f32>([&q, &k, &v], args),
    };
    (out.to_dtype(dtype), lse)
}

fn forward_as<T: AttentionElement<Acc: Element> + Element>(
    qkv: [&Tensor; 3],
    args: &AttentionArgs,
) -> (Tensor, Tensor) {
    with_args(qkv, args, |args: &Attention<T>| {
        let AttentionShape { b, h, tq, dv, .. } = args.shape;
        let mut lse = CpuBuffer::scratch::<T::Acc>(b * h * tq);
        let (out, ()) = output([b, h, tq, dv], qkv[0], |out| attention_forward(args, out, lse.as_mut_slice()));
        (out, Tensor::from_cpu(lse, [b, h, tq], T::Acc::DTYPE))
    })
}

/// The gradients, in the dtype of the queries; the mask's, if asked for, `[B, H, Tq, Tk]` in the accumulator dtype.
pub fn backward(
    qkv: [&Tensor; 3],
    args: &AttentionArgs,
    (out, lse): (&Tensor, &Tensor),
    d_out: &Tensor,
    mask: bool,
) -> AttentionGradients {
    let (dtype, inside) = (qkv[0].dtype(), kernel_dtype(qkv[0].dtype()));
    let [q, k, v] = qkv.map(|x| x.to_dtype(inside));
    let (out, d_out) = (out.to_dtype(inside), d_out.to_dtype(inside));
    let g = match inside {
        DType::F64 => backward_as::<f64>([&q, &k, &v], args, (&out, lse), &d_out, mask),
        DType::BF16 => backward_as::<bf16>([&q, &k, &v], args, (&out, lse), &d_out, mask),
        _ => backward_as::<f32>([&q, &k, &v], args, (&out, lse), &d_out, mask),
    };
    let [query, key, value] = [g.query, g.key, g.value].map(|x| x.to_dtype(dtype));
    AttentionGradients { query, key, value, mask: g.mask }
}

fn backward_as<T: AttentionElement<Acc: Element> + Element>(
    [q, k, v]: [&Tensor; 3],
    args: &AttentionArgs,
    (out, lse): (&Tensor, &Tensor),
    d_out: &Tensor,
    mask: bool,
) -> AttentionGradients {
    let lse = lse.contiguous();
    with_args([q, k, v], args, |args: &Attention<T>| {
        let AttentionShape { b, h, hk, tq, tk, d, dv } = args.shape;
        let mut d_mask = mask.then(|| CpuBuffer::scratch::<T::Acc>(b * h * tq * tk));
        let (query, (key, (value, ()))) = output([b, h, tq, d], q, |dq| {
            output([b, hk, tk, d], k, |dk| {
                output([b, hk, tk, dv], v, |dv| {
                    let d_mask = d_mask.as_mut().map(CpuBuffer::as_mut_slice);
                    let outputs = Outputs { dq, dk, dv, d_mask };
                    attention_backward(args, operand(out), lse.contiguous_slice(), operand(d_out), outputs);
                })
            })
        });
        let mask = d_mask.map(|buffer| Tensor::from_cpu(buffer, [b, h, tq, tk], T::Acc::DTYPE));
        AttentionGradients { query, key, value, mask }
    })
}
