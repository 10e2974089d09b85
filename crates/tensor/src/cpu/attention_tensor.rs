//! Attention on tensors: dtypes, strides, masks and dropout on top of the slice kernels.

use super::attention::attention_forward;
use super::attention_backward::{AttentionGradients as Slices, attention_backward};
use super::random::{bernoulli_row, u32_at};
use super::{Attention, AttentionDropout, AttentionMask, AttentionShape, DropoutMask, Operand, SeqFloat};
use crate::dtype::Element;
use crate::ops::attention::{AttentionArgs, AttentionGradients, DropoutStream};
use crate::storage::CpuBuffer;
use crate::{DType, Tensor};
use bytemuck::checked::try_cast_slice;
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
fn with_args<T: SeqFloat, R>([q, k, v]: [&Tensor; 3], args: &AttentionArgs, f: impl FnOnce(&Attention<T>) -> R) -> R {
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
    f(&Attention {
        shape,
        q: operand(q),
        k: operand(k),
        v: operand(v),
        scale: T::from(args.scale).expect("an f64 converts to every float"),
        causal: args.causal.map(|n| n as isize),
        mask,
        dropout: args.dropout.as_ref().map(|stream| AttentionDropout { p: stream.p, mask: stream }),
    })
}

/// The output, and the logsumexp in the accumulator dtype.
pub fn forward(q: &Tensor, k: &Tensor, v: &Tensor, args: &AttentionArgs) -> (Tensor, Tensor) {
    match q.dtype() {
        DType::F64 => forward_as::<f64>([q, k, v], args),
        DType::F32 => forward_as::<f32>([q, k, v], args),
        half => {
            let [q, k, v] = [q, k, v].map(|x| x.to_dtype(DType::F32));
            let (out, lse) = forward_as::<f32>([&q, &k, &v], args);
            (out.to_dtype(half), lse)
        }
    }
}

fn forward_as<T: SeqFloat + Element>(qkv: [&Tensor; 3], args: &AttentionArgs) -> (Tensor, Tensor) {
    with_args(qkv, args, |args: &Attention<T>| {
        let AttentionShape { b, h, tq, dv, .. } = args.shape;
        let (mut out, mut lse) = (CpuBuffer::scratch::<T>(b * h * tq * dv), CpuBuffer::scratch::<T>(b * h * tq));
        attention_forward(args, out.as_mut_slice(), lse.as_mut_slice());
        (Tensor::from_cpu(out, [b, h, tq, dv], T::DTYPE), Tensor::from_cpu(lse, [b, h, tq], T::DTYPE))
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
    match qkv[0].dtype() {
        DType::F64 => backward_as::<f64>(qkv, args, (out, lse), d_out, mask),
        DType::F32 => backward_as::<f32>(qkv, args, (out, lse), d_out, mask),
        half => {
            let [q, k, v] = qkv.map(|x| x.to_dtype(DType::F32));
            let (out, d_out) = (out.to_dtype(DType::F32), d_out.to_dtype(DType::F32));
            let g = backward_as::<f32>([&q, &k, &v], args, (&out, lse), &d_out, mask);
            let [query, key, value] = [g.query, g.key, g.value].map(|x| x.to_dtype(half));
            AttentionGradients { query, key, value, mask: g.mask }
        }
    }
}

fn backward_as<T: SeqFloat + Element>(
    qkv: [&Tensor; 3],
    args: &AttentionArgs,
    (out, lse): (&Tensor, &Tensor),
    d_out: &Tensor,
    mask: bool,
) -> AttentionGradients {
    let (out, lse) = (out.contiguous(), lse.contiguous());
    with_args(qkv, args, |args: &Attention<T>| {
        let AttentionShape { b, h, tq, tk, .. } = args.shape;
        let [mut dq, mut dk, mut dv] = qkv.map(|x| CpuBuffer::scratch::<T>(x.numel()));
        let mut d_mask = mask.then(|| CpuBuffer::scratch::<T>(b * h * tq * tk));
        let slices = Slices {
            dq: dq.as_mut_slice(),
            dk: dk.as_mut_slice(),
            dv: dv.as_mut_slice(),
            d_mask: d_mask.as_mut().map(CpuBuffer::as_mut_slice),
        };
        attention_backward(args, out.contiguous_slice(), lse.contiguous_slice(), operand(d_out), slices);
        AttentionGradients {
            query: Tensor::from_cpu(dq, qkv[0].shape(), T::DTYPE),
            key: Tensor::from_cpu(dk, qkv[1].shape(), T::DTYPE),
            value: Tensor::from_cpu(dv, qkv[2].shape(), T::DTYPE),
            mask: d_mask.map(|buffer| Tensor::from_cpu(buffer, [b, h, tq, tk], T::DTYPE)),
        }
    })
}
