//! Sums, products and extrema of slices, in a fixed order that vectorises.
//!
//! A sum is made of [`LANES`] running sums per block of [`BLOCK`] elements; the lanes of a block are added in a tree, and
//! so are the blocks. That order depends on the length alone, never on the level or on the number of threads. The error
//! grows as `BLOCK/LANES + log₂ n` roundings instead of n (N. J. Higham, Accuracy and Stability of Numerical
//! Algorithms, §4.2).

use super::math::Real;

/// Accumulators per block: two 512-bit registers of `f32`.
pub const LANES: usize = 32;
/// Elements per block.
pub const BLOCK: usize = 512;

/// Pairwise summation of a stream of values, in the shape of a binary counter.
pub struct Pairwise<T> {
    levels: [T; 48],
    count: u64,
}

impl<T: Real> Default for Pairwise<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Real> Pairwise<T> {
    /// An empty sum.
    #[inline(always)]
    pub fn new() -> Self {
        Pairwise { levels: [T::ZERO; 48], count: 0 }
    }
    /// Adds a value: merged with the pending sums of as many values, level by level.
    #[inline(always)]
    pub fn push(&mut self, value: T) {
        let mut value = value;
        let mut level = 0;
        while self.count >> level & 1 == 1 {
            value = self.levels[level] + value;
            level += 1;
        }
        self.levels[level] = value;
        self.count += 1;
    }
    /// The total; 0 if nothing was pushed.
    #[inline(always)]
    pub fn total(&self) -> T {
        let mut total = T::ZERO;
        let mut count = self.count;
        let mut level = 0;
        while count != 0 {
            if count & 1 == 1 {
                total = self.levels[level] + total;
            }
            count >>= 1;
            level += 1;
        }
        total
    }
}

/// The lanes folded in halves.
#[inline(always)]
pub fn fold<T: Copy>(mut lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// `f` over at most [`BLOCK`] elements in lanes, starting from `init`.
#[inline(always)]
pub fn fold_block<T: Copy>(x: &[T], init: T, f: impl Fn(T, T) -> T + Copy) -> T {
    let mut lanes = [init; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        for i in 0..LANES {
            lanes[i] = f(lanes[i], chunk[i]);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = f(*lane, v);
    }
    fold(lanes, f)
}

/// `Σ x`.
#[inline(always)]
pub fn sum<T: Real>(x: &[T]) -> T {
    if x.len() <= BLOCK {
        return fold_block(x, T::ZERO, |a, b| a + b);
    }
    let mut total = Pairwise::new();
    for block in x.chunks(BLOCK) {
        total.push(fold_block(block, T::ZERO, |a, b| a + b));
    }
    total.total()
}

/// The largest element, −∞ of none, NaN if there is one.
#[inline(always)]
pub fn max<T: Real>(x: &[T]) -> T {
    fold_block(x, T::NEG_INFINITY, T::maximum)
}

/// The smallest element, +∞ of none, NaN if there is one.
#[inline(always)]
pub fn min<T: Real>(x: &[T]) -> T {
    fold_block(x, T::INFINITY, T::minimum)
}

/// Sums of blocks of the `len` elements that `fill(start, buffer)` computes: mapping a block into a buffer on the stack
/// first lets the mapping vectorise by itself.
#[inline(always)]
fn sum_filled<T: Real>(len: usize, fill: impl Fn(usize, &mut [T])) -> T {
    let mut buffer = [T::ZERO; BLOCK];
    let mut total = Pairwise::new();
    let mut start = 0;
    // `fill` has this one call site: a closure with two may be left out of line, without the level's instructions.
    loop {
        let out = &mut buffer[..BLOCK.min(len - start)];
        fill(start, out);
        let block = fold_block(out, T::ZERO, |a, b| a + b);
        if len <= BLOCK {
            return block;
        }
        total.push(block);
        start += BLOCK;
        if start >= len {
            return total.total();
        }
    }
}

/// `Σ f(x)`.
#[inline(always)]
pub fn sum_map<T: Real>(x: &[T], f: impl Fn(T) -> T) -> T {
    sum_filled(x.len(), |start, out: &mut [T]| {
        for (o, &x) in out.iter_mut().zip(&x[start..]) {
            *o = f(x);
        }
    })
}

/// `Σ f(x, y)` over two slices of one length.
#[inline(always)]
pub fn sum_map2<T: Real>(x: &[T], y: &[T], f: impl Fn(T, T) -> T) -> T {
    assert_eq!(x.len(), y.len());
    sum_filled(x.len(), |start, out: &mut [T]| {
        for ((o, &x), &y) in out.iter_mut().zip(&x[start..]).zip(&y[start..]) {
            *o = f(x, y);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sums_stay_accurate() {
        let n = 3_000_001;
        let x = vec![0.1f32; n];
        let exact = 0.1f32 as f64 * n as f64;
        assert!((sum(&x) as f64 - exact).abs() / exact < 2e-6, "{}", sum(&x));
        assert_eq!(sum_map2(&x, &x, |a, b| a - b), 0.0);
    }

    proptest::proptest! {
        #[test]
        fn any_length(x in proptest::collection::vec(-1e3f32..1e3, 0..3000)) {
            let exact: f64 = x.iter().map(|&v| v as f64).sum();
            // Σ|x|·(BLOCK/LANES + log₂ LANES + log₂ blocks)·ε, Higham's bound for blocked summation.
            let bound = x.iter().map(|&v| v.abs() as f64).sum::<f64>() * 24.0 * f32::EPSILON as f64;
            proptest::prop_assert!((sum(&x) as f64 - exact).abs() <= bound);
            proptest::prop_assert_eq!(sum_map(&x, |v| v), sum(&x));
            proptest::prop_assert_eq!(max(&x), x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b)));
        }
    }

    #[test]
    fn extrema_propagate_nan() {
        for n in [1, 7, 31, 32, 33, 65] {
            for at in 0..n {
                let mut x: Vec<f32> = (0..n).map(|i| -(i as f32)).collect();
                assert_eq!((max(&x), min(&x)), (0.0, 1.0 - n as f32));
                x[at] = f32::NAN;
                assert!(max(&x).is_nan() && min(&x).is_nan());
            }
        }
        assert_eq!(max::<f64>(&[]), f64::NEG_INFINITY);
    }
}
