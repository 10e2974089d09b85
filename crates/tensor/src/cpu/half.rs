//! bf16 and f16 as storage for f32.

use super::level::level;
use super::simd::simd_fn;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A type that holds numbers which are computed with as f32.
pub trait Half: bytemuck::Pod + Send + Sync {
    /// Into f32, exactly.
    fn widen(src: &[Self], dst: &mut [f32]);
    /// Rounded to nearest, ties to even; a NaN stays one.
    fn narrow(src: &[f32], dst: &mut [Self]);
}

impl Half for bf16 {
    fn widen(src: &[bf16], dst: &mut [f32]) {
        widen_bf16(level(), src, dst)
    }
    fn narrow(src: &[f32], dst: &mut [bf16]) {
        narrow_bf16(level(), src, dst)
    }
}

impl Half for f16 {
    fn widen(src: &[f16], dst: &mut [f32]) {
        src.convert_to_f32_slice(dst)
    }
    fn narrow(src: &[f32], dst: &mut [f16]) {
        dst.convert_from_f32_slice(src)
    }
}

simd_fn! {
    fn widen_bf16[S](src: &[bf16], dst: &mut [f32]) {
        dst.iter_mut().zip(src).for_each(|(d, s)| *d = f32::from_bits((s.to_bits() as u32) << 16));
    }
}

simd_fn! {
    fn narrow_bf16[S](src: &[f32], dst: &mut [bf16]) {
        dst.iter_mut().zip(src).for_each(|(d, s)| *d = round_bf16(*s));
    }
}

/// To the nearest, ties to even: adds half of the last place that stays, less one ulp of f32 if that place is even, and
/// cuts off. A NaN stays one.
#[inline(always)]
pub fn round_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let nan = bits >> 16 | 0x40;
    bf16::from_bits(if x.is_nan() { nan } else { rounded } as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every bf16, and the f32 around and between its neighbours, against the crate `half`.
    #[test]
    fn bf16_rounds_as_the_reference_does() {
        let all: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        let mut wide = vec![0f32; all.len()];
        bf16::widen(&all, &mut wide);
        let same = |(b, w): (&bf16, &f32)| b.to_f32().to_bits() == w.to_bits() || b.is_nan() && w.is_nan();
        assert!(all.iter().zip(&wide).all(same));
        for low in [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
            let x: Vec<f32> = wide.iter().map(|w| f32::from_bits(w.to_bits() | low)).collect();
            let mut got = vec![bf16::ZERO; x.len()];
            bf16::narrow(&x, &mut got);
            for (x, got) in x.iter().zip(got) {
                let want = bf16::from_f32(*x);
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{x:e}: {got}, not {want}");
            }
        }
    }
}
