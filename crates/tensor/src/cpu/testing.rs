//! What the kernels' tests share.

use super::math::Real;

/// Lengths around the vector widths, their multiples and nothing.
pub const LENGTHS: [usize; 11] = [0, 1, 7, 15, 16, 17, 31, 63, 64, 65, 1000];

/// Repeatable numbers in [−1, 1).
pub fn noise<T: Real>(n: usize, seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    };
    (0..n).map(|_| T::from_f64(next())).collect()
}

/// `|got − want| ≤ absolute + relative·|want|`, everywhere.
pub fn close<T: Real>(got: &[T], want: &[f64], relative: f64, absolute: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (g.to_f64() - w).abs();
        assert!(g.to_f64() == *w || error <= absolute + relative * w.abs(), "[{i}]: {g}, not {w} (off by {error:e})");
    }
}

/// `dx` against central differences of `loss` at `x`.
pub fn check_gradient(x: &[f64], dx: &[f64], loss: impl Fn(&[f64]) -> f64) {
    let h = 1e-5;
    let mut x = x.to_vec();
    for i in 0..x.len() {
        let at = x[i];
        x[i] = at + h;
        let up = loss(&x);
        x[i] = at - h;
        let down = loss(&x);
        x[i] = at;
        let want = (up - down) / (2.0 * h);
        assert!((dx[i] - want).abs() < 1e-7 * (1.0 + want.abs()), "gradient [{i}]: {}, not {want}", dx[i]);
    }
}

/// Runs `f` in a pool of that many threads.
pub fn on_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}
