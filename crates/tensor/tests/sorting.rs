//! Sort, top-k, argmax and running sums, for any layout and dtype.

mod layouts;

use ferrograd_tensor::{DType, Tensor};
use layouts::{Random, error, ravel, unravel};
use proptest::prelude::*;
use std::cmp::Ordering;

/// Values along `dim` for each place in the other dimensions.
fn lines(x: &Tensor, dim: usize) -> Vec<Vec<f64>> {
    layouts::groups(x, &[dim])
}

/// NaN above every number, −0 = 0.
fn order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn same(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn order_along_any_dimension(seed: u64) {
        let mut random = Random(seed);
        for dtype in DType::ALL {
            let mut shape = random.shape(5);
            shape.push(random.below(6));
            let mut x = random.strided(&shape, dtype);
            if dtype.is_float() && random.below(2) == 0 {
                x = x.masked_fill(&x.eq_scalar(0.5), f64::NAN).masked_fill(&x.eq_scalar(-1.0), f64::NEG_INFINITY);
            }
            let d = random.below(shape.len());
            let (dim, n) = (d as isize, shape[d]);
            let k = random.below(n + 1);
            let lines = lines(&x, d);
            for descending in [false, true] {
                let (values, indices) = x.sort(dim, descending);
                prop_assert_eq!((values.dtype(), indices.dtype()), (dtype, DType::I64));
                prop_assert_eq!((values.dims(), indices.dims()), (&shape[..], &shape[..]));
                let (top, places) = x.topk(k, dim, descending);
                let (values, indices) = (self::lines(&values, d), self::lines(&indices, d));
                for (line, (values, indices)) in lines.iter().zip(values.iter().zip(&indices)) {
                    // The standard library's sort is stable in both directions.
                    let mut want: Vec<usize> = (0..n).collect();
                    want.sort_by(|&a, &b| {
                        if descending { order(line[b], line[a]) } else { order(line[a], line[b]) }
                    });
                    prop_assert_eq!(indices, &want.iter().map(|&i| i as f64).collect::<Vec<_>>());
                    prop_assert!(values.iter().zip(&want).all(|(v, &i)| same(*v, line[i])));
                }
                prop_assert!(top.dims()[d] == k && places.dims()[d] == k);
                if k > 0 {
                    for (got, all) in self::lines(&places, d).iter().zip(&indices) {
                        prop_assert_eq!(&got[..], &all[..k]);
                    }
                    for (got, all) in self::lines(&top, d).iter().zip(&values) {
                        prop_assert!(got.iter().zip(all).all(|(a, b)| same(*a, *b)));
                    }
                }
            }
            if n > 0 {
                let first = |line: &[f64], better: Ordering| {
                    let mut best = 0;
                    for i in 1..n {
                        let wins = line[i].is_nan() || order(line[i], line[best]) == better;
                        if wins && !line[best].is_nan() {
                            best = i;
                        }
                    }
                    best as i64
                };
                let high: Vec<i64> = lines.iter().map(|l| first(l, Ordering::Greater)).collect();
                let low: Vec<i64> = lines.iter().map(|l| first(l, Ordering::Less)).collect();
                prop_assert_eq!(x.argmax(dim).to_vec::<i64>(), high.clone());
                prop_assert_eq!(x.argmin(dim).to_vec::<i64>(), low);
                let (values, indices) = x.max_with_index(dim);
                prop_assert_eq!(indices.to_vec::<i64>(), high.clone());
                let picked = lines.iter().zip(&high).map(|(l, &i)| l[i as usize]);
                prop_assert!(values.to_f64_vec().iter().zip(picked).all(|(&a, b)| same(a, b)));
            }
        }
    }

    #[test]
    fn running_sums(seed: u64) {
        let mut random = Random(seed);
        for dtype in DType::ALL {
            let mut shape = random.shape(4);
            shape.push(random.below(5));
            let x = random.strided(&shape, dtype);
            let d = random.below(shape.len());
            let y = x.cumsum(d as isize);
            prop_assert_eq!(y.dtype(), if dtype.is_float() { dtype } else { DType::I64 });
            prop_assert_eq!(y.dims(), &shape[..]);
            let (source, got) = (x.to_f64_vec(), y.to_f64_vec());
            for (i, &got) in got.iter().enumerate() {
                let mut index = unravel(i, &shape);
                // Sums of eighths are exact until they are rounded to the result's type.
                let want: f64 = (0..=index[d]).map(|j| { index[d] = j; source[ravel(&index, &shape)] }).sum();
                let bound = if dtype.is_half() { dtype.epsilon() * want.abs() } else { 0.0 };
                prop_assert!((got - want).abs() <= bound, "{got}, not {want}");
            }
        }
    }
}

#[test]
fn zeros_of_both_signs_are_equal_and_keep_their_order() {
    let (values, indices) = Tensor::new([0.0, -0.0, 0.0, -1.0]).sort(0, false);
    assert_eq!(indices.to_vec::<i64>(), [3, 0, 1, 2]);
    assert!(values.to_vec::<f64>()[2].is_sign_negative());
}

#[test]
fn mistakes_are_named() {
    let x = Tensor::zeros([2, 0]);
    assert_eq!(error(|| x.argmax(1)), "argmax: no elements, so none is the largest: [2, 0] over dimension 1");
    assert_eq!(
        error(|| x.min_with_index(-1)),
        "min_with_index: no elements, so none is the smallest: [2, 0] over dimension 1"
    );
    assert_eq!(*x.argmax(0).shape(), [0]);
    assert_eq!(error(|| Tensor::zeros([3]).topk(4, 0, true)), "topk: k = 4 exceeds dimension 0 of [3] (extent 3)");
    assert_eq!(error(|| x.sort(2, false)), "sort: dimension 2 is out of range for a tensor of 2 dimensions");
    assert_eq!(error(|| x.cumsum(-3)), "cumsum: dimension -3 is out of range for a tensor of 2 dimensions");
}
