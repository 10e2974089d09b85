use super::*;
use crate::cpu::test_util::{assert_close, inner, numeric_gradient, values};
use proptest::prelude::*;

fn plain(planes: usize, h: usize, w: usize, k: usize, s: usize) -> Pool2dGeometry {
    let (kernel, stride) = ((k, k), (s, s));
    Pool2dGeometry { planes, h, w, kernel, stride, padding: (0, 0), dilation: (1, 1), ceil_mode: false }
}

/// For each output, the windows' taps as `(row, column)`, also those outside the image.
fn windows(g: &Pool2dGeometry) -> Vec<Vec<(isize, isize)>> {
    let (ho, wo) = g.out_size();
    let axis = |i: usize, a: usize, s: usize, d: usize, p: usize| (i * s + a * d) as isize - p as isize;
    let window = |(i, j): (usize, usize)| {
        let taps = (0..g.kernel.0).flat_map(|a| (0..g.kernel.1).map(move |b| (a, b)));
        taps.map(|(a, b)| {
            (axis(i, a, g.stride.0, g.dilation.0, g.padding.0), axis(j, b, g.stride.1, g.dilation.1, g.padding.1))
        })
        .collect()
    };
    (0..ho).flat_map(|i| (0..wo).map(move |j| (i, j))).map(window).collect()
}

fn inside(g: &Pool2dGeometry, (u, v): (isize, isize)) -> Option<usize> {
    let is = (0..g.h as isize).contains(&u) && (0..g.w as isize).contains(&v);
    is.then(|| u as usize * g.w + v as usize)
}

fn max(g: &Pool2dGeometry, x: &[f64]) -> (Vec<f64>, Vec<i64>) {
    let mut out = (vec![f64::NAN; g.output_len()], vec![-9; g.output_len()]);
    max_pool2d(g, x, &mut out.0, &mut out.1);
    out
}

fn avg(g: &Pool2dGeometry, pad: bool, x: &[f64]) -> Vec<f64> {
    let mut y = vec![f64::NAN; g.output_len()];
    avg_pool2d(g, pad, x, &mut y);
    y
}

prop_compose! {
    fn geometry()(
        planes in 0usize..4, h in 1usize..10, w in 1usize..20, kernel in (1usize..5, 1usize..5),
        stride in (1usize..5, 1usize..5), pad in (0usize..3, 0usize..3), dilation in (1usize..3, 1usize..3),
        ceil_mode: bool,
    ) -> Pool2dGeometry {
        let padding = (pad.0.min(kernel.0 / 2), pad.1.min(kernel.1 / 2));
        Pool2dGeometry { planes, h, w, kernel, stride, padding, dilation, ceil_mode }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn max_matches_the_textbook(g in geometry()) {
        // Few distinct values, so that ties occur.
        let x: Vec<f64> = values(g.input_len(), 1).iter().map(|v| (v * 3.0).round()).collect();
        let (y, indices) = max(&g, &x);
        let (windows, area) = (windows(&g), g.h * g.w);
        for (o, (&y, &index)) in y.iter().zip(&indices).enumerate() {
            let plane = &x[o / windows.len() * area..][..area];
            let mut best = (-1, f64::NEG_INFINITY);
            for i in windows[o % windows.len()].iter().filter_map(|&t| inside(&g, t)) {
                if plane[i] > best.1 {
                    best = (i as i64, plane[i]);
                }
            }
            prop_assert_eq!((index, y), best);
        }
        let dy = values(y.len(), 2);
        let mut dx = vec![f64::NAN; x.len()];
        let (ho, wo) = g.out_size();
        scatter_to_planes(&indices, &dy, ho * wo, &mut dx, area);
        let finite: Vec<f64> = y.iter().map(|&v| if v.is_finite() { v } else { 0.0 }).collect();
        prop_assert!((inner(&finite, &dy) - inner(&x, &dx)).abs() < 1e-12 * (1.0 + x.len() as f64) * 20.0);
    }

    #[test]
    fn avg_matches_the_textbook(g in geometry(), pad: bool) {
        let g = Pool2dGeometry { dilation: (1, 1), ..g };
        let (x, windows, area) = (values(g.input_len(), 1), windows(&g), g.h * g.w);
        let y = avg(&g, pad, &x);
        for (o, &y) in y.iter().enumerate() {
            let plane = &x[o / windows.len() * area..][..area];
            let (mut sum, mut count) = (0.0, 0);
            for &(u, v) in &windows[o % windows.len()] {
                if let Some(i) = inside(&g, (u, v)) {
                    sum += plane[i];
                    count += 1;
                } else if pad && u < (g.h + g.padding.0) as isize && v < (g.w + g.padding.1) as isize {
                    count += 1;
                }
            }
            prop_assert!((y - sum / (count as f64).max(1.0)).abs() < 1e-13);
        }
        let dy = values(y.len(), 2);
        let mut dx = vec![0.25; x.len()];
        avg_pool2d_backward(&g, pad, &dy, &mut dx);
        dx.iter_mut().for_each(|d| *d -= 0.25);
        prop_assert!((inner(&y, &dy) - inner(&x, &dx)).abs() < 1e-11);
    }

    #[test]
    fn adaptive_matches_the_textbook(
        planes in 0usize..3, h in 1usize..9, w in 1usize..9, ho in 0usize..9, wo in 1usize..9,
    ) {
        let g = AdaptivePool2dGeometry { planes, h, w, ho, wo };
        let x = values(planes * h * w, 1);
        let len = planes * ho * wo;
        let (mut mean, mut top, mut indices) = (vec![f64::NAN; len], vec![f64::NAN; len], vec![-9; len]);
        adaptive_avg_pool2d(&g, &x, &mut mean);
        adaptive_max_pool2d(&g, &x, &mut top, &mut indices);
        for o in 0..len {
            let (plane, i, j) = (o / (ho * wo), o / wo % ho, o % wo);
            let bin = |i: usize, n: usize, out: usize| {
                let (i, n, out) = (i as f64, n as f64, out as f64);
                ((i * n / out).floor() as usize, ((i + 1.0) * n / out).ceil() as usize)
            };
            let ((a, b), (c, d)) = (bin(i, h, ho), bin(j, w, wo));
            let items: Vec<usize> = (a..b).flat_map(|u| (c..d).map(move |v| u * w + v)).collect();
            let plane = &x[plane * h * w..][..h * w];
            let sum: f64 = items.iter().map(|&i| plane[i]).sum();
            prop_assert!((mean[o] - sum / items.len() as f64).abs() < 1e-13);
            let best = items.iter().copied().max_by(|&a, &b| plane[a].total_cmp(&plane[b])).unwrap();
            prop_assert_eq!((indices[o], top[o]), (best as i64, plane[best]));
        }
        let dy = values(len, 2);
        let (mut dmean, mut dtop) = (vec![0.0; x.len()], vec![f64::NAN; x.len()]);
        adaptive_avg_pool2d_backward(&g, &dy, &mut dmean);
        scatter_to_planes(&indices, &dy, ho * wo, &mut dtop, h * w);
        prop_assert!((inner(&mean, &dy) - inner(&x, &dmean)).abs() < 1e-11);
        prop_assert!((inner(&top, &dy) - inner(&x, &dtop)).abs() < 1e-11);
    }
}

#[test]
fn central_differences() {
    let g = Pool2dGeometry { padding: (1, 1), ..plain(2, 5, 6, 3, 2) };
    let (x, dy) = (values(g.input_len(), 1), values(g.output_len(), 2));
    let mut dx = vec![f64::NAN; x.len()];
    let (ho, wo) = g.out_size();
    scatter_to_planes(&max(&g, &x).1, &dy, ho * wo, &mut dx, g.h * g.w);
    assert_close(&dx, &numeric_gradient(&x, &dy, |x| max(&g, x).0), 1e-8);
    for pad in [false, true] {
        let mut dx = vec![0.0; x.len()];
        avg_pool2d_backward(&g, pad, &dy, &mut dx);
        assert_close(&dx, &numeric_gradient(&x, &dy, |x| avg(&g, pad, x)), 1e-8);
    }
}

#[test]
fn nan_and_infinity() {
    let nan = f64::NAN;
    let g = plain(1, 1, 6, 1, 1);
    let g = Pool2dGeometry { kernel: (1, 3), stride: (1, 3), ..g };
    let (y, indices) = max(&g, &[nan, 5.0, nan, f64::NEG_INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY]);
    assert!(y[0].is_nan() && y[1] == f64::NEG_INFINITY);
    assert_eq!(indices, [2, 3]); // the last NaN; the first of equals
    let g = AdaptivePool2dGeometry { planes: 1, h: 1, w: 3, ho: 1, wo: 1 };
    let (mut y, mut indices) = ([0.0], [0]);
    adaptive_max_pool2d(&g, &[1.0, nan, 3.0], &mut y, &mut indices);
    assert!(y[0].is_nan() && indices == [1]);
}

#[test]
fn ceil_mode_sizes() {
    // ⌈(h + 2p − k) / s⌉ + 1, less one if the last window would begin at h + p or beyond.
    let size = |h, k, s, p| Pool2dGeometry { padding: (p, p), ceil_mode: true, ..plain(1, h, h, k, s) }.out_size().0;
    assert_eq!(
        [size(6, 3, 2, 0), size(5, 2, 2, 0), size(4, 3, 2, 1), size(3, 2, 3, 1), size(2, 1, 3, 0)],
        [3, 3, 3, 2, 1]
    );
    assert_eq!([size(2, 3, 2, 0), size(2, 3, 1, 0)], [1, 0]); // a window larger than the image, cut off
    assert_eq!(plain(1, 2, 2, 3, 1).out_size(), (0, 0));
}
