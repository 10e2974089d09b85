//! Number types and the promotion rule.

use half::{bf16, f16};
use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DType {
    /// 32-bit float, the default of every floating-point creation.
    F32,
    /// 64-bit float.
    F64,
    /// IEEE 16-bit float; sums are accumulated in f32.
    F16,
    /// bfloat16; sums are accumulated in f32.
    BF16,
    /// 64-bit signed integer: the type of indices, tokens and classes.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 8-bit signed integer: what quantised numbers are.
    I8,
    /// 8-bit unsigned integer.
    U8,
    /// Truth values, one byte each.
    Bool,
}

impl DType {
    /// Every dtype.
    pub const ALL: [DType; 9] = {
        use DType::*;
        [F32, F64, F16, BF16, I64, I32, I8, U8, Bool]
    };

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::I8 | DType::U8 | DType::Bool => 1,
        }
    }
    /// Is it f32, f64, f16 or bf16?
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }
    /// Is it f16 or bf16?
    pub const fn is_half(self) -> bool {
        matches!(self, DType::F16 | DType::BF16)
    }
    /// Is it i64, i32, i8 or u8?
    pub const fn is_int(self) -> bool {
        matches!(self, DType::I64 | DType::I32 | DType::I8 | DType::U8)
    }
    /// The dtype in which sums of this one are accumulated: f32 for the half types, i64 for integers and bool.
    pub const fn accumulator(self) -> DType {
        match self {
            DType::F16 | DType::BF16 => DType::F32,
            DType::I32 | DType::I8 | DType::U8 | DType::Bool => DType::I64,
            other => other,
        }
    }
    /// Machine epsilon: the distance from 1 to the next larger number (1 for integers).
    pub const fn epsilon(self) -> f64 {
        match self {
            DType::F64 => f64::EPSILON,
            DType::F32 => f32::EPSILON as f64,
            DType::F16 => 9.765625e-4,
            DType::BF16 => 7.8125e-3,
            _ => 1.0,
        }
    }

    /// The largest number of a float dtype below `bound`.
    pub fn largest_below(self, bound: f64) -> f64 {
        /// The neighbour below, of a half type by its bits.
        fn down(bits: u16) -> u16 {
            match bits {
                0 | 0x8000 => 0x8001,
                b if b & 0x8000 == 0 => b - 1,
                b => b + 1,
            }
        }
        let (nearest, below) = match self {
            DType::F64 => return bound.next_down(),
            DType::F16 => {
                let x = f16::from_f64(bound);
                (x.to_f64(), f16::from_bits(down(x.to_bits())).to_f64())
            }
            DType::BF16 => {
                let x = bf16::from_f64(bound);
                (x.to_f64(), bf16::from_bits(down(x.to_bits())).to_f64())
            }
            _ => (bound as f32 as f64, (bound as f32).next_down() as f64),
        };
        if nearest < bound { nearest } else { below }
    }

    /// Does an integer dtype hold the whole number `s`? (Never for floats and bool.)
    pub(crate) fn holds(self, s: f64) -> bool {
        match self {
            // The bounds are powers of two; i64::MAX itself is no f64.
            DType::I64 => (i64::MIN as f64..-(i64::MIN as f64)).contains(&s),
            DType::I32 => (i32::MIN as f64..=i32::MAX as f64).contains(&s),
            DType::I8 => (-128.0..=127.0).contains(&s),
            DType::U8 => (0.0..=255.0).contains(&s),
            _ => false,
        }
    }

    /// The dtype of a binary operation on `self` and `other`.
    ///
    /// The rule, as in PyTorch: bool < integers < floats, and the higher kind wins; within a kind the wider type wins
    /// ({i8, u8} < i32 < i64, {f16, bf16} < f32 < f64). Where neither holds the other the next wider type does: f16 with
    /// bf16 gives f32, i8 with u8 gives i32 (PyTorch: i16, which is no dtype here).
    /// A plain Rust number in an expression does not take part: it takes the tensor's dtype, except that a fractional
    /// number makes an integer tensor f32, and that a remainder by a number which an integer dtype does not hold is i64.
    pub fn promote(self, other: DType) -> DType {
        use DType::*;
        let rank = |d: DType| match d {
            Bool => 0,
            I8 | U8 => 1,
            I32 => 2,
            I64 => 3,
            F16 | BF16 => 4,
            F32 => 5,
            F64 => 6,
        };
        match (self, other) {
            (F16, BF16) | (BF16, F16) => F32,
            (I8, U8) | (U8, I8) => I32,
            (a, b) if rank(a) >= rank(b) => a,
            (_, b) => b,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::Bool => "bool",
        })
    }
}

impl std::str::FromStr for DType {
    type Err = crate::Error;
    fn from_str(s: &str) -> crate::Result<Self> {
        DType::ALL.into_iter().find(|d| d.to_string() == s).ok_or_else(|| {
            crate::Error::format("dtype", format!("{s:?} is none of f32 f64 f16 bf16 i64 i32 i8 u8 bool"))
        })
    }
}

/// A Rust type that a tensor can hold.
pub trait Element: Copy + Send + Sync + PartialEq + PartialOrd + fmt::Debug + Default + 'static {
    /// Its dtype.
    const DTYPE: DType;
    /// How it lies in memory: itself, except that `bool` is a byte that is 0 or 1.
    type Stored: bytemuck::Pod + Send + Sync + PartialEq + PartialOrd + Default;
    /// Into memory.
    fn store(self) -> Self::Stored;
    /// Out of memory.
    fn load(stored: Self::Stored) -> Self;
    /// As a float (i64 beyond 2⁵³ rounds).
    fn to_f64(self) -> f64;
    /// From a float: rounded for floats, ≠ 0 for bool. Integers truncate, take the nearest number that they hold where
    /// the float lies outside of their range, and 0 for NaN.
    fn from_f64(x: f64) -> Self;
    /// As an integer: floats are truncated.
    fn to_i64(self) -> i64;
    /// From an integer: rounded for floats, ≠ 0 for bool. Narrower integers wrap.
    fn from_i64(x: i64) -> Self;
}

/// A double as a float that rounds on to a half type as the double itself would: cut off, and the last bit set if anything was
/// ("round to odd"; S. Boldo, G. Melquiond 2008).
#[inline(always)]
fn to_odd(x: f64) -> f32 {
    let y = x as f32;
    if y as f64 == x || !y.is_finite() {
        return y;
    }
    let above = (y as f64).abs() > x.abs();
    f32::from_bits((y.to_bits() - above as u32) | 1)
}

macro_rules! element {
    ($($t:ident $d:ident: $to_f64:expr, $from_f64:expr, $to_i64:expr, $from_i64:expr;)*) => {$(
        impl Element for $t {
            const DTYPE: DType = DType::$d;
            type Stored = $t;
            #[inline(always)] fn store(self) -> $t { self }
            #[inline(always)] fn load(stored: $t) -> $t { stored }
            #[inline(always)] fn to_f64(self) -> f64 { $to_f64(self) }
            #[inline(always)] fn from_f64(x: f64) -> $t { $from_f64(x) }
            #[inline(always)] fn to_i64(self) -> i64 { $to_i64(self) }
            #[inline(always)] fn from_i64(x: i64) -> $t { $from_i64(x) }
        }
    )*};
}
element! {
    f32 F32: |x| x as f64, |x| x as f32, |x| x as i64, |x| x as f32;
    f64 F64: |x| x, |x| x, |x| x as i64, |x| x as f64;
    f16 F16: f16::to_f64, |x| f16::from_f32(to_odd(x)), |x: f16| x.to_f32() as i64, |x: i64| f16::from_f32(to_odd(x as f64));
    bf16 BF16: bf16::to_f64, |x| bf16::from_f32(to_odd(x)), |x: bf16| x.to_f32() as i64, |x: i64| bf16::from_f32(to_odd(x as f64));
    i64 I64: |x| x as f64, |x| x as i64, |x| x, |x| x;
    i32 I32: |x| x as f64, |x| x as i32, |x| x as i64, |x| x as i32;
    i8 I8: |x| x as f64, |x| x as i8, |x| x as i64, |x| x as i8;
    u8 U8: |x| x as f64, |x| x as u8, |x| x as i64, |x| x as u8;
}
impl Element for bool {
    const DTYPE: DType = DType::Bool;
    type Stored = u8;
    #[inline(always)]
    fn store(self) -> u8 {
        self as u8
    }
    #[inline(always)]
    fn load(stored: u8) -> bool {
        stored != 0
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self as u8 as f64
    }
    #[inline(always)]
    fn from_f64(x: f64) -> bool {
        x != 0.0
    }
    #[inline(always)]
    fn to_i64(self) -> i64 {
        self as i64
    }
    #[inline(always)]
    fn from_i64(x: i64) -> bool {
        x != 0
    }
}

/// Runs the body with `$T` bound to the Rust type of a dtype (`bool` for `Bool`).
#[macro_export]
macro_rules! dispatch {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::DType::F16 => {
                type $T = ::half::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $T = ::half::bf16;
                $body
            }
            $crate::DType::I64 => {
                type $T = i64;
                $body
            }
            $crate::DType::I32 => {
                type $T = i32;
                $body
            }
            $crate::DType::I8 => {
                type $T = i8;
                $body
            }
            $crate::DType::U8 => {
                type $T = u8;
                $body
            }
            $crate::DType::Bool => {
                type $T = bool;
                $body
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half way between two neighbours a double goes to the even one, and ever so little off to the nearer one.
    #[test]
    fn doubles_round_to_halves_once() {
        for bits in 0..0x7bffu16 {
            let [low, high] = [bits, bits + 1].map(|b| f16::from_bits(b).to_f64());
            let (tie, even) = (0.5 * (low + high), bits + (bits & 1));
            assert_eq!(<f16 as Element>::from_f64(tie).to_bits(), even);
            assert_eq!(<f16 as Element>::from_f64(tie * (1.0 + 1e-15)).to_bits(), bits + 1);
            assert_eq!(<f16 as Element>::from_f64(-tie * (1.0 - 1e-15)).to_bits(), bits | 0x8000);
        }
        for bits in 0..0x7f7fu16 {
            let [low, high] = [bits, bits + 1].map(|b| bf16::from_bits(b).to_f64());
            let (tie, even) = (0.5 * (low + high), bits + (bits & 1));
            assert_eq!(<bf16 as Element>::from_f64(tie).to_bits(), even);
            assert_eq!(<bf16 as Element>::from_f64(tie * (1.0 + 1e-15)).to_bits(), bits + 1);
        }
        assert_eq!(<f16 as Element>::from_f64(1e300), f16::INFINITY);
        assert!(<f16 as Element>::from_f64(f64::NAN).is_nan());
    }

    #[test]
    fn promotion_is_symmetric_and_follows_the_rule() {
        use DType::*;
        for a in DType::ALL {
            assert_eq!(a.promote(a), a);
            for b in DType::ALL {
                assert_eq!(a.promote(b), b.promote(a));
            }
        }
        assert_eq!(F16.promote(BF16), F32);
        assert_eq!(I64.promote(F16), F16);
        assert_eq!(U8.promote(Bool), U8);
        assert_eq!(U8.promote(I32), I32);
        assert_eq!(I8.promote(U8), I32);
        assert_eq!(I8.promote(Bool), I8);
        assert_eq!(I8.promote(I32), I32);
        assert_eq!(F64.promote(F32), F64);
    }
}
