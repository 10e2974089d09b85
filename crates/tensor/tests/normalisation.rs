//! Softmax and the norms: the CPU's kernels against their compositions in f64, golden values, errors.

#[path = "../../../golden/reader.rs"]
mod golden;
mod plain;
mod strided;

use ferrograd_tensor::ops::{batch_norm, group_norm, layer_norm, rms_norm, softmax};
use ferrograd_tensor::{DType, Device, Tensor, catch};
use golden::Golden;
use plain::device as plain;
use proptest::prelude::*;
use strided::strided;

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::BF16, DType::F16];
/// Keeps `rstd` below 32, so that rounding errors are not magnified by more.
const EPS: f64 = 1e-3;

fn f64s(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F64)
}

/// `got` has the shape and dtype asked for, and is `want` but for one rounding to its dtype and `roundings` of the dtype
/// that it was computed in.
#[track_caller]
fn close(got: &Tensor, want: &Tensor, dtype: DType, roundings: f64) {
    assert_eq!((got.shape(), got.dtype()), (want.shape(), dtype));
    // Below its smallest normal number f16 has a fixed step.
    let step = if dtype == DType::F16 { 6e-8 } else { 0.0 };
    let absolute = dtype.accumulator().epsilon() * roundings + step;
    for (g, w) in got.to_f64_vec().into_iter().zip(want.to_f64_vec()) {
        let ok = g == w || (g - w).abs() <= dtype.epsilon() * w.abs() + absolute || (g.is_nan() && w.is_nan());
        assert!(ok, "{g} is not {w} ({dtype})");
    }
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1 => Just(0usize), 2 => Just(1), 8 => 2usize..6, 1 => 17usize..20], 2..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn softmax_is_its_composition(shape in shapes(), pick: usize, seed: u64, kind in 0u8..16, negative: bool) {
        let dim = pick % shape.len();
        let named = dim as isize - if negative { shape.len() as isize } else { 0 };
        for dtype in FLOATS {
            let (x, g) = (strided(&shape, dtype, seed, kind) * 3.0, strided(&shape, dtype, !seed, kind ^ 7));
            let (wide, wide_g) = (f64s(&x), f64s(&g));
            let (y, l) = (x.softmax(named), x.log_softmax(named));
            close(&y, &softmax::composed(&wide, dim), dtype, 8.0);
            close(&l, &softmax::composed_log(&wide, dim), dtype, 64.0);
            close(&y.softmax_backward(&g, named), &softmax::composed_backward(&f64s(&y), &wide_g, dim), dtype, 64.0);
            let want = softmax::composed_log_backward(&f64s(&l), &wide_g, dim);
            close(&l.log_softmax_backward(&g, named), &want, dtype, 256.0);
            close(&softmax::composed(&x, dim), &softmax::composed(&wide, dim), dtype, 8.0);
        }
    }

    #[test]
    fn layer_and_rms_norm_are_their_compositions(
        shape in shapes(), pick: usize, seed: u64, kind in 0u8..16, weight: bool, bias: bool,
    ) {
        let lead = pick % shape.len();
        let normalized = &shape[lead..];
        let (rows, n) = (shape[..lead].iter().product::<usize>(), normalized.iter().product::<usize>());
        for dtype in FLOATS {
            let (x, g) = (strided(&shape, dtype, seed, kind), strided(&shape, dtype, !seed, kind ^ 5));
            let w = weight.then(|| strided(normalized, dtype, seed ^ 1, kind));
            let b = bias.then(|| strided(normalized, dtype, seed ^ 2, kind));
            let flat = |t: &Tensor| f64s(t).reshape(n);
            let (fx, fg) = (f64s(&x).reshape([rows, n]), f64s(&g).reshape([rows, n]));
            let (fw, fb) = (w.as_ref().map(flat), b.as_ref().map(flat));
            let stats = dtype.accumulator();
            // A sum down the rows: at most 1024 at a time and then the sums in a tree, each rounding one of at most Σ|g|.
            let down = (rows.min(1024) + 16) as f64 * fg.abs().sum_dims(0).to_f64_vec().into_iter().fold(0.0, f64::max);

            let (y, mean, rstd) = x.layer_norm_with_stats(normalized, w.as_ref(), b.as_ref(), EPS);
            let (wy, wmean, wrstd) = layer_norm::composed(&fx, fw.as_ref(), fb.as_ref(), EPS);
            close(&y, &wy.reshape(&shape[..]), dtype, 1024.0);
            close(&mean, &wmean.reshape(&shape[..lead]), stats, 16.0);
            close(&rstd, &wrstd.reshape(&shape[..lead]), stats, 1024.0);
            let (dx, dp) = x.layer_norm_backward(normalized, w.as_ref(), &mean, &rstd, &g, true);
            let (wdx, wdp) = layer_norm::composed_backward(&fx, fw.as_ref(), &wmean, &wrstd, &fg, None, true);
            close(&dx, &wdx.reshape(&shape[..]), dtype, 65536.0);
            let ((dw, db), (wdw, wdb)) = (dp.unwrap(), wdp.unwrap());
            close(&dw, &wdw.reshape(normalized), dtype, 8192.0);
            close(&db, &wdb.reshape(normalized), dtype, down);
            let (again, none) = x.layer_norm_backward(normalized, w.as_ref(), &mean, &rstd, &g, false);
            assert!(none.is_none());
            close(&again, &f64s(&dx), dtype, 0.0);

            let (y, rstd) = x.rms_norm_with_stats(normalized, w.as_ref(), EPS);
            let (wy, wrstd) = rms_norm::composed(&fx, fw.as_ref(), EPS);
            close(&y, &wy.reshape(&shape[..]), dtype, 1024.0);
            close(&rstd, &wrstd.reshape(&shape[..lead]), stats, 1024.0);
            let (dx, dw) = x.rms_norm_backward(normalized, w.as_ref(), &rstd, &g, true);
            let (wdx, wdw) = rms_norm::composed_backward(&fx, fw.as_ref(), &wrstd, &fg, None, true);
            close(&dx, &wdx.reshape(&shape[..]), dtype, 65536.0);
            close(&dw.unwrap(), &wdw.unwrap().reshape(normalized), dtype, 8192.0);
        }
    }

    #[test]
    fn norms_of_sums_are_their_compositions(
        shape in shapes(), pick: usize, seed: u64, kind in 0u8..16, weight: bool, bias: bool,
    ) {
        let lead = pick % shape.len();
        let normalized = &shape[lead..];
        let (rows, n) = (shape[..lead].iter().product::<usize>(), normalized.iter().product::<usize>());
        for dtype in FLOATS {
            let (x, residual) = (strided(&shape, dtype, seed, kind), strided(&shape, dtype, seed ^ 3, kind ^ 6));
            let (g, g_sum) = (strided(&shape, dtype, !seed, kind ^ 5), strided(&shape, dtype, seed ^ 4, kind ^ 3));
            let w = weight.then(|| strided(normalized, dtype, seed ^ 1, kind));
            let b = bias.then(|| strided(normalized, dtype, seed ^ 2, kind));
            let (w, b) = (w.as_ref(), b.as_ref());
            let flat = |t: &Tensor| f64s(t).reshape(n);
            let (fw, fb) = (w.map(flat), b.map(flat));
            let matrix = |t: &Tensor| f64s(t).reshape([rows, n]);
            let want_sum = &x + &residual;
            let (fsum, fg, fgs) = (matrix(&want_sum), matrix(&g), matrix(&g_sum));
            let down = (rows.min(1024) + 16) as f64 * fg.abs().sum_dims(0).to_f64_vec().into_iter().fold(0.0, f64::max);

            let (y, sum, mean, rstd) = x.add_layer_norm_with_stats(&residual, normalized, w, b, EPS);
            assert_eq!(sum.to_bytes(), want_sum.to_bytes());
            let (wy, wmean, wrstd) = layer_norm::composed(&fsum, fw.as_ref(), fb.as_ref(), EPS);
            close(&y, &wy.reshape(&shape[..]), dtype, 1024.0);
            let (dx, dp) = sum.add_layer_norm_backward(normalized, w, &mean, &rstd, &g, &g_sum, true);
            let (wdx, wdp) = layer_norm::composed_backward(&fsum, fw.as_ref(), &wmean, &wrstd, &fg, Some(&fgs), true);
            close(&dx, &wdx.reshape(&shape[..]), dtype, 65536.0);
            let ((dw, db), (wdw, wdb)) = (dp.unwrap(), wdp.unwrap());
            close(&dw, &wdw.reshape(normalized), dtype, 8192.0);
            close(&db, &wdb.reshape(normalized), dtype, down);

            let (y, sum, rstd) = x.add_rms_norm_with_stats(&residual, normalized, w, EPS);
            assert_eq!(sum.to_bytes(), want_sum.to_bytes());
            let (wy, wrstd) = rms_norm::composed(&fsum, fw.as_ref(), EPS);
            close(&y, &wy.reshape(&shape[..]), dtype, 1024.0);
            let (dx, dw) = sum.add_rms_norm_backward(normalized, w, &rstd, &g, &g_sum, true);
            let (wdx, wdw) = rms_norm::composed_backward(&fsum, fw.as_ref(), &wrstd, &fg, Some(&fgs), true);
            close(&dx, &wdx.reshape(&shape[..]), dtype, 65536.0);
            close(&dw.unwrap(), &wdw.unwrap().reshape(normalized), dtype, 8192.0);

            // The same where there is no kernel for it.
            let [px, pr, pg, ps] = [&x, &residual, &g, &g_sum].map(|t| t.to_device(&plain()));
            let pw = w.map(|w| w.to_device(&plain()));
            let here = |t: Tensor| f64s(&t.to_device(&Device::default()));
            let (py, psum, prstd) = px.add_rms_norm_with_stats(&pr, normalized, pw.as_ref(), EPS);
            close(&y, &here(py), dtype, 1024.0);
            let (pdx, _) = psum.add_rms_norm_backward(normalized, pw.as_ref(), &prstd, &pg, &ps, false);
            close(&dx, &here(pdx), dtype, 65536.0);
        }
    }

    #[test]
    fn group_and_batch_norm_are_their_compositions(
        b in 0usize..4, per in 1usize..4, groups in 1usize..4, rest in prop::collection::vec(0usize..7, 0..3),
        seed: u64, kind in 0u8..16, weight: bool, bias: bool,
    ) {
        let c = per * groups;
        let shape: Vec<usize> = [b, c].into_iter().chain(rest.iter().copied()).collect();
        let size = rest.iter().product();
        for dtype in FLOATS {
            let (x, g) = (strided(&shape, dtype, seed, kind), strided(&shape, dtype, !seed, kind ^ 5));
            let w = weight.then(|| strided(&[c], dtype, seed ^ 1, kind));
            let bias = bias.then(|| strided(&[c], dtype, seed ^ 2, kind));
            let (w, bias) = (w.as_ref(), bias.as_ref());
            let (fx, fg) = (f64s(&x).reshape([b, c, size]), f64s(&g).reshape([b, c, size]));
            let (fw, fb) = (w.map(f64s), bias.map(f64s));
            let (fw, fb) = (fw.as_ref(), fb.as_ref());
            let stats = dtype.accumulator();

            let (y, mean, rstd) = x.group_norm_with_stats(groups, w, bias, EPS);
            let (wy, wmean, wrstd) = group_norm::composed(&fx, groups, fw, fb, EPS);
            close(&y, &wy.reshape(&shape[..]), dtype, 1024.0);
            close(&mean, &wmean.reshape([b, groups]), stats, 16.0);
            close(&rstd, &wrstd.reshape([b, groups]), stats, 1024.0);
            let (dx, dw, db) = x.group_norm_backward(groups, w, &mean, &rstd, &g);
            let (wdx, wdw, wdb) = group_norm::composed_backward(&fx, groups, fw, &wmean, &wrstd, &fg);
            close(&dx, &wdx.reshape(&shape[..]), dtype, 65536.0);
            close(&dw, &wdw, dtype, 8192.0);
            close(&db, &wdb, dtype, 1024.0);

            let (rm, rv) = (strided(&[c], stats, seed ^ 3, 0), strided(&[c], stats, seed ^ 4, 0).square());
            let rstd = (&rv + EPS).rsqrt();
            let y = x.batch_norm_eval(&rm, &rv, w, bias, EPS);
            let wy = batch_norm::composed_apply(&fx, &f64s(&rm), &(f64s(&rv) + EPS).rsqrt(), fw, fb);
            close(&y, &wy.reshape(&shape[..]), dtype, 2048.0);
            for training in [false, true] {
                if training && b * size < 2 {
                    continue;
                }
                let (rm, rstd) = if training {
                    let (y, mean, variance) = x.batch_norm(w, bias, EPS);
                    let (wmean, wvariance) = batch_norm::composed_statistics(&fx);
                    close(&mean, &wmean, stats, 16.0);
                    close(&variance, &wvariance, stats, 64.0);
                    let wy = batch_norm::composed_apply(&fx, &wmean, &(wvariance + EPS).rsqrt(), fw, fb);
                    close(&y, &wy.reshape(&shape[..]), dtype, 2048.0);
                    (mean, (variance + EPS).rsqrt())
                } else {
                    (rm.clone(), rstd.clone())
                };
                let (dx, dw, db) = x.batch_norm_backward(w, &rm, &rstd, &g, training);
                let (wdx, wdw, wdb) =
                    batch_norm::composed_backward(&fx, fw, &f64s(&rm), &f64s(&rstd), &fg, training);
                close(&dx, &wdx.reshape(&shape[..]), dtype, 65536.0);
                close(&dw, &wdw, dtype, 8192.0);
                close(&db, &wdb, dtype, 1024.0);
            }
        }
    }
}

#[test]
fn large_enough_for_threads() {
    let (b, c, s) = (5, 6, 1300);
    let (x, w) = (strided(&[b, c, s], DType::F32, 1, 0), strided(&[c], DType::F32, 2, 0));
    let (y, ..) = x.batch_norm(Some(&w), None, EPS);
    let (mean, variance) = batch_norm::composed_statistics(&f64s(&x));
    let want = batch_norm::composed_apply(&f64s(&x), &mean, &(variance + EPS).rsqrt(), Some(&f64s(&w)), None);
    close(&y, &want, DType::F32, 64.0);
    let y = x.group_norm(2, Some(&w), None, EPS);
    close(&y, &group_norm::composed(&f64s(&x), 2, Some(&f64s(&w)), None, EPS).0, DType::F32, 64.0);
    // Dimension 1 of a transposed tensor, and many rows.
    let y = x.transpose(0, 2).softmax(1);
    close(&y, &softmax::composed(&f64s(&x.transpose(0, 2)), 1), DType::F32, 8.0);
}

#[test]
fn norms_of_sums_large_enough_for_threads() {
    let (x, residual) = (strided(&[700, 65], DType::F32, 1, 0), strided(&[700, 65], DType::F32, 2, 1));
    let sum = &x + &residual;
    let (y, s, mean, rstd) = x.add_layer_norm_with_stats(&residual, &[65], None, None, EPS);
    assert_eq!(s.to_bytes(), sum.to_bytes());
    close(&y, &f64s(&sum.layer_norm(&[65], None, None, EPS)), DType::F32, 64.0);
    let (dx, _) = s.add_layer_norm_backward(&[65], None, &mean, &rstd, &x, &residual, false);
    let (own, _) = s.layer_norm_backward(&[65], None, &mean, &rstd, &x, false);
    close(&dx, &f64s(&(own + &residual)), DType::F32, 64.0);
    let (y, s) = x.add_rms_norm(&residual, &[65], None, EPS);
    assert_eq!(s.to_bytes(), sum.to_bytes());
    close(&y, &f64s(&sum.rms_norm(&[65], None, EPS)), DType::F32, 64.0);
}

#[test]
fn edges_of_softmax() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let x = Tensor::new([[-inf, 1e30, -1e30], [-inf, -inf, 0.0], [-inf, -inf, -inf], [0.0, inf, 1.0], [nan, 0.0, 1.0]]);
    let y = x.softmax(-1).to_vec::<f32>();
    assert_eq!(y[..6], [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    assert!(y[6..].iter().all(|v| v.is_nan()));
    let l = x.log_softmax(1).to_vec::<f32>();
    assert_eq!(l[3..6], [-inf, -inf, 0.0]);
    assert_eq!(*Tensor::zeros([0, 3]).softmax(0).shape(), [0, 3]);
    assert_eq!(Tensor::new([1e9f32]).softmax(0).to_vec::<f32>(), [1.0]);
}

#[test]
fn golden_values() {
    let file = Golden::open("ops");
    let mut seen = 0;
    for case in file.cases() {
        let (case, config) = (&case[..], file.config(&case));
        let input = |name: &str| file.get(case, &format!("input.{name}"));
        let buffer = |name: &str| file.expect(case, &format!("buffer.{name}"));
        let eps = config["eps"].as_f64();
        let shape = || -> Vec<usize> {
            let list = config["normalized_shape"].as_array().expect("a shape");
            list.iter().map(|n| n.as_u64().unwrap() as usize).collect()
        };
        let x = || input("input").expect("an input");
        let (weight, bias) = (input("weight"), input("bias"));
        let (weight, bias) = (weight.as_ref(), bias.as_ref());
        let y = if case.starts_with("log_softmax") {
            x().log_softmax(config["dim"].as_i64().unwrap() as isize)
        } else if case.starts_with("softmax") {
            x().softmax(config["dim"].as_i64().unwrap() as isize)
        } else if case.starts_with("layer_norm") {
            x().layer_norm(&shape(), weight, bias, eps.unwrap_or(1e-5))
        } else if case.starts_with("rms_norm") {
            x().rms_norm(&shape(), weight, eps.unwrap())
        } else if case.starts_with("group_norm") {
            let groups = config["num_groups"].as_u64().unwrap() as usize;
            x().group_norm(groups, weight, bias, eps.unwrap_or(1e-5))
        } else if case.starts_with("batch_norm") && config["training"].as_bool().unwrap() {
            let (y, mean, variance) = x().batch_norm(weight, bias, eps.unwrap_or(1e-5));
            let momentum = config["momentum"].as_f64().unwrap_or(0.1);
            let n = (x().numel() / mean.numel()) as f64;
            let after = |name, batch: Tensor| {
                let want = file.expect(case, &format!("buffer_after.{name}"));
                close(&(buffer(name) * (1.0 - momentum) + batch * momentum), &want, DType::F64, 16.0);
            };
            after("running_mean", mean);
            after("running_var", variance * (n / (n - 1.0)));
            y
        } else if case.starts_with("batch_norm") {
            x().batch_norm_eval(&buffer("running_mean"), &buffer("running_var"), weight, bias, eps.unwrap_or(1e-5))
        } else if case == "linear" {
            x().linear(weight.unwrap(), bias)
        } else {
            continue;
        };
        seen += 1;
        close(&y, &file.expect(case, "output.out"), DType::F64, 64.0);
    }
    assert_eq!(seen, 21);
}

#[test]
fn dtypes_are_promoted() {
    let (x, w) = (strided(&[2, 3], DType::BF16, 1, 0), strided(&[3], DType::F32, 2, 0));
    assert_eq!(x.layer_norm(&[3], Some(&w), None, EPS).dtype(), DType::F32);
    assert_eq!(x.layer_norm_with_stats(&[3], None, None, EPS).1.dtype(), DType::F32);
    assert_eq!(x.layer_norm(&[3], None, None, EPS).dtype(), DType::BF16);
    assert_eq!(x.batch_norm(Some(&w), None, EPS).0.dtype(), DType::F32);
    assert_eq!(x.to_dtype(DType::F64).linear(&w.unsqueeze(0), None).dtype(), DType::F64);
}

#[test]
fn errors_say_what_is_wrong() {
    let message = |f: &dyn Fn() -> Tensor| catch(f).unwrap_err().to_string();
    let (x, v) = (Tensor::zeros([2, 3]), Tensor::zeros([3]));
    let cases: [(&dyn Fn() -> Tensor, &str); 15] = [
        (&|| x.add_rms_norm(&v, &[3], None, 1e-5).0, "add_rms_norm: x [2, 3] and the residual [3] differ"),
        (
            &|| x.add_layer_norm(&x, &[2], None, None, 1e-5).1,
            "add_layer_norm: the last dimensions of [2, 3] are not normalized_shape [2]",
        ),
        (&|| x.softmax(2), "softmax: dimension 2 is out of range for a tensor of 2 dimensions"),
        (&|| Tensor::new([1i64]).softmax(0), "softmax: needs a float tensor, got i64 (cast with to_dtype)"),
        (
            &|| x.layer_norm(&[4], None, None, 1e-5),
            "layer_norm: the last dimensions of [2, 3] are not normalized_shape [4]",
        ),
        (
            &|| x.layer_norm(&[3], None, Some(&Tensor::zeros([2])), 1e-5),
            "layer_norm: bias has shape [2], normalized_shape is [3]",
        ),
        (
            &|| x.rms_norm(&[], None, 1e-5),
            "rms_norm: normalized_shape is empty: it names the last dimensions, at least one",
        ),
        (&|| x.rms_norm(&[3], Some(&v), -1.0), "rms_norm: eps -1 must be finite and not negative"),
        (&|| x.group_norm(2, None, None, 1e-5), "group_norm: 3 channels do not divide into 2 groups: [2, 3]"),
        (&|| v.group_norm(1, None, None, 1e-5), "group_norm: needs at least 2 dimensions [B, C, …], got [3]"),
        (
            &|| x.batch_norm(Some(&Tensor::zeros([2])), None, 1e-5).0,
            "batch_norm: weight has shape [2], the input [2, 3] has 3 channels (dimension 1)",
        ),
        (
            &|| Tensor::zeros([1, 3]).batch_norm(None, None, 1e-5).0,
            "batch_norm: training needs more than 1 value per channel, [1, 3] has 1",
        ),
        (
            &|| x.batch_norm_eval(&v, &Tensor::zeros([1]), None, None, 1e-5),
            "batch_norm_eval: variance has shape [1], the input [2, 3] has 3 channels (dimension 1)",
        ),
        (
            &|| x.linear(&Tensor::zeros([5, 4]), None),
            "linear: the last dimension of the input [2, 3] is not weight's number of inputs: [5, 4] is [outputs, inputs = 4]",
        ),
        (&|| x.linear(&Tensor::zeros([5, 3]), Some(&v)), "linear: bias has shape [3], weight [5, 3] has 5 outputs"),
    ];
    for (f, want) in cases {
        assert_eq!(message(f), want);
    }
}
