//! Reductions against their definitions, for any layout and dtype.

mod layouts;

use ferrograd_tensor::{DType, Tensor};
use half::f16;
use layouts::{Random, error, groups};
use proptest::prelude::*;

/// `got` within `bound(group, exact)` of `exact(group)`, for each group of reduced values.
fn compare(
    what: &str,
    got: &Tensor,
    groups: &[Vec<f64>],
    exact: impl Fn(&[f64]) -> f64,
    bound: impl Fn(&[f64], f64) -> f64,
) -> Result<(), TestCaseError> {
    let got = got.to_f64_vec();
    prop_assert_eq!(got.len(), groups.len());
    for (got, group) in got.iter().zip(groups) {
        let want = exact(group);
        let same = *got == want || (got.is_nan() && want.is_nan());
        prop_assert!(
            same || (got - want).abs() <= bound(group, want),
            "{what} of {group:?}: {got}, not {want} (off by {:e})",
            (got - want).abs()
        );
    }
    Ok(())
}

fn magnitude(x: &[f64]) -> f64 {
    x.iter().map(|v| v.abs()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn floats_follow_the_definitions(seed: u64) {
        let mut random = Random(seed);
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            let shape = random.shape(4);
            let x = random.strided(&shape, dtype);
            let dims: Vec<usize> = (0..shape.len()).filter(|_| random.below(2) == 0).collect();
            let groups = groups(&x, &dims);
            let (unit, wide) = (dtype.epsilon(), dtype.accumulator().epsilon());
            // Higham's bound for n additions, and one rounding to the result's type.
            let rounding = |g: &[f64], want: f64| want.abs() * unit + magnitude(g) * g.len() as f64 * wide;
            let sum = |g: &[f64]| g.iter().sum::<f64>();
            let mean = |g: &[f64]| g.iter().sum::<f64>() / g.len() as f64;
            compare("sum", &x.sum_keepdims(&dims[..]), &groups, sum, rounding)?;
            compare("sum", &x.sum_dims(&dims[..]), &groups, sum, rounding)?;
            compare("mean", &x.mean_dims(&dims[..]), &groups, mean, rounding)?;
            let product = |g: &[f64]| g.iter().product::<f64>();
            if groups.iter().all(|g| product(g).abs() < 6e4) {
                // The smallest steps of f16 are 2⁻²⁴.
                let relative = |g: &[f64], want: f64| want.abs() * (unit + g.len() as f64 * wide) + 2f64.powi(-24);
                compare("prod", &x.prod_dims(&dims[..]), &groups, product, relative)?;
            }
            if dims.iter().all(|&d| shape[d] > 0) {
                let max = |g: &[f64]| g.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let min = |g: &[f64]| g.iter().copied().fold(f64::INFINITY, f64::min);
                compare("max", &x.max_dims(&dims[..]), &groups, max, |_, _| 0.0)?;
                compare("min", &x.min_dims(&dims[..]), &groups, min, |_, _| 0.0)?;
            }
            let any = |g: &[f64]| g.iter().any(|&v| v != 0.0) as u8 as f64;
            let all = |g: &[f64]| g.iter().all(|&v| v != 0.0) as u8 as f64;
            compare("any", &x.any_dims(&dims[..]), &groups, any, |_, _| 0.0)?;
            compare("all", &x.all_dims(&dims[..]), &groups, all, |_, _| 0.0)?;

            for correction in [0, 1] {
                let var = |g: &[f64]| {
                    let (m, n) = (mean(g), g.len().saturating_sub(correction) as f64);
                    g.iter().map(|v| (v - m).powi(2)).sum::<f64>() / n
                };
                // |x| ≤ 1½: every square is at most 9, and n squares carry n roundings each.
                let spread = |g: &[f64], want: f64| want.abs() * unit + 40.0 * (g.len() as f64 + 3.0) * wide;
                compare("var", &x.var_dims(&dims[..], correction), &groups, var, spread)?;
                let std = |g: &[f64]| var(g).sqrt();
                // √(v + δ) − √v ≤ √δ.
                compare("std", &x.std_keepdims(&dims[..], correction), &groups, std, |g, w| w * unit + spread(g, 0.0).sqrt())?;
            }
            let logsumexp = |g: &[f64]| g.iter().map(|v| v.exp()).sum::<f64>().ln();
            compare("logsumexp", &x.logsumexp_dims(&dims[..]), &groups, logsumexp, |g, w| w.abs() * unit + (g.len() + 8) as f64 * 4.0 * wide)?;
            for p in [0.0, 1.0, 2.0, 3.0, 0.5, f64::INFINITY] {
                let norm = |g: &[f64]| match p {
                    0.0 => g.iter().filter(|&&v| v != 0.0).count() as f64,
                    p if p.is_infinite() => g.iter().fold(0.0, |a, v| v.abs().max(a)),
                    p => g.iter().map(|v| v.abs().powf(p)).sum::<f64>().powf(1.0 / p),
                };
                compare("norm", &x.norm_dims(p, &dims[..]), &groups, norm, |g, w| w * (unit + (g.len() + 8) as f64 * 2.0 * wide))?;
            }
        }
    }

    #[test]
    fn whole_numbers_are_exact(seed: u64) {
        let mut random = Random(seed);
        for dtype in [DType::I64, DType::I32, DType::I8, DType::U8, DType::Bool] {
            let shape = random.shape(4);
            let x = random.strided(&shape, dtype);
            let dims: Vec<usize> = (0..shape.len()).filter(|_| random.below(2) == 0).collect();
            let groups = groups(&x, &dims);
            let exact = |_: &[f64], _: f64| 0.0;
            let sum = x.sum_dims(&dims[..]);
            prop_assert_eq!(sum.dtype(), DType::I64);
            compare("sum", &sum, &groups, |g| g.iter().sum(), exact)?;
            let product = |g: &[f64]| g.iter().fold(1i64, |a, &v| a.wrapping_mul(v as i64)) as f64;
            compare("prod", &x.prod_dims(&dims[..]), &groups, product, exact)?;
            compare("any", &x.any_dims(&dims[..]), &groups, |g| g.iter().any(|&v| v != 0.0) as u8 as f64, exact)?;
            compare("all", &x.all_dims(&dims[..]), &groups, |g| g.iter().all(|&v| v != 0.0) as u8 as f64, exact)?;
            if dtype != DType::Bool && dims.iter().all(|&d| shape[d] > 0) {
                compare("max", &x.max_dims(&dims[..]), &groups, |g| g.iter().copied().fold(f64::MIN, f64::max), exact)?;
                compare("min", &x.min_dims(&dims[..]), &groups, |g| g.iter().copied().fold(f64::MAX, f64::min), exact)?;
            }
            let mean = x.mean_dims(&dims[..]);
            prop_assert_eq!(mean.dtype(), DType::F32);
        }
    }
}

/// Shapes that reach every path: long rows, tall and wide columns, a middle, both ends.
#[test]
fn large_reductions_do_not_depend_on_the_threads() {
    let cases: [(&[usize], &[usize]); 8] = [
        (&[300_000], &[0]),
        (&[2, 300_000], &[1]),
        (&[3000, 40], &[0]),
        (&[12, 9000], &[0]),
        (&[500, 100], &[1]),
        (&[8, 16, 20, 20], &[0, 2, 3]),
        (&[60, 50, 30], &[1]),
        (&[40, 30, 50], &[0, 1]),
    ];
    for (shape, dims) in cases {
        let x = Random(1).values(shape, DType::F64).mul_scalar(0.37).to_dtype(DType::F32);
        let permuted = x.flip(0).permute_dims(&(0..shape.len()).rev().collect::<Vec<_>>());
        let reversed: Vec<usize> = dims.iter().map(|d| shape.len() - 1 - d).collect();
        let run = || {
            let sums = [x.sum_dims(dims), x.var_dims(dims, 1), x.max_dims(dims), x.min_dims(dims), x.prod_dims(dims)];
            let other = [permuted.sum_dims(&reversed[..]), permuted.max_dims(&reversed[..])];
            sums.iter().chain(&other).map(|t| t.to_vec::<f32>()).collect::<Vec<_>>()
        };
        let on = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(run);
        let (one, five) = (on(1), on(5));
        let bits = |v: &[Vec<f32>]| v.iter().flatten().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&one), bits(&five), "{shape:?} over {dims:?}");
        let groups = groups(&x, dims);
        for (got, g) in one[0].iter().zip(&groups) {
            let (want, bound) = (g.iter().sum::<f64>(), magnitude(g) * 64.0 * f32::EPSILON as f64);
            assert!((*got as f64 - want).abs() <= bound, "{shape:?} over {dims:?}: {got}, not {want}");
        }
        let whole = x.mul_scalar(8.0).to_dtype(DType::I32);
        let want: Vec<i64> = layouts::groups(&whole, dims).iter().map(|g| g.iter().sum::<f64>() as i64).collect();
        assert_eq!(whole.sum_dims(dims).to_vec::<i64>(), want);
    }
}

#[test]
fn nothing_and_special_values() {
    let none = Tensor::zeros([2, 0]);
    assert_eq!(none.sum_dims(1).to_vec::<f32>(), [0.0; 2]);
    assert_eq!(none.prod_dims(1).to_vec::<f32>(), [1.0; 2]);
    assert!(none.mean_dims(1).to_vec::<f32>().iter().all(|v| v.is_nan()));
    assert_eq!(none.logsumexp_dims(1).to_vec::<f32>(), [f32::NEG_INFINITY; 2]);
    assert_eq!(none.norm_dims(f64::INFINITY, 1).to_vec::<f32>(), [0.0; 2]);
    assert_eq!(none.all_dims(1).to_vec::<bool>(), [true; 2]);
    assert_eq!(none.any_dims(1).to_vec::<bool>(), [false; 2]);
    assert_eq!(*none.max_dims(0).shape(), [0]);
    assert!(Tensor::new([3.0]).var().item::<f64>().is_nan());

    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let x = Tensor::new([[-inf, -inf], [inf, 1.0], [-inf, 2.0], [nan, 1.0]]);
    let y = x.logsumexp_dims(1).to_vec::<f64>();
    assert_eq!(y[..3], [-inf, inf, 2.0]);
    assert!(y[3].is_nan());
    assert_eq!(Tensor::new([1000.0, 1000.0]).logsumexp_dims(0).item::<f64>(), 1000.0 + 2f64.ln());
    let x = Tensor::new([[1.0, nan, 3.0], [inf, -inf, 0.0]]);
    let (max, min) = (x.max_dims(1).to_vec::<f64>(), x.min_dims(1).to_vec::<f64>());
    assert!(max[0].is_nan() && min[0].is_nan());
    assert_eq!((max[1], min[1]), (inf, -inf));
    assert_eq!(Tensor::new([3.0, -4.0]).norm(-inf).item::<f64>(), 3.0);
}

#[test]
fn half_means_do_not_overflow() {
    let x = Tensor::full([4, 1000], 60_000.0).to_dtype(DType::F16);
    assert_eq!(x.mean().item::<f16>(), f16::from_f32(60_000.0));
    assert_eq!(x.sum().item::<f16>(), f16::INFINITY);
    assert_eq!(x.var().item::<f16>(), f16::ZERO);
    let big = Tensor::new([300.0f32, 400.0]).to_dtype(DType::F16);
    assert_eq!(big.norm(2.0).item::<f32>(), 500.0);
}

#[test]
fn mistakes_are_named() {
    let x = Tensor::zeros([2, 0]);
    assert_eq!(error(|| x.max_dims(1)), "max: no elements, so none is the largest: [2, 0] over dimensions [1]");
    assert_eq!(error(|| x.min()), "min: no elements, so none is the smallest: [2, 0] over dimensions [0, 1]");
    assert_eq!(error(|| x.sum_dims(2)), "sum: dimension 2 is out of range for a tensor of 2 dimensions");
    assert_eq!(error(|| x.var_dims([0, -2], 1)), "var: dimension 0 is named twice");
    assert_eq!(error(|| x.norm(-1.0)), "norm: no elements, so no norm with p = -1: [2, 0] over dimensions [0, 1]");
    assert_eq!(error(|| x.norm(f64::NAN)), "norm: p must be a number, got NaN");
    assert_eq!(error(|| Tensor::new([true]).max()), "max: not defined for bool (use any or all)");
    assert_eq!(error(|| x.logsumexp_dims(-3)), "logsumexp: dimension -3 is out of range for a tensor of 2 dimensions");
}
