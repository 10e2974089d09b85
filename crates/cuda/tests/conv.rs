//! Convolutions and their gradients on the card: every kernel, at shapes that fill no tile, any strides, paddings, dilations and
//! groups.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{card, counted, cuda, there};
use ferrograd_tensor::backend::Backend;
use ferrograd_tensor::cpu::CpuBackend;
use ferrograd_tensor::ops::conv::Conv2dPlan;
use ferrograd_tensor::{Conv2dOptions, ConvTranspose2dOptions, DType, Tensor};
use layouts::Random;

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// Is `got` what `f` of the operands is, but for roundings? Computed in f64; a sum of that many terms in the accumulator has so many
/// roundings of at most the sum of their magnitudes, and the result one of its own type.
#[track_caller]
fn is_sum(what: &str, got: &Tensor, terms: usize, operands: &[&Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    let exact: Vec<Tensor> = operands.iter().map(|x| x.to_dtype(DType::F64)).collect();
    let absolute: Vec<Tensor> = exact.iter().map(Tensor::abs).collect();
    let (want, magnitude) = (f(&exact), f(&absolute));
    assert_eq!((got.shape(), got.device()), (want.shape(), cuda()), "{what}");
    assert!(got.is_contiguous() && got.dtype() == operands[0].dtype(), "{what}");
    let sum = terms as f64 * got.dtype().accumulator().epsilon();
    let numbers = got.to_f64_vec().into_iter().zip(want.to_f64_vec()).zip(magnitude.to_f64_vec());
    for (i, ((g, w), m)) in numbers.enumerate() {
        let ok = g == w || (g - w).abs() <= sum * m + got.dtype().epsilon() * w.abs() || g.is_nan() && w.is_nan();
        assert!(ok, "{what}: element {i} is {g}, not {w}");
    }
}

/// The three operations, of operands that lie as they do; without a bias, if there is none.
#[track_caller]
fn check(plan: &Conv2dPlan, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, dy: &Tensor) {
    let g = &plan.geometry;
    let strides = [x, w, dy].map(|x| &x.layout().strides);
    let what = |op| format!("{op} of {}, {g:?} → {:?}, strides {strides:?}", x.dtype(), plan.out);
    let [x2, w2, dy2] = [x, w, dy].map(there);
    let taps = g.kh * g.kw;

    let y = card().conv2d(plan, &x2, &w2, bias.map(there).as_ref()).expect("a kernel");
    let operands: Vec<&Tensor> = [x, w].into_iter().chain(bias).collect();
    is_sum(&what("forward"), &y, g.c / g.groups * taps + 1, &operands, |t| {
        CpuBackend.conv2d(plan, &t[0], &t[1], t.get(2)).expect("the CPU's")
    });
    let dx = card().conv2d_input_grad(plan, &dy2, &w2).expect("a kernel");
    is_sum(&what("input_grad"), &dx, g.o / g.groups * taps, &[dy, w], |t| {
        CpuBackend.conv2d_input_grad(plan, &t[0], &t[1]).expect("the CPU's")
    });
    let dw = card().conv2d_weight_grad(plan, &x2, &dy2).expect("a kernel");
    is_sum(&what("weight_grad"), &dw, g.n * plan.out.0 * plan.out.1, &[x, dy], |t| {
        CpuBackend.conv2d_weight_grad(plan, &t[0], &t[1]).expect("the CPU's")
    });
}

fn conv(
    [n, c, h, w]: [usize; 4],
    [o, kh, kw]: [usize; 3],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
) -> Conv2dPlan {
    let options = Conv2dOptions { stride, padding, dilation, groups };
    Conv2dPlan::conv2d(&[n, c, h, w].into(), &[o, c / groups, kh, kw].into(), &options)
}

/// Of any strides.
#[track_caller]
fn check_strided(random: &mut Random, plan: &Conv2dPlan, dtype: DType) {
    let mut any = |shape: &[usize]| random.strided(shape, dtype);
    let (x, w, dy) = (any(&plan.input_shape()), any(&plan.weight_shape()), any(&plan.output_shape()));
    let bias = any(&[plan.geometry.o]);
    check(plan, &x, &w, Some(&bias), &dy);
}

#[test]
fn known_layers() {
    let mut random = Random(1);
    let plans = [
        conv([2, 3, 9, 11], [5, 3, 3], [1, 1], [1, 1], [1, 1], 1),
        conv([2, 8, 8, 8], [16, 3, 3], [2, 2], [1, 1], [1, 1], 1),
        conv([1, 20, 5, 7], [33, 1, 1], [1, 1], [0, 0], [1, 1], 1),
        conv([2, 16, 6, 6], [8, 1, 1], [2, 2], [0, 0], [1, 1], 1),
        conv([3, 1, 12, 10], [17, 5, 5], [1, 1], [2, 2], [1, 1], 1),
        conv([1, 12, 1, 30], [10, 1, 4], [1, 3], [0, 2], [1, 2], 2),
        // Depthwise, with one and with several outputs for each channel.
        conv([2, 7, 9, 8], [7, 3, 3], [1, 1], [1, 1], [1, 1], 7),
        conv([2, 5, 9, 8], [15, 3, 2], [2, 1], [1, 0], [1, 2], 5),
        // More channels in the output than in a direct convolution.
        conv([1, 2, 6, 7], [14, 3, 3], [2, 3], [2, 2], [1, 1], 2),
        // Steps beyond the kernel: pixels that nobody reads.
        conv([1, 4, 11, 13], [6, 2, 2], [4, 3], [0, 1], [1, 1], 1),
        conv([1, 16, 9, 9], [24, 3, 3], [1, 1], [2, 2], [2, 2], 2),
    ];
    for (plan, dtype) in plans.iter().flat_map(|p| FLOATS.map(|d| (p, d))) {
        check_strided(&mut random, plan, dtype);
    }
}

#[test]
fn any_convolution() {
    let mut random = Random(2);
    for i in 0..60 {
        let mut pair = |low, below: usize| [low + random.below(below), low + random.below(below)];
        let (kernel, stride, dilation, padding) = (pair(1, 4), pair(1, 3), pair(1, 3), pair(0, 4));
        let fits =
            |i: usize, extra: usize| (dilation[i] * (kernel[i] - 1) + 1 + extra).saturating_sub(2 * padding[i]).max(1);
        let (h, w) = (fits(0, random.below(12)), fits(1, random.below(12)));
        let groups = 1 + random.below(3);
        let channels = |random: &mut Random| groups * [1, 3, 8, 16, 19][random.below(5)];
        let (c, o) = (channels(&mut random), channels(&mut random));
        let plan = conv([1 + random.below(3), c, h, w], [o, kernel[0], kernel[1]], stride, padding, dilation, groups);
        check_strided(&mut random, &plan, FLOATS[i % 4]);
    }
}

#[test]
fn convolutions_that_fill_the_card() {
    let mut random = Random(3);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for plan in [
            conv([3, 40, 17, 16], [130, 1, 3], [1, 1], [0, 1], [1, 1], 1),
            conv([5, 66, 8, 16], [65, 2, 2], [1, 1], [1, 0], [1, 1], 1),
        ] {
            let [x, w, dy] =
                [plan.input_shape(), plan.weight_shape(), plan.output_shape()].map(|s| random.values(&s, dtype));
            check(&plan, &x, &w, None, &dy);
        }
    }
    no_bank_conflicts();
}

/// Channels last in memory, as kernels for the half types read them without a copy.
#[test]
fn channels_last() {
    let mut random = Random(4);
    let mut last = |shape: &[usize], dtype| {
        let (n, c, h, w) = (shape[0], shape[1], shape[2], shape[3]);
        random.values(&[n, h, w, c], dtype).permute([0, 3, 1, 2])
    };
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        for plan in [
            conv([2, 16, 7, 9], [24, 3, 3], [1, 1], [1, 1], [1, 1], 1),
            conv([3, 32, 1, 1], [16, 1, 1], [1, 1], [0, 0], [1, 1], 2),
            conv([2, 64, 6, 8], [80, 2, 2], [2, 2], [0, 0], [1, 1], 4),
        ] {
            let [x, w, dy] = [plan.input_shape(), plan.weight_shape(), plan.output_shape()].map(|s| last(&s, dtype));
            check(&plan, &x, &w, None, &dy);
        }
        // Every second image: pixels do not follow each other from one to the next.
        let plan = conv([3, 16, 5, 4], [16, 3, 3], [1, 1], [1, 1], [1, 1], 1);
        let [x, dy] = [(); 2].map(|()| last(&[6, 16, 5, 4], dtype).slice_dim(0, 0, None, 2));
        check(&plan, &x, &last(&plan.weight_shape(), dtype), None, &dy);
    }
}

#[test]
fn transposed_convolutions() {
    let mut random = Random(5);
    for dtype in FLOATS {
        for (stride, padding, output_padding, dilation, groups) in [
            ([1, 1], [0, 0], [0, 0], [1, 1], 1),
            ([2, 3], [1, 0], [1, 2], [1, 1], 2),
            ([3, 2], [1, 1], [1, 1], [2, 2], 1),
        ] {
            let o = ConvTranspose2dOptions { stride, padding, output_padding, dilation, groups };
            let plan = Conv2dPlan::conv_transpose2d(&[2, 6, 5, 4].into(), &[6, 4, 3, 2].into(), &o);
            check_strided(&mut random, &plan, dtype);
        }
    }
}

#[test]
fn of_nothing() {
    let mut random = Random(6);
    for dtype in FLOATS {
        for ([n, c], [o, k]) in [([0, 3], [2, 3]), ([2, 0], [2, 3]), ([2, 3], [0, 3])] {
            check_strided(&mut random, &conv([n, c, 5, 6], [o, k, k], [1, 1], [1, 1], [1, 1], 1), dtype);
        }
    }
}

#[test]
fn sums_of_many_pixels_have_one_order() {
    let mut random = Random(7);
    for dtype in FLOATS {
        for groups in [1, 8] {
            let plan = conv([4, 8, 20, 21], [8, 3, 3], [1, 1], [1, 1], [1, 1], groups);
            let noise = |random: &mut Random, shape: &[usize]| (random.values(shape, DType::F64) * 1.1).to_dtype(dtype);
            let x = noise(&mut random, &plan.input_shape());
            let dy = noise(&mut random, &plan.output_shape());
            check(&plan, &x, &noise(&mut random, &plan.weight_shape()), None, &dy);
            let [x, dy] = [x, dy].map(|x| there(&x));
            let [a, b] = [(); 2].map(|()| card().conv2d_weight_grad(&plan, &x, &dy).expect("a kernel").to_bytes());
            assert_eq!(a, b);
        }
    }
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    let plan = conv([1, 8, 4, 4], [8, 3, 3], [1, 1], [1, 1], [1, 1], 1);
    for dtype in FLOATS {
        let mut x = vec![1.0; 128];
        (x[5], x[100]) = (f64::NAN, f64::INFINITY);
        let x = Tensor::from_vec(x, [1, 8, 4, 4]).to_dtype(dtype);
        let w = Tensor::full([8, 8, 3, 3], 0.0f64).to_dtype(dtype);
        check(&plan, &x, &w, None, &x);
    }
}

/// Under the emulator: does `ldmatrix` never wait for a bank of shared memory?
#[track_caller]
fn no_bank_conflicts() {
    assert_eq!(counted("emulator_count_bank_conflicts").unwrap_or(0), 0);
}
