//! Where the taps of the kernel read.

use super::Plan;

/// One piece of an output row as one tap of the kernel sees it.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    /// Offset of the piece in the pixels that were asked for.
    pub at: usize,
    /// Length of the piece.
    pub len: usize,
    /// Which of its pixels read inside the image (from, to; relative to `at`): the others read padding.
    pub inside: (usize, usize),
    /// Index in the input plane that the first inside pixel reads; the next are `stride.1` further each.
    pub source: usize,
}

impl Plan {
    /// Calls `f` for each piece of the output pixels `start..end` as the tap `(ki, kj)` reads them.
    #[inline]
    pub(super) fn segments(&self, ki: usize, kj: usize, start: usize, end: usize, mut f: impl FnMut(Segment)) {
        let g = &self.geo;
        let (pad_y, pad_x) = g.padding;
        let shift = kj * g.dilation.1;
        // Pixel ox reads column ox·stride + shift − padding: inside for ox in lo..hi.
        let hi = if g.w + pad_x > shift { ((g.w + pad_x - shift - 1) / g.stride.1 + 1).min(self.wo) } else { 0 };
        let lo = pad_x.saturating_sub(shift).div_ceil(g.stride.1).min(hi);
        let mut q = start;
        while q < end {
            let (oy, a) = (q / self.wo, q % self.wo);
            let b = self.wo.min(a + end - q);
            let iy = oy * g.stride.0 + ki * g.dilation.0;
            let (first, last) = (lo.clamp(a, b), hi.clamp(a, b));
            let (at, len) = (q - start, b - a);
            if iy < pad_y || iy - pad_y >= g.h || first >= last {
                f(Segment { at, len, inside: (0, 0), source: 0 });
            } else {
                let source = (iy - pad_y) * g.w + (first * g.stride.1 + shift - pad_x);
                f(Segment { at, len, inside: (first - a, last - a), source });
            }
            q += len;
        }
    }
}
