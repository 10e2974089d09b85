//! Matrix products against the definition, for any layout and dtype.

mod layouts;

use ferrograd_tensor::{DType, Tensor};
use layouts::{Random, error, ravel, unravel};
use proptest::prelude::*;

/// `Σ_k a[…, m, k] b[…, k, n]` and `Σ_k |a b|`, of matrices of at least two dimensions.
fn definition(a: &Tensor, b: &Tensor, shape: &[usize]) -> Vec<(f64, f64)> {
    let (va, vb) = (a.to_f64_vec(), b.to_f64_vec());
    let at = |x: &Tensor, values: &[f64], index: &[usize]| {
        let lead = index.len() - x.rank();
        let own: Vec<usize> = index[lead..].iter().zip(x.dims()).map(|(&i, &n)| if n == 1 { 0 } else { i }).collect();
        values[ravel(&own, x.dims())]
    };
    let r = shape.len();
    (0..shape.iter().product())
        .map(|i| {
            let index = unravel(i, shape);
            (0..a.dims()[a.rank() - 1]).fold((0.0, 0.0), |(sum, size), k| {
                let (mut left, mut right) = (index.clone(), index.clone());
                (left[r - 1], right[r - 2]) = (k, k);
                let product = at(a, &va, &left) * at(b, &vb, &right);
                (sum + product, size + product.abs())
            })
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn products_of_any_layout(seed: u64) {
        let mut random = Random(seed);
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::I8, DType::U8] {
            let [m, k, n] = [random.below(7), random.below(9), random.below(7)];
            let batch: Vec<usize> = (0..random.below(3)).map(|_| random.below(4)).collect();
            let lead = |random: &mut Random| -> Vec<usize> {
                let from = random.below(batch.len() + 1);
                batch[from..].iter().map(|&n| if random.below(4) == 0 { 1 } else { n }).collect()
            };
            let (la, lb) = (lead(&mut random), lead(&mut random));
            let a = random.strided(&[&la[..], &[m, k]].concat(), dtype);
            let b = random.strided(&[&lb[..], &[k, n]].concat(), dtype);
            let c = a.matmul(&b);
            let rank = la.len().max(lb.len());
            let extent = |l: &[usize], d: usize| if d + l.len() >= rank { l[d + l.len() - rank] } else { 1 };
            let lead: Vec<usize> =
                (0..rank).map(|d| if extent(&la, d) == 1 { extent(&lb, d) } else { extent(&la, d) }).collect();
            let shape = [&lead[..], &[m, n]].concat();
            prop_assert_eq!((c.dims(), c.dtype()), (&shape[..], dtype));
            for (got, (want, size)) in c.to_f64_vec().into_iter().zip(definition(&a, &b, &shape)) {
                let want = match dtype {
                    DType::U8 => want.rem_euclid(256.0),
                    DType::I8 => (want + 128.0).rem_euclid(256.0) - 128.0,
                    _ => want,
                };
                let wide = dtype.accumulator().epsilon();
                let bound = if dtype.is_float() { k as f64 * wide * size + dtype.epsilon() * want.abs() } else { 0.0 };
                prop_assert!((got - want).abs() <= bound, "{dtype} {shape:?}: {got}, not {want}");
            }
            // Eight bits in 32: no wrapping.
            if dtype == DType::I8 {
                let (a, b) = (random.strided(&[m, k], dtype), random.strided(&[k, n], dtype));
                let want: Vec<i32> = definition(&a, &b, &[m, n]).iter().map(|&(sum, _)| sum as i32).collect();
                let c = a.int_mm(&b);
                prop_assert_eq!((c.dims(), c.dtype(), c.to_vec::<i32>()), (&[m, n][..], DType::I32, want));
            }
            // A vector is a row on the left and a column on the right.
            let (v, w) = (random.strided(&[k], dtype), random.strided(&[k], dtype));
            let row = v.matmul(&b);
            prop_assert_eq!(row.to_f64_vec(), v.unsqueeze(0).matmul(&b).to_f64_vec());
            prop_assert_eq!(row.dims(), &[&lb[..], &[n]].concat()[..]);
            let column = a.matmul(&w);
            prop_assert_eq!(column.to_f64_vec(), a.matmul(&w.unsqueeze(1)).to_f64_vec());
            prop_assert_eq!(column.dims(), &[&la[..], &[m]].concat()[..]);
            prop_assert_eq!(v.matmul(&w).rank(), 0);
        }
    }
}

#[test]
fn large_products_do_not_depend_on_the_threads() {
    let a = Random(1).values(&[5, 70, 130], DType::F32);
    let b = Random(2).values(&[130, 90], DType::F32);
    let run = || (a.matmul(&b).to_vec::<f32>(), a.t().matmul(&a).to_vec::<f32>());
    let on = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(run);
    assert_eq!(on(1), on(4));
    for (got, (want, _)) in on(4).0.iter().zip(definition(&a, &b, &[5, 70, 90])) {
        // Sums of 130 multiples of 1/64 below 3 are exact in f32.
        assert_eq!(*got as f64, want);
    }
}

/// Rows longer than what a task of the matrix–vector product holds, in every orientation and layout.
#[test]
fn long_rows() {
    const K: usize = 70_000;
    let numbers =
        |m: usize, period: usize| Tensor::from_vec((0..m * K).map(|i| (i % period) as i64 - 2).collect(), [m, K]);
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::I64] {
        for m in [1, 3] {
            let (a, x) = (numbers(m, 5), numbers(1, 7));
            let sums = (&a * &x).sum_dims(1);
            // Small integers: their sums are exact, and only bf16's result is rounded.
            let want = sums.to_dtype(dtype).to_f64_vec();
            let (a, x) = (a.to_dtype(dtype), x.to_dtype(dtype).select(0, 0));
            let columns = a.t().contiguous();
            let apart = Tensor::cat(&[&x.unsqueeze(1), &x.unsqueeze(1)], 1).select(1, 0);
            for (i, y) in [
                a.matmul(&x),
                columns.t().matmul(&x),
                x.matmul(&a.t()),
                x.matmul(&columns),
                a.matmul(&apart),
                apart.matmul(&columns),
                a.flip(1).matmul(&x.flip(0)),
                a.matmul(&x.unsqueeze(1)).flatten(),
                x.unsqueeze(0).matmul(&columns).flatten(),
            ]
            .iter()
            .enumerate()
            {
                assert_eq!(y.to_f64_vec(), want, "{dtype}, {m} rows, layout {i}");
            }
        }
        let x = numbers(1, 7).to_dtype(dtype).select(0, 0);
        let dot = (&numbers(1, 7) * &numbers(1, 7)).sum().to_dtype(dtype).to_f64_vec();
        assert_eq!(x.matmul(&x).to_f64_vec(), dot);
    }
}

#[test]
fn no_terms_give_zero() {
    let c = Tensor::zeros([2, 3, 0]).matmul(&Tensor::zeros([0, 4]));
    assert_eq!((c.dims(), c.to_vec::<f32>()), (&[2, 3, 4][..], vec![0.0; 24]));
    assert_eq!(*Tensor::zeros([0, 3]).matmul(&Tensor::zeros([3, 2])).shape(), [0, 2]);
}

#[test]
fn mistakes_are_named() {
    let z = |s: &[usize]| Tensor::zeros(s);
    assert_eq!(error(|| z(&[2, 3]).matmul(&z(&[4, 5]))), "matmul: inner dimensions differ: [2, 3] × [4, 5] (3 ≠ 4)");
    assert_eq!(error(|| z(&[]).matmul(&z(&[2]))), "matmul: operands need at least 1 dimension: [] × [2]");
    assert!(
        error(|| z(&[2, 3, 4]).matmul(&z(&[5, 4, 3]))).starts_with("matmul: shapes do not broadcast: [2] with [5]")
    );
    assert_eq!(
        error(|| Tensor::new([[true]]).matmul(&Tensor::new([[true]]))),
        "matmul: not defined for bool (cast with to_dtype)"
    );
    let i = |s: &[usize]| Tensor::zeros(s).to_dtype(DType::I8);
    assert_eq!(error(|| i(&[2, 3]).int_mm(&i(&[4, 5]))), "int_mm: inner dimensions differ: [2, 3] × [4, 5] (3 ≠ 4)");
    assert_eq!(
        error(|| i(&[1, 2, 3]).int_mm(&i(&[3, 5]))),
        "int_mm: operands must be matrices, [M, K] × [K, N]: [1, 2, 3] × [3, 5]"
    );
    assert_eq!(
        error(|| i(&[2, 3]).int_mm(&z(&[3, 5]))),
        "int_mm: both operands must be i8: [2, 3] i8 × [3, 5] f32 (cast with to_dtype, or use matmul)"
    );
}
