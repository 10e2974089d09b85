//! Elementwise kernels: one slice function per op, driven chunk by chunk over operands of any strides.
//!
//! Half types are widened to f32 a chunk at a time, so no kernel is compiled for them.

use super::half::Half;
use super::level::level;
use super::math::Real;
use super::simd::simd_fn;
use super::strided::{CHUNK, Source, fill_chunks, map1, map2};
use crate::backend::{Binary, Compare, Unary};
use crate::dtype::Element;
use crate::storage::CpuBuffer;
use crate::{DType, Tensor, dispatch};
use ::half::{bf16, f16};
use num_traits::{CheckedRem, Signed, WrappingAdd, WrappingMul, WrappingSub};

/// Elements that are copied or widened at a time, for a kernel that reads one array and writes another: they stay in the
/// first-level cache.
const WIDE: usize = 512;

fn half1<H: Half>(x: &Tensor, kernel: impl Fn(&[f32], &mut [f32]) + Sync) -> CpuBuffer {
    map1::<H, H>(x, |x, out| {
        let (mut wide, mut result) = ([0f32; WIDE], [0f32; WIDE]);
        for (x, out) in x.chunks(WIDE).zip(out.chunks_mut(WIDE)) {
            let n = x.len();
            H::widen(x, &mut wide[..n]);
            kernel(&wide[..n], &mut result[..n]);
            H::narrow(&result[..n], out);
        }
    })
}
pub(super) fn half2<H: Half>(a: &Tensor, b: &Tensor, kernel: impl Fn(&[f32], &[f32], &mut [f32]) + Sync) -> CpuBuffer {
    map2::<H, H>(a, b, |a, b, out| {
        let (mut wide_a, mut wide_b, mut result) = ([0f32; WIDE], [0f32; WIDE], [0f32; WIDE]);
        for ((a, b), out) in a.chunks(WIDE).zip(b.chunks(WIDE)).zip(out.chunks_mut(WIDE)) {
            let n = a.len();
            H::widen(a, &mut wide_a[..n]);
            H::widen(b, &mut wide_b[..n]);
            kernel(&wide_a[..n], &wide_b[..n], &mut result[..n]);
            H::narrow(&result[..n], out);
        }
    })
}

/// `op(x)`, same dtype.
pub fn unary(op: Unary, x: &Tensor) -> Tensor {
    let level = level();
    let buffer = match x.dtype() {
        DType::F32 => map1(x, |x, out| unary_real::<f32>(level, op, x, out)),
        DType::F64 => map1(x, |x, out| unary_real::<f64>(level, op, x, out)),
        DType::F16 => half1::<f16>(x, |x, out| unary_real::<f32>(level, op, x, out)),
        DType::BF16 => half1::<bf16>(x, |x, out| unary_real::<f32>(level, op, x, out)),
        DType::I64 => map1(x, |x, out| unary_int::<i64>(op, x, out)),
        DType::I32 => map1(x, |x, out| unary_int::<i32>(op, x, out)),
        DType::I8 => map1(x, |x, out| unary_int::<i8>(op, x, out)),
        DType::U8 => map1(x, |x, out| unary_int::<u8>(op, x, out)),
        DType::Bool => unreachable!("the op floor lets no bool through"),
    };
    Tensor::from_cpu(buffer, x.shape(), x.dtype())
}

#[inline(always)]
fn each<T: Copy, U>(x: &[T], out: &mut [U], f: impl Fn(T) -> U) {
    for (y, &x) in out.iter_mut().zip(x) {
        *y = f(x);
    }
}

simd_fn! {
    pub(super) fn unary_real[S]<T: Real>(op: Unary, x: &[T], out: &mut [T]) {
        let s = T::from_f64;
        match op {
            Unary::Neg => each(x, out, |x| -x),
            Unary::Abs => each(x, out, |x| x.abs()),
            Unary::Sign => each(x, out, |x| sign(x)),
            Unary::Square => each(x, out, |x| x * x),
            Unary::AddScalar(c) => { let c = s(c); each(x, out, |x| x + c) }
            Unary::MulScalar(c) => { let c = s(c); each(x, out, |x| x * c) }
            Unary::RsubScalar(c) => { let c = s(c); each(x, out, |x| c - x) }
            Unary::RdivScalar(c) => { let c = s(c); each(x, out, |x| c / x) }
            Unary::DivScalar(c) => { let c = s(c); each(x, out, |x| x / c) }
            Unary::Clamp(lo, hi) => {
                let (lo, hi) = (s(lo), s(hi));
                each(x, out, |x| { let x = if x < lo { lo } else { x }; if x > hi { hi } else { x } })
            }
            Unary::Relu => each(x, out, |x| if x < T::ZERO { T::ZERO } else { x }),
            Unary::Powi(n) => each(x, out, |x| powi(x, n)),
            Unary::Powf(p) => each(x, out, |x| s(x.to_f64().powf(p))),
            Unary::Exp => each(x, out, |x| x.exp::<S>()),
            Unary::Expm1 => each(x, out, |x| x.expm1::<S>()),
            Unary::Log => each(x, out, |x| x.log::<S>()),
            Unary::Log1p => each(x, out, |x| x.log1p::<S>()),
            Unary::Sqrt => each(x, out, |x| x.sqrt()),
            Unary::Rsqrt => each(x, out, |x| T::ONE / x.sqrt()),
            Unary::Recip => each(x, out, |x| T::ONE / x),
            // Not the vector forms, which decline large arguments: x may be any number of radians.
            Unary::Sin => each(x, out, |x| s(x.to_f64().sin())),
            Unary::Cos => each(x, out, |x| s(x.to_f64().cos())),
            Unary::Tanh => each(x, out, |x| x.tanh::<S>()),
            Unary::Sigmoid => each(x, out, |x| x.sigmoid::<S>()),
            Unary::Erf => each(x, out, |x| x.erf::<S>()),
            Unary::Gelu => each(x, out, |x| x.gelu::<S>()),
            Unary::GeluTanh => each(x, out, |x| x.gelu_tanh::<S>()),
            Unary::Silu => each(x, out, |x| x.silu::<S>()),
            Unary::Softplus => each(x, out, |x| x.softplus::<S>()),
            Unary::Elu(a) => { let a = s(a); each(x, out, |x| if x > T::ZERO { x } else { a * x.expm1::<S>() }) }
            Unary::LeakyRelu(a) => { let a = s(a); each(x, out, |x| if x > T::ZERO { x } else { a * x }) }
            Unary::Floor => each(x, out, |x| s(x.to_f64().floor())),
            Unary::Ceil => each(x, out, |x| s(x.to_f64().ceil())),
            Unary::Round => each(x, out, |x| s(x.to_f64().round_ties_even())),
        }
    }
}

#[inline(always)]
fn sign<T: Real>(x: T) -> T {
    if x > T::ZERO {
        T::ONE
    } else if x < T::ZERO {
        -T::ONE
    } else {
        x * T::ZERO
    }
}

#[inline(always)]
fn powi<T: Real>(x: T, n: i32) -> T {
    let (mut base, mut left, mut product) = (x, n.unsigned_abs(), T::ONE);
    while left > 0 {
        if left & 1 == 1 {
            product *= base;
        }
        base *= base;
        left >>= 1;
    }
    if n < 0 { T::ONE / product } else { product }
}

/// Integers wrap on overflow.
trait Int: Element + WrappingAdd + WrappingMul + WrappingSub + CheckedRem + Ord + num_traits::PrimInt {
    fn absolute(self) -> Self;
    fn signum(self) -> Self;
}
macro_rules! int {
    ($($t:ty: $abs:expr, $signum:expr;)*) => {$(
        impl Int for $t {
            fn absolute(self) -> Self { $abs(self) }
            fn signum(self) -> Self { $signum(self) }
        }
    )*};
}
int! {
    i64: |x: i64| x.wrapping_abs(), |x: i64| Signed::signum(&x);
    i32: |x: i32| x.wrapping_abs(), |x: i32| Signed::signum(&x);
    i8: |x: i8| x.wrapping_abs(), |x: i8| Signed::signum(&x);
    u8: |x| x, |x: u8| x.min(1);
}

fn unary_int<T: Int>(op: Unary, x: &[T], out: &mut [T]) {
    // Sums and products are right modulo 2ⁿ, so a number that T lacks wraps; a bound takes the nearest that T has.
    let (s, nearest) = (|c: f64| T::from_i64(c as i64), T::from_f64);
    match op {
        Unary::Neg => each(x, out, |x| T::zero().wrapping_sub(&x)),
        Unary::Abs => each(x, out, |x| x.absolute()),
        Unary::Sign => each(x, out, |x| x.signum()),
        Unary::Square => each(x, out, |x| x.wrapping_mul(&x)),
        Unary::AddScalar(c) => each(x, out, |x| x.wrapping_add(&s(c))),
        Unary::MulScalar(c) => each(x, out, |x| x.wrapping_mul(&s(c))),
        Unary::RsubScalar(c) => each(x, out, |x| s(c).wrapping_sub(&x)),
        Unary::Clamp(lo, hi) => each(x, out, |x| x.max(nearest(lo)).min(nearest(hi))),
        Unary::Relu => each(x, out, |x| x.max(T::zero())),
        Unary::Powi(n) => each(x, out, |x| {
            let (mut base, mut left, mut product) = (x, n.max(0) as u32, T::one());
            while left > 0 {
                if left & 1 == 1 {
                    product = product.wrapping_mul(&base);
                }
                base = base.wrapping_mul(&base);
                left >>= 1;
            }
            product
        }),
        Unary::Floor | Unary::Ceil | Unary::Round => out.copy_from_slice(x),
        _ => unreachable!("the op floor casts integers to floats for {op:?}"),
    }
}

/// `op(a, b)`: one dtype, one shape.
pub fn binary(op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
    let level = level();
    let buffer = match a.dtype() {
        DType::F32 => map2(a, b, |a, b, out| binary_real::<f32>(level, op, a, b, out)),
        DType::F64 => map2(a, b, |a, b, out| binary_real::<f64>(level, op, a, b, out)),
        DType::F16 => half2::<f16>(a, b, |a, b, out| binary_real::<f32>(level, op, a, b, out)),
        DType::BF16 => half2::<bf16>(a, b, |a, b, out| binary_real::<f32>(level, op, a, b, out)),
        DType::I64 => map2(a, b, |a, b, out| binary_int::<i64>(op, a, b, out)),
        DType::I32 => map2(a, b, |a, b, out| binary_int::<i32>(op, a, b, out)),
        DType::I8 => map2(a, b, |a, b, out| binary_int::<i8>(op, a, b, out)),
        DType::U8 => map2(a, b, |a, b, out| binary_int::<u8>(op, a, b, out)),
        DType::Bool => unreachable!("the op floor lets no bool through"),
    };
    Tensor::from_cpu(buffer, a.shape(), a.dtype())
}

#[inline(always)]
fn each2<T: Copy, U>(a: &[T], b: &[T], out: &mut [U], f: impl Fn(T, T) -> U) {
    for ((y, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *y = f(a, b);
    }
}

simd_fn! {
    pub(super) fn binary_real[S]<T: Real>(op: Binary, a: &[T], b: &[T], out: &mut [T]) {
        match op {
            Binary::Add => each2(a, b, out, |a, b| a + b),
            Binary::Sub => each2(a, b, out, |a, b| a - b),
            Binary::Mul => each2(a, b, out, |a, b| a * b),
            Binary::Div => each2(a, b, out, |a, b| a / b),
            Binary::Rem => each2(a, b, out, |a, b| T::from_f64(floor_rem(a.to_f64(), b.to_f64()))),
            Binary::Pow => each2(a, b, out, |a, b| T::from_f64(a.to_f64().powf(b.to_f64()))),
            Binary::Max => each2(a, b, out, |a, b| if a > b || a.is_nan() { a } else { b }),
            Binary::Min => each2(a, b, out, |a, b| if a < b || a.is_nan() { a } else { b }),
            Binary::Atan2 => each2(a, b, out, |a, b| T::from_f64(a.to_f64().atan2(b.to_f64()))),
            Binary::ReluGrad => each2(a, b, out, |x, g| if x <= T::ZERO { T::ZERO } else { g }),
            Binary::TanhGrad => each2(a, b, out, |y, g| g * (T::ONE - y * y)),
            Binary::SigmoidGrad => each2(a, b, out, |y, g| g * y * (T::ONE - y)),
            Binary::GeluGrad => each2(a, b, out, |x, g| g * x.gelu_grad::<S>()),
            Binary::GeluTanhGrad => each2(a, b, out, |x, g| g * x.gelu_tanh_grad::<S>()),
            Binary::SiluGrad => each2(a, b, out, |x, g| g * x.silu_grad::<S>()),
        }
    }
}

/// `a - b ⌊a / b⌋`, computed exactly.
#[inline(always)]
fn floor_rem(a: f64, b: f64) -> f64 {
    let r = a % b;
    if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
}

fn binary_int<T: Int>(op: Binary, a: &[T], b: &[T], out: &mut [T]) {
    match op {
        Binary::Add => each2(a, b, out, |a, b| a.wrapping_add(&b)),
        Binary::Sub => each2(a, b, out, |a, b| a.wrapping_sub(&b)),
        Binary::Mul => each2(a, b, out, |a, b| a.wrapping_mul(&b)),
        Binary::Rem => each2(a, b, out, |a, b| {
            // The smallest number by −1 has a quotient that overflows; b = 0 was refused by the op.
            let r = a.checked_rem(&b).unwrap_or(T::zero());
            if r != T::zero() && (r < T::zero()) != (b < T::zero()) { r + b } else { r }
        }),
        Binary::Max => each2(a, b, out, |a, b| a.max(b)),
        Binary::Min => each2(a, b, out, |a, b| a.min(b)),
        _ => unreachable!("the op floor casts integers to floats for {op:?}"),
    }
}

/// `dst = op(dst, src)`, in place.
pub fn binary_assign(op: Binary, dst: &mut Tensor, src: &Tensor) {
    fn in_place<T: Real + bytemuck::Pod>(op: Binary, dst: &mut Tensor, src: &Tensor) -> bool {
        let source = Source::<T>::new(src);
        let level = level();
        let Some(dst) = dst.unique_slice_mut::<T>() else { return false };
        super::strided::for_chunks(dst, |range, out| {
            let combine = |src: &[T], out: &mut [T]| {
                let mut old = [T::ZERO; WIDE];
                for (src, out) in src.chunks(WIDE).zip(out.chunks_mut(WIDE)) {
                    let old = &mut old[..out.len()];
                    old.copy_from_slice(out);
                    binary_real::<T>(level, op, old, src, out);
                }
            };
            match source.direct(&range) {
                Some(src) => combine(src, out),
                None => combine(source.chunk(range, &mut [T::ZERO; CHUNK]), out),
            }
        });
        true
    }
    let done = match dst.dtype() {
        DType::F32 => in_place::<f32>(op, dst, src),
        DType::F64 => in_place::<f64>(op, dst, src),
        _ => false,
    };
    if !done {
        *dst = binary(op, dst, src);
    }
}

/// `op(a, b)` as bool: one dtype, one shape.
pub fn compare(op: Compare, a: &Tensor, b: &Tensor) -> Tensor {
    fn run<T: Element>(op: Compare, a: &Tensor, b: &Tensor) -> CpuBuffer {
        map2::<T::Stored, u8>(a, b, |a, b, out| match op {
            Compare::Eq => each2(a, b, out, |a, b| (a == b) as u8),
            Compare::Ne => each2(a, b, out, |a, b| (a != b) as u8),
            Compare::Lt => each2(a, b, out, |a, b| (a < b) as u8),
            Compare::Le => each2(a, b, out, |a, b| (a <= b) as u8),
            Compare::Gt => each2(a, b, out, |a, b| (a > b) as u8),
            Compare::Ge => each2(a, b, out, |a, b| (a >= b) as u8),
        })
    }
    let buffer = dispatch!(a.dtype(), T => run::<T>(op, a, b));
    Tensor::from_cpu(buffer, a.shape(), DType::Bool)
}

/// `if condition { a } else { b }`: one shape, `a` and `b` of one dtype.
pub fn select(condition: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
    fn run<T: Element>(condition: &Tensor, a: &Tensor, b: &Tensor) -> CpuBuffer {
        let sc = Source::<u8>::new(condition);
        let (sa, sb) = (Source::<T::Stored>::new(a), Source::<T::Stored>::new(b));
        fill_chunks(a.numel(), |range, out: &mut [T::Stored]| {
            let mut flags = [0; CHUNK];
            let (mut scratch_a, mut scratch_b) = ([T::Stored::default(); CHUNK], [T::Stored::default(); CHUNK]);
            let c = sc.chunk(range.clone(), &mut flags);
            let (a, b) = (sa.chunk(range.clone(), &mut scratch_a), sb.chunk(range, &mut scratch_b));
            for (((y, &c), &a), &b) in out.iter_mut().zip(c).zip(a).zip(b) {
                *y = if c != 0 { a } else { b };
            }
        })
    }
    let buffer = dispatch!(a.dtype(), T => run::<T>(condition, a, b));
    Tensor::from_cpu(buffer, a.shape(), a.dtype())
}

/// A row-major copy.
pub fn copy(x: &Tensor) -> Tensor {
    let buffer = match x.dtype().size() {
        8 => map1::<u64, u64>(x, |x, out| out.copy_from_slice(x)),
        4 => map1::<u32, u32>(x, |x, out| out.copy_from_slice(x)),
        2 => map1::<u16, u16>(x, |x, out| out.copy_from_slice(x)),
        _ => map1::<u8, u8>(x, |x, out| out.copy_from_slice(x)),
    };
    Tensor::from_cpu(buffer, x.shape(), x.dtype())
}

/// To another dtype.
pub fn cast(x: &Tensor, dtype: DType) -> Tensor {
    fn run<T: Element, U: Element>(x: &Tensor) -> CpuBuffer {
        let exact = T::DTYPE.is_int() && U::DTYPE.is_int();
        map1::<T::Stored, U::Stored>(x, |x, out| match exact {
            true => each(x, out, |v| U::from_i64(T::load(v).to_i64()).store()),
            false => each(x, out, |v| U::from_f64(T::load(v).to_f64()).store()),
        })
    }
    let buffer = match (x.dtype(), dtype) {
        (DType::F32, DType::BF16) => map1::<f32, bf16>(x, bf16::narrow),
        (DType::F32, DType::F16) => map1::<f32, f16>(x, f16::narrow),
        (DType::BF16, DType::F32) => map1::<bf16, f32>(x, bf16::widen),
        (DType::F16, DType::F32) => map1::<f16, f32>(x, f16::widen),
        (DType::F32, DType::F64) => map1::<f32, f64>(x, |x, out| each(x, out, |v| v as f64)),
        (DType::F64, DType::F32) => map1::<f64, f32>(x, |x, out| each(x, out, |v| v as f32)),
        (from, to) => dispatch!(from, T => dispatch!(to, U => run::<T, U>(x))),
    };
    Tensor::from_cpu(buffer, x.shape(), dtype)
}
