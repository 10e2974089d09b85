//! What panels hold, and which micro-kernel reads them.

use super::kernel::{self, Accumulator, Kernel};
use super::pack::{elements, rows, runs, strips};
use super::{GemmElement, MatRef};
use crate::cpu::level::Level;
use half::bf16;

/// A way to make products of elements `T`: the operands are packed into panels of [`GemmElement::Acc`], `DEPTH` terms
/// of the sum to each packed value, and multiplied by a micro-kernel that knows what it reads.
pub trait Scheme<T: GemmElement>: Send + Sync {
    /// Terms of the sum in one packed value.
    const DEPTH: usize;
    /// The micro-kernel for a level that this CPU has.
    fn kernel(level: Level) -> Kernel<T::Acc>;
    /// The slice as panels would hold it, if that is what it is already.
    fn direct(data: &[T]) -> Option<&[T::Acc]>;
    /// Neighbouring terms of a sum as packed values, if that is what they are already.
    fn terms(data: &[T]) -> Option<&[T::Acc]>;
    /// Packs `src`, `[total, k]`, into panels `width` wide; see [`pack`](super::pack::pack).
    fn pack(kernel: &Kernel<T::Acc>, src: MatRef<T>, total: usize, k: usize, width: usize, dst: &mut [T::Acc]);
}

/// Every element by itself, in the type of the sum: exact.
pub struct Widened;

impl<T: GemmElement> Scheme<T> for Widened {
    const DEPTH: usize = 1;
    fn kernel(level: Level) -> Kernel<T::Acc> {
        T::Acc::kernel(level)
    }
    fn direct(data: &[T]) -> Option<&[T::Acc]> {
        // An `as_acc` that gave another slice would break the bounds that were checked.
        T::as_acc(data).filter(|d| d.len() == data.len())
    }
    fn terms(data: &[T]) -> Option<&[T::Acc]> {
        T::as_acc(data)
    }
    fn pack(kernel: &Kernel<T::Acc>, src: MatRef<T>, total: usize, k: usize, width: usize, dst: &mut [T::Acc]) {
        let start = |i: usize, p: usize| src.at(i, p).offset;
        if src.rs == 1 {
            return runs(total, k, width, dst, |i, p, out| T::widen_slice(&src.data[start(i, p)..][..out.len()], out));
        }
        if src.cs != 1 {
            return elements(total, k, width, dst, |i, p| src.get(i, p).widen());
        }
        match T::as_acc(src.data) {
            Some(data) => rows(kernel, MatRef { data, offset: src.offset, rs: src.rs, cs: 1 }, total, k, width, dst),
            None => strips(kernel, total, k, width, dst, |i, p, out| {
                T::widen_slice(&src.data[start(i, p)..][..out.len()], out)
            }),
        }
    }
}

/// Two neighbours of a sum in the 32 bits of one packed value, for the CPU's bf16 dot product: it multiplies pairs,
/// and adds both products to an `f32`. Subnormal numbers count as zero there.
pub struct Pairs;

impl Pairs {
    /// One packed value: the bits of an `f32` that is moved, never computed with.
    #[inline(always)]
    fn value(first: bf16, second: bf16) -> f32 {
        f32::from_bits(first.to_bits() as u32 | (second.to_bits() as u32) << 16)
    }
}

impl Scheme<bf16> for Pairs {
    const DEPTH: usize = 2;
    fn kernel(level: Level) -> Kernel<f32> {
        kernel::bf16_pairs(level)
    }
    fn direct(_: &[bf16]) -> Option<&[f32]> {
        None
    }
    fn terms(data: &[bf16]) -> Option<&[f32]> {
        // None for an odd number, and where the first does not begin at a multiple of 32 bits.
        bytemuck::try_cast_slice(data).ok()
    }
    fn pack(kernel: &Kernel<f32>, src: MatRef<bf16>, total: usize, k: usize, width: usize, dst: &mut [f32]) {
        let steps = k.div_ceil(2);
        // A sum of odd length ends with a zero.
        let get = |i: usize, p: usize| if p < k { src.get(i, p) } else { bf16::ZERO };
        if src.rs == 1 {
            return runs(total, steps, width, dst, |i, p, out| {
                let first = &src.data[src.at(i, 2 * p).offset..][..out.len()];
                if 2 * p + 1 == k {
                    out.iter_mut().zip(first).for_each(|(o, &x)| *o = Pairs::value(x, bf16::ZERO));
                    return;
                }
                let second = &src.data[src.at(i, 2 * p + 1).offset..][..out.len()];
                out.iter_mut().zip(first.iter().zip(second)).for_each(|(o, (&x, &y))| *o = Pairs::value(x, y));
            });
        }
        if src.cs != 1 {
            return elements(total, steps, width, dst, |i, p| Pairs::value(get(i, 2 * p), get(i, 2 * p + 1)));
        }
        strips(kernel, total, steps, width, dst, |i, p, out| {
            let len = (2 * out.len()).min(k - 2 * p);
            let start = src.at(i, 2 * p).offset;
            let out: &mut [bf16] = bytemuck::cast_slice_mut(out);
            out[..len].copy_from_slice(&src.data[start..][..len]);
            out[len..].fill(bf16::ZERO);
        })
    }
}
