//! Which vector instructions this machine has, found once at run time.

use std::sync::OnceLock;

/// A set of vector instructions. The order is that of strength, so `a.min(b)` is the weaker of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// What every machine of the compilation target has: SSE2 without a fused multiply-add on x86-64; on aarch64 NEON, whose
    /// matrix kernels are written for it (128-bit vectors, fused multiply-add).
    Portable,
    /// AVX2 with FMA and F16C: 256-bit vectors.
    Avx2,
    /// AVX-512 F, BW, DQ and VL on top of [`Level::Avx2`]: 512-bit vectors.
    Avx512,
}

impl Level {
    /// Every level, the weakest first.
    pub const ALL: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

    /// This level, or the strongest the machine has if that is weaker. What comes back is always safe to run.
    #[inline]
    pub fn usable(self) -> Level {
        self.min(hardware())
    }

    /// The name that `FERROGRAD_SIMD` knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable if cfg!(target_arch = "aarch64") => "neon",
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }
}

/// The strongest level that the machine has, whatever the environment asks for.
pub fn hardware() -> Level {
    static HARDWARE: OnceLock<Level> = OnceLock::new();
    *HARDWARE.get_or_init(detect)
}

/// The level that kernels run at: the machine's strongest, capped by the environment variable
/// `FERROGRAD_SIMD=portable|avx2|avx512` (any other value is ignored, with a line on stderr). Read once per process. On
/// aarch64 there is one level, which goes by `neon` as well.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| match std::env::var("FERROGRAD_SIMD") {
        Ok(name) => match parse(&name) {
            Some(cap) => cap.usable(),
            None => {
                eprintln!("FERROGRAD_SIMD={name}: not one of portable, avx2, avx512; ignored");
                hardware()
            }
        },
        Err(_) => hardware(),
    })
}

fn parse(name: &str) -> Option<Level> {
    let name = name.trim();
    if name.eq_ignore_ascii_case("portable") {
        return Some(Level::Portable);
    }
    Level::ALL.into_iter().find(|l| l.name().eq_ignore_ascii_case(name))
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        (false, _) => Level::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Portable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for l in Level::ALL {
            assert_eq!(parse(l.name()), Some(l));
        }
        assert_eq!(parse(" AVX2 "), Some(Level::Avx2));
        assert_eq!(parse("portable"), Some(Level::Portable));
        assert_eq!(parse("sse9"), None);
    }

    #[test]
    fn usable_never_exceeds_the_machine() {
        for l in Level::ALL {
            assert!(l.usable() <= hardware());
            assert!(l.usable() <= l);
        }
        assert!(level() <= hardware());
    }
}
