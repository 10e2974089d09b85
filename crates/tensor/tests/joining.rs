//! Joining, padding, repeating and triangles.

#[path = "../../../golden/reader.rs"]
mod golden;
mod strided;

use ferrograd_tensor::{DType, PadMode, Tensor, catch};
use golden::Golden;
use proptest::prelude::*;
use strided::{at, indices, strided, tensors};

/// Where element `i` of a padded dimension of extent `n` comes from.
fn origin(i: isize, n: isize, mode: PadMode) -> Option<usize> {
    let j = match mode {
        PadMode::Constant(_) => return (0..n).contains(&i).then_some(i as usize),
        PadMode::Replicate => i.clamp(0, n - 1),
        PadMode::Circular => i.rem_euclid(n),
        PadMode::Reflect if i < 0 => -i,
        PadMode::Reflect if i >= n => 2 * (n - 1) - i,
        PadMode::Reflect => i,
    };
    Some(j as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn joined_tensors_hold_their_parts(x in tensors(), sizes in prop::collection::vec((0usize..4, 0u8..16, any::<u64>()), 1..4)) {
        for dtype in [DType::F64, DType::F32, DType::BF16, DType::Bool] {
            for d in 0..x.rank() {
                let parts: Vec<Tensor> =
                    sizes.iter().map(|&(n, kind, seed)| strided(&x.shape().with(d, n), dtype, seed, kind)).collect();
                let y = Tensor::cat(&parts.iter().collect::<Vec<_>>(), d as isize - x.rank() as isize);
                prop_assert_eq!(y.dtype(), dtype);
                let mut start = 0;
                for part in &parts {
                    prop_assert_eq!(y.narrow(d as isize, start, part.dims()[d]).to_f64_vec(), part.to_f64_vec());
                    start += part.dims()[d];
                }
                prop_assert_eq!(y.dims()[d], start);
            }
        }
        for d in 0..=x.rank() as isize {
            let y = Tensor::stack(&[&x, &(&x + 1.0)], d);
            prop_assert_eq!(y.select(d, 0).to_f64_vec(), x.to_f64_vec());
            prop_assert_eq!(y.select(d, 1).to_f64_vec(), (&x + 1.0).to_f64_vec());
        }
    }

    #[test]
    fn padding(x in tensors(), sizes in prop::collection::vec((-1isize..4, -1isize..4), 0..3)) {
        let sizes = &sizes[..sizes.len().min(x.rank())];
        let first = x.rank() - sizes.len();
        for mode in [PadMode::Constant(7.0), PadMode::Reflect, PadMode::Replicate, PadMode::Circular] {
            let left = |d: usize| x.dims()[first + d] as isize + sizes[d].0.min(0) + sizes[d].1.min(0);
            let possible = (0..sizes.len()).all(|d| {
                let most = sizes[d].0.max(sizes[d].1).max(0);
                left(d) >= 0 && match mode {
                    PadMode::Constant(_) => true,
                    PadMode::Reflect => most == 0 || most < left(d),
                    PadMode::Replicate => most == 0 || left(d) > 0,
                    PadMode::Circular => most <= left(d),
                }
            });
            let result = catch(|| x.pad(sizes, mode));
            prop_assert_eq!(result.is_ok(), possible, "{:?} {:?} {}", mode, sizes, x.shape());
            let Ok(y) = result else { continue };
            for d in 0..x.rank() {
                let (a, b) = if d < first { (0, 0) } else { sizes[d - first] };
                prop_assert_eq!(y.dims()[d] as isize, x.dims()[d] as isize + a + b);
            }
            for i in indices(y.dims()) {
                let from: Option<Vec<usize>> = i.iter().enumerate().map(|(d, &i)| {
                    if d < first {
                        return Some(i);
                    }
                    let (a, _) = sizes[d - first];
                    origin(i as isize - a.max(0), left(d - first), mode).map(|j| j + a.min(0).unsigned_abs())
                }).collect();
                prop_assert_eq!(at(&y, &i), from.map_or(7.0, |from| at(&x, &from)));
            }
        }
    }

    #[test]
    fn repeating_and_rolling(x in tensors(), times in prop::collection::vec(0usize..3, 0..3), shift in -7isize..8) {
        let times: Vec<usize> = times.into_iter().chain(vec![2; x.rank()]).collect();
        let lead = times.len() - x.rank();
        let y = x.repeat(&times);
        for i in indices(y.dims()) {
            let from: Vec<usize> = (0..x.rank()).map(|d| i[lead + d] % x.dims()[d]).collect();
            prop_assert_eq!(at(&y, &i), at(&x, &from));
        }
        for d in 0..x.rank() {
            let y = x.roll(shift, d as isize);
            prop_assert_eq!(y.shape(), x.shape());
            for i in indices(y.dims()) {
                let mut from = i.clone();
                from[d] = (i[d] as isize - shift).rem_euclid(x.dims()[d] as isize) as usize;
                prop_assert_eq!(at(&y, &i), at(&x, &from));
            }
        }
    }

    #[test]
    fn triangles(x in tensors(), k in -3isize..4) {
        if x.rank() < 2 {
            return Ok(());
        }
        let (lower, upper) = (x.tril(k), x.triu(k));
        for i in indices(x.dims()) {
            let above = i[x.rank() - 1] as isize - i[x.rank() - 2] as isize;
            prop_assert_eq!(at(&lower, &i), if above <= k { at(&x, &i) } else { 0.0 });
            prop_assert_eq!(at(&upper, &i), if above >= k { at(&x, &i) } else { 0.0 });
        }
    }
}

/// Long enough to be cut into many chunks, on several threads.
#[test]
fn long_joins() {
    let a = Tensor::arange(0i64, 30_000, 1).reshape([100, 300]);
    let b = Tensor::arange(0i64, 20_000, 1).reshape([200, 100]).t();
    let y = Tensor::cat(&[&a, &b, &a.narrow(1, 5, 1)], 1);
    assert_eq!(y.narrow(1, 0, 300).to_vec::<i64>(), a.to_vec::<i64>());
    assert_eq!(y.narrow(1, 300, 200).to_vec::<i64>(), b.to_vec::<i64>());
    assert_eq!(y.select(1, -1).to_vec::<i64>(), a.select(1, 5).to_vec::<i64>());
}

#[test]
fn dtypes_promote() {
    let y = Tensor::cat(&[&Tensor::new([1i64]), &Tensor::new([0.5f32])], 0);
    assert_eq!((y.dtype(), y.to_f64_vec()), (DType::F32, vec![1.0, 0.5]));
}

#[test]
fn mistakes() {
    let x = Tensor::zeros([2, 3]);
    let message = |f: &dyn Fn() -> Tensor| catch(f).unwrap_err().to_string();
    assert_eq!(message(&|| Tensor::cat(&[], 0)), "cat: needs at least one tensor");
    assert_eq!(
        message(&|| Tensor::cat(&[&x, &Tensor::zeros([2, 4])], 0)),
        "cat: shapes may differ in dimension 0 only: tensor 0 is [2, 3], tensor 1 is [2, 4]"
    );
    assert_eq!(message(&|| Tensor::cat(&[&x, &x], 2)), "cat: dimension 2 is out of range for a tensor of 2 dimensions");
    assert_eq!(
        message(&|| Tensor::stack(&[&x, &x.t()], 0)),
        "stack: shapes must be equal: tensor 0 is [2, 3], tensor 1 is [3, 2]"
    );
    assert_eq!(
        message(&|| x.pad(&[(3, 0)], PadMode::Reflect)),
        "pad: (3, 0) for dimension 1 of [2, 3] (extent 3): reflection reaches at most extent − 1"
    );
    assert_eq!(
        message(&|| x.pad(&[(-2, -2)], PadMode::Constant(0.0))),
        "pad: (-2, -2) cuts more from dimension 1 of [2, 3] than its extent 3"
    );
    assert_eq!(message(&|| x.pad(&[(0, 1); 3], PadMode::Circular)), "pad: 3 pairs for the 2 dimensions of [2, 3]");
    assert_eq!(message(&|| x.repeat(&[2])), "repeat: [2] has fewer numbers than [2, 3] has dimensions");
    assert_eq!(message(&|| x.select(0, 0).tril(0)), "tril: needs at least 2 dimensions, got [3]");
}

#[test]
fn golden_values() {
    let ops = Golden::open("ops");
    let check = |case: &str, op: &dyn Fn(&Tensor) -> Tensor| {
        let want = ops.expect(case, "output.out");
        assert!(op(&ops.expect(case, "input.input")).all_close(&want, 0.0, 0.0), "{case}");
    };
    for (name, mode) in [
        ("constant", PadMode::Constant(1.5)),
        ("reflect", PadMode::Reflect),
        ("replicate", PadMode::Replicate),
        ("circular", PadMode::Circular),
    ] {
        check(&format!("pad_{name}_1d"), &|x| x.pad(&[(3, 1)], mode));
        check(&format!("pad_{name}_2d"), &|x| x.pad(&[(2, 0), (1, 3)], mode));
    }
    check("pad_constant_negative", &|x| x.pad(&[(1, -1), (-1, 2)], PadMode::Constant(0.0)));
    for (name, k) in [("0", 0), ("1", 1), ("minus_2", -2)] {
        check(&format!("tril_{name}"), &|x| x.tril(k));
        check(&format!("triu_{name}"), &|x| x.triu(k));
    }
    check("masked_fill", &|x| x.masked_fill(&ops.expect("masked_fill", "input.mask"), -2.5));
    let other = ops.expect("where_broadcast", "input.other");
    check("where_broadcast", &|x| ops.expect("where_broadcast", "input.condition").where_(x, &other));
}
