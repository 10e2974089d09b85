//! One input channel per group: each output plane is a sum of shifted copies of one input plane.

use super::col2im::add_strided;
use super::{ConvElement, Plan};
use crate::cpu::parallel::*;

/// `y_o = b_o + Σ_taps w[o, tap] · shift_tap(x_c)`.
pub(super) fn forward<T: ConvElement>(p: &Plan, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let (g, area, pixels, taps, stride) = (&p.geo, p.area(), p.pixels(), p.k(), p.geo.stride.1);
    y.par_chunks_mut(pixels).enumerate().for_each(|(i, y)| {
        let (image, o) = (i / g.o, i % g.o);
        let x = &x[(image * g.c + o / p.og()) * area..][..area];
        y.fill(bias.map_or(T::zero(), |b| b[o]));
        for tap in 0..taps {
            let a = w[o * taps + tap];
            p.segments(tap / g.kw, tap % g.kw, 0, pixels, |s| {
                let (lo, hi) = s.inside;
                let (y, x) = (&mut y[s.at + lo..s.at + hi], &x[s.source..]);
                if stride == 1 {
                    y.iter_mut().zip(x).for_each(|(y, &x)| *y = *y + a * x);
                } else {
                    y.iter_mut().zip(x.iter().step_by(stride)).for_each(|(y, &x)| *y = *y + a * x);
                }
            });
        }
    });
}

/// `dx_c = Σ_{o, taps} w[o, tap] · shift_tapᵀ(dy_o)`.
pub(super) fn input_grad<T: ConvElement>(p: &Plan, dy: &[T], w: &[T], dx: &mut [T]) {
    let (g, area, pixels, taps) = (&p.geo, p.area(), p.pixels(), p.k());
    dx.par_chunks_mut(area).enumerate().for_each(|(i, dx)| {
        let (image, c) = (i / g.c, i % g.c);
        dx.fill(T::zero());
        for o in c * p.og()..(c + 1) * p.og() {
            let dy = &dy[(image * g.o + o) * pixels..][..pixels];
            for tap in 0..taps {
                let a = w[o * taps + tap];
                p.segments(tap / g.kw, tap % g.kw, 0, pixels, |s| {
                    let (lo, hi) = s.inside;
                    add_strided(&mut dx[s.source..], g.stride.1, &dy[s.at + lo..s.at + hi], a);
                });
            }
        }
    });
}

/// `dw[o, tap] = Σ_images ⟨dy_o, shift_tap(x_c)⟩`.
pub(super) fn weight_grad<T: ConvElement>(p: &Plan, x: &[T], dy: &[T], dw: &mut [T]) {
    let (g, area, pixels, taps) = (&p.geo, p.area(), p.pixels(), p.k());
    dw.par_chunks_mut(taps).enumerate().for_each(|(o, dw)| {
        dw.fill(T::zero());
        for image in 0..g.n {
            let x = &x[(image * g.c + o / p.og()) * area..][..area];
            let dy = &dy[(image * g.o + o) * pixels..][..pixels];
            for (tap, dw) in dw.iter_mut().enumerate() {
                let mut sum = T::zero();
                p.segments(tap / g.kw, tap % g.kw, 0, pixels, |s| {
                    let (lo, hi) = s.inside;
                    sum = sum + dot(&dy[s.at + lo..s.at + hi], &x[s.source..], g.stride.1);
                });
                *dw = *dw + sum;
            }
        }
    });
}

/// `Σ a[i] · b[i · stride]`, in eight lanes where the memory allows it.
fn dot<T: ConvElement>(a: &[T], b: &[T], stride: usize) -> T {
    if stride != 1 {
        return a.iter().zip(b.iter().step_by(stride)).fold(T::zero(), |s, (&a, &b)| s + a * b);
    }
    let mut lanes = [T::zero(); 8];
    let b = &b[..a.len()];
    let (head_a, head_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail = head_a.remainder().iter().zip(head_b.remainder()).fold(T::zero(), |s, (&a, &b)| s + a * b);
    for (a, b) in head_a.zip(head_b) {
        for l in 0..8 {
            lanes[l] = lanes[l] + a[l] * b[l];
        }
    }
    lanes.iter().fold(tail, |s, &l| s + l)
}
