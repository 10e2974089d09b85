//! Every required operation on the card against the CPU: all dtypes, any strides, nothing at all and single elements.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{card, cuda, there};
use ferrograd_cuda::CudaDevice;
use ferrograd_tensor::backend::{Backend, Binary, Compare, Distribution, Reduce, Unary};
use ferrograd_tensor::cpu::CpuBackend;
use ferrograd_tensor::{DType, Device, Tensor};
use layouts::Random;

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];
const INTEGERS: [DType; 4] = [DType::I64, DType::I32, DType::I8, DType::U8];
const NUMBERS: [DType; 8] = {
    use DType::*;
    [F32, F64, F16, BF16, I64, I32, I8, U8]
};

/// Equal but for `roundings` of the dtype, relative to the larger of 1 and the value; NaN is NaN.
#[track_caller]
fn close(what: &str, got: &Tensor, want: &Tensor, roundings: f64) {
    assert_eq!((got.shape(), got.dtype()), (want.shape(), want.dtype()), "{what}");
    assert_eq!(got.device(), cuda(), "{what}");
    for (i, (g, w)) in got.to_f64_vec().into_iter().zip(want.to_f64_vec()).enumerate() {
        let bound = if roundings > 0.0 { roundings * want.dtype().epsilon() * w.abs().max(1.0) } else { 0.0 };
        let ok = g == w || (g - w).abs() <= bound || g.is_nan() && w.is_nan();
        assert!(ok, "{what}: element {i} is {g}, not {w}");
    }
}

#[track_caller]
fn equal(what: &str, got: &Tensor, want: &Tensor) {
    close(what, got, want, 0.0);
}

/// Shapes that reach every way through the kernels: nothing, one element, whole vectors and tails, many dimensions.
fn shapes(random: &mut Random) -> Vec<Vec<usize>> {
    let mut shapes = vec![vec![], vec![0], vec![1], vec![3, 0, 2], vec![1037], vec![33, 65], vec![2, 3, 1, 4, 2]];
    shapes.extend((0..4).map(|_| random.shape(9)));
    shapes
}

/// What is special about floats.
fn special(dtype: DType) -> Tensor {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let numbers = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.7, 1e-3, -1e-3, 20.0, -20.0, 88.0, -100.0, 1e4, inf, -inf, nan];
    Tensor::from_vec(numbers.to_vec(), [numbers.len()]).to_dtype(dtype)
}

#[test]
fn the_card_says_who_it_is() {
    assert_eq!(cuda().to_string(), "cuda:0");
    assert!(card().description().contains("compute capability"), "{}", card().description());
    let count = ferrograd_cuda::device_count();
    assert!(count >= 1);
    let error = Device::cuda(count).unwrap_err().to_string();
    assert!(error.contains(&format!("there is no card {count}")), "{error}");
}

#[test]
fn there_and_back() {
    let mut random = Random(1);
    for dtype in DType::ALL {
        for shape in shapes(&mut random) {
            let x = random.strided(&shape, dtype);
            equal("to_device", &x.to_device(&cuda()), &x);
            equal("copy", &card().copy(&there(&x)), &x);
            equal("strides", &there(&x), &x);
            let (value, shape) = (random.values(&[1], dtype).to_f64_vec()[0], shape[..].into());
            equal("full", &card().full(&shape, dtype, value), &CpuBackend.full(&shape, dtype, value));
        }
    }
}

/// Runs of whole chunks and of none, at odd places and apart from each other; and operands whose runs lie across each other's, of whole
/// squares and parts of them.
#[test]
fn copies_between_runs_and_across_them() {
    let mut random = Random(14);
    for dtype in DType::ALL {
        for (first, length) in [(0, 32), (16, 16), (8, 24), (4, 12), (2, 6), (1, 5), (32, 1)] {
            let x = random.values(&[3, 2, 64], dtype).narrow(-1, first, length);
            equal("runs", &card().copy(&there(&x)), &x);
            equal("runs in another order", &card().copy(&there(&x.transpose(0, 1))), &x.transpose(0, 1));
            equal(
                "the same run",
                &card().copy(&there(&x.narrow(1, 0, 1).expand([3, 5, length]))),
                &x.narrow(1, 0, 1).expand([3, 5, length]),
            );
        }
        for (rows, columns) in [(8, 8), (32, 64), (33, 95), (7, 300), (130, 9)] {
            let x = random.values(&[2, rows, 3, columns], dtype);
            for across in
                [x.permute([0, 2, 3, 1]), x.permute([3, 2, 1, 0]), x.permute([3, 0, 2, 1]), x.flip([0]).transpose(1, 3)]
            {
                equal("across", &card().copy(&there(&across)), &across);
            }
            // Into a region whose runs lie across those of what is written.
            let (mut here, region) = (random.values(&[columns + 1, rows + 2], dtype), [columns, rows]);
            let layout = here.narrow(0, 1, region[0]).narrow(1, 1, region[1]).t().layout().clone();
            let (mut on_card, source) = (here.to_device(&cuda()), random.values(&[rows, columns], dtype));
            CpuBackend.write(&mut here, &layout, &source);
            card().write(&mut on_card, &layout, &there(&source));
            equal("write", &on_card, &here);
        }
    }
}

/// Rows in whole chunks of 16 bytes, apart from each other, the same row for all, one number for each row, and rows that are just not so.
#[test]
fn rows_in_chunks() {
    let mut random = Random(15);
    for dtype in NUMBERS {
        for (first, length) in [(16, 32), (0, 48), (8, 32), (16, 31), (17, 32)] {
            let rows = random.values(&[5, 64], dtype).narrow(1, first, length);
            let row = random.values(&[64], dtype).narrow(0, first, length).expand([5, length]);
            let column = random.values(&[5, 3], dtype).narrow(1, 1, 1).expand([5, length]);
            let whole = random.values(&[5, length], dtype);
            let operands = [&rows, &row, &column, &whole];
            for (i, a) in operands.into_iter().enumerate() {
                let (x, b) = (there(a), operands[(i + 1) % 4]);
                let y = there(b);
                equal("neg", &card().unary(Unary::Neg, &x), &CpuBackend.unary(Unary::Neg, a));
                equal("cast", &card().cast(&x, DType::F64), &CpuBackend.cast(a, DType::F64));
                equal("add", &card().binary(Binary::Add, &x, &y), &CpuBackend.binary(Binary::Add, a, b));
                let less = CpuBackend.compare(Compare::Lt, a, b);
                equal("less", &card().compare(Compare::Lt, &x, &y), &less);
                for condition in
                    [&less, &less.narrow(0, 1, 1).expand([5, length]), &less.narrow(1, 2, 1).expand([5, length])]
                {
                    let want = CpuBackend.select(condition, a, b);
                    equal("select", &card().select(&there(condition), &x, &y), &want);
                }
                let (mut here, mut on_card) = (whole.copy(), whole.to_device(&cuda()));
                CpuBackend.binary_assign(Binary::Mul, &mut here, a);
                card().binary_assign(Binary::Mul, &mut on_card, &x);
                equal("mul", &on_card, &here);
            }
        }
    }
}

#[test]
fn write_changes_the_region_alone() {
    let mut random = Random(2);
    for dtype in DType::ALL {
        let (x, src) = (random.values(&[6, 5, 4], dtype), random.strided(&[3, 5, 2], dtype));
        let region = x.slice_dim(0, 1, None, 2).slice_dim(2, 1, Some(3), 1).layout().clone();
        let (mut here, mut on_card) = (x.copy(), x.to_device(&cuda()));
        CpuBackend.write(&mut here, &region, &src);
        card().write(&mut on_card, &region, &there(&src));
        equal("write", &on_card, &here);
    }
}

#[test]
fn casts() {
    let mut random = Random(3);
    for from in DType::ALL {
        for to in DType::ALL {
            let mut operands: Vec<Tensor> = shapes(&mut random).iter().map(|s| random.strided(s, from)).collect();
            operands.extend(from.is_float().then(|| special(from)));
            for x in operands {
                equal(&format!("{from} to {to}"), &card().cast(&there(&x), to), &CpuBackend.cast(&x, to));
            }
        }
    }
    // Every half number, and doubles half way between two of them and next to one.
    let halves: Vec<f64> = (0..=u16::MAX).map(|b| half::f16::from_bits(b).to_f64()).collect();
    let between = halves.windows(2).map(|w| 0.5 * (w[0] + w[1]));
    let ties: Vec<f64> = between.clone().chain(between.map(|x| x * (1.0 + 1e-12))).collect();
    for (numbers, dtype) in [(halves, DType::F16), (ties, DType::F64)] {
        let x = Tensor::from_vec(numbers.clone(), [numbers.len()]).to_dtype(dtype);
        for to in FLOATS {
            equal(&format!("{dtype} to {to}"), &card().cast(&there(&x), to), &CpuBackend.cast(&x, to));
        }
    }
}

#[test]
fn unary_functions() {
    use Unary::*;
    let exact = [Neg, Abs, Sign, Square, AddScalar(3.0), MulScalar(-2.0), RsubScalar(1.0), Clamp(-2.0, 1.0), Relu];
    let exact = exact.into_iter().chain([Powi(3), Powi(0), Floor, Ceil, Round]);
    let roots = [Powi(-2), Powf(2.5), Powf(-0.5), RdivScalar(2.0), DivScalar(3.0), Sqrt, Rsqrt, Recip];
    let curves = [Exp, Expm1, Log, Log1p, Sin, Cos, Tanh, Sigmoid, Erf];
    let activations = [Gelu, GeluTanh, Silu, Softplus, Elu(0.7), LeakyRelu(0.1)];
    let mut random = Random(4);
    for op in exact.clone() {
        for dtype in NUMBERS {
            let x = random.strided(&[7, 3, 5], dtype);
            equal(&format!("{op:?} of {dtype}"), &card().unary(op, &there(&x)), &CpuBackend.unary(op, &x));
        }
    }
    for op in exact.chain(roots).chain(curves).chain(activations) {
        for dtype in FLOATS {
            let shapes = [vec![], vec![0], vec![1037], vec![4, 9, 3]];
            for x in shapes.iter().map(|s| random.strided(s, dtype)).chain([special(dtype)]) {
                let (got, want) = (card().unary(op, &there(&x)), CpuBackend.unary(op, &x));
                close(&format!("{op:?} of {dtype}"), &got, &want, 8.0);
            }
        }
    }
}

#[test]
fn binary_functions() {
    use Binary::*;
    let mut random = Random(5);
    for op in [Add, Sub, Mul, Rem, Max, Min] {
        for dtype in INTEGERS {
            let (a, b) = (random.strided(&[7, 3, 5], dtype), random.strided(&[7, 3, 5], dtype));
            // A remainder by nothing is refused by the op.
            let b = if op == Rem { CpuBackend.select(&b.eq_scalar(0.0), &b.ones_like(), &b) } else { b };
            let (got, want) = (card().binary(op, &there(&a), &there(&b)), CpuBackend.binary(op, &a, &b));
            equal(&format!("{op:?} of {dtype}"), &got, &want);
        }
    }
    let plain = [Add, Sub, Mul, Div, Rem, Pow, Max, Min, Atan2];
    let gradients = [ReluGrad, TanhGrad, SigmoidGrad, GeluGrad, GeluTanhGrad, SiluGrad];
    for op in plain.into_iter().chain(gradients) {
        for dtype in FLOATS {
            for shape in shapes(&mut random) {
                let (a, b) = (random.strided(&shape, dtype), random.strided(&shape, dtype));
                let (got, want) = (card().binary(op, &there(&a), &there(&b)), CpuBackend.binary(op, &a, &b));
                close(&format!("{op:?} of {dtype}"), &got, &want, 8.0);
            }
        }
    }
    for dtype in NUMBERS {
        let (a, b) = (random.values(&[37, 5], dtype), random.strided(&[37, 5], dtype));
        let mut sum = a.to_device(&cuda());
        card().binary_assign(Add, &mut sum, &there(&b));
        equal("binary_assign", &sum, &CpuBackend.binary(Add, &a, &b));
    }
}

#[test]
fn comparisons_and_choices() {
    let mut random = Random(6);
    for dtype in DType::ALL {
        let mut pairs: Vec<[Tensor; 2]> =
            shapes(&mut random).iter().map(|shape| [0, 1].map(|_| random.strided(shape, dtype))).collect();
        pairs.extend(dtype.is_float().then(|| [special(dtype), special(dtype).flip(0)]));
        for [a, b] in pairs {
            let condition = random.strided(a.dims(), DType::Bool);
            let (a2, b2) = (there(&a), there(&b));
            for op in [Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge] {
                let (got, want) = (card().compare(op, &a2, &b2), CpuBackend.compare(op, &a, &b));
                equal(&format!("{op:?} of {dtype}"), &got, &want);
            }
            let got = card().select(&there(&condition), &a2, &b2);
            equal("select", &got, &CpuBackend.select(&condition, &a, &b));
        }
    }
}

/// All operations over `dims`, in every dtype.
fn check_reductions(shape: &[usize], dims: &[usize], random: &mut Random) {
    for dtype in DType::ALL {
        let x = random.strided(shape, dtype);
        for op in [Reduce::Sum, Reduce::Prod, Reduce::Max, Reduce::Min, Reduce::Any, Reduce::All] {
            // Refused by the op.
            if matches!(op, Reduce::Max | Reduce::Min) && (dtype == DType::Bool || x.numel() == 0) {
                continue;
            }
            let (got, want) = (card().reduce(op, &there(&x), dims), CpuBackend.reduce(op, &x, dims));
            // A rounding for each term, each of a number that is not much larger than the result or 1.
            let n = x.numel() as f64 / want.numel().max(1) as f64;
            close(&format!("{op:?} of {dtype}{shape:?} over {dims:?}"), &got, &want, 64.0 + n);
        }
    }
}

#[test]
fn reductions() {
    let mut random = Random(7);
    for shape in [vec![], vec![0], vec![3, 0, 2], vec![5, 7, 3], vec![2, 3, 1, 4, 2]] {
        for dims in 0..1usize << shape.len() {
            let dims: Vec<usize> = (0..shape.len()).filter(|d| dims >> d & 1 == 1).collect();
            check_reductions(&shape, &dims, &mut random);
        }
    }
    // Parts, blocks, warps and threads.
    for (shape, dim) in [(&[5000][..], 0), (&[3, 3000], 1), (&[3000, 3], 0), (&[70, 40], 1), (&[70, 40], 0)] {
        check_reductions(shape, &[dim], &mut random);
    }
    let x = special(DType::F32);
    for op in [Reduce::Max, Reduce::Min, Reduce::Sum] {
        assert!(card().reduce(op, &there(&x), &[0]).to_f64_vec()[0].is_nan(), "{op:?} hides NaN");
    }
}

#[test]
fn along_a_dimension() {
    let mut random = Random(8);
    let cases = [(vec![700], 0), (vec![5, 33], 1), (vec![33, 5], 0), (vec![2, 9, 3], 1), (vec![1, 1], 0)];
    for dtype in DType::ALL {
        let mut operands: Vec<(Tensor, usize)> =
            cases.iter().map(|(shape, dim)| (random.strided(shape, dtype), *dim)).collect();
        operands.extend(dtype.is_float().then(|| (special(dtype), 0)));
        for (x, dim) in operands {
            let x2 = there(&x);
            for largest in [false, true] {
                let (got, want) = (card().arg_reduce(largest, &x2, dim), CpuBackend.arg_reduce(largest, &x, dim));
                equal(&format!("arg_reduce of {dtype}{} along {dim}", x.shape()), &got, &want);
            }
            let want = CpuBackend.cumsum(&x, dim);
            let largest = want.to_f64_vec().into_iter().filter(|v| v.is_finite()).fold(1.0, |m: f64, v| m.max(v.abs()));
            close("cumsum", &card().cumsum(&x2, dim), &want, 2.0 * largest);
        }
    }
}

#[test]
fn sorting() {
    let mut random = Random(9);
    let check = |x: Tensor, dim: usize| {
        for descending in [false, true] {
            let (got, want) = (card().sort(&there(&x), dim, descending), CpuBackend.sort(&x, dim, descending));
            equal("sorted values", &got.0, &want.0);
            equal("sorted indices", &got.1, &want.1);
            let k = x.dims()[dim].min(3);
            let got = card().topk(&there(&x), k, dim, descending).expect("a kernel");
            let want = CpuBackend.topk(&x, k, dim, descending).expect("a kernel");
            equal("topk values", &got.0, &want.0);
            equal("topk indices", &got.1, &want.1);
        }
    };
    for dtype in DType::ALL {
        for (shape, dim) in [(vec![0], 0), (vec![1], 0), (vec![100], 0), (vec![5, 33], 1), (vec![33, 5], 0)] {
            check(random.strided(&shape, dtype), dim);
        }
        check(random.strided(&[2, 64, 3], dtype), 1);
        if dtype.is_float() {
            check(special(dtype), 0);
        }
    }
    // More than fits shared memory: steps of their own.
    check(random.values(&[2, 5000], DType::F32), 1);
}

#[test]
fn products() {
    let mut random = Random(10);
    for (m, k, n) in
        [(1, 1, 1), (3, 0, 2), (0, 3, 2), (17, 33, 65), (64, 64, 16), (70, 9, 130), (1, 50, 200), (200, 50, 1)]
    {
        for dtype in NUMBERS {
            let roundings = if dtype.is_float() { 4.0 + k as f64 } else { 0.0 };
            for lead in [&[][..], &[3], &[2, 1]] {
                let a = random.strided(&[lead, &[m, k]].concat(), dtype);
                let b = random.strided(&[lead, &[k, n]].concat(), dtype);
                let (got, want) = (card().matmul(&there(&a), &there(&b)), CpuBackend.matmul(&a, &b));
                close(&format!("{m}×{k}×{n} of {dtype}"), &got, &want, roundings);
            }
            if dtype.is_float() {
                let [a, b, bias] = [&[m, k][..], &[k, n], &[n]].map(|shape| random.strided(shape, dtype));
                let got = card().matmul_bias(&there(&a), &there(&b), &there(&bias)).expect("a kernel");
                close("bias", &got, &CpuBackend.matmul_bias(&a, &b, &bias).expect("a kernel"), roundings);
            }
        }
    }
}

#[test]
fn indices() {
    let mut random = Random(11);
    let cases = [
        (vec![9], 0, 20),
        (vec![7, 4], 0, 3),
        (vec![3, 40, 5], 1, 6),
        (vec![4, 6], 1, 0),
        (vec![300, 2], 0, 500),
        (vec![2, 9, 3], 1, 300),
    ];
    for dtype in DType::ALL {
        for (shape, dim, m) in cases.clone() {
            let x = random.strided(&shape, dtype);
            let taken = x.shape().with(dim, m);
            let mut any = |shape: &[usize]| {
                let numbers: Vec<i64> =
                    (0..shape.iter().product()).map(|_| random.below(x.dims()[dim]) as i64).collect();
                Tensor::from_vec(numbers, shape)
            };
            let (index, line) = (any(&taken), any(&[m]));
            let (x2, index2, line2) = (there(&x), there(&index), there(&line));
            equal("gather", &card().gather(&x2, dim, &index2), &CpuBackend.gather(&x, dim, &index));
            equal("index_select", &card().index_select(&x2, dim, &line2), &CpuBackend.index_select(&x, dim, &line));
            if m > 0 {
                assert_eq!(card().index_range(&index2), CpuBackend.index_range(&index));
            }
            if dtype == DType::Bool {
                continue;
            }
            let src = random.strided(&taken, dtype);
            let (src2, roundings) = (there(&src), if dtype.is_float() { 4.0 * m as f64 } else { 0.0 });
            let got = card().scatter_add(&x2, dim, &index2, &src2);
            close("scatter_add", &got, &CpuBackend.scatter_add(&x, dim, &index, &src), roundings);
            let got = card().index_add(&x2, dim, &line2, &src2);
            close("index_add", &got, &CpuBackend.index_add(&x, dim, &line, &src), roundings);
        }
    }
}

#[test]
fn the_same_random_numbers() {
    let (seed, offset) = (1 << 40 | 7, 3 << 33);
    for n in [0usize, 1, 2, 3, 4, 5, 1037] {
        let shape = [n].into();
        for dtype in FLOATS {
            for (distribution, roundings) in [
                (Distribution::Uniform { low: -1.0, high: 2.5 }, 0.0),
                (Distribution::Normal { mean: 0.5, std: 2.0 }, 16.0),
                (Distribution::Bernoulli { p: 0.3 }, 0.0),
                (Distribution::Bernoulli { p: 1.0 }, 0.0),
            ] {
                let got = card().random(distribution, &shape, dtype, seed, offset);
                let want = CpuBackend.random(distribution, &shape, dtype, seed, offset);
                close(&format!("{distribution:?} in {dtype}"), &got, &want, roundings);
            }
        }
        for dtype in INTEGERS {
            let distribution = Distribution::Integers { low: if dtype == DType::U8 { 3 } else { -100 }, high: 120 };
            let got = card().random(distribution, &shape, dtype, seed, offset);
            equal("integers", &got, &CpuBackend.random(distribution, &shape, dtype, seed, offset));
        }
    }
}
