//! The element types a product can be made of, and what each is summed in.

use super::blocked::LARGEST_TILE;
use super::kernel::{self, Accumulator};
use super::scheme::{Pairs, Quads, Scheme, Widened, Words};
use crate::cpu::half::{Half, round_bf16};
use crate::cpu::level::{Level, level};
use crate::cpu::simd::simd_fn;
use std::marker::PhantomData;
use std::slice::from_raw_parts_mut;

/// A type that sums of type `A` are rounded to.
pub trait Rounded<A>: bytemuck::Pod + Send + Sync {
    /// Is it `A` itself?
    const SAME: bool;
    /// Replaces what `out` holds by `sums`, or adds them to it, rounding once.
    fn round(sums: &mut [A], out: &mut [Self], accumulate: bool);
    /// [`round`](Rounded::round) for a tile whose sums lie in rows of `width`.
    fn round_tile(sums: &mut [A], width: usize, mut tile: Rows<Self>, accumulate: bool) {
        // All rows at once: rounded one by one, they would cost a short product as much as its arithmetic.
        let mut rounded = [Self::zeroed(); LARGEST_TILE];
        let rounded = &mut rounded[..sums.len()];
        if accumulate {
            rounded.chunks_mut(width).zip(tile.iter()).for_each(|(r, row)| r[..row.len()].copy_from_slice(row));
        }
        Self::round(sums, rounded, accumulate);
        rounded.chunks(width).zip(tile.iter()).for_each(|(r, row)| row.copy_from_slice(&r[..row.len()]));
    }
}

/// Some rows of a matrix, of one length.
pub struct Rows<'a, T> {
    first: *mut T,
    stride: usize,
    rows: usize,
    length: usize,
    lifetime: PhantomData<&'a mut T>,
}

impl<T> Rows<'_, T> {
    /// # Safety
    /// `rows` pieces of `length` from `first` on, `stride` apart, can be read and written by nobody else.
    pub unsafe fn new(first: *mut T, stride: usize, rows: usize, length: usize) -> Self {
        assert!(rows <= 1 || length <= stride);
        Rows { first, stride, rows, length, lifetime: PhantomData }
    }
    /// One row after another.
    #[inline(always)]
    pub fn iter(&mut self) -> impl Iterator<Item = &mut [T]> {
        // SAFETY: the promise made to `new`; rows do not overlap.
        (0..self.rows).map(|i| unsafe { from_raw_parts_mut(self.first.add(i * self.stride), self.length) })
    }
}

/// What a matrix product can be made of.
///
/// Products are summed in [`Acc`](GemmElement::Acc) over the whole of `k` and rounded to the element type once.
/// Integers wrap around.
pub trait GemmElement: Rounded<<Self as GemmElement>::Acc> {
    /// The type of the sum: `f32` for the half precisions, `i32` for `i8`, the type itself for all others.
    type Acc: Accumulator;
    /// The scheme for any CPU.
    type Plain: Scheme<Self>;
    /// The scheme for CPUs that have instructions of their own for this type.
    type Fast: Scheme<Self>;
    /// Does this CPU have them, at this level?
    fn fast(_: Level) -> bool {
        false
    }
    /// This number in the accumulator's type: always exact.
    fn widen(self) -> Self::Acc;
    /// [`widen`](GemmElement::widen) for a whole slice: 16 at a time, which is vector code on any CPU and, for a run as
    /// short as a packed row, cheaper than a call of `memcpy`.
    #[inline]
    fn widen_slice(src: &[Self], out: &mut [Self::Acc]) {
        let (mut s, mut o) = (src.chunks_exact(16), out.chunks_exact_mut(16));
        for (s, o) in s.by_ref().zip(o.by_ref()) {
            let s: &[Self; 16] = s.try_into().expect("chunks of 16");
            let o: &mut [Self::Acc; 16] = o.try_into().expect("chunks of 16");
            *o = s.map(Self::widen);
        }
        for (s, o) in s.remainder().iter().zip(o.into_remainder()) {
            *o = s.widen();
        }
    }
    /// The same slice, if this type is its own accumulator.
    fn as_acc(data: &[Self]) -> Option<&[Self::Acc]>;
}

macro_rules! own_accumulator {
    ($($t:ty),*) => {$(
        impl Rounded<$t> for $t {
            const SAME: bool = true;
            fn round(sums: &mut [$t], out: &mut [$t], accumulate: bool) {
                for (o, &s) in out.iter_mut().zip(sums.iter()) {
                    *o = if accumulate { Accumulator::add(s, *o) } else { s };
                }
            }
        }
        impl GemmElement for $t {
            type Acc = $t;
            type Plain = Widened;
            type Fast = Widened;
            #[inline(always)]
            fn widen(self) -> $t {
                self
            }
            #[inline(always)]
            fn as_acc(data: &[Self]) -> Option<&[$t]> {
                Some(data)
            }
        }
    )*};
}
own_accumulator!(f32, f64, i32, i64, u8);

/// [`Rounded::round`] for the half precisions.
fn round_half<T: Half + GemmElement<Acc = f32>>(sums: &mut [f32], out: &mut [T], accumulate: bool) {
    if accumulate {
        sums.iter_mut().zip(out.iter()).for_each(|(s, o)| *s += o.widen());
    }
    T::narrow(sums, out);
}

impl Rounded<f32> for half::f16 {
    const SAME: bool = false;
    fn round(sums: &mut [f32], out: &mut [Self], accumulate: bool) {
        round_half(sums, out, accumulate)
    }
}

impl Rounded<f32> for half::bf16 {
    const SAME: bool = false;
    fn round(sums: &mut [f32], out: &mut [Self], accumulate: bool) {
        round_half(sums, out, accumulate)
    }
    fn round_tile(sums: &mut [f32], width: usize, tile: Rows<Self>, accumulate: bool) {
        round_tile_bf16(level(), sums, width, tile, accumulate)
    }
}

simd_fn! {
    fn round_tile_bf16[S](sums: &mut [f32], width: usize, tile: Rows<half::bf16>, accumulate: bool) {
        let mut tile = tile;
        for (sums, row) in sums.chunks_exact_mut(width).zip(tile.iter()) {
            if accumulate {
                sums.iter_mut().zip(row.iter()).for_each(|(s, o)| *s += o.widen());
            }
            match (sums.as_chunks::<32>(), row.as_chunks_mut::<32>()) {
                // A whole row of a whole tile: a length that the compiler knows.
                (([sums], []), ([row], [])) => row.iter_mut().zip(sums).for_each(|(r, s)| *r = round_bf16(*s)),
                _ => row.iter_mut().zip(sums).for_each(|(r, s)| *r = round_bf16(*s)),
            }
        }
    }
}

impl GemmElement for half::bf16 {
    type Acc = f32;
    type Plain = Widened;
    type Fast = Pairs;
    fn fast(level: Level) -> bool {
        kernel::has_bf16_pairs(level)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    fn as_acc(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl GemmElement for half::f16 {
    type Acc = f32;
    type Plain = Widened;
    type Fast = Widened;
    /// Without a branch, so that loops over it become vector code: the exponent and mantissa move to their places in an
    /// `f32` and a multiplication by 2¹¹² corrects the exponent's bias, which is right for subnormals too.
    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = self.to_bits() as u32;
        let magnitude = (bits & 0x7fff) << 13;
        let scaled = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
        let special = if magnitude >= 0x7c00 << 13 { 0xff << 23 } else { 0 };
        f32::from_bits(scaled | special | (bits & 0x8000) << 16)
    }
    #[inline]
    fn widen_slice(src: &[Self], out: &mut [f32]) {
        Half::widen(src, out);
    }
    fn as_acc(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Rounded<i32> for i8 {
    const SAME: bool = false;
    fn round(sums: &mut [i32], out: &mut [i8], accumulate: bool) {
        for (o, &s) in out.iter_mut().zip(sums.iter()) {
            *o = if accumulate { s.wrapping_add(*o as i32) } else { s } as i8;
        }
    }
}

impl GemmElement for i8 {
    type Acc = i32;
    type Plain = Words;
    type Fast = Quads;
    fn fast(level: Level) -> bool {
        kernel::has_i8_quads(level)
    }
    #[inline(always)]
    fn widen(self) -> i32 {
        self as i32
    }
    fn as_acc(_: &[Self]) -> Option<&[i32]> {
        None
    }
}
