//! Convolution: forward and gradients. The transposed convolution is the input gradient of one that goes the other way.
//!
//! Layouts are row-major: images `[N, C, H, W]`, weights `[O, C/groups, kh, kw]`, outputs `[N, O, Ho, Wo]`. No function
//! here adds a bias. A one-dimensional convolution is the two-dimensional one with `H = kh = 1`.
//!
//! The patches that the kernel sees are the columns of a matrix `X̂ [C/g·kh·kw, pixels]`, so that per image and group
//!
//! ```text
//! Y  = W · X̂          dX̂ = Wᵀ · dY          dW = Σ dY · X̂ᵀ
//! ```
//!
//! `X̂` is never built: the products are *implicit*, their panels are packed straight from the image (`patches`), a tile
//! of the columns at a time, which stays in the cache. A 1×1 convolution of stride 1 needs no `X̂` (it is the image
//! itself), and a depthwise convolution, whose products would be vectors, is computed directly.
//!
//! How the work is cut up depends on shapes alone, never on the number of threads; so do the bits of the result.

mod col2im;
mod depthwise;
mod forward;
mod input_grad;
mod op;
mod patches;
mod segment;
mod weight_grad;

#[cfg(test)]
mod tests;

pub use forward::conv2d;
pub use input_grad::conv2d_input_grad;
pub use op::{conv2d_input_grad_tensor, conv2d_tensor, conv2d_weight_grad_tensor};
pub use weight_grad::conv2d_weight_grad;

use super::gemm::{Accumulator, GemmElement};
use super::simd::MulAdd;
use num_traits::Float;

/// What a convolution computes in: `f32` and `f64`.
pub trait ConvElement: Float + MulAdd + Accumulator + GemmElement<Acc = Self> + bytemuck::Pod {}
impl ConvElement for f32 {}
impl ConvElement for f64 {}

/// The sizes of a 2-D convolution of `x [n, c, h, w]` with `w [o, c/groups, kh, kw]`; pairs are `(vertical, horizontal)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dGeometry {
    /// Images in the batch.
    pub n: usize,
    /// Input channels, a multiple of `groups`.
    pub c: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Output channels, a multiple of `groups`.
    pub o: usize,
    /// Kernel height.
    pub kh: usize,
    /// Kernel width.
    pub kw: usize,
    /// Steps of the window, at least 1.
    pub stride: (usize, usize),
    /// Zeros added on *both* sides of each axis.
    pub padding: (usize, usize),
    /// Distance between the kernel's taps, at least 1.
    pub dilation: (usize, usize),
    /// Output channels of group `i` see only the input channels of group `i`.
    pub groups: usize,
}

impl Conv2dGeometry {
    /// `(Ho, Wo)`, with `Ho = ⌊(H + 2·padding − dilation·(kh − 1) − 1) / stride⌋ + 1`, and 0 where the kernel does not fit.
    pub fn out_size(&self) -> (usize, usize) {
        (
            out_len(self.h, self.kh, self.stride.0, self.padding.0, self.dilation.0),
            out_len(self.w, self.kw, self.stride.1, self.padding.1, self.dilation.1),
        )
    }

    /// Number of elements of the input `[n, c, h, w]`.
    pub fn input_len(&self) -> usize {
        self.n * self.c * self.h * self.w
    }

    /// Number of elements of the weight `[o, c/groups, kh, kw]`.
    pub fn weight_len(&self) -> usize {
        self.o * (self.c / self.groups) * self.kh * self.kw
    }

    /// Number of elements of the output `[n, o, Ho, Wo]`.
    pub fn output_len(&self) -> usize {
        let (ho, wo) = self.out_size();
        self.n * self.o * ho * wo
    }
}

/// The output length of a sliding window, 0 where the window does not fit.
fn out_len(size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> usize {
    let span = if kernel == 0 { 0 } else { dilation * (kernel - 1) + 1 };
    match (size + 2 * padding).checked_sub(span) {
        Some(room) => room / stride + 1,
        None => 0,
    }
}

/// A geometry with its output size settled. A transposed convolution may leave the last windows of its geometry unused,
/// so `ho` and `wo` may be below `geo.out_size()`, never above.
#[derive(Clone, Copy)]
struct Plan {
    geo: Conv2dGeometry,
    ho: usize,
    wo: usize,
}

/// Part of the work: the pixels `start..end` of the output plane, for `images` images from `image` on.
#[derive(Clone, Copy)]
struct Tile {
    image: usize,
    images: usize,
    start: usize,
    end: usize,
}

impl Tile {
    /// Output pixels per image.
    fn pixels(&self) -> usize {
        self.end - self.start
    }
    /// Columns of `X̂`.
    fn columns(&self) -> usize {
        self.images * self.pixels()
    }
}

impl Plan {
    /// Checks the geometry and the three lengths.
    fn new(geo: &Conv2dGeometry, (ho, wo): (usize, usize), x: usize, w: usize, y: usize) -> Plan {
        assert!(geo.groups > 0 && geo.stride.0 > 0 && geo.stride.1 > 0 && geo.dilation.0 > 0 && geo.dilation.1 > 0);
        assert!(geo.c.is_multiple_of(geo.groups) && geo.o.is_multiple_of(geo.groups), "groups must divide channels");
        let most = geo.out_size();
        assert!(ho <= most.0 && wo <= most.1, "output larger than the convolution's");
        assert_eq!(x, geo.input_len(), "input length");
        assert_eq!(w, geo.weight_len(), "weight length");
        assert_eq!(y, geo.n * geo.o * ho * wo, "output length");
        Plan { geo: *geo, ho, wo }
    }

    /// Input channels per group.
    fn cg(&self) -> usize {
        self.geo.c / self.geo.groups
    }
    /// Output channels per group.
    fn og(&self) -> usize {
        self.geo.o / self.geo.groups
    }
    /// Rows of `X̂`: `C/g · kh · kw`.
    fn k(&self) -> usize {
        self.cg() * self.geo.kh * self.geo.kw
    }
    /// Elements of an input plane.
    fn area(&self) -> usize {
        self.geo.h * self.geo.w
    }
    /// Elements of an output plane.
    fn pixels(&self) -> usize {
        self.ho * self.wo
    }

    /// Is `X̂` the image itself?
    fn pointwise(&self) -> bool {
        let g = &self.geo;
        (g.kh, g.kw, g.stride, g.padding) == (1, 1, (1, 1), (0, 0))
            && (self.ho, self.wo) == (g.h, g.w)
            && self.pixels() >= 32
    }
    /// One input channel per group, and too few output channels to make a matrix product of it.
    fn depthwise(&self) -> bool {
        self.cg() == 1 && self.og() <= 4
    }
    /// Few images: let the products inside an image use the pool as well. Depends on the shape alone.
    fn nested(&self) -> bool {
        self.geo.n * self.geo.groups < 32
    }

    /// How many images share one product: small planes are gathered until there are some 500 columns. A power of two, as
    /// batches and numbers of threads are.
    fn images_per_block(&self) -> usize {
        let pixels = self.pixels();
        if pixels == 0 || pixels > 256 || self.pointwise() {
            return 1;
        }
        1 << (self.tile_pixels().min(512) / pixels).clamp(1, self.geo.n.max(1)).ilog2()
    }

    /// Output pixels per tile: a tile of `X̂` has about 2¹⁷ elements and no fewer than 128 columns.
    fn tile_pixels(&self) -> usize {
        ((1 << 17) / self.k().max(1)).clamp(128, 4096) & !15
    }

    /// The tiles of one image, in order (whole planes, for blocks of several images).
    fn tiles(&self, image: usize, images: usize) -> impl Iterator<Item = Tile> {
        let (pixels, step) = (self.pixels(), if images > 1 { self.pixels() } else { self.tile_pixels() });
        (0..pixels).step_by(step.max(1)).map(move |start| Tile {
            image,
            images,
            start,
            end: (start + step).min(pixels),
        })
    }
}
