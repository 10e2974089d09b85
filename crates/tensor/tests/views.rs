//! Views and writing into them, element by element.

mod strided;

use ferrograd_tensor::{DType, INFER, Layout, Slice, Tensor, catch, s};
use proptest::prelude::*;
use strided::{at, indices, strided, tensors};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn shapes_change_and_elements_stay(x in tensors()) {
        let values = x.to_f64_vec();
        prop_assert_eq!(x.flatten().to_f64_vec(), values.clone());
        for d in 0..=x.rank() as isize {
            let y = x.unsqueeze(d);
            prop_assert_eq!(y.dim(d), 1);
            prop_assert_eq!(y.to_f64_vec(), values.clone());
            prop_assert!(y.squeeze(d).shape() == x.shape());
        }
        for s in 0..x.rank() as isize {
            for e in s..x.rank() as isize {
                let y = x.flatten_dims(s, e);
                prop_assert_eq!(y.rank(), x.rank() - (e - s) as usize);
                prop_assert_eq!(y.to_f64_vec(), values.clone());
                prop_assert!(y.unflatten(s, &x.dims()[s as usize..=e as usize]).shape() == x.shape());
            }
        }
    }

    #[test]
    fn sections_hold_their_elements(x in tensors(), pick: u64) {
        for d in 0..x.rank() {
            let n = x.dims()[d];
            let start = if n == 0 { 0 } else { pick as usize % n };
            let len = (pick >> 8) as usize % (n - start + 1);
            let y = x.narrow(d as isize, start, len);
            for i in indices(y.dims()) {
                let mut from = i.clone();
                from[d] += start;
                prop_assert_eq!(at(&y, &i), at(&x, &from));
            }
            let y = x.flip(d);
            for i in indices(y.dims()) {
                let mut from = i.clone();
                from[d] = n - 1 - i[d];
                prop_assert_eq!(at(&y, &i), at(&x, &from));
            }
            let parts = x.chunk(1 + (pick % 3) as usize, d as isize);
            let refs: Vec<&Tensor> = parts.iter().collect();
            prop_assert_eq!(Tensor::cat(&refs, d as isize).to_f64_vec(), x.to_f64_vec());
        }
        if x.rank() >= 2 {
            let y = x.diagonal();
            for i in indices(y.dims()) {
                let from: Vec<usize> = i.iter().chain(i.last()).copied().collect();
                prop_assert_eq!(at(&y, &i), at(&x, &from));
            }
        }
    }

    #[test]
    fn writing_replaces_the_section_only(x in tensors(), seed: u64, kind in 0u8..16, step in 1isize..3) {
        if x.rank() == 0 {
            return Ok(());
        }
        for section in [Slice::Range { start: 1, end: None, step }, Slice::Range { start: 0, end: Some(-1), step: -1 }] {
            let src = strided(x.slice([section]).dims(), DType::F64, seed, kind);
            let before = x.to_f64_vec();
            let y = x.slice_scatter([section], &src);
            prop_assert_eq!(y.slice([section]).to_f64_vec(), src.to_f64_vec());
            prop_assert_eq!(x.to_f64_vec(), before);
            let mask = Tensor::full_on(x.shape(), 1.0, DType::F64, &x.device()).slice_scatter([section], &src.zeros_like());
            prop_assert_eq!((&y * &mask).to_f64_vec(), (&x * &mask).to_f64_vec());
            let zeros = src.embed(x.shape(), |z| z.slice([section]));
            prop_assert_eq!(zeros.to_f64_vec(), x.zeros_like().slice_scatter([section], &src).to_f64_vec());
        }
    }
}

#[test]
fn writing_in_place() {
    let x = Tensor::zeros([2, 3]);
    let y = x.into_replaced(|x| x.slice(s![.., ..;2]), &Tensor::new([1i64, 2]));
    assert_eq!(y.to_vec::<f32>(), [1.0, 0.0, 2.0, 1.0, 0.0, 2.0]);
    let half =
        Tensor::full_on([3], 0.0, DType::BF16, &y.device()).replace(|x| x.flip(0), &Tensor::new([1.0, 2.0, 3.0]));
    assert_eq!(half.to_f64_vec(), [3.0, 2.0, 1.0]);
}

/// Extents whose product no machine word holds.
#[test]
fn shapes_that_are_too_large() {
    const BIG: usize = 1 << 40;
    let message = |f: &dyn Fn() -> Tensor| catch(f).unwrap_err().to_string();
    let more = |op: &str, shape: &str| format!("{op}: shape {shape} has more than {} elements", isize::MAX);
    let one = Tensor::ones([1, 1]);
    assert_eq!(message(&|| Tensor::zeros([BIG, BIG])), more("full", "[1099511627776, 1099511627776]"));
    assert_eq!(message(&|| one.expand([BIG, BIG])), more("expand", "[1099511627776, 1099511627776]"));
    assert_eq!(
        message(&|| Tensor::from_slice(&[0u8; 0], [1 << 32, 1 << 32])),
        more("from_slice", "[4294967296, 4294967296]")
    );
    assert_eq!(
        message(&|| Tensor::from_bytes(&[], [1 << 63, 2], DType::U8)),
        more("from_bytes", "[9223372036854775808, 2]")
    );
    assert_eq!(message(&|| Tensor::eye(1 << 32)), more("eye", "[4294967296, 4294967296]"));
    // Products that are 0 modulo 2⁶⁴ are no match for no elements.
    assert!(message(&|| Tensor::zeros([0]).reshape([1 << 32, 1 << 32])).starts_with("reshape: shape"));
    assert!(message(&|| Tensor::zeros([0]).reshape([INFER, 1 << 32, 1 << 32])).starts_with("reshape: shape"));
    let column = one.expand([BIG, 1]);
    assert!(message(&|| &column + &one.expand([1, BIG])).starts_with("add: shape"));

    // Nothing is nothing, whatever stands beside it.
    let nothing = Tensor::zeros([BIG, BIG, 0]);
    assert_eq!(nothing.numel(), 0);
    assert_eq!(nothing.permute([2, 0, 1]).contiguous().numel(), 0);
    assert!(Tensor::zeros([0, BIG, BIG]).is_contiguous());
    assert!((&nothing + 1.0).to_vec::<f32>().is_empty());
    assert!(message(&|| nothing.flatten_dims(0, 1)).starts_with("flatten: shape"));
    assert_eq!(*nothing.flatten().shape(), [0]);
}

#[test]
fn layouts_outside_of_the_storage() {
    let x = Tensor::zeros([6]);
    let outside = |shape: &[usize], strides: &[isize], offset: usize| {
        let error = catch(|| x.as_strided(shape, strides, offset)).unwrap_err().to_string();
        assert!(error.starts_with("as_strided: ") && error.ends_with("reaches outside of the storage"), "{error}");
    };
    assert_eq!(*x.as_strided([2, 3], &[3, 1], 0).shape(), [2, 3]);
    outside(&[2, 3], &[3, 1], 1);
    outside(&[2], &[1, 1], 0);
    outside(&[2], &[-1], 3);
    outside(&[3], &[isize::MAX], 0);
    outside(&[2, 2], &[isize::MAX, isize::MAX], 0);
    outside(&[1], &[1], usize::MAX);
    outside(&[1 << 40, 1 << 40], &[0, 0], 0);
    // Sizes that are in reach only once they have wrapped.
    outside(&[2], &[1 << 62], 0);
    let layout = |offset: usize| Layout { shape: [3].into(), strides: [-1].into_iter().collect(), offset };
    assert_eq!((layout(2).span(), layout(5).span(), layout(1).span()), (Some(0..3), Some(3..6), None));
    assert!(layout(2).fits(4, 12) && !layout(3).fits(4, 12));
}

/// Sections that overlap are refused however their strides hide it, and interleaved ones are not.
#[test]
fn sections_that_overlap() {
    let x = Tensor::zeros([12]);
    let fill = |shape: &[usize], strides: &[isize]| {
        let source = Tensor::ones(shape);
        catch(|| x.replace(|x| x.as_strided(shape, strides, 0), &source)).map(|y| y.sum().item::<f32>())
    };
    for (shape, strides) in [([3, 4], [1, 1]), ([3, 4], [2, 1]), ([2, 2], [3, 3]), ([2, 3], [4, 2]), ([2, 6], [1, 0])] {
        let error = fill(&shape, &strides).unwrap_err().to_string();
        assert_eq!(error, format!("replace: the section {shape:?} holds an element more than once"));
    }
    for (shape, strides) in [([3, 4], [4, 1]), ([4, 3], [1, 4]), ([3, 2], [2, 3]), ([1, 4], [0, 3]), ([2, 3], [1, 2])] {
        assert_eq!(fill(&shape, &strides).unwrap(), (shape[0] * shape[1]) as f32);
    }
    // Interleaved steps under a longer one.
    let wide = Tensor::zeros([24]).replace(|x| x.as_strided([2, 3, 2], &[12, 2, 3], 0), &Tensor::ones([2, 3, 2]));
    assert_eq!(wide.sum().item::<f32>(), 12.0);
    let y = Tensor::zeros([3, 3]).replace(|x| x.flip([0, 1]).diagonal(), &Tensor::new([1.0f32, 2.0, 3.0]));
    assert_eq!(y.diagonal().to_vec::<f32>(), [3.0, 2.0, 1.0]);
}

#[test]
fn ranges() {
    let (low, high) = (i64::MIN, i64::MAX);
    assert_eq!(Tensor::arange(high - 3, high, 1).to_vec::<i64>(), [high - 3, high - 2, high - 1]);
    assert_eq!(Tensor::arange(low, high, high).to_vec::<i64>(), [low, -1, high - 1]);
    assert_eq!(Tensor::arange(high, low, low).to_vec::<i64>(), [high, -1]);
    assert_eq!(Tensor::arange((1i64 << 53) + 1, (1 << 53) + 4, 2).to_vec::<i64>(), [(1 << 53) + 1, (1 << 53) + 3]);
    assert_eq!(Tensor::arange(5i32, 0, -2).to_vec::<i32>(), [5, 3, 1]);
    assert_eq!(Tensor::arange(0u8, 255, 100).to_vec::<u8>(), [0, 100, 200]);
    assert!(Tensor::arange(3i64, 3, 1).to_vec::<i64>().is_empty() && Tensor::arange(0i64, 3, -1).numel() == 0);
    assert_eq!(Tensor::arange(0.0f32, 1.0, 0.25).to_vec::<f32>(), [0.0, 0.25, 0.5, 0.75]);
    let message = |f: &dyn Fn() -> Tensor| catch(f).unwrap_err().to_string();
    assert_eq!(message(&|| Tensor::arange(0i64, 3, 0)), "arange: step 0 must be finite and not 0");
    assert_eq!(message(&|| Tensor::arange(0.0, f64::INFINITY, 1.0)), "arange: start 0 and end inf must be finite");
    assert!(message(&|| Tensor::arange(low, high, 1)).starts_with("arange: shape [18446744073709551615] has more"));
}

#[test]
fn mistakes() {
    let x = Tensor::zeros([2, 3]);
    let message = |f: &dyn Fn() -> Tensor| catch(f).unwrap_err().to_string();
    assert_eq!(message(&|| x.squeeze(1)), "squeeze: dimension 1 of [2, 3] has extent 3, not 1");
    assert_eq!(message(&|| x.select(0, 2)), "select: index 2 lies outside dimension 0 of [2, 3] (extent 2)");
    assert_eq!(message(&|| x.narrow(1, 2, 2)), "narrow: 2..2+2 lies outside dimension 1 of [2, 3] (extent 3)");
    assert_eq!(message(&|| x.flip(2)), "flip: dimension 2 is out of range for a tensor of 2 dimensions");
    assert_eq!(message(&|| x.flip([0, -2])), "flip: dimension 0 is named twice");
    assert_eq!(message(&|| x.flatten_dims(1, 0)), "flatten: start dimension 1 lies behind end dimension 0");
    assert_eq!(message(&|| x.select(0, 0).diagonal()), "diagonal: needs at least 2 dimensions, got [3]");
    assert_eq!(
        message(&|| x.replace(|x| x + 1.0, &x)),
        "replace: the section must be a view of the tensor that it is given"
    );
    assert_eq!(
        message(&|| x.replace(|x| x.narrow(0, 0, 1).expand([2, 3]), &x)),
        "replace: the section [2, 3] holds an element more than once"
    );
    assert_eq!(
        message(&|| x.slice_scatter(s![0], &Tensor::zeros(2))),
        "replace: [2] does not expand to [3]: dimension 0 is 2, not 1"
    );
    assert_eq!(
        catch(|| x.split(&[1, 1], 1)).unwrap_err().to_string(),
        "split: sizes [1, 1] do not add up to dimension 1 of [2, 3] (extent 3)"
    );
}
