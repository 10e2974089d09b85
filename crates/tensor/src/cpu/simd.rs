//! Vectorised loops without hand-written intrinsics.
//!
//! A kernel is written once, as an ordinary branch-free loop over slices. `simd_fn!` compiles that body once for every
//! [`Level`](super::level::Level), each inside a function whose `#[target_feature]` lets LLVM use that level's
//! vectors, and makes a dispatcher that picks one at run time. What is inlined into such a function (`#[inline(always)]`
//! helpers, closures) is compiled with its features too, which is why every helper of a kernel is `#[inline(always)]`.
//!
//! The body is generic over `S: `[`Simd`], a zero-sized stand-in for the level. It is asked for one thing:
//! [`Simd::mul_add`] is a fused multiply-add where the level has the instruction, and two operations where a fused one
//! would be a library call.
//!
//! LLVM never reorders floating-point additions by itself, so elementwise loops vectorise and naive sums do not: see
//! [`super::lanes`] for those.

/// The level that a kernel body is compiled for, as a type.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Whether [`Simd::mul_add`] rounds once.
    const FUSED: bool;

    /// `a·b + c`, fused if [`Simd::FUSED`].
    #[inline(always)]
    fn mul_add<T: MulAdd>(a: T, b: T, c: T) -> T {
        if Self::FUSED { a.fused(b, c) } else { a.separate(b, c) }
    }
}

/// `a·b + c` in its two roundings; what [`Simd::mul_add`] chooses between.
pub trait MulAdd: Copy {
    /// One rounding.
    fn fused(self, b: Self, c: Self) -> Self;
    /// Two roundings.
    fn separate(self, b: Self, c: Self) -> Self;
}

/// Asks for the `len` elements from `first` on, which will be read soon, to be brought into the cache. The address may be
/// any. On aarch64 it is left to the hardware: the instruction has no stable intrinsic.
#[inline(always)]
pub fn prefetch<T>(first: *const T, len: usize) {
    for byte in (0..len * size_of::<T>()).step_by(64) {
        let line = first.wrapping_byte_add(byte);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch touches no memory as far as the program can tell; every x86-64 has it.
        unsafe {
            use std::arch::x86_64::*;
            _mm_prefetch::<_MM_HINT_T0>(line.cast())
        }
        let _ = line;
    }
}

macro_rules! mul_add {
    ($($t:ty)*) => {$(
        impl MulAdd for $t {
            #[inline(always)]
            fn fused(self, b: Self, c: Self) -> Self {
                <$t>::mul_add(self, b, c)
            }
            #[inline(always)]
            fn separate(self, b: Self, c: Self) -> Self {
                self * b + c
            }
        }
    )*};
}
mul_add!(f32 f64);

/// [`Level::Portable`](super::level::Level::Portable) as a type.
#[derive(Clone, Copy, Debug)]
pub struct Portable;
/// [`Level::Avx2`](super::level::Level::Avx2) as a type.
#[derive(Clone, Copy, Debug)]
pub struct Avx2;
/// [`Level::Avx512`](super::level::Level::Avx512) as a type.
#[derive(Clone, Copy, Debug)]
pub struct Avx512;

impl Simd for Portable {
    // On aarch64 the fused instruction is part of the base instruction set.
    const FUSED: bool = cfg!(target_arch = "aarch64");
}
impl Simd for Avx2 {
    const FUSED: bool = true;
}
impl Simd for Avx512 {
    const FUSED: bool = true;
}

/// Defines a function whose body is compiled once per [`Level`](super::level::Level); the level to run at becomes its
/// first argument. A level that the machine lacks is lowered to one that it has, so calling it is always safe.
///
/// ```ignore
/// simd_fn! {
///     /// y = a·x + y
///     pub fn axpy[S]<T: Real>(a: T, x: &[T], y: &mut [T]) {
///         for (y, &x) in y.iter_mut().zip(x) {
///             *y = S::mul_add(a, x, *y);
///         }
///     }
/// }
/// axpy(level(), 2.0, &x, &mut y);
/// ```
macro_rules! simd_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident[$S:ident]$(<$($T:ident: $bound:path),+>)?
     ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name$(<$($T: $bound),+>)?(level: $crate::cpu::level::Level, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters)]
            fn body<$S: $crate::cpu::simd::Simd $($(, $T: $bound)+)?>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2$(<$($T: $bound),+>)?($($arg: $ty),*) $(-> $ret)? {
                body::<$crate::cpu::simd::Avx2 $($(, $T)+)?>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            fn avx512$(<$($T: $bound),+>)?($($arg: $ty),*) $(-> $ret)? {
                body::<$crate::cpu::simd::Avx512 $($(, $T)+)?>($($arg),*)
            }

            match level.usable() {
                // SAFETY: `usable` returns `Avx512` only on a machine where each of these features was detected.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::level::Level::Avx512 => unsafe { avx512$(::<$($T),+>)?($($arg),*) },
                // SAFETY: `usable` returns `Avx2` only on a machine where each of these features was detected.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::level::Level::Avx2 => unsafe { avx2$(::<$($T),+>)?($($arg),*) },
                _ => body::<$crate::cpu::simd::Portable $($(, $T)+)?>($($arg),*),
            }
        }
    };
}
pub(crate) use simd_fn;

#[cfg(test)]
mod tests {
    use super::super::level::Level;
    use super::*;

    simd_fn! {
        fn axpy[S](a: f32, x: &[f32], y: &mut [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = S::mul_add(a, x, *y);
            }
        }
    }

    #[test]
    fn every_level_computes_the_same_exact_products() {
        for level in Level::ALL {
            for n in [0, 1, 7, 15, 16, 17, 31, 63, 64, 65, 1000] {
                let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
                let mut y = vec![1.0f32; n];
                axpy(level, 3.0, &x, &mut y);
                assert!(y.iter().enumerate().all(|(i, &v)| v == 3.0 * i as f32 + 1.0), "{level:?} {n}");
            }
        }
    }

    #[test]
    fn fused_rounds_once() {
        let a = 1.0f32 + f32::EPSILON;
        assert_ne!(Avx2::mul_add(a, a, -1.0 - 2.0 * f32::EPSILON), 0.0);
        assert_eq!(a.separate(a, -1.0 - 2.0 * f32::EPSILON), 0.0);
    }
}
