//! Addition as the adding kernels mean it.

use num_traits::{WrappingAdd, Zero};

/// A number that the kernels can add up: floats, and integers that wrap on overflow as everywhere in the framework.
pub trait Accumulate: Copy + Send + Sync + 'static {
    /// What a long sum is kept in: `f64` for floats, the type itself for integers.
    type Wide: Copy + Send + Sync;
    /// `self + other`, wrapping.
    fn plus(self, other: Self) -> Self;
    /// The empty sum.
    fn wide_zero() -> Self::Wide;
    /// `sum + self`.
    fn add_to(self, sum: Self::Wide) -> Self::Wide;
    /// The sum, rounded back.
    fn from_wide(sum: Self::Wide) -> Self;
}

macro_rules! accumulate_float {
    ($($t:ty)*) => {$(
        impl Accumulate for $t {
            type Wide = f64;
            #[inline]
            fn plus(self, other: Self) -> Self {
                self + other
            }
            #[inline]
            fn wide_zero() -> f64 {
                0.0
            }
            #[inline]
            fn add_to(self, sum: f64) -> f64 {
                sum + f64::from(self)
            }
            #[inline]
            fn from_wide(sum: f64) -> Self {
                sum as $t
            }
        }
    )*};
}
accumulate_float!(f32 f64);

macro_rules! accumulate_integer {
    ($($t:ty)*) => {$(
        impl Accumulate for $t {
            type Wide = $t;
            #[inline]
            fn plus(self, other: Self) -> Self {
                WrappingAdd::wrapping_add(&self, &other)
            }
            #[inline]
            fn wide_zero() -> Self {
                Zero::zero()
            }
            #[inline]
            fn add_to(self, sum: Self) -> Self {
                self.plus(sum)
            }
            #[inline]
            fn from_wide(sum: Self) -> Self {
                sum
            }
        }
    )*};
}
accumulate_integer!(i32 i64 i8 u8);
