//! What the kernels' tests share.

/// `n` reproducible values, uniform in `[-1, 1)` (splitmix64).
pub(crate) fn values(n: usize, seed: u64) -> Vec<f64> {
    integers(n, seed, 1 << 53).into_iter().map(|v| v as f64 / (1u64 << 52) as f64 - 1.0).collect()
}

/// `n` reproducible integers in `0..below`.
pub(crate) fn integers(n: usize, seed: u64, below: u64) -> Vec<u64> {
    let mut state = seed.wrapping_mul(0x2545_F491_4F6C_DD1D);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (0..n).map(|_| next() % below).collect()
}

/// `⟨a, b⟩`
pub(crate) fn inner(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Equal to `tol`, relative to the larger of 1 and the values.
#[track_caller]
pub(crate) fn assert_close(a: &[f64], b: &[f64], tol: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tol * a.abs().max(b.abs()).max(1.0), "element {i}: {a} ≠ {b}");
    }
}

/// The gradient of `⟨f(x), dy⟩` by central differences.
pub(crate) fn numeric_gradient(x: &[f64], dy: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let eps = 1e-6;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let old = x[i];
            x[i] = old + eps;
            let up = inner(&f(&x), dy);
            x[i] = old - eps;
            let down = inner(&f(&x), dy);
            x[i] = old;
            (up - down) / (2.0 * eps)
        })
        .collect()
}

/// `f` under a pool of 1 thread and under one of 5 gives the same.
#[track_caller]
pub(crate) fn assert_same_for_any_thread_count<R: PartialEq + std::fmt::Debug + Send>(f: impl Fn() -> R + Sync) {
    let with = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(&f);
    assert!(with(1) == with(5), "the result depends on the number of threads");
}
