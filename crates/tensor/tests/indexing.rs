//! Gather, scatter and their kin against their definitions, for any layout and dtype.

mod layouts;

use ferrograd_tensor::{DType, Tensor};
use layouts::{Random, error, ravel, unravel};
use proptest::prelude::*;

/// Indices below `n`, of any layout.
fn indices(random: &mut Random, shape: &[usize], n: usize) -> Tensor {
    let values = random.strided(shape, DType::I64).add_scalar(12.0);
    values.rem(&Tensor::full_on((), n.max(1) as f64, DType::I64, &values.device()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn gather_and_scatter(seed: u64) {
        let mut random = Random(seed);
        for dtype in DType::ALL {
            let mut shape = random.shape(4);
            shape.push(1 + random.below(4));
            let d = random.below(shape.len());
            shape[d] = 1 + random.below(4);
            let x = random.strided(&shape, dtype);
            let mut reach: Vec<usize> = shape.iter().map(|&n| if random.below(3) == 0 { random.below(n + 1) } else { n }).collect();
            reach[d] = random.below(6);
            let index = indices(&mut random, &reach, shape[d]);
            let places = index.to_vec::<i64>();
            let source = x.to_f64_vec();
            let target = |i: usize| {
                let mut at = unravel(i, &reach);
                at[d] = places[i] as usize;
                ravel(&at, &shape)
            };
            let y = x.gather(d as isize - shape.len() as isize, &index);
            prop_assert_eq!((y.dims(), y.dtype()), (&reach[..], dtype));
            prop_assert_eq!(y.to_f64_vec(), (0..places.len()).map(|i| source[target(i)]).collect::<Vec<_>>());
            if dtype == DType::Bool {
                continue;
            }
            let src = random.strided(&reach, dtype);
            let mut want = source.clone();
            src.to_f64_vec().into_iter().enumerate().for_each(|(i, v)| want[target(i)] += v);
            let sum = x.scatter_add(d as isize, &index, &src);
            prop_assert_eq!(sum.dims(), &shape[..]);
            // Sums of a few eighths are exact but in bf16; u8 wraps.
            for (got, want) in sum.to_f64_vec().into_iter().zip(want) {
                let want = if dtype == DType::U8 { want.rem_euclid(256.0) } else { want };
                let bound = if dtype.is_half() { dtype.epsilon() * want.abs() } else { 0.0 };
                prop_assert!((got - want).abs() <= bound, "{got}, not {want}");
            }
        }
    }

    #[test]
    fn slices(seed: u64) {
        let mut random = Random(seed);
        for dtype in DType::ALL {
            let mut shape = random.shape(4);
            let d = random.below(shape.len() + 1);
            shape.insert(d, 1 + random.below(5));
            let x = random.strided(&shape, dtype);
            let count = random.below(7);
            let index = indices(&mut random, &[count], shape[d]);
            let places = index.to_vec::<i64>();
            let picked: Vec<usize> = shape.iter().enumerate().map(|(e, &n)| if e == d { count } else { n }).collect();
            let target = |i: usize| {
                let mut at = unravel(i, &picked);
                at[d] = places[at[d]] as usize;
                ravel(&at, &shape)
            };
            let source = x.to_f64_vec();
            let y = x.index_select(d as isize, &index);
            prop_assert_eq!((y.dims(), y.dtype()), (&picked[..], dtype));
            prop_assert_eq!(y.to_f64_vec(), (0..y.numel()).map(|i| source[target(i)]).collect::<Vec<_>>());
            if dtype == DType::Bool {
                continue;
            }
            let src = random.strided(&picked, dtype);
            let mut want = source.clone();
            src.to_f64_vec().into_iter().enumerate().for_each(|(i, v)| want[target(i)] += v);
            for (got, want) in x.index_add(d as isize, &index, &src).to_f64_vec().into_iter().zip(want) {
                let want = if dtype == DType::U8 { want.rem_euclid(256.0) } else { want };
                let bound = if dtype.is_half() { dtype.epsilon() * want.abs() } else { 0.0 };
                prop_assert!((got - want).abs() <= bound, "{got}, not {want}");
            }
        }
    }

    #[test]
    fn tables(seed: u64) {
        let mut random = Random(seed);
        let (classes, width) = (1 + random.below(6), random.below(4));
        let shape = random.shape(4);
        let index = indices(&mut random, &shape, classes);
        let table = random.strided(&[classes, width], DType::F32);
        let rows = table.embedding(&index, Some(0));
        prop_assert_eq!(rows.dims(), &[&shape[..], &[width]].concat()[..]);
        let flat = index.to_vec::<i64>();
        let want: Vec<f64> = flat.iter().flat_map(|&i| table.select(0, i as isize).to_f64_vec()).collect();
        prop_assert_eq!(rows.to_f64_vec(), want);
        let hot = index.one_hot(classes);
        prop_assert_eq!((hot.dtype(), hot.dims()), (DType::I64, &[&shape[..], &[classes]].concat()[..]));
        let want: Vec<i64> = flat.iter().flat_map(|&i| (0..classes as i64).map(move |c| (c == i) as i64)).collect();
        prop_assert_eq!(hot.to_vec::<i64>(), want);
    }
}

#[test]
fn sums_at_one_place_do_not_depend_on_the_threads() {
    let values: Vec<f32> = (0..60_000).map(|i| ((i * 7919) % 1000) as f32 * 0.001 - 0.3).collect();
    let src = Tensor::from_vec(values, [6000, 10]);
    let index = Tensor::from_vec((0..6000i64).map(|i| i * i % 7).collect::<Vec<_>>(), 6000);
    let wide = index.unsqueeze(1).expand([6000, 10]);
    let run = || {
        let zeros = Tensor::zeros([7, 10]);
        (zeros.index_add(0, &index, &src).to_vec::<f32>(), zeros.scatter_add(0, &wide, &src).to_vec::<f32>())
    };
    let on = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(run);
    assert_eq!(on(1), on(5));
    assert_eq!(on(1).0, on(1).1);
}

#[test]
fn narrow_integers_index_too() {
    let x = Tensor::new([10.0, 20.0, 30.0]);
    assert_eq!(x.index_select(0, &Tensor::new([2u8, 0])).to_vec::<f64>(), [30.0, 10.0]);
    assert_eq!(x.gather(0, &Tensor::new([1i32])).to_vec::<f64>(), [20.0]);
}

#[test]
fn mistakes_are_named() {
    let table = Tensor::zeros([10, 4]);
    let index = Tensor::new([[1i64, 2], [3, 12]]);
    assert_eq!(
        error(|| table.embedding(&index, None)),
        "embedding: index 12 lies outside 0..10 (at [1, 1] of the indices [2, 2])"
    );
    assert_eq!(
        error(|| table.index_select(1, &Tensor::new([0i64, -1]))),
        "index_select: index -1 lies outside 0..4 (at [1] of the indices [2])"
    );
    assert_eq!(error(|| table.embedding(&index, Some(10))), "embedding: padding_idx 10 lies outside 0..10");
    assert_eq!(error(|| table.embedding(&Tensor::new([1.0]), None)), "embedding: indices must be integers, got f64");
    assert_eq!(error(|| index.one_hot(3)), "one_hot: index 3 lies outside 0..3 (at [1, 0] of the indices [2, 2])");
    assert_eq!(
        error(|| table.gather(0, &Tensor::new([1i64]))),
        "gather: indices [1] do not fit [10, 4] along dimension 0: the ranks must agree, and no other extent may be larger"
    );
    assert_eq!(
        error(|| table.scatter_add(0, &index, &Tensor::zeros([2, 3]))),
        "scatter_add: indices [2, 2] and what is added [2, 3] must have one shape"
    );
    assert_eq!(
        error(|| table.index_add(0, &Tensor::new([1i64]), &Tensor::zeros([2, 4]))),
        "index_add: what is added to [10, 4] along dimension 0 at 1 indices must have shape [1, 4], got [2, 4]"
    );
    assert_eq!(
        error(|| table.index_add(0, &Tensor::new([1i64]), &Tensor::zeros([1, 4]).to_dtype(DType::F64))),
        "index_add: needs one dtype, not bool, for what is added and what it is added to: f64 and f32"
    );
    assert_eq!(error(|| table.index_select(0, &index)), "index_select: indices must have 1 dimension, got [2, 2]");
}
