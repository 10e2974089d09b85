//! Resizing images: nearest neighbour and bilinear, of planes `[H, W] → [Ho, Wo]` (`[N, C, H, W]` is `N·C` planes).

use super::pool::PoolElement;
use crate::cpu::parallel::*;

/// How [`interpolate`] finds the values between pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Output `i` takes input `⌊i · H / Ho⌋` (in exact integer arithmetic).
    Nearest,
    /// Output `i` lies at `src` between two inputs and mixes them: `(1 − t)·x[⌊src⌋] + t·x[⌊src⌋ + 1]`, `t = src − ⌊src⌋`,
    /// on both axes. With `align_corners` the corner pixels' centres stay in place, `src = i·(H − 1)/(Ho − 1)`; without,
    /// the corners of the images do, `src = max(0, (i + ½)·H/Ho − ½)`. At the last pixel there is nothing to mix with.
    Bilinear {
        /// Which of the two conventions.
        align_corners: bool,
    },
}

/// The sizes of an interpolation of `x [planes, h, w]` to `y [planes, ho, wo]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterpolateGeometry {
    /// Number of planes, `N·C`.
    pub planes: usize,
    /// Height of an input plane.
    pub h: usize,
    /// Width of an input plane.
    pub w: usize,
    /// Height of an output plane.
    pub ho: usize,
    /// Width of an output plane.
    pub wo: usize,
}

impl InterpolateGeometry {
    fn check(&self, x: usize, y: usize) {
        assert_eq!(x, self.planes * self.h * self.w, "input length");
        assert_eq!(y, self.planes * self.ho * self.wo, "output length");
        assert!(y == 0 || x > 0, "interpolation of an empty plane");
    }
}

/// One output position on one axis: `(1 − t)·x[low] + t·x[high]`.
#[derive(Clone, Copy)]
struct Mix<T> {
    low: usize,
    high: usize,
    t: T,
}

fn mixes<T: PoolElement>(mode: Interpolation, n: usize, out: usize) -> Vec<Mix<T>> {
    let mix = |i: usize| {
        let src = match mode {
            Interpolation::Nearest => {
                let low = i * n / out;
                return Mix { low, high: low, t: T::zero() };
            }
            Interpolation::Bilinear { align_corners: true } if out == 1 => 0.0,
            Interpolation::Bilinear { align_corners: true } => (i * (n - 1)) as f64 / (out - 1) as f64,
            Interpolation::Bilinear { align_corners: false } => {
                ((i as f64 + 0.5) * (n as f64 / out as f64) - 0.5).max(0.0)
            }
        };
        let low = (src as usize).min(n - 1);
        let high = (low + 1).min(n - 1);
        Mix { low, high, t: T::from((src - low as f64).clamp(0.0, 1.0)).unwrap() }
    };
    (0..out).map(mix).collect()
}

/// Resizes each plane of `x` into `y`, which is overwritten. Rows are shared among the pool's threads.
///
/// # Panics
/// If a slice has not the length the geometry gives it, or planes with outputs are empty.
pub fn interpolate<T: PoolElement>(geo: &InterpolateGeometry, mode: Interpolation, x: &[T], y: &mut [T]) {
    geo.check(x.len(), y.len());
    if y.is_empty() {
        return;
    }
    let (rows, cols) = (mixes::<T>(mode, geo.h, geo.ho), mixes::<T>(mode, geo.w, geo.wo));
    let min_rows = (1usize << 12).div_ceil(geo.wo);
    y.par_chunks_mut(geo.wo).enumerate().with_min_len(min_rows).for_each(|(i, y)| {
        let (plane, r) = (&x[i / geo.ho * geo.h * geo.w..], rows[i % geo.ho]);
        let low = &plane[r.low * geo.w..][..geo.w];
        if mode == Interpolation::Nearest {
            y.iter_mut().zip(&cols).for_each(|(y, c)| *y = low[c.low]);
            return;
        }
        let high = &plane[r.high * geo.w..][..geo.w];
        let (s, t) = (T::one() - r.t, r.t);
        for (y, c) in y.iter_mut().zip(&cols) {
            let u = T::one() - c.t;
            *y = s * (u * low[c.low] + c.t * low[c.high]) + t * (u * high[c.low] + c.t * high[c.high]);
        }
    });
}

/// Backward of [`interpolate`], its adjoint: **adds** each `dy [planes, Ho, Wo]`, with the weights it was mixed with, to
/// `dx [planes, H, W]`.
///
/// # Panics
/// As [`interpolate`].
pub fn interpolate_backward<T: PoolElement>(geo: &InterpolateGeometry, mode: Interpolation, dy: &[T], dx: &mut [T]) {
    geo.check(dx.len(), dy.len());
    if dx.is_empty() || dy.is_empty() {
        return;
    }
    let (rows, cols) = (mixes::<T>(mode, geo.h, geo.ho), mixes::<T>(mode, geo.w, geo.wo));
    dx.par_chunks_mut(geo.h * geo.w).zip(dy.par_chunks(geo.ho * geo.wo)).for_each(|(dx, dy)| {
        for (r, dy) in rows.iter().zip(dy.chunks(geo.wo)) {
            if mode == Interpolation::Nearest {
                let row = &mut dx[r.low * geo.w..][..geo.w];
                cols.iter().zip(dy).for_each(|(c, &d)| row[c.low] = row[c.low] + d);
                continue;
            }
            for (row, share) in [(r.low, T::one() - r.t), (r.high, r.t)] {
                let row = &mut dx[row * geo.w..][..geo.w];
                for (c, &d) in cols.iter().zip(dy) {
                    row[c.low] = row[c.low] + share * (T::one() - c.t) * d;
                    row[c.high] = row[c.high] + share * c.t * d;
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::test_util::{assert_close, inner, numeric_gradient, values};
    use proptest::prelude::*;

    const MODES: [Interpolation; 3] = [
        Interpolation::Nearest,
        Interpolation::Bilinear { align_corners: false },
        Interpolation::Bilinear { align_corners: true },
    ];

    fn run(geo: &InterpolateGeometry, mode: Interpolation, x: &[f64]) -> Vec<f64> {
        let mut y = vec![f64::NAN; geo.planes * geo.ho * geo.wo];
        interpolate(geo, mode, x, &mut y);
        y
    }

    /// The hat function: the weight of input `u` at position `src`, with the position held inside the image.
    fn naive(geo: &InterpolateGeometry, mode: Interpolation, x: &[f64]) -> Vec<f64> {
        let weight = |u: usize, i: usize, n: usize, out: usize| {
            let (u, i, n, out) = (u as f64, i as f64, n as f64, out as f64);
            match mode {
                Interpolation::Nearest => f64::from(u == (i * n / out).floor()),
                Interpolation::Bilinear { align_corners } => {
                    let src = match align_corners {
                        true => i * (n - 1.0) / (out - 1.0).max(1.0),
                        false => (i + 0.5) * n / out - 0.5,
                    };
                    (1.0 - (src.clamp(0.0, n - 1.0) - u).abs()).max(0.0)
                }
            }
        };
        let mut y = Vec::new();
        for plane in 0..geo.planes {
            for (i, j) in (0..geo.ho).flat_map(|i| (0..geo.wo).map(move |j| (i, j))) {
                let pixels = (0..geo.h).flat_map(|u| (0..geo.w).map(move |v| (u, v)));
                y.push(
                    pixels
                        .map(|(u, v)| {
                            weight(u, i, geo.h, geo.ho)
                                * weight(v, j, geo.w, geo.wo)
                                * x[(plane * geo.h + u) * geo.w + v]
                        })
                        .sum(),
                );
            }
        }
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn matches_the_hat_function_and_its_adjoint(
            planes in 0usize..3, h in 1usize..8, w in 1usize..8, ho in 0usize..12, wo in 1usize..12,
        ) {
            let geo = InterpolateGeometry { planes, h, w, ho, wo };
            let (x, dy) = (values(planes * h * w, 1), values(planes * ho * wo, 2));
            for mode in MODES {
                let y = run(&geo, mode, &x);
                assert_close(&y, &naive(&geo, mode, &x), 1e-12);
                let mut dx = vec![0.5; x.len()];
                interpolate_backward(&geo, mode, &dy, &mut dx);
                dx.iter_mut().for_each(|d| *d -= 0.5);
                prop_assert!((inner(&y, &dy) - inner(&x, &dx)).abs() < 1e-11);
            }
        }
    }

    #[test]
    fn known_values() {
        let geo = InterpolateGeometry { planes: 1, h: 1, w: 2, ho: 1, wo: 4 };
        assert_eq!(run(&geo, MODES[0], &[0.0, 1.0]), [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(run(&geo, MODES[1], &[0.0, 1.0]), [0.0, 0.25, 0.75, 1.0]);
        assert_close(&run(&geo, MODES[2], &[0.0, 1.0]), &[0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0], 1e-15);
    }

    #[test]
    fn central_differences() {
        let geo = InterpolateGeometry { planes: 2, h: 3, w: 4, ho: 5, wo: 3 };
        let (x, dy) = (values(24, 1), values(30, 2));
        for mode in MODES {
            let mut dx = vec![0.0; 24];
            interpolate_backward(&geo, mode, &dy, &mut dx);
            assert_close(&dx, &numeric_gradient(&x, &dy, |x| run(&geo, mode, x)), 1e-8);
        }
    }
}
