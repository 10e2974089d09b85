//! Loops of the optimisers besides Adam and SGD: the formulas are those of [`crate::ops::optimizer`].

use crate::cpu::math::Real;
use crate::cpu::simd::simd_fn;

/// The numbers of an AMSGrad step in the type of the slices.
#[derive(Clone, Copy)]
pub(super) struct AmsGrad<T> {
    pub one_minus_beta1: T,
    pub beta2: T,
    pub one_minus_beta2: T,
    pub eps: T,
    pub keep: T,
    pub l2: T,
    pub step_size: T,
    pub inv_sqrt_correction2: T,
}

simd_fn! {
    pub(super) fn amsgrad[S]<T: Real>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], largest: &mut [T], a: AmsGrad<T>) {
        for ((((p, &g), m), v), largest) in p.iter_mut().zip(g).zip(m).zip(v).zip(largest) {
            let g = S::mul_add(a.l2, *p, g);
            *m = S::mul_add(a.one_minus_beta1, g - *m, *m);
            *v = S::mul_add(a.one_minus_beta2 * g, g, a.beta2 * *v);
            // A NaN in v goes on into the maximum.
            *largest = if *largest > *v { *largest } else { *v };
            let denominator = S::mul_add(largest.sqrt(), a.inv_sqrt_correction2, a.eps);
            *p = *p * a.keep - a.step_size * (*m / denominator);
        }
    }
}

/// The numbers of an RMSprop step in the type of the slices.
#[derive(Clone, Copy)]
pub(super) struct RmsProp<T> {
    pub lr: T,
    pub alpha: T,
    pub one_minus_alpha: T,
    pub eps: T,
    pub l2: T,
    pub momentum: T,
}

/// √(v − a²), a negative difference being rounding and NaN staying NaN.
#[inline(always)]
fn deviation<T: Real>(v: T, a: T) -> T {
    let variance = v - a * a;
    (if variance < T::ZERO { T::ZERO } else { variance }).sqrt()
}

simd_fn! {
    pub(super) fn rmsprop[S]<T: Real>(p: &mut [T], g: &[T], v: &mut [T], o: RmsProp<T>) {
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            let g = S::mul_add(o.l2, *p, g);
            *v = S::mul_add(o.one_minus_alpha * g, g, o.alpha * *v);
            *p -= o.lr * (g / (v.sqrt() + o.eps));
        }
    }
}

simd_fn! {
    pub(super) fn rmsprop_centered[S]<T: Real>(p: &mut [T], g: &[T], v: &mut [T], a: &mut [T], o: RmsProp<T>) {
        for (((p, &g), v), a) in p.iter_mut().zip(g).zip(v).zip(a) {
            let g = S::mul_add(o.l2, *p, g);
            *v = S::mul_add(o.one_minus_alpha * g, g, o.alpha * *v);
            *a = S::mul_add(o.one_minus_alpha, g, o.alpha * *a);
            *p -= o.lr * (g / (deviation(*v, *a) + o.eps));
        }
    }
}

simd_fn! {
    pub(super) fn rmsprop_momentum[S]<T: Real>(p: &mut [T], g: &[T], v: &mut [T], b: &mut [T], o: RmsProp<T>) {
        for (((p, &g), v), b) in p.iter_mut().zip(g).zip(v).zip(b) {
            let g = S::mul_add(o.l2, *p, g);
            *v = S::mul_add(o.one_minus_alpha * g, g, o.alpha * *v);
            *b = S::mul_add(o.momentum, *b, g / (v.sqrt() + o.eps));
            *p -= o.lr * *b;
        }
    }
}

simd_fn! {
    pub(super) fn rmsprop_centered_momentum[S]<T: Real>(
        p: &mut [T], g: &[T], v: &mut [T], a: &mut [T], b: &mut [T], o: RmsProp<T>,
    ) {
        for ((((p, &g), v), a), b) in p.iter_mut().zip(g).zip(v).zip(a).zip(b) {
            let g = S::mul_add(o.l2, *p, g);
            *v = S::mul_add(o.one_minus_alpha * g, g, o.alpha * *v);
            *a = S::mul_add(o.one_minus_alpha, g, o.alpha * *a);
            *b = S::mul_add(o.momentum, *b, g / (deviation(*v, *a) + o.eps));
            *p -= o.lr * *b;
        }
    }
}

simd_fn! {
    pub(super) fn adagrad[S]<T: Real>(p: &mut [T], g: &[T], sum: &mut [T], lr: T, eps: T, l2: T) {
        for ((p, &g), sum) in p.iter_mut().zip(g).zip(sum) {
            let g = S::mul_add(l2, *p, g);
            *sum = S::mul_add(g, g, *sum);
            *p -= lr * (g / (sum.sqrt() + eps));
        }
    }
}

simd_fn! {
    pub(super) fn adadelta[S]<T: Real>(p: &mut [T], g: &[T], v: &mut [T], u: &mut [T], lr: T, rho: T, eps: T, l2: T) {
        let fresh = T::ONE - rho;
        for (((p, &g), v), u) in p.iter_mut().zip(g).zip(v).zip(u) {
            let g = S::mul_add(l2, *p, g);
            *v = S::mul_add(fresh * g, g, rho * *v);
            let change = (*u + eps).sqrt() / (*v + eps).sqrt() * g;
            *u = S::mul_add(fresh * change, change, rho * *u);
            *p -= lr * change;
        }
    }
}

simd_fn! {
    pub(super) fn lion[S]<T: Real>(p: &mut [T], g: &[T], m: &mut [T], lr: T, beta1: T, beta2: T, decay: T) {
        let (fresh1, fresh2) = (T::ONE - beta1, T::ONE - beta2);
        for ((p, &g), m) in p.iter_mut().zip(g).zip(m) {
            let mixed = S::mul_add(fresh1, g, beta1 * *m);
            let sign = if mixed > T::ZERO {
                T::ONE
            } else if mixed < T::ZERO {
                -T::ONE
            } else {
                mixed // 0 and NaN are their own signs
            };
            *p -= lr * S::mul_add(decay, *p, sign);
            *m = S::mul_add(fresh2, g, beta2 * *m);
        }
    }
}

simd_fn! {
    pub(super) fn lerp[S]<T: Real>(p: &mut [T], g: &[T], weight: T) {
        for (p, &g) in p.iter_mut().zip(g) {
            *p = S::mul_add(weight, g - *p, *p);
        }
    }
}

simd_fn! {
    pub(super) fn scale_add[S]<T: Real>(p: &mut [T], g: &[T], keep: T, scale: T) {
        for (p, &g) in p.iter_mut().zip(g) {
            *p = S::mul_add(scale, g, keep * *p);
        }
    }
}
