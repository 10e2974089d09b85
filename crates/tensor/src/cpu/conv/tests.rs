use super::*;
use crate::cpu::test_util::{assert_close, assert_same_for_any_thread_count, inner, numeric_gradient, values};
use proptest::prelude::*;

/// Calls `f(x index, w index, y index)` for every product of the convolution: the textbook's loops.
fn for_each_product(g: &Conv2dGeometry, (ho, wo): (usize, usize), mut f: impl FnMut(usize, usize, usize)) {
    let (cg, og) = (g.c / g.groups, g.o / g.groups);
    for n in 0..g.n {
        for o in 0..g.o {
            for (i, j) in (0..ho).flat_map(|i| (0..wo).map(move |j| (i, j))) {
                for c in 0..cg {
                    for (a, b) in (0..g.kh).flat_map(|a| (0..g.kw).map(move |b| (a, b))) {
                        let u = (i * g.stride.0 + a * g.dilation.0) as isize - g.padding.0 as isize;
                        let v = (j * g.stride.1 + b * g.dilation.1) as isize - g.padding.1 as isize;
                        if (0..g.h as isize).contains(&u) && (0..g.w as isize).contains(&v) {
                            let channel = o / og * cg + c;
                            let x = ((n * g.c + channel) * g.h + u as usize) * g.w + v as usize;
                            let w = ((o * cg + c) * g.kh + a) * g.kw + b;
                            f(x, w, ((n * g.o + o) * ho + i) * wo + j);
                        }
                    }
                }
            }
        }
    }
}

fn check(g: &Conv2dGeometry) {
    let x = values(g.input_len(), 1);
    let w = values(g.weight_len(), 2);
    let dy = values(g.output_len(), 3);
    let mut expected = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
    for_each_product(g, g.out_size(), |i, j, k| {
        expected.0[k] += x[i] * w[j];
        expected.1[i] += dy[k] * w[j];
        expected.2[j] += dy[k] * x[i];
    });
    // NaN: every element must be overwritten.
    let mut y = vec![f64::NAN; dy.len()];
    let mut dx = vec![f64::NAN; x.len()];
    let mut dw = vec![f64::NAN; w.len()];
    conv2d(g, &x, &w, &mut y);
    conv2d_input_grad(g, &dy, &w, &mut dx);
    conv2d_weight_grad(g, &x, &dy, &mut dw);
    assert_close(&y, &expected.0, 1e-12);
    assert_close(&dx, &expected.1, 1e-12);
    assert_close(&dw, &expected.2, 1e-12);
    let scale = 1.0 + inner(&y, &y).sqrt() * inner(&dy, &dy).sqrt();
    assert!((inner(&y, &dy) - inner(&x, &dx)).abs() < 1e-12 * scale);
    assert!((inner(&y, &dy) - inner(&w, &dw)).abs() < 1e-12 * scale);
}

fn plain(n: usize, c: usize, h: usize, w: usize, o: usize, kh: usize, kw: usize) -> Conv2dGeometry {
    Conv2dGeometry { n, c, h, w, o, kh, kw, stride: (1, 1), padding: (0, 0), dilation: (1, 1), groups: 1 }
}

prop_compose! {
    fn geometry()(
        n in 0usize..4, groups in 1usize..4, cg in 1usize..4, og in 1usize..6, kh in 1usize..4, kw in 1usize..4,
        stride in (1usize..4, 1usize..4), padding in (0usize..3, 0usize..3), dilation in (1usize..3, 1usize..3),
        h in 1usize..9, w in 1usize..9,
    ) -> Conv2dGeometry {
        Conv2dGeometry { n, c: cg * groups, h, w, o: og * groups, kh, kw, stride, padding, dilation, groups }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn matches_the_textbook(g in geometry()) {
        check(&g);
    }

    /// A transposed convolution's plan: the last windows of its geometry may be unused.
    #[test]
    fn fewer_windows_than_fit(g in geometry(), less in (0usize..3, 0usize..3)) {
        let most = g.out_size();
        let out = (most.0.saturating_sub(less.0), most.1.saturating_sub(less.1));
        let pixels = out.0 * out.1;
        let (x, w) = (values(g.input_len(), 1), values(g.weight_len(), 2));
        let dy = values(g.n * g.o * pixels, 3);
        let mut expected = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
        for_each_product(&g, out, |i, j, k| {
            expected.0[k] += x[i] * w[j];
            expected.1[i] += dy[k] * w[j];
            expected.2[j] += dy[k] * x[i];
        });
        let plan = Plan::new(&g, out, x.len(), w.len(), dy.len());
        let (mut y, mut dx, mut dw) = (vec![f64::NAN; dy.len()], vec![f64::NAN; x.len()], vec![f64::NAN; w.len()]);
        forward::forward(&plan, &x, &w, None, &mut y);
        input_grad::input_grad(&plan, &dy, &w, &mut dx);
        weight_grad::weight_grad(&plan, &x, &dy, &mut dw);
        assert_close(&y, &expected.0, 1e-12);
        assert_close(&dx, &expected.1, 1e-12);
        assert_close(&dw, &expected.2, 1e-12);
    }
}

#[test]
fn larger_than_a_tile() {
    // Several tiles per image, whose edges fall inside rows; then with stride and padding; then grouped.
    check(&plain(1, 3, 75, 71, 5, 3, 3));
    check(&Conv2dGeometry { stride: (2, 1), padding: (1, 2), ..plain(2, 40, 20, 23, 6, 3, 5) });
    check(&Conv2dGeometry { groups: 2, padding: (1, 1), dilation: (2, 2), ..plain(2, 8, 30, 30, 6, 3, 3) });
}

#[test]
fn blocks_of_images() {
    check(&Conv2dGeometry { padding: (1, 1), ..plain(37, 4, 5, 5, 7, 3, 3) });
    check(&Conv2dGeometry { padding: (1, 1), groups: 2, ..plain(70, 4, 2, 3, 10, 3, 3) });
    check(&plain(300, 3, 1, 1, 4, 1, 1));
    // An input so much larger than the output that its gradient is gathered; several tiles; steps; groups.
    check(&plain(19, 4, 5, 5, 7, 3, 3));
    check(&plain(10, 110, 9, 9, 3, 3, 4));
    check(&Conv2dGeometry { stride: (2, 2), padding: (1, 1), ..plain(11, 5, 7, 8, 4, 3, 3) });
    check(&Conv2dGeometry { stride: (1, 3), groups: 2, dilation: (2, 1), ..plain(20, 6, 8, 7, 10, 3, 2) });
}

#[test]
fn pointwise_and_depthwise() {
    check(&plain(3, 5, 8, 8, 6, 1, 1));
    check(&Conv2dGeometry { groups: 2, ..plain(3, 4, 20, 9, 6, 1, 1) });
    check(&Conv2dGeometry { stride: (2, 2), ..plain(2, 5, 9, 8, 6, 1, 1) });
    check(&Conv2dGeometry { groups: 6, padding: (1, 1), ..plain(3, 6, 12, 20, 6, 3, 3) });
    check(&Conv2dGeometry { groups: 3, padding: (2, 2), stride: (2, 2), ..plain(2, 3, 9, 30, 6, 5, 5) });
}

#[test]
fn edges() {
    check(&plain(0, 3, 5, 5, 4, 3, 3));
    check(&plain(2, 0, 5, 5, 4, 3, 3));
    check(&plain(2, 3, 5, 5, 0, 3, 3));
    check(&plain(1, 1, 1, 1, 1, 1, 1));
    check(&plain(2, 3, 2, 2, 4, 3, 3)); // the kernel does not fit: an empty output, zero gradients
    check(&Conv2dGeometry { stride: (5, 4), ..plain(2, 2, 7, 9, 3, 2, 3) });
    check(&Conv2dGeometry { padding: (4, 4), ..plain(1, 2, 1, 1, 3, 2, 2) }); // windows that see only padding
    assert_eq!(plain(1, 1, 2, 5, 1, 3, 3).out_size(), (0, 3));
}

#[test]
fn central_differences() {
    let g =
        Conv2dGeometry { stride: (2, 1), padding: (1, 0), dilation: (1, 2), groups: 2, ..plain(2, 4, 5, 6, 6, 3, 2) };
    let (x, w, dy) = (values(g.input_len(), 1), values(g.weight_len(), 2), values(g.output_len(), 3));
    let forward = |x: &[f64], w: &[f64]| {
        let mut y = vec![0.0; g.output_len()];
        conv2d(&g, x, w, &mut y);
        y
    };
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    conv2d_input_grad(&g, &dy, &w, &mut dx);
    conv2d_weight_grad(&g, &x, &dy, &mut dw);
    assert_close(&dx, &numeric_gradient(&x, &dy, |x| forward(x, &w)), 1e-8);
    assert_close(&dw, &numeric_gradient(&w, &dy, |w| forward(&x, w)), 1e-8);
}

#[test]
fn same_bits_for_any_thread_count() {
    let single = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    for g in [
        Conv2dGeometry { padding: (1, 1), ..plain(40, 3, 9, 9, 8, 3, 3) },
        Conv2dGeometry { padding: (1, 1), ..plain(2, 16, 40, 40, 8, 3, 3) },
        plain(40, 8, 5, 5, 8, 3, 3),
        Conv2dGeometry { groups: 4, ..plain(5, 4, 20, 20, 4, 3, 3) },
    ] {
        let (x, w, dy) =
            (single(values(g.input_len(), 1)), single(values(g.weight_len(), 2)), single(values(g.output_len(), 3)));
        assert_same_for_any_thread_count(|| {
            let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
            conv2d(&g, &x, &w, &mut y);
            conv2d_input_grad(&g, &dy, &w, &mut dx);
            conv2d_weight_grad(&g, &x, &dy, &mut dw);
            (y, dx, dw)
        });
    }
}
