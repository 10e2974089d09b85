//! Philox 4×32-10 (J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
//! SC 2011): a counter goes in, four 32-bit words come out, nothing is remembered.
//!
//! **The layout**, which every device follows. The key is `seed` (its low word first). A fill of many elements is one
//! *stream*, numbered by `offset`: a generator that has filled one tensor moves on to `offset + 1`. Block b of a stream is
//! the counter `(b mod 2³², b / 2³², offset mod 2³², offset / 2³²)`. Of its words w₀ … w₃
//!
//! - a 32-bit element i takes word `i mod 4` of block `i / 4`;
//! - a 64-bit element i takes words `2·(i mod 2)` (low) and `2·(i mod 2) + 1` (high) of block `i / 2`;
//! - normal numbers come in pairs: elements 2k and 2k + 1 share the two words (`f32`) or the two 64-bit numbers (`f64`) that
//!   lie at their places, see [`fill_normal`].
//!
//! So element i depends on (seed, offset, i) only: neither on the length of the fill nor on how it is split.

use super::level::{Level, level};
use super::math::Real;
use super::rows::for_pieces;
use super::simd::{Simd, simd_fn};
use std::array::from_fn;

const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// The golden ratio and √3 − 1: what the key advances by.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// The four words of a counter under a key.
#[inline(always)]
pub fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let [[a], [b], [c], [d]] = rounds(key, counter.map(|w| [w]));
    [a, b, c, d]
}

/// Ten rounds on `W` counters side by side.
#[inline(always)]
fn rounds<const W: usize>(mut key: [u32; 2], mut c: [[u32; W]; 4]) -> [[u32; W]; 4] {
    for _ in 0..10 {
        for i in 0..W {
            let a = c[0][i] as u64 * MULTIPLIERS[0] as u64;
            let b = c[2][i] as u64 * MULTIPLIERS[1] as u64;
            c[0][i] = (b >> 32) as u32 ^ c[1][i] ^ key[0];
            c[1][i] = b as u32;
            c[2][i] = (a >> 32) as u32 ^ c[3][i] ^ key[1];
            c[3][i] = a as u32;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    c
}

fn words(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

/// The four words of block `block` of a stream.
fn block(seed: u64, offset: u64, block: u64) -> [u32; 4] {
    let ([b0, b1], [o0, o1]) = (words(block), words(offset));
    philox(words(seed), [b0, b1, o0, o1])
}

/// Element `i` of a stream of 32-bit numbers.
pub fn u32_at(seed: u64, offset: u64, i: u64) -> u32 {
    block(seed, offset, i / 4)[(i % 4) as usize]
}

/// Element `i` of a stream of 64-bit numbers.
pub fn u64_at(seed: u64, offset: u64, i: u64) -> u64 {
    let (w, at) = (block(seed, offset, i / 2), 2 * (i % 2) as usize);
    w[at] as u64 | (w[at + 1] as u64) << 32
}

/// Blocks that one step of a vectorised fill computes side by side.
const WIDE: usize = 32;
/// 32-bit words in that many blocks.
const WORDS: usize = 4 * WIDE;

simd_fn! {
    /// The words of `WIDE` blocks from `first` on, in the order of the elements.
    fn wide_words[S](words: &mut [u32; WORDS], seed: u64, offset: u64, first: u64) {
        let [o0, o1] = self::words(offset);
        let low: [u32; WIDE] = from_fn(|i| (first + i as u64) as u32);
        let high: [u32; WIDE] = from_fn(|i| ((first + i as u64) >> 32) as u32);
        let c = rounds(self::words(seed), [low, high, [o0; WIDE], [o1; WIDE]]);
        *words = from_fn(|i| c[i % 4][i / 4]);
    }
}

/// Where `out` lies in a stream: it begins at element `start`, which is the first of a block of `per_block`.
#[derive(Clone, Copy)]
struct Place {
    seed: u64,
    offset: u64,
    start: usize,
    per_block: usize,
}

/// Calls `f(words, piece)` for each piece of `out` that the words of `WIDE` blocks make.
fn for_words<T>(level: Level, out: &mut [T], place: Place, mut f: impl FnMut(&[u32; WORDS], &mut [T])) {
    let step = WIDE * place.per_block;
    let mut words = [0; WORDS];
    for (i, out) in out.chunks_mut(step).enumerate() {
        let first = (place.start + i * step) / place.per_block;
        wide_words(level, &mut words, place.seed, place.offset, first as u64);
        f(&words, out);
    }
}

/// A type that random numbers can be made of.
pub trait Random: Real {
    /// Elements that one block of four words gives.
    const PER_BLOCK: usize;
    /// In [0, 1), from the words of `WIDE` blocks.
    fn uniform(words: &[u32; WORDS], out: &mut [Self; WORDS]);
    /// Standard normal, likewise.
    fn normal<S: Simd>(words: &[u32; WORDS], out: &mut [Self; WORDS]);
}

impl Random for f32 {
    const PER_BLOCK: usize = 4;
    #[inline(always)]
    fn uniform(words: &[u32; WORDS], out: &mut [f32; WORDS]) {
        for (o, &w) in out.iter_mut().zip(words) {
            *o = (w >> 8) as i32 as f32 * (1.0 / (1u32 << 24) as f32);
        }
    }
    #[inline(always)]
    fn normal<S: Simd>(words: &[u32; WORDS], out: &mut [f32; WORDS]) {
        const N: usize = WORDS / 2;
        let even: [u32; N] = from_fn(|i| words[2 * i]);
        let odd: [u32; N] = from_fn(|i| words[2 * i + 1]);
        let (mut cos, mut sin) = ([0f32; N], [0f32; N]);
        for i in 0..N {
            let u = even[i] as f32 * (1.0 / 4_294_967_296.0) + 0.5 / 4_294_967_296.0;
            let radius = (-2.0 * Real::log::<S>(u)).sqrt();
            let angle = odd[i] as i32 as f32 * (std::f32::consts::PI / 2_147_483_648.0);
            cos[i] = radius * Real::cos::<S>(angle);
            sin[i] = radius * Real::sin::<S>(angle);
        }
        for i in 0..N {
            out[2 * i] = cos[i];
            out[2 * i + 1] = sin[i];
        }
    }
}

impl Random for f64 {
    const PER_BLOCK: usize = 2;
    #[inline(always)]
    fn uniform(words: &[u32; WORDS], out: &mut [f64; WORDS]) {
        for i in 0..WORDS / 2 {
            let w = words[2 * i] as u64 | (words[2 * i + 1] as u64) << 32;
            out[i] = (w >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
        }
    }
    #[inline(always)]
    fn normal<S: Simd>(words: &[u32; WORDS], out: &mut [f64; WORDS]) {
        const SCALE: f64 = 1.0 / 18_446_744_073_709_551_616.0; // 2⁻⁶⁴
        for i in 0..WORDS / 4 {
            let a = words[4 * i] as u64 | (words[4 * i + 1] as u64) << 32;
            let b = words[4 * i + 2] as u64 | (words[4 * i + 3] as u64) << 32;
            let radius = (-2.0 * (a as f64 * SCALE + 0.5 * SCALE).ln()).sqrt();
            let angle = b as i64 as f64 * (2.0 * SCALE * std::f64::consts::PI);
            out[2 * i] = radius * angle.cos();
            out[2 * i + 1] = radius * angle.sin();
        }
    }
}

simd_fn! {
    fn normal_kernel[S]<T: Random>(words: &[u32; WORDS], out: &mut [T; WORDS]) {
        T::normal::<S>(words, out);
    }
}

/// A yes or no as an element of a mask.
pub trait MaskElement: Copy + Default + Send + Sync + 'static {
    /// 1 or 0, true or false.
    fn from_bool(yes: bool) -> Self;
}
macro_rules! mask_elements {
    ($($t:ty: $yes:expr, $no:expr;)*) => {$(
        impl MaskElement for $t {
            #[inline(always)]
            fn from_bool(yes: bool) -> Self {
                if yes { $yes } else { $no }
            }
        }
    )*};
}
mask_elements! { f32: 1.0, 0.0; f64: 1.0, 0.0; u8: 1, 0; bool: true, false; }

fn bernoulli_kernel<M: MaskElement>(out: &mut [M], threshold: u32, seed: u64, offset: u64, start: usize) {
    for_words(level(), out, Place { seed, offset, start, per_block: 4 }, |words, out| {
        for (o, &w) in out.iter_mut().zip(words) {
            *o = M::from_bool(w < threshold);
        }
    });
}

/// Element i of the 32-bit stream, as [`u32_at`].
pub fn fill_u32(out: &mut [u32], seed: u64, offset: u64) {
    for_pieces(out, |start, out| {
        for_words(level(), out, Place { seed, offset, start, per_block: 4 }, |words, out| {
            out.copy_from_slice(&words[..out.len()]);
        });
    });
}

/// Uniform in [0, 1): the high 24 bits of the 32-bit element i (`f32`) or the high 53 of the 64-bit one (`f64`), times 2⁻²⁴
/// or 2⁻⁵³. The same bits on every device.
pub fn fill_uniform<T: Random>(out: &mut [T], seed: u64, offset: u64) {
    uniform_at(level(), out, seed, offset);
}

fn uniform_at<T: Random>(level: Level, out: &mut [T], seed: u64, offset: u64) {
    for_pieces(out, |start, out| {
        let mut values = [T::ZERO; WORDS];
        for_words(level, out, Place { seed, offset, start, per_block: T::PER_BLOCK }, |words, out| {
            T::uniform(words, &mut values);
            out.copy_from_slice(&values[..out.len()]);
        });
    });
}

/// Standard normal numbers (G. E. P. Box, M. E. Muller 1958). Elements 2k and 2k + 1 are `r·cos θ` and `r·sin θ` with
/// `r = √(−2 ln u)`, `u = (a + ½)·2⁻ᵇ` and `θ = π·(c as signed)·2^{1−b}`, where a and c are the b-bit stream elements
/// 2k and 2k + 1 (b = 32 for `f32`, 64 for `f64`). Devices agree to the rounding of their logarithms and cosines. The
/// largest possible magnitude is 6.66 in `f32`.
pub fn fill_normal<T: Random>(out: &mut [T], seed: u64, offset: u64) {
    normal_at(level(), out, seed, offset);
}

fn normal_at<T: Random>(level: Level, out: &mut [T], seed: u64, offset: u64) {
    for_pieces(out, |start, out| {
        let mut values = [T::ZERO; WORDS];
        for_words(level, out, Place { seed, offset, start, per_block: T::PER_BLOCK }, |words, out| {
            normal_kernel(level, words, &mut values);
            out.copy_from_slice(&values[..out.len()]);
        });
    });
}

/// A mask that is 1 (true) with probability `p`: element i is whether the 32-bit element i of the stream is below
/// `round(p·2³²)`. With p = 0 none is and with p = 1 all are. The same on every device.
pub fn fill_bernoulli<M: MaskElement>(out: &mut [M], p: f64, seed: u64, offset: u64) {
    assert!((0.0..=1.0).contains(&p), "a probability is in [0, 1], not {p}");
    let threshold = (p * 4_294_967_296.0).round();
    if threshold >= 4_294_967_296.0 {
        return out.fill(M::from_bool(true));
    }
    for_pieces(out, |start, out| bernoulli_kernel(out, threshold as u32, seed, offset, start));
}

/// Elements `start..` of the mask that [`fill_bernoulli`] makes, on this thread: for kernels that make it piece by piece.
pub fn bernoulli_row<M: MaskElement>(out: &mut [M], p: f64, seed: u64, offset: u64, start: u64) {
    assert!((0.0..=1.0).contains(&p), "a probability is in [0, 1], not {p}");
    let threshold = (p * 4_294_967_296.0).round();
    if threshold >= 4_294_967_296.0 {
        return out.fill(M::from_bool(true));
    }
    let threshold = threshold as u32;
    // The vectorised kernel starts at a block of four.
    let head = (start.next_multiple_of(4) - start).min(out.len() as u64) as usize;
    let (head, rest) = out.split_at_mut(head);
    for (i, o) in head.iter_mut().enumerate() {
        *o = M::from_bool(u32_at(seed, offset, start + i as u64) < threshold);
    }
    bernoulli_kernel(rest, threshold, seed, offset, start.next_multiple_of(4) as usize);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{LENGTHS, on_threads};

    #[test]
    fn a_row_is_a_part_of_the_whole_mask() {
        let mut whole = vec![false; 1000];
        fill_bernoulli(&mut whole, 0.3, 5, 6);
        for (start, n) in [(0, 1000), (1, 0), (1, 2), (3, 130), (4, 129), (517, 300), (998, 2)] {
            let mut row = vec![false; n];
            bernoulli_row(&mut row, 0.3, 5, 6, start as u64);
            assert_eq!(row, whole[start..start + n], "{start}, {n}");
        }
    }

    /// The known answers that come with Random123.
    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 2], [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn elements_depend_on_their_place_alone() {
        let (seed, offset) = (0x1234_5678_9abc_def0, 7 << 33 | 5);
        for level in Level::ALL {
            for n in LENGTHS.into_iter().chain([40_003]) {
                let (mut a, mut b) = (vec![0f32; n], vec![0f64; n]);
                uniform_at(level, &mut a, seed, offset);
                uniform_at(level, &mut b, seed, offset);
                for i in 0..n {
                    assert_eq!(a[i], (u32_at(seed, offset, i as u64) >> 8) as f32 / 16_777_216.0);
                    assert_eq!(b[i], (u64_at(seed, offset, i as u64) >> 11) as f64 / 9_007_199_254_740_992.0);
                    assert!((0.0..1.0).contains(&a[i]) && (0.0..1.0).contains(&b[i]));
                }
            }
        }
        let mut w = vec![0; 1001];
        fill_u32(&mut w, seed, offset);
        assert!(w.iter().enumerate().all(|(i, &w)| w == u32_at(seed, offset, i as u64)));
    }

    #[test]
    fn normal_moments_and_prefixes() {
        fn moments<T: Random>() {
            for level in Level::ALL {
                let mut x = vec![T::ZERO; 400_001];
                normal_at(level, &mut x, 42, 0);
                let n = x.len() as f64;
                let moment = |k: i32| x.iter().map(|v| v.to_f64().powi(k)).sum::<f64>() / n;
                // Standard errors: 1/√n, √2/√n, √15/√n, √96/√n, with 1/√n = 0.0016.
                assert!(moment(1).abs() < 0.007 && (moment(2) - 1.0).abs() < 0.01);
                assert!(moment(3).abs() < 0.03 && (moment(4) - 3.0).abs() < 0.07);
                let mut short = vec![T::ZERO; 777];
                normal_at(level, &mut short, 42, 0);
                assert_eq!(short, x[..777]);
            }
        }
        moments::<f32>();
        moments::<f64>();
    }

    #[test]
    fn normal_by_the_formula() {
        let (mut a, mut b) = (vec![0f32; 1000], vec![0f64; 1000]);
        fill_normal(&mut a, 3, 4);
        fill_normal(&mut b, 3, 4);
        for k in 0..500 {
            let at = |i: usize| u32_at(3, 4, i as u64);
            let r = (-2.0 * ((at(2 * k) as f64 + 0.5) / 2f64.powi(32)).ln()).sqrt();
            let t = std::f64::consts::PI * at(2 * k + 1) as i32 as f64 / 2f64.powi(31);
            assert!((a[2 * k] as f64 - r * t.cos()).abs() < 2e-6 && (a[2 * k + 1] as f64 - r * t.sin()).abs() < 2e-6);
            let at = |i: usize| u64_at(3, 4, i as u64);
            let r = (-2.0 * ((at(2 * k) as f64 + 0.5) / 2f64.powi(64)).ln()).sqrt();
            let t = std::f64::consts::PI * at(2 * k + 1) as i64 as f64 / 2f64.powi(63);
            assert!((b[2 * k] - r * t.cos()).abs() < 1e-14 && (b[2 * k + 1] - r * t.sin()).abs() < 1e-14);
        }
    }

    #[test]
    fn masks() {
        let mut m = vec![false; 100_003];
        for p in [0.0, 0.1, 0.5, 1.0] {
            fill_bernoulli(&mut m, p, 9, 1);
            let share = m.iter().filter(|&&v| v).count() as f64 / m.len() as f64;
            assert!((share - p).abs() < 0.01, "{p} {share}");
            let mut f = vec![0f32; m.len()];
            fill_bernoulli(&mut f, p, 9, 1);
            assert!(f.iter().zip(&m).all(|(&f, &m)| f == m as u8 as f32));
        }
        let run = || {
            let mut x = vec![0f32; 200_001];
            fill_normal(&mut x, 1, 2);
            x
        };
        assert_eq!(on_threads(1, run), on_threads(4, run));
    }
}
