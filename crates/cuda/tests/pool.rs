//! Pooling and interpolation on the card against the CPU: windows and bins of any kind, all dtypes, any strides.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{card, close, there};
use ferrograd_tensor::backend::{Backend, PlaneMap};
use ferrograd_tensor::cpu::CpuBackend;
use ferrograd_tensor::ops::interpolate::{InterpolateGeometry, Interpolation};
use ferrograd_tensor::ops::pool::{AdaptivePool2dGeometry, Pool2dGeometry};
use ferrograd_tensor::{DType, Tensor};
use layouts::Random;

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// Windows as the operations allow them, of a plane `h × w`.
fn windows(random: &mut Random, planes: usize, [h, w]: [usize; 2], dilated: bool) -> Pool2dGeometry {
    loop {
        let mut pair = |below: usize| (1 + random.below(below), 1 + random.below(below));
        let (kernel, stride) = (pair(5), pair(4));
        let dilation = if dilated { pair(3) } else { (1, 1) };
        let span = |k: usize, d: usize| d * (k - 1) + 1;
        let mut half = |span: usize| random.below(span / 2 + 1);
        let padding = (half(span(kernel.0, dilation.0)), half(span(kernel.1, dilation.1)));
        let ceil_mode = random.below(2) == 1;
        let geometry = Pool2dGeometry { planes, h, w, kernel, stride, padding, dilation, ceil_mode };
        let (ho, wo) = geometry.out_size();
        if ho > 0 && wo > 0 {
            return geometry;
        }
    }
}

/// Planes: of one element, smaller than windows, and larger.
const PLANES: [[usize; 2]; 6] = [[1, 1], [1, 7], [3, 2], [5, 8], [13, 11], [20, 33]];
/// Numbers and channels of images.
const IMAGES: [[usize; 2]; 4] = [[1, 1], [2, 3], [0, 3], [3, 5]];

#[track_caller]
fn check_map(random: &mut Random, map: &PlaneMap, [n, c]: [usize; 2], dtype: DType) {
    let ((h, w), (ho, wo)) = (map.in_size(), map.out_size());
    let x = random.strided(&[n, c, h, w], dtype);
    let what = format!("{map:?} of {dtype}{} of strides {:?}", x.shape(), x.layout().strides);
    // No more terms than a plane has elements, each of at most 1½.
    let terms = 2.0 * (h * w).max(ho * wo) as f64;
    close(&what, &card().plane_map(map, &there(&x)), &CpuBackend.plane_map(map, &x), terms);
    let dy = random.strided(&[n, c, ho, wo], dtype);
    let want = CpuBackend.plane_map_adjoint(map, &dy);
    close(&what, &card().plane_map_adjoint(map, &there(&dy)), &want, terms);
}

#[test]
fn means_over_windows() {
    let mut random = Random(1);
    for dtype in FLOATS {
        for (plane, [n, c]) in PLANES.into_iter().flat_map(|p| IMAGES.map(|i| (p, i))) {
            for count_include_pad in [false, true] {
                let windows = windows(&mut random, n * c, plane, false);
                check_map(&mut random, &PlaneMap::AvgPool { windows, count_include_pad }, [n, c], dtype);
            }
        }
    }
}

#[test]
fn means_over_bins() {
    let mut random = Random(2);
    for dtype in FLOATS {
        for ([h, w], [n, c]) in PLANES.into_iter().flat_map(|p| IMAGES.map(|i| (p, i))) {
            for (ho, wo) in [(1, 1), (random.below(2 * h), random.below(2 * w)), (h, w), (3, 7)] {
                let bins = AdaptivePool2dGeometry { planes: n * c, h, w, ho, wo };
                check_map(&mut random, &PlaneMap::AdaptiveAvgPool(bins), [n, c], dtype);
            }
        }
    }
}

#[test]
fn interpolation() {
    let mut random = Random(3);
    let bilinear = |align_corners| Interpolation::Bilinear { align_corners };
    for dtype in FLOATS {
        for ([h, w], [n, c]) in PLANES.into_iter().flat_map(|p| IMAGES.map(|i| (p, i))) {
            for (ho, wo) in [(1, 1), (1 + random.below(3 * h), 1 + random.below(3 * w)), (h, w), (2 * h, 3 * w)] {
                for mode in [Interpolation::Nearest, bilinear(false), bilinear(true)] {
                    let sizes = InterpolateGeometry { planes: n * c, h, w, ho, wo };
                    check_map(&mut random, &PlaneMap::Interpolate { sizes, mode }, [n, c], dtype);
                }
            }
        }
    }
}

/// Values and places are the CPU's, and what is scattered to the places and gathered from them.
#[track_caller]
fn check_maximum(random: &mut Random, what: &str, x: &Tensor, f: impl Fn(&dyn Backend, &Tensor) -> (Tensor, Tensor)) {
    let what = format!("{what} of {}{} of strides {:?}", x.dtype(), x.shape(), x.layout().strides);
    let (want, want_index) = f(&CpuBackend, x);
    let (y, index) = f(card(), &there(x));
    close(&what, &y, &want, 0.0);
    close(&what, &index, &want_index, 0.0);
    let dy = random.strided(want.dims(), x.dtype());
    let [h, w] = [x.dims()[2], x.dims()[3]];
    // Sums of eighths have no roundings but the last.
    let scattered = CpuBackend.plane_scatter(&dy, &want_index, h, w);
    close(&what, &card().plane_scatter(&there(&dy), &index, h, w), &scattered, 0.0);
    let dx = random.strided(x.dims(), x.dtype());
    close(&what, &card().plane_gather(&there(&dx), &index), &CpuBackend.plane_gather(&dx, &want_index), 0.0);
}

#[test]
fn maxima_over_windows() {
    let mut random = Random(4);
    for dtype in FLOATS {
        for (plane, [n, c]) in PLANES.into_iter().flat_map(|p| IMAGES.map(|i| (p, i))) {
            for _ in 0..2 {
                let g = windows(&mut random, n * c, plane, true);
                let x = random.strided(&[n, c, g.h, g.w], dtype);
                check_maximum(&mut random, &format!("{g:?}"), &x, |b, x| b.max_pool2d(&g, x));
            }
        }
        let g = Pool2dGeometry { kernel: (9, 7), padding: (4, 2), ..windows(&mut random, 6, [20, 33], false) };
        let x = random.strided(&[2, 3, 20, 33], dtype);
        check_maximum(&mut random, "large windows", &x, |b, x| b.max_pool2d(&g, x));
    }
}

#[test]
fn maxima_over_bins() {
    let mut random = Random(5);
    for dtype in FLOATS {
        for ([h, w], [n, c]) in PLANES.into_iter().flat_map(|p| IMAGES.map(|i| (p, i))) {
            for (ho, wo) in [(1, 1), (random.below(2 * h), random.below(2 * w)), (h, w)] {
                let g = AdaptivePool2dGeometry { planes: n * c, h, w, ho, wo };
                let x = random.strided(&[n, c, h, w], dtype);
                check_maximum(&mut random, &format!("{g:?}"), &x, |b, x| b.adaptive_max_pool2d(&g, x));
            }
        }
    }
}

#[test]
fn nan_wins_and_the_last_of_several() {
    let g = |ho, wo| AdaptivePool2dGeometry { planes: 2, h: 9, w: 9, ho, wo };
    for dtype in FLOATS {
        for (a, b) in [(f64::NAN, f64::NAN), (f64::NAN, f64::INFINITY), (f64::NEG_INFINITY, f64::NEG_INFINITY)] {
            let mut x = vec![f64::NEG_INFINITY; 162];
            (x[17], x[40], x[100]) = (a, b, 3.0);
            let x = Tensor::from_vec(x, [1, 2, 9, 9]).to_dtype(dtype);
            for (ho, wo) in [(1, 1), (2, 2)] {
                let (want, want_index) = CpuBackend.adaptive_max_pool2d(&g(ho, wo), &x);
                let (y, index) = card().adaptive_max_pool2d(&g(ho, wo), &there(&x));
                close("values", &y, &want, 0.0);
                close("places", &index, &want_index, 0.0);
            }
            let map = PlaneMap::AdaptiveAvgPool(g(2, 2));
            close("means", &card().plane_map(&map, &there(&x)), &CpuBackend.plane_map(&map, &x), 162.0);
        }
    }
}

#[test]
fn places_in_any_order() {
    let mut random = Random(6);
    for dtype in FLOATS {
        // Pieces of a plane, and many of one place in a warp.
        for (h, w, ho, wo) in [(70, 65, 20, 31), (3, 2, 40, 5), (1, 1, 9, 9), (4, 4, 0, 3), (0, 4, 2, 2), (2, 2, 1, 1)]
        {
            let places: Vec<i64> = (0..6 * ho * wo).map(|_| random.below(h * w + 1) as i64 - 1).collect();
            let index = Tensor::from_vec(places, [3, 2, ho, wo]);
            let index = index.transpose(2, 3).contiguous().transpose(2, 3);
            let dy = random.strided(&[3, 2, ho, wo], dtype);
            let want = CpuBackend.plane_scatter(&dy, &index, h, w);
            close("scattered", &card().plane_scatter(&there(&dy), &there(&index), h, w), &want, 0.0);
            let x = random.strided(&[3, 2, h, w], dtype);
            let want = CpuBackend.plane_gather(&x, &index);
            close("gathered", &card().plane_gather(&there(&x), &there(&index)), &want, 0.0);
        }
    }
}
