//! What panels hold, and which micro-kernel reads them.

use super::gemv::{int8_dot, widening_dot};
use super::kernel::{self, Accumulator, Kernel};
use super::pack::{Side, elements, rows, runs, strips};
use super::{GemmElement, MatRef};
use crate::cpu::level::Level;
use crate::cpu::simd::prefetch;
use bytemuck::Pod;
use half::bf16;
use std::array::from_fn;

/// A way to make products of elements `T`: the operands are packed into panels of [`GemmElement::Acc`], `DEPTH` terms
/// of the sum to each packed value, and multiplied by a micro-kernel that knows what it reads.
pub trait Scheme<T: GemmElement>: Send + Sync {
    /// Terms of the sum in one packed value.
    const DEPTH: usize;
    /// The micro-kernel for a level that this CPU has.
    fn kernel(level: Level) -> Kernel<T::Acc>;
    /// `src`, `[…, k]`, in the packed values of panels, if that is what memory holds already.
    fn direct(src: MatRef<T>, k: usize) -> Option<MatRef<T::Acc>>;
    /// Neighbouring terms of a sum as packed values, if that is what they are already.
    fn terms(data: &[T]) -> Option<&[T::Acc]>;
    /// The dot product of a row with x where the row is not what the kernel's own takes: `wide` are x's elements, `packed`
    /// is x as the right operand of the kernel.
    fn dot(level: Level, row: &[T], wide: &[T::Acc], packed: &[T::Acc]) -> T::Acc {
        let _ = packed;
        widening_dot::<T>(level, row, wide)
    }
    /// Packs `src`, `[total, k]`, into panels `width` wide; see [`pack`](super::pack::pack).
    fn pack(
        kernel: &Kernel<T::Acc>,
        side: Side,
        src: MatRef<T>,
        total: usize,
        k: usize,
        width: usize,
        dst: &mut [T::Acc],
    );
    /// Is something added to each packed value of the left operand? Then both operands are always packed, and
    /// [`correct`](Scheme::correct) says what the sums have too much.
    const OFFSET: bool = false;
    /// Takes off each column's sum what the offset adds to it in the packed `panels` of the right operand.
    fn correct(panels: &[T::Acc], steps: usize, width: usize, sums: &mut [T::Acc]) {
        let _ = (panels, steps, width, sums);
    }
}

/// Every element by itself, in the type of the sum: exact.
pub struct Widened;

impl<T: GemmElement> Scheme<T> for Widened {
    const DEPTH: usize = 1;
    fn kernel(level: Level) -> Kernel<T::Acc> {
        T::Acc::kernel(level)
    }
    fn direct(src: MatRef<T>, _: usize) -> Option<MatRef<T::Acc>> {
        // An `as_acc` that gave another slice would break the bounds that were checked.
        T::as_acc(src.data).filter(|data| data.len() == src.data.len()).map(|data| src.over(data))
    }
    fn terms(data: &[T]) -> Option<&[T::Acc]> {
        T::as_acc(data)
    }
    fn pack(
        kernel: &Kernel<T::Acc>,
        _: Side,
        src: MatRef<T>,
        total: usize,
        k: usize,
        width: usize,
        dst: &mut [T::Acc],
    ) {
        let start = |i: usize, p: usize| src.at(i, p).offset;
        if src.rs == 1 {
            return runs(total, k, width, dst, |i, p, out| {
                fetch_ahead(src, i, p, out.len());
                T::widen_slice(&src.data[start(i, p)..][..out.len()], out)
            });
        }
        if src.cs != 1 {
            return elements(total, k, width, dst, |i, p| src.get(i, p).widen());
        }
        match T::as_acc(src.data) {
            Some(data) => rows(kernel, src.over(data), total, k, width, dst),
            None => strips(kernel, total, k, width, dst, |i, p, out| {
                T::widen_slice(&src.data[start(i, p)..][..out.len()], out)
            }),
        }
    }
}

/// Fetches `len` elements some terms after those from row `i` on at term `p`: each run lies on a page of its own, which
/// the hardware does not foresee.
#[inline(always)]
fn fetch_ahead<T: Copy>(src: MatRef<T>, i: usize, p: usize, len: usize) {
    const TERMS: usize = 8;
    prefetch(src.data.as_ptr().wrapping_add(src.at(i, p + TERMS).offset), len);
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
    fn direct(src: MatRef<bf16>, k: usize) -> Option<MatRef<f32>> {
        let MatRef { data, offset, rs, cs } = src;
        // An odd number of terms would end with a pair of two rows.
        if cs != 1 || (k | offset) % 2 == 1 || rs % 2 != 0 {
            return None;
        }
        let data = Self::terms(&data[..data.len() / 2 * 2])?;
        Some(MatRef { data, offset: offset / 2, rs: rs / 2, cs })
    }
    fn terms(data: &[bf16]) -> Option<&[f32]> {
        // None for an odd number, and where the first does not begin at a multiple of 32 bits.
        bytemuck::try_cast_slice(data).ok()
    }
    fn pack(kernel: &Kernel<f32>, _: Side, src: MatRef<bf16>, total: usize, k: usize, width: usize, dst: &mut [f32]) {
        let steps = k.div_ceil(2);
        // A sum of odd length ends with a zero.
        let get = |i: usize, p: usize| if p < k { src.get(i, p) } else { bf16::ZERO };
        if src.rs == 1 {
            return runs(total, steps, width, dst, |i, p, out| {
                fetch_ahead(src, i, 2 * p, out.len());
                fetch_ahead(src, i, 2 * p + 1, out.len());
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

/// Four neighbours of a sum in the 32 bits of one packed value, for the CPU's int8 dot product (VNNI's `vpdpbusd`), which
/// multiplies *unsigned* bytes by signed ones and adds four products to an `i32`.
///
/// `A`'s bytes are packed with 128 added, which is one flipped bit, and the sums are freed of it afterwards:
///
/// ```text
/// Σ a·b = Σ (a + 128)·b − 128·Σ b
/// ```
///
/// The last sum is one number for each column of `B`. Nothing saturates on the way (four products are within ±4·255·128),
/// so everything is exact modulo 2³².
pub struct Quads;

impl Scheme<i8> for Quads {
    const DEPTH: usize = 4;
    fn kernel(level: Level) -> Kernel<i32> {
        kernel::i8_quads(level)
    }
    fn direct(_: MatRef<i8>, _: usize) -> Option<MatRef<i32>> {
        None
    }
    fn terms(_: &[i8]) -> Option<&[i32]> {
        None
    }
    fn dot(level: Level, row: &[i8], _: &[i32], packed: &[i32]) -> i32 {
        int8_dot::<i8>(level, row, bytemuck::cast_slice(packed))
    }
    fn pack(kernel: &Kernel<i32>, side: Side, src: MatRef<i8>, total: usize, k: usize, width: usize, dst: &mut [i32]) {
        let offset = if side == Side::Left { -128 } else { 0 };
        let sixteen = |rows: [&[i8; 16]; 4]| kernel::interleave(rows, offset);
        neighbours::<4, i8>(kernel, src, total, k, width, dst, |x| x ^ offset, sixteen);
    }
    const OFFSET: bool = true;
    fn correct(panels: &[i32], steps: usize, width: usize, sums: &mut [i32]) {
        kernel::take_off_128(panels, steps, width, sums)
    }
}

/// Two neighbours of a sum, widened to 16 bits, in one packed value: `pmaddwd` of AVX2 and AVX-512 multiplies them and
/// adds both products, exactly; plain code does the same.
pub struct Words;

impl Scheme<i8> for Words {
    const DEPTH: usize = 2;
    fn kernel(level: Level) -> Kernel<i32> {
        kernel::i16_pairs(level)
    }
    fn direct(_: MatRef<i8>, _: usize) -> Option<MatRef<i32>> {
        None
    }
    fn terms(_: &[i8]) -> Option<&[i32]> {
        None
    }
    fn dot(level: Level, row: &[i8], _: &[i32], packed: &[i32]) -> i32 {
        int8_dot::<i16>(level, row, bytemuck::cast_slice(packed))
    }
    fn pack(kernel: &Kernel<i32>, _: Side, src: MatRef<i8>, total: usize, k: usize, width: usize, dst: &mut [i32]) {
        let sixteen = |rows: [&[i8; 16]; 2]| from_fn(|j| rows.map(|row| row[j].into()));
        neighbours::<2, i16>(kernel, src, total, k, width, dst, i16::from, sixteen);
    }
}

/// Packs `D` neighbours of a sum into the 32 bits of one value, the first in the lowest bits, each made a `W` by `to`, or
/// those of sixteen sums at a time by `sixteen`. A sum whose length is no multiple of `D` ends with zeros.
fn neighbours<const D: usize, W: Pod + Default>(
    kernel: &Kernel<i32>,
    src: MatRef<i8>,
    total: usize,
    k: usize,
    width: usize,
    dst: &mut [i32],
    to: impl Fn(i8) -> W,
    sixteen: impl Fn([&[i8; 16]; D]) -> [[W; D]; 16],
) {
    let steps = k.div_ceil(D);
    let whole = k / D;
    if src.rs == 1 {
        return runs(total, steps, width, dst, |i, p, out| {
            let (out, _) = bytemuck::cast_slice_mut::<i32, W>(out).as_chunks_mut::<D>();
            (0..D).for_each(|d| fetch_ahead(src, i, D * p + d, out.len()));
            if p < whole {
                let rows: [&[i8]; D] = from_fn(|d| &src.data[src.at(i, D * p + d).offset..][..out.len()]);
                let (sixteens, rest) = out.as_chunks_mut::<16>();
                let done = 16 * sixteens.len();
                for (c, out) in sixteens.iter_mut().enumerate() {
                    *out = sixteen(from_fn(|d| rows[d][16 * c..][..16].try_into().expect("sixteen")));
                }
                for (j, o) in rest.iter_mut().enumerate() {
                    *o = from_fn(|d| to(rows[d][done + j]));
                }
                return;
            }
            out.fill([W::default(); D]);
            for d in 0..k - D * p {
                let row = &src.data[src.at(i, D * p + d).offset..][..out.len()];
                out.iter_mut().zip(row).for_each(|(o, &x)| o[d] = to(x));
            }
        });
    }
    if src.cs != 1 {
        return elements(total, steps, width, dst, |i, p| {
            let value: [W; D] = from_fn(|d| if D * p + d < k { to(src.get(i, D * p + d)) } else { W::default() });
            bytemuck::pod_read_unaligned(bytemuck::cast_slice(&value))
        });
    }
    strips(kernel, total, steps, width, dst, |i, p, out| {
        let len = (D * out.len()).min(k - D * p);
        let row = &src.data[src.at(i, D * p).offset..][..len];
        let out: &mut [W] = bytemuck::cast_slice_mut(out);
        out.iter_mut().zip(row).for_each(|(o, &x)| *o = to(x));
        out[len..].fill(W::default());
    });
}
