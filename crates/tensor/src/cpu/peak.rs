//! What this machine can do at most: the limits that kernels are held against.

#[cfg(target_arch = "x86_64")]
use super::level::Level;
use super::level::level;
use super::simd::simd_fn;
use crate::cpu::parallel::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

/// The measured limits of the machine, with all of rayon's threads.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// Single-precision floating-point operations per second, a fused multiply-add being two.
    pub flops: f64,
    /// The same of products of bf16 summed in single precision: those of the dot product of pairs where the machine has
    /// it, else [`flops`](Peak::flops).
    pub bf16_flops: f64,
    /// Bytes per second that can be read from main memory.
    pub bandwidth: f64,
}

/// The machine's limits, measured at the first call (some 0.3 s) and kept.
pub fn peak() -> Peak {
    super::threads::start();
    static PEAK: OnceLock<Peak> = OnceLock::new();
    *PEAK.get_or_init(|| Peak {
        flops: flops(multiply_adds),
        bf16_flops: flops(bf16_multiply_adds),
        bandwidth: bandwidth(),
    })
}

/// Independent sums of a thread: enough to cover the latency of the multiply-add, few enough for the registers.
const SUMS: usize = 12;

/// Defines a function that does `rounds` dependent multiply-adds in each lane of `SUMS` registers.
#[cfg(target_arch = "x86_64")]
macro_rules! multiply_adds {
    ($name:ident, $features:literal, $splat:ident, $fma:ident, $add:ident, $first:ident) => {
        #[target_feature(enable = $features)]
        fn $name(rounds: usize, x: f32) -> f32 {
            use std::arch::x86_64::*;
            let x = $splat(x);
            let mut sums = [x; SUMS];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $fma(*sum, x, x);
                }
            }
            $first(sums.into_iter().fold(x, |a, b| $add(a, b)))
        }
    };
}
#[cfg(target_arch = "x86_64")]
multiply_adds!(avx512, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_cvtss_f32);
#[cfg(target_arch = "x86_64")]
multiply_adds!(avx2, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, _mm256_cvtss_f32);
#[cfg(target_arch = "x86_64")]
multiply_adds!(avx512_bf16, "avx512f,avx512bf16", _mm512_set1_ps, dot_pairs, _mm512_add_ps, _mm512_cvtss_f32);

/// `sum + a · b`, where each 32 bits of `a` and `b` are two bf16.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_pairs(sum: __m512, a: __m512, b: __m512) -> __m512 {
    // SAFETY: vectors of one size, of which every bit pattern is a value.
    let (a, b) = unsafe { (std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b)) };
    _mm512_dpbf16_ps(sum, a, b)
}

fn portable(rounds: usize, x: f32) -> f32 {
    let mut sums = [[x; 4]; SUMS];
    for _ in 0..rounds {
        // Fused only where it is one instruction of every machine.
        let step = |sum: f32| if cfg!(target_arch = "aarch64") { sum.mul_add(x, x) } else { sum * x + x };
        sums.iter_mut().flatten().for_each(|sum| *sum = step(*sum));
    }
    sums.iter().flatten().sum()
}

/// The multiply-adds of this level, and how many a round has.
fn multiply_adds(rounds: usize, x: f32) -> (f32, usize) {
    match level() {
        // SAFETY: `level` returns what the machine has.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => (unsafe { avx512(rounds, x) }, SUMS * 16),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => (unsafe { avx2(rounds, x) }, SUMS * 8),
        _ => (portable(rounds, x), SUMS * 4),
    }
}

/// The same of bf16.
fn bf16_multiply_adds(rounds: usize, x: f32) -> (f32, usize) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 && is_x86_feature_detected!("avx512bf16") {
        // SAFETY: the line above asks for both.
        return (unsafe { avx512_bf16(rounds, x) }, SUMS * 32);
    }
    multiply_adds(rounds, x)
}

fn flops(multiply_adds: fn(usize, f32) -> (f32, usize)) -> f64 {
    const ROUNDS: usize = 1 << 18;
    let (_, lanes) = multiply_adds(1, 0.5);
    let work = (2 * lanes * ROUNDS * rayon::current_num_threads()) as f64;
    work / best(|| {
        rayon::broadcast(|_| black_box(multiply_adds(ROUNDS, black_box(0.5))));
    })
}

fn bandwidth() -> f64 {
    const BYTES: usize = 256 << 20;
    let data = vec![1u64; BYTES / 8];
    let part = data.len() / rayon::current_num_threads().max(1);
    BYTES as f64
        / best(|| {
            black_box(data.par_chunks(part.max(1)).map_to_vec(|part| sum(level(), part)));
        })
}

simd_fn! {
    fn sum[S](data: &[u64]) -> u64 {
        data.iter().fold(0, |sum, x| sum ^ x)
    }
}

/// The least seconds of a few calls: the machine is not ours alone.
fn best(mut f: impl FnMut()) -> f64 {
    let time = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..8).map(|_| time(&mut f)).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    #[test]
    fn limits_are_plausible() {
        let peak = super::peak();
        assert!(peak.flops > 1e9 && peak.flops < 1e14, "{peak:?}");
        assert!(peak.bf16_flops > 1e9 && peak.bf16_flops < 1e14, "{peak:?}");
        assert!(peak.bandwidth > 1e8 && peak.bandwidth < 1e13, "{peak:?}");
    }
}
