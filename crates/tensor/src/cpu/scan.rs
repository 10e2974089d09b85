//! Running sums.

use super::accumulate::Accumulate;
use crate::cpu::parallel::*;

/// Cumulative sum along the middle dimension of `[outer, n, inner]`: `y[o, i, j] = Σ_{k ≤ i} x[o, k, j]`, or with `reverse`
/// `Σ_{k ≥ i}`, which is the forward sum's adjoint and so its backward. `y` is overwritten.
///
/// Floats are summed in `f64` and rounded once per output; integers wrap.
///
/// # Panics
/// If `x` and `y` have not `outer · n · inner` elements.
pub fn cumsum<T: Accumulate>(outer: usize, n: usize, inner: usize, reverse: bool, x: &[T], y: &mut [T]) {
    assert_eq!(x.len(), outer * n * inner, "input length");
    assert_eq!(y.len(), x.len(), "output length");
    if x.is_empty() {
        return;
    }
    let min_chunks = (1usize << 13).div_ceil(n * inner);
    y.par_chunks_mut(n * inner).zip(x.par_chunks(n * inner)).with_min_len(min_chunks).for_each(|(y, x)| {
        if inner == 1 {
            let mut sum = T::wide_zero();
            let mut step = |(y, &x): (&mut T, &T)| {
                sum = x.add_to(sum);
                *y = T::from_wide(sum);
            };
            if reverse {
                y.iter_mut().zip(x).rev().for_each(&mut step)
            } else {
                y.iter_mut().zip(x).for_each(step)
            }
            return;
        }
        let mut sums = vec![T::wide_zero(); inner];
        for i in 0..n {
            let row = if reverse { n - 1 - i } else { i } * inner;
            for ((y, &x), sum) in y[row..row + inner].iter_mut().zip(&x[row..]).zip(&mut sums) {
                *sum = x.add_to(*sum);
                *y = T::from_wide(*sum);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::test_util::{assert_close, inner, values};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn matches_the_textbook_and_its_adjoint(outer in 0usize..4, n in 0usize..6, inner_len in 0usize..4) {
            let x = values(outer * n * inner_len, 1);
            let mut y = vec![f64::NAN; x.len()];
            cumsum(outer, n, inner_len, false, &x, &mut y);
            let mut expected = x.clone();
            for o in 0..outer {
                for i in 1..n {
                    for j in 0..inner_len {
                        expected[(o * n + i) * inner_len + j] += expected[(o * n + i - 1) * inner_len + j];
                    }
                }
            }
            assert_close(&y, &expected, 1e-14);
            let dy = values(x.len(), 2);
            let mut dx = vec![f64::NAN; x.len()];
            cumsum(outer, n, inner_len, true, &dy, &mut dx);
            prop_assert!((inner(&y, &dy) - inner(&x, &dx)).abs() < 1e-12);
        }
    }

    #[test]
    fn integers_wrap_and_floats_round_once() {
        let mut y = [0u8; 3];
        cumsum(1, 3, 1, false, &[200, 100, 1], &mut y);
        assert_eq!(y, [200, 44, 45]);
        let mut y = vec![0f32; 1 << 20];
        let x = vec![0.1f32; 1 << 20];
        cumsum(1, 1 << 20, 1, false, &x, &mut y);
        assert_eq!(y[(1 << 20) - 1], (f64::from(0.1f32) * f64::from(1 << 20)) as f32);
    }
}
