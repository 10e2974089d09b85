//! Convolutions as matrix products: which kernel makes one, and the gradient of the image as convolutions. See
//! `kernels/conv.cuh`.

use super::elementwise::{binary, full, region};
use super::matmul::{After, LARGE, Output, SIMT_SMALL, SMALL, STAGES, Sizes, Tile, slice, tile};
use super::split_k::add_parts;
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::Layout;
use crate::memory::address;
use crate::programs::{KernelId, Program};
use ferrograd_tensor::backend::Binary;
use ferrograd_tensor::ops::conv::Conv2dPlan;
use ferrograd_tensor::{DType, Tensor, ensure};

/// What is compiled ahead of time.
pub const PROGRAMS: [Program; 4] = [DIRECT, SIMT, MMA, CHANNELS_LAST];
const DIRECT: Program = ("conv_direct.cu", "");
const SIMT: Program = ("conv_simt.cu", "");
const MMA: Program = ("conv_mma.cu", "");
const CHANNELS_LAST: Program = ("channels_last.cu", "");

/// The same as in `conv.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Divisor {
    d: u32,
    m: u32,
    s: u32,
}

impl Divisor {
    fn of(d: usize) -> Self {
        let s = d.next_power_of_two().trailing_zeros();
        let m = ((1u64 << 32) * ((1u64 << s) - d as u64)) / d as u64 + 1;
        Divisor { d: d as u32, m: m as u32, s }
    }
}

/// The same as in `conv.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Image {
    image: i64,
    channel: i64,
    row: i64,
    column: i64,
}

impl Image {
    /// Of `[N, C, H, W]`.
    fn of(x: &Tensor) -> Self {
        let [image, channel, row, column] = [0, 1, 2, 3].map(|d| x.layout().strides[d] as i64);
        Image { image, channel, row, column }
    }
}

/// The same as in `conv.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Patches {
    x: Image,
    size: [i32; 2],
    step: [i32; 2],
    tap: [i32; 2],
    shift: [i32; 2],
    channels: i32,
    plane: Divisor,
    width: Divisor,
    taps: Divisor,
    kernel_width: Divisor,
    depth: Divisor,
}

/// Along one axis: output `i` sees at its tap `a` the input `i·step + a·tap + shift`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    step: i32,
    tap: i32,
    shift: i32,
}

/// Which kernels make a convolution.
#[derive(Clone, Copy, PartialEq)]
enum Kernels {
    /// `conv_direct.cu`: few channels in a group.
    Direct,
    /// `conv_simt.cu`: f32 and f64.
    Simt,
    /// `conv_mma.cu`: the half types.
    Mma,
}

impl Kernels {
    fn of(plan: &Conv2dPlan, dtype: DType) -> Self {
        let g = &plan.geometry;
        match () {
            () if g.c == g.groups && g.o <= 4 * g.groups => Kernels::Direct,
            () if dtype.is_half() => Kernels::Mma,
            () => Kernels::Simt,
        }
    }
}

/// An image or a gradient of one, `[N, C, H, W]`, as its kernels read it.
struct Source {
    x: Tensor,
    /// Channels of a group, and with zeros behind them.
    channels: usize,
    depth: usize,
}

impl Source {
    #[track_caller]
    fn new(cuda: &'static Cuda, kernels: Kernels, x: &Tensor, groups: usize) -> Self {
        let channels = x.dims()[1] / groups;
        match kernels {
            Kernels::Mma => {
                let depth = channels.next_multiple_of(8);
                Source { x: with_channels_last(cuda, x, groups), channels, depth }
            }
            _ => Source { x: x.clone(), channels, depth: channels },
        }
    }
}

/// `[N, C, H, W]` whose channels lie side by side, with zeros behind those of each group up to a multiple of 8: the image itself
/// if it lies so, or a copy. The result is `[N, groups · depth, H, W]`.
#[track_caller]
fn with_channels_last(cuda: &'static Cuda, x: &Tensor, groups: usize) -> Tensor {
    let [n, c, h, w] = [0, 1, 2, 3].map(|d| x.dims()[d]);
    let strides = &x.layout().strides;
    let whole = |d: usize| strides[d] % 8 == 0 || x.dims()[d] == 1;
    if c / groups % 8 == 0 && strides[1] == 1 && [0, 2, 3].into_iter().all(whole) && address(x) % 16 == 0 {
        return x.clone();
    }
    let y = channels_last(cuda, x, 1, groups);
    y.reshape([n, h, w, y.numel() / (n * h * w)]).permute([0, 3, 1, 2])
}

/// How far it is from pixel to pixel of `[N, C, H, W]`, if that is the same from row to row and from image to image.
fn pitch(x: &Tensor) -> Option<i64> {
    let mut pixels = (0, 1);
    for d in [3, 2, 0] {
        let (extent, stride) = (x.dims()[d] as i64, x.layout().strides[d] as i64);
        pixels = match pixels {
            _ if extent == 1 => pixels,
            (_, 1) => (stride, extent),
            (pitch, count) if stride == pitch * count => (pitch, count * extent),
            _ => return None,
        };
    }
    Some(pixels.0)
}

/// `[…, groups, depth]`: the dimensions of `x` without `channel`, then that one, with zeros behind the channels of each group up
/// to `depth`, a multiple of 8.
#[track_caller]
fn channels_last(cuda: &'static Cuda, x: &Tensor, channel: usize, groups: usize) -> Tensor {
    let mut pixels = x.layout().clone();
    pixels.shape = pixels.shape.with(channel, 1);
    let pixels = region(x, &pixels);
    let (n, channels) = (pixels.numel(), x.dims()[channel] / groups);
    let depth = channels.next_multiple_of(8);
    let y = cuda.empty(&[n, groups, depth].into(), x.dtype());
    let arguments = Arguments::default()
        .tensor(x)
        .tensor(&y)
        .value(Layout::of([&pixels]))
        .value(groups as i64)
        .value(channels as i64)
        .value(depth as i64)
        .value(x.layout().strides[channel] as i64);
    let blocks = n.div_ceil(32) * groups * depth.div_ceil(32);
    let (file, define) = CHANNELS_LAST;
    let id = KernelId { file, define, name: "channels_last", dtype: None };
    // SAFETY: numbers of 16 bits; the layout and the stride are x's, and y has room for all pixels.
    unsafe { cuda.launch(id, [blocks as u32, 1, 1], BLOCK, 0, arguments) };
    y
}

/// `Y = conv(x, weight) + bias`: the weight is `[groups, channels of Y, channels of x, kh, kw]`, of a group, with any strides, and
/// `y [N, C, H, W]` too.
struct Convolution<'a> {
    x: &'a Source,
    axes: [Axis; 2],
    weight: Tensor,
    bias: Option<Tensor>,
    y: Tensor,
}

/// The patches of an image that the pixels of an output `[N, C, Ho, Wo]` see, with a kernel `[kh, kw]`.
fn patches(x: &Source, axes: [Axis; 2], y: &Tensor, kernel: [usize; 2]) -> Patches {
    let [ho, wo] = [y.dims()[2], y.dims()[3]];
    Patches {
        x: Image::of(&x.x),
        size: [2, 3].map(|d| x.x.dims()[d] as i32),
        step: axes.map(|a| a.step),
        tap: axes.map(|a| a.tap),
        shift: axes.map(|a| a.shift),
        channels: x.channels as i32,
        plane: Divisor::of(ho * wo),
        width: Divisor::of(wo),
        taps: Divisor::of(kernel[0] * kernel[1]),
        kernel_width: Divisor::of(kernel[1]),
        depth: Divisor::of(x.depth),
    }
}

fn pixels(y: &Tensor) -> usize {
    y.dims()[0] * y.dims()[2] * y.dims()[3]
}

/// A matrix product of each group.
fn sizes(m: usize, n: usize, k: usize, groups: usize) -> Sizes {
    let [m, n, k, batches] = [m, n, k, groups].map(|n| n as i64);
    Sizes { m, n, k, part: k, a: [k, 1], b: [0, 0], batches }
}

fn id((file, define): Program, name: &'static str, dtype: DType) -> KernelId {
    KernelId { file, define, name, dtype: Some(dtype) }
}

/// Bytes of the ring of slices of `conv_mma.cu`.
fn ring(tile: Tile, along_k: bool) -> u32 {
    (STAGES * (slice(tile.rows, along_k, 2) + slice(tile.columns, along_k, 2)) * 2) as u32
}

impl Convolution<'_> {
    /// `[groups, channels of Y, kh, kw, depth]`, row-major: the weight itself if it lies so, or a copy.
    #[track_caller]
    fn weight_with_channels_last(&self, cuda: &'static Cuda) -> Tensor {
        let last = self.weight.permute([0, 1, 3, 4, 2]);
        match self.x.channels == self.x.depth && last.is_contiguous() && address(&last).is_multiple_of(16) {
            true => last,
            false => channels_last(cuda, &self.weight, 2, 1),
        }
    }

    /// There is something to add up.
    #[track_caller]
    fn run(&self, cuda: &'static Cuda, kernels: Kernels) {
        let [groups, m, channels, kh, kw] = [0, 1, 2, 3, 4].map(|d| self.weight.dims()[d]);
        let (n, dtype) = (pixels(&self.y), self.y.dtype());
        let (weight, k) = match kernels {
            Kernels::Mma => (self.weight_with_channels_last(cuda), self.x.depth * kh * kw),
            _ => (self.weight.contiguous(), channels * kh * kw),
        };
        let arguments = Arguments::default().tensor(&weight).tensor(&self.x.x);
        let arguments = match &self.bias {
            Some(bias) => arguments.tensor(bias),
            None => arguments.value(0u64),
        };
        let patches = patches(self.x, self.axes, &self.y, [kh, kw]);
        let arguments =
            arguments.tensor(&self.y).value(sizes(m, n, k, groups)).value(patches).value(Image::of(&self.y));
        // K is not cut here.
        let fitting = tile(SMALL, [m, n, 1, groups], cuda.multiprocessors as usize);
        // SAFETY, of all launches: sizes and strides are those of the operands, which have one dtype and lie as the kernels want them.
        match kernels {
            Kernels::Direct => {
                let grid = [n.div_ceil(BLOCK as usize) as u32, (groups * m).min(65535) as u32, 1];
                // SAFETY: as above.
                unsafe { cuda.launch(id(DIRECT, "conv", dtype), grid, BLOCK, 0, arguments) };
            }
            Kernels::Simt => {
                let large = dtype == DType::F32 && fitting == LARGE;
                let (name, tile) = if large { ("conv_large", LARGE) } else { ("conv_small", SIMT_SMALL) };
                let blocks = tile.count(m, n, groups) as u32;
                // SAFETY: as above.
                unsafe { cuda.launch(id(SIMT, name, dtype), [blocks, 1, 1], tile.threads, 0, arguments) };
            }
            Kernels::Mma => {
                let name = if fitting == LARGE { "conv_large" } else { "conv_small" };
                let blocks = fitting.count(m, n, groups) as u32;
                let arguments = arguments.value(stores_whole_chunks(&self.y) as i32);
                let shared = ring(fitting, true);
                // SAFETY: as above.
                unsafe { cuda.launch(id(MMA, name, dtype), [blocks, 1, 1], fitting.threads, shared, arguments) };
            }
        }
    }
}

/// Do eight pixels that begin at a multiple of eight lie side by side, at a multiple of 16 bytes?
fn stores_whole_chunks(y: &Tensor) -> bool {
    let [n, c, h, w] = [0, 1, 2, 3].map(|d| y.dims()[d]);
    let Image { image, channel, row, column } = Image::of(y);
    let planes = [(n, image), (c, channel)].into_iter().all(|(extent, stride)| extent == 1 || stride % 8 == 0);
    column == 1 && (row == w as i64 || h == 1) && (h * w).is_multiple_of(8) && planes && address(y) % 16 == 0
}

/// The kernels count pixels and terms of a sum in 31 bits.
#[track_caller]
fn check_sizes(plan: &Conv2dPlan) {
    let g = &plan.geometry;
    let sizes = [g.n * g.h * g.w, g.n * plan.out.0 * plan.out.1, g.c * g.kh * g.kw, g.o * g.kh * g.kw];
    let reach = [g.h + 2 * g.padding.0, g.w + 2 * g.padding.1];
    ensure!(
        sizes.iter().chain(&reach).all(|&n| n < 1 << 30),
        Shape,
        "conv2d",
        "{} with weight {} has more pixels, or more terms in a sum, than the 2³⁰ that the card's kernels count",
        plan.input_shape(),
        plan.weight_shape()
    );
}

/// See [`Backend::conv2d`](ferrograd_tensor::backend::Backend::conv2d).
#[track_caller]
pub fn conv2d(cuda: &'static Cuda, plan: &Conv2dPlan, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Tensor {
    check_sizes(plan);
    let g = &plan.geometry;
    if x.numel() == 0 || w.numel() == 0 {
        let zeros = full(cuda, &plan.output_shape(), x.dtype(), 0.0);
        let spread = |b: &Tensor| b.reshape([g.o, 1, 1]).expand(plan.output_shape());
        return bias.map_or(zeros.clone(), |b| binary(cuda, Binary::Add, &zeros, &spread(b)));
    }
    let kernels = Kernels::of(plan, x.dtype());
    let y = cuda.empty(&plan.output_shape(), x.dtype());
    if y.numel() > 0 {
        let convolution = Convolution {
            x: &Source::new(cuda, kernels, x, g.groups),
            axes: forward_axes(plan),
            weight: w.unflatten(0, &[g.groups, g.o / g.groups]),
            bias: bias.map(Tensor::contiguous),
            y: y.clone(),
        };
        convolution.run(cuda, kernels);
    }
    y
}

fn forward_axes(plan: &Conv2dPlan) -> [Axis; 2] {
    let g = &plan.geometry;
    let axis = |step, tap, padding: usize| Axis { step: step as i32, tap: tap as i32, shift: -(padding as i32) };
    [axis(g.stride.0, g.dilation.0, g.padding.0), axis(g.stride.1, g.dilation.1, g.padding.1)]
}

/// Every `stride`-th pixel of an axis of the image's gradient, from `first` on, `pixels` in all. Pixel u gets from output i at tap a
/// if u = i·stride + a·dilation − padding, so these get from every `every`-th tap only, from `tap` on, `taps` in all, and what they
/// get is a convolution of step 1.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Phase {
    first: usize,
    pixels: usize,
    tap: usize,
    every: usize,
    taps: usize,
    axis: Axis,
}

/// The phases of an axis of `n` pixels; those without taps are left out.
fn phases(n: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> impl Iterator<Item = Phase> {
    let divides = move |first: usize, tap: usize| (first + padding).abs_diff(tap * dilation).is_multiple_of(stride);
    let every = (1..=stride).find(|k| (k * dilation).is_multiple_of(stride)).expect("the stride itself");
    (0..stride.min(n)).filter_map(move |first| {
        let tap = (0..every.min(kernel)).find(|&tap| divides(first, tap))?;
        // (first + padding − tap·dilation) / stride and −every·dilation / stride, without a rest.
        let shift = ((first + padding) as i64 - (tap * dilation) as i64) / stride as i64;
        let axis = Axis { step: 1, tap: -((every * dilation / stride) as i32), shift: shift as i32 };
        Some(Phase {
            first,
            pixels: (n - first).div_ceil(stride),
            tap,
            every,
            taps: (kernel - tap).div_ceil(every),
            axis,
        })
    })
}

/// `x` along `dim`: every `step`-th from `first` on.
fn every(x: &Tensor, dim: isize, first: usize, step: usize) -> Tensor {
    x.slice_dim(dim, first as isize, None, step as isize)
}

/// See [`Backend::conv2d_input_grad`](ferrograd_tensor::backend::Backend::conv2d_input_grad).
#[track_caller]
pub fn conv2d_input_grad(cuda: &'static Cuda, plan: &Conv2dPlan, dy: &Tensor, w: &Tensor) -> Tensor {
    check_sizes(plan);
    let g = &plan.geometry;
    let zeros = || full(cuda, &plan.input_shape(), dy.dtype(), 0.0);
    if dy.numel() == 0 || w.numel() == 0 {
        return zeros();
    }
    let rows: Vec<Phase> = phases(g.h, g.kh, g.stride.0, g.padding.0, g.dilation.0).collect();
    let columns: Vec<Phase> = phases(g.w, g.kw, g.stride.1, g.padding.1, g.dilation.1).collect();
    // Pixels without taps get nothing.
    let all = |phases: &[Phase], n: usize| phases.iter().map(|p| p.pixels).sum::<usize>() == n;
    let dx = match all(&rows, g.h) && all(&columns, g.w) {
        true => cuda.empty(&plan.input_shape(), dy.dtype()),
        false => zeros(),
    };
    let kernels = Kernels::of(plan, dy.dtype());
    let source = Source::new(cuda, kernels, dy, g.groups);
    let weight = w.unflatten(0, &[g.groups, g.o / g.groups]).transpose(1, 2);
    for (r, c) in rows.iter().flat_map(|r| columns.iter().map(move |c| (r, c))) {
        let convolution = Convolution {
            x: &source,
            axes: [r.axis, c.axis],
            weight: every(&every(&weight, 3, r.tap, r.every), 4, c.tap, c.every),
            bias: None,
            y: every(&every(&dx, 2, r.first, g.stride.0), 3, c.first, g.stride.1),
        };
        convolution.run(cuda, kernels);
    }
    dx
}

/// See [`Backend::conv2d_weight_grad`](ferrograd_tensor::backend::Backend::conv2d_weight_grad).
#[track_caller]
pub fn conv2d_weight_grad(cuda: &'static Cuda, plan: &Conv2dPlan, x: &Tensor, dy: &Tensor) -> Tensor {
    check_sizes(plan);
    let g = &plan.geometry;
    let shape = plan.weight_shape();
    if x.numel() == 0 || dy.numel() == 0 || shape.numel() == 0 {
        return full(cuda, &shape, x.dtype(), 0.0);
    }
    let kernels = Kernels::of(plan, x.dtype());
    // The pixels of dy are counted through, as one dimension.
    let dy = if kernels == Kernels::Mma && pitch(dy).is_none() { &dy.contiguous() } else { dy };
    let [image, source] = [x, dy].map(|x| Source::new(cuda, kernels, x, g.groups));
    let (m, n) = (g.o / g.groups, image.depth * g.kh * g.kw);
    let pixels = pixels(dy);
    let small = m <= SMALL.rows || n <= SMALL.columns || x.dtype() == DType::F64;
    let (program, name, tile) = match (kernels, small) {
        (Kernels::Direct, _) => (DIRECT, "weight_grad", Tile { rows: 1, columns: 1, threads: BLOCK }),
        (Kernels::Simt, true) => (SIMT, "weight_grad_small", SIMT_SMALL),
        (Kernels::Simt, false) => (SIMT, "weight_grad_large", LARGE),
        (Kernels::Mma, true) => (MMA, "weight_grad_small", SMALL),
        (Kernels::Mma, false) => (MMA, "weight_grad_large", LARGE),
    };
    let blocks = tile.count(m, n, g.groups);
    let split = tile.split([m, n, pixels, g.groups], cuda.multiprocessors as usize);
    let sums = cuda.empty(&[split.parts, g.o, n].into(), x.dtype().accumulator());
    let arguments = Arguments::default()
        .tensor(&source.x)
        .tensor(&image.x)
        .tensor(&sums)
        .value(Sizes { part: split.part as i64, ..sizes(m, n, pixels, g.groups) })
        .value(patches(&image, forward_axes(plan), dy, [g.kh, g.kw]));
    let (arguments, shared) = match kernels {
        Kernels::Mma => {
            let pitch = pitch(&source.x).expect("pixels in a row");
            (arguments.value(pitch).value(source.depth as i64), ring(tile, false))
        }
        _ => (arguments.value(Image::of(&source.x)), 0),
    };
    let grid = [blocks as u32, split.parts as u32, 1];
    // SAFETY: sizes and strides are those of the operands, which have one dtype and lie as the kernels want them; there is room for
    // each part of each sum.
    unsafe { cuda.launch(id(program, name, x.dtype()), grid, tile.threads, shared, arguments) };
    let dw = match split.parts == 1 && sums.dtype() == x.dtype() {
        true => sums,
        false => {
            let dw = cuda.empty(&[g.o, n].into(), x.dtype());
            add_parts(cuda, Output::new(&dw, &After::default(), Some(&sums)), split.parts, &dw);
            dw
        }
    };
    match kernels {
        Kernels::Mma => {
            let last = dw.reshape([g.o, g.kh, g.kw, image.depth]).narrow(3, 0, image.channels);
            last.permute([0, 3, 1, 2]).contiguous()
        }
        _ => dw.reshape(shape),
    }
}

#[cfg(test)]
mod tests {
    use super::{Divisor, phases};

    #[test]
    fn divisors_divide() {
        for d in (1..70).chain([127, 128, 129, 1000, 65535, 65537, (1 << 30) - 1]) {
            let Divisor { m, s, .. } = Divisor::of(d);
            for n in (0..200).chain([d - 1, d, 2 * d - 1, (1 << 31) - 1]).filter(|&n| n < 1 << 31) {
                let quotient = ((n as u64 * m as u64) >> 32) + n as u64;
                assert_eq!((quotient >> s) as usize, n / d, "{n} / {d}");
            }
        }
    }

    #[test]
    fn phases_find_every_pixel_and_tap() {
        for (kernel, stride, padding, dilation) in
            [(3, 1, 1, 1), (3, 2, 1, 1), (1, 2, 0, 1), (4, 3, 2, 2), (5, 4, 7, 6)]
        {
            let mut found: Vec<[i64; 3]> = Vec::new();
            for p in phases(11, kernel, stride, padding, dilation) {
                for (u, a) in (0..p.pixels).flat_map(|u| (0..p.taps).map(move |a| (u, a))) {
                    let i = u as i64 + a as i64 * p.axis.tap as i64 + p.axis.shift as i64;
                    found.push([(p.first + u * stride) as i64, (p.tap + a * p.every) as i64, i]);
                }
            }
            found.sort_unstable();
            let (kernel, stride, padding, dilation) = (kernel as i64, stride as i64, padding as i64, dilation as i64);
            let all = (0..11).flat_map(|u| (0..kernel).map(move |a| (u, a, u + padding - a * dilation)));
            let want: Vec<_> = all.filter(|(_, _, i)| i % stride == 0).map(|(u, a, i)| [u, a, i / stride]).collect();
            assert_eq!(found, want);
        }
    }
}
