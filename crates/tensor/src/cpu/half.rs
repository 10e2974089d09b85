//! Half-precision slices: bulk conversion, and `f32` kernels run over them a piece at a time. No kernel is compiled for a
//! half type: the arithmetic is `f32`'s, and each result is rounded once.

use super::level::level;
use super::rows::for_rows;
use super::simd::simd_fn;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// `half::f16` or `half::bf16`.
pub trait Half: Copy + Default + Send + Sync + 'static {
    /// Widens a slice, exactly.
    fn widen(x: &[Self], y: &mut [f32]);
    /// Rounds a slice to nearest, ties to even.
    fn narrow(x: &[f32], y: &mut [Self]);
}

simd_fn! {
    fn widen_bf16[S](x: &[bf16], y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = f32::from_bits((x.to_bits() as u32) << 16);
        }
    }
}

simd_fn! {
    fn narrow_bf16[S](x: &[f32], y: &mut [bf16]) {
        for (y, x) in y.iter_mut().zip(x) {
            let bits = x.to_bits();
            // Half a unit of the kept part, less one if that part is even: ties go to even. The carry may end in ∞.
            let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
            // A NaN keeps its sign and upper payload, and is made quiet lest it become ∞.
            let nan = (bits >> 16) | 0x40;
            *y = bf16::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { nan } else { rounded } as u16);
        }
    }
}

simd_fn! {
    fn widen_f16[S](x: &[f16], y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            let bits = x.to_bits() as u32;
            let sign = (bits & 0x8000) << 16;
            // Exponent and fraction in their new places, the exponent short of its bias by 112: one product puts that right,
            // for subnormal numbers too.
            let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
            let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
            *y = f32::from_bits(sign | magnitude.to_bits() | special);
        }
    }
}

impl Half for bf16 {
    fn widen(x: &[Self], y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        widen_bf16(level(), x, y);
    }
    fn narrow(x: &[f32], y: &mut [Self]) {
        assert_eq!(x.len(), y.len());
        narrow_bf16(level(), x, y);
    }
}

impl Half for f16 {
    fn widen(x: &[Self], y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        widen_f16(level(), x, y);
    }
    /// By the `half` crate, which uses the F16C instruction where there is one.
    fn narrow(x: &[f32], y: &mut [Self]) {
        y.convert_from_f32_slice(x);
    }
}

/// `y = f(x)` over `f32` slices.
pub type Kernel<'a> = &'a mut dyn FnMut(&[f32], &mut [f32]);
/// `z = f(x, y)` over `f32` slices.
pub type Kernel2<'a> = &'a mut dyn FnMut(&[f32], &[f32], &mut [f32]);
/// `f(first_row, x, y)` over whole rows of `f32`, callable from several threads.
pub type RowKernel<'a> = &'a (dyn Fn(usize, &[f32], &mut [f32]) + Sync);

/// Elements per piece: three buffers of this length fit the first-level cache.
pub const PIECE: usize = 1024;

/// `y = f(x)` for an `f` over `f32` slices that treats each element by itself.
pub fn map<H: Half>(x: &[H], y: &mut [H], f: Kernel<'_>) {
    assert_eq!(x.len(), y.len());
    let (mut a, mut b) = ([0f32; PIECE], [0f32; PIECE]);
    for (x, y) in x.chunks(PIECE).zip(y.chunks_mut(PIECE)) {
        let (a, b) = (&mut a[..x.len()], &mut b[..x.len()]);
        H::widen(x, a);
        f(a, b);
        H::narrow(b, y);
    }
}

/// `z = f(x, y)` for an `f` over `f32` slices that treats each element by itself.
pub fn map2<H: Half>(x: &[H], y: &[H], z: &mut [H], f: Kernel2<'_>) {
    assert!(x.len() == z.len() && y.len() == z.len());
    let (mut a, mut b, mut c) = ([0f32; PIECE], [0f32; PIECE], [0f32; PIECE]);
    for ((x, y), z) in x.chunks(PIECE).zip(y.chunks(PIECE)).zip(z.chunks_mut(PIECE)) {
        let (a, b, c) = (&mut a[..x.len()], &mut b[..x.len()], &mut c[..x.len()]);
        H::widen(x, a);
        H::widen(y, b);
        f(a, b, c);
        H::narrow(c, z);
    }
}

/// `y = f(x)` for an `f` over whole `f32` rows: `[rows, n]` in groups of rows, in parallel when there is much to do.
/// `f(first_row, x, y)` must treat each row by itself.
pub fn map_rows<H: Half>(x: &[H], y: &mut [H], n: usize, f: RowKernel<'_>) {
    assert_eq!(x.len(), y.len());
    for_rows(y, n, |row, y| {
        let rows = (PIECE / n).max(1);
        let (mut a, mut b) = (vec![0f32; rows * n], vec![0f32; rows * n]);
        for (i, y) in y.chunks_mut(rows * n).enumerate() {
            let first = row + i * rows;
            let (a, b) = (&mut a[..y.len()], &mut b[..y.len()]);
            H::widen(&x[first * n..][..y.len()], a);
            f(first, a, b);
            H::narrow(b, y);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::level::Level;
    use crate::cpu::testing::{LENGTHS, noise};

    /// Every half number, through the vector loop of every level.
    #[test]
    fn widening_is_exact() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        let mut y = vec![0f32; bits.len()];
        for level in Level::ALL {
            let x: Vec<f16> = bits.iter().map(|&b| f16::from_bits(b)).collect();
            widen_f16(level, &x, &mut y);
            assert!(x.iter().zip(&y).all(|(x, y)| x.to_f32().to_bits() == y.to_bits() || x.is_nan() && y.is_nan()));
            let x: Vec<bf16> = bits.iter().map(|&b| bf16::from_bits(b)).collect();
            widen_bf16(level, &x, &mut y);
            assert!(x.iter().zip(&y).all(|(x, y)| x.to_f32().to_bits() == y.to_bits() || x.is_nan() && y.is_nan()));
        }
    }

    #[test]
    fn narrowing_rounds_to_even() {
        let mut x: Vec<f32> = (0..=u32::MAX).step_by(65_521).map(f32::from_bits).collect();
        // Ties, and their neighbours.
        x.extend(
            (0..1000u32)
                .flat_map(|i| [0x7fff, 0x8000, 0x8001].map(|low| f32::from_bits(0x3f80_0000 + (i << 16) + low))),
        );
        x.extend([f32::MAX, -f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7f80_0001), f32::NAN, 1e-45]);
        let mut y = vec![bf16::ZERO; x.len()];
        for level in Level::ALL {
            narrow_bf16(level, &x, &mut y);
            assert!(
                x.iter().zip(&y).all(|(&x, y)| bf16::from_f32(x).to_bits() == y.to_bits() || x.is_nan() && y.is_nan())
            );
        }
        let mut y = vec![f16::ZERO; x.len()];
        f16::narrow(&x, &mut y);
        assert!(x.iter().zip(&y).all(|(&x, y)| f16::from_f32(x).to_bits() == y.to_bits() || x.is_nan() && y.is_nan()));
    }

    #[test]
    fn kernels_over_pieces() {
        for n in LENGTHS.into_iter().chain([20_000]) {
            let wide = noise::<f32>(3 * n, 1);
            let mut x = vec![f16::ZERO; 3 * n];
            f16::narrow(&wide, &mut x);
            let (mut y, mut z, mut s) = (x.clone(), x.clone(), x.clone());
            map(&x, &mut y, &mut |a, b| b.iter_mut().zip(a).for_each(|(b, a)| *b = 2.0 * a));
            map2(&x, &y, &mut z, &mut |a, b, c| c.iter_mut().zip(a.iter().zip(b)).for_each(|(c, (a, b))| *c = b - a));
            assert!(z == x);
            map_rows(&x, &mut s, n, &|_, a, b| crate::cpu::softmax::softmax(a, b, n));
            for row in s.chunks(n.max(1)) {
                let sum: f32 = row.iter().map(|v| v.to_f32()).sum();
                assert!((sum - 1.0).abs() < 2e-3, "{n}: {sum}");
            }
        }
    }
}
