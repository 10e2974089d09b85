//! Scaled dot-product attention: which program makes it, and its arguments. The kernels are in `kernels/attention*.cu`.

use super::attention_backward_wgmma::attention_backward_wgmma;
use super::attention_wgmma::attention_wgmma;
use super::copy::copy;
use super::elementwise::full;
use super::layer_norm::optional;
use crate::cuda::Cuda;
use crate::graph::RandomStream;
use crate::launch::Arguments;
use crate::memory::address;
use crate::programs::{KernelId, Program};
use ferrograd_tensor::ops::attention::{AttentionArgs, AttentionGradients};
use ferrograd_tensor::{DType, Tensor};
use std::f64::consts::LOG2_E;

/// The same as `Rows` in `attention_operands.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Rows {
    data: u64,
    strides: [i64; 3],
    width: i64,
}

impl Rows {
    fn of(x: &Tensor) -> Rows {
        let strides = &x.layout().strides;
        Rows { data: address(x), strides: [0, 1, 2].map(|d| strides[d] as i64), width: x.dims()[3] as i64 }
    }
}

/// The same as `Attention` in `attention_operands.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sizes {
    heads: i32,
    key_heads: i32,
    tq: i32,
    tk: i32,
    offset: i32,
    window: i32,
    kind: i32,
    /// To the next query and key, batch and head.
    mask_near: [i32; 2],
    mask_far: [i64; 2],
    mask: u64,
    key_lengths: u64,
    scale: f64,
    factor: f64,
    kept: f64,
    random: RandomStream,
    threshold: u64,
}

/// Queries and keys are fewer, so that 32 bits hold the sum of two places.
const REACH: usize = 1 << 29;

impl Sizes {
    fn new(cuda: &Cuda, [heads, key_heads, tq, tk]: [usize; 4], mask: Option<&Tensor>, args: &AttentionArgs) -> Sizes {
        let offset = args.causal.unwrap_or(REACH);
        let kind = mask.map_or(0, |mask| if mask.dtype() == DType::Bool { 1 } else { 2 });
        // Only a factor that keeps the order of the scores may come after their maximum.
        let (scale, factor) =
            if kind == 2 || args.scale <= 0.0 { (args.scale, LOG2_E) } else { (1.0, args.scale * LOG2_E) };
        let (kept, threshold, seed, stream) = args.dropout.map_or((0.0, 0, 0, 0), |dropout| {
            let keep = 1.0 - dropout.p;
            let threshold = (keep * 4_294_967_296.0).round() as u64;
            // Where none is kept, any factor will do.
            (if keep > 0.0 { 1.0 / keep } else { 1.0 }, threshold, dropout.state.seed, dropout.state.offset)
        });
        Sizes {
            heads: heads as i32,
            key_heads: key_heads as i32,
            tq: tq as i32,
            tk: tk as i32,
            offset: offset.min(REACH) as i32,
            // What the offset loses, the window does.
            window: args.window.map_or(i32::MAX, |window| {
                i32::try_from(window.saturating_sub(offset - offset.min(REACH))).unwrap_or(i32::MAX)
            }),
            kind,
            mask_near: [2, 3].map(|d| mask.map_or(0, |m| m.layout().strides[d] as i32)),
            mask_far: [0, 1].map(|d| mask.map_or(0, |m| m.layout().strides[d] as i64)),
            mask: mask.map_or(0, address),
            key_lengths: args.key_lengths.as_ref().map_or(0, address),
            scale,
            factor,
            kept,
            random: cuda.random_stream(seed, stream),
            threshold,
        }
    }

    /// Does anything come between products and weights but a positive factor?
    pub fn is_masked(&self) -> bool {
        self.kind != 0 || self.scale != 1.0
    }
}

/// A program of attention, and what it was told; see `attention_tiles.cuh`.
#[derive(Clone, Copy)]
struct Tile {
    dtype: DType,
    head: usize,
    warps: usize,
    fragments: usize,
    columns: usize,
    define: &'static str,
}

impl Tile {
    /// Rows that a block has.
    fn rows(&self) -> usize {
        self.warps * self.fragments * 16
    }
    /// Do registers hold the gradients of keys and of values together? `TOGETHER` in `attention_backward.cu`.
    fn together(&self) -> bool {
        self.head * self.dtype.accumulator().size() <= 512
    }
    fn threads(&self) -> u32 {
        self.warps as u32 * 32
    }
    /// Bytes of so many rows in shared memory.
    fn bytes(&self, rows: usize) -> u32 {
        (rows * self.head * self.dtype.size()) as u32
    }
}

macro_rules! tiles {
    ($($dtype:ident $name:literal $cores:literal: $($head:literal $warps:literal $fragments:literal $columns:literal),*;)*) => {
        &[$($(Tile {
            dtype: DType::$dtype,
            head: $head,
            warps: $warps,
            fragments: $fragments,
            columns: $columns,
            define: concat!(
                "TYPE=", $name, " TENSOR_CORES=", $cores, " HEAD=", $head, " WARPS=", $warps, " FRAGMENTS=", $fragments,
                " COLUMNS=", $columns
            ),
        }),*),*]
    };
}

/// For each type, by growing width: its warps, their fragments of 16 rows, and the columns. As large as registers and 99 KiB of
/// shared memory, which the smallest cards have, allow: each tile that is copied serves more rows.
const FORWARD: &[Tile] = tiles! {
    BF16 "bf16" 1: 32 4 2 64, 64 4 2 64, 128 4 2 32, 256 4 1 32;
    F16 "f16" 1: 32 4 2 64, 64 4 2 64, 128 4 2 32, 256 4 1 32;
    F32 "f32" 0: 32 4 1 32, 64 4 1 32, 128 4 1 32, 256 2 1 16;
    F64 "f64" 0: 32 4 1 32, 64 4 1 32, 128 2 1 16;
};

/// The same of the backward pass, which has twice the rows and the sums; of wider f64 registers do not hold them.
const BACKWARD: &[Tile] = tiles! {
    BF16 "bf16" 1: 32 4 1 64, 64 4 1 64, 128 4 1 32, 256 4 1 16;
    F16 "f16" 1: 32 4 1 64, 64 4 1 64, 128 4 1 32, 256 4 1 16;
    F32 "f32" 0: 32 4 1 32, 64 4 1 32, 128 4 1 16, 256 2 1 8;
    F64 "f64" 0: 32 4 1 32, 64 4 1 16;
};

macro_rules! decoders {
    ($($dtype:ident $name:literal: $($head:literal),*;)*) => {
        &[$($((DType::$dtype, $head, concat!("TYPE=", $name, " HEAD=", $head))),*),*]
    };
}

/// Of a single query: for each type, by growing width, what the program was told.
const DECODE: &[(DType, usize, &str)] = decoders! {
    BF16 "bf16": 32, 64, 128, 256;
    F16 "f16": 32, 64, 128, 256;
    F32 "f32": 32, 64, 128, 256;
    F64 "f64": 32, 64, 128;
};
/// Threads of its blocks.
const DECODERS: u32 = 128;
/// Keys that are worth a block of their own.
const SPLIT: usize = 128;
/// The most blocks for a query.
const SPLITS: usize = 64;

/// What is compiled ahead of time.
pub fn programs() -> impl Iterator<Item = Program> {
    let of = |file, tiles: &'static [Tile]| tiles.iter().map(move |tile| (file, tile.define));
    let decode = DECODE.iter().map(|&(_, _, define)| ("attention_decode.cu", define));
    of("attention.cu", FORWARD).chain(of("attention_backward.cu", BACKWARD)).chain(decode)
}

/// The widest row of all of these, if their widths are whole chunks.
fn widest(xs: &[&Tensor]) -> Option<usize> {
    let whole = xs.iter().all(|x| x.dims()[3] > 0 && x.dims()[3].is_multiple_of(8) && x.dims()[2] < REACH);
    xs.iter().map(|x| x.dims()[3]).max().filter(|_| whole)
}

/// The narrowest program that has room for the rows of all of these.
fn tile(tiles: &[Tile], xs: &[&Tensor]) -> Option<Tile> {
    let widest = widest(xs)?;
    tiles.iter().find(|t| t.dtype == xs[0].dtype() && t.head >= widest).copied()
}

/// Itself, if its rows are runs that begin at multiples of 16 bytes, else a copy.
fn in_rows(cuda: &'static Cuda, x: &Tensor) -> Tensor {
    let strides = &x.layout().strides;
    let whole = |d: usize| x.dims()[d] == 1 || (strides[d] * x.dtype().size() as isize) % 16 == 0;
    let runs = strides[3] == 1;
    if runs && (0..3).all(whole) && address(x).is_multiple_of(16) { x.clone() } else { copy(cuda, x) }
}

/// The mask itself, or a copy if its queries or keys lie so far apart that 32 bits do not tell.
fn within_reach(cuda: &'static Cuda, mask: &Tensor) -> Tensor {
    let near = mask.layout().strides[2..].iter().all(|&s| i32::try_from(s).is_ok());
    if near { mask.clone() } else { copy(cuda, mask) }
}

/// A new `[B, H, T, D]` in the order in memory of `like`: `[B, T, H, D]` where the heads of a token lie side by side there, as a
/// projection makes them, so that what takes all heads together need not copy.
#[track_caller]
fn empty_like(cuda: &'static Cuda, [b, h, t, d]: [usize; 4], like: &Tensor) -> Tensor {
    let strides = &like.layout().strides;
    if like.dims()[1] > 1 && strides[1] < strides[2] {
        cuda.empty(&[b, t, h, d].into(), like.dtype()).transpose(1, 2)
    } else {
        cuda.empty(&[b, h, t, d].into(), like.dtype())
    }
}

fn dims(x: &Tensor) -> [usize; 4] {
    x.dims_of("attention")
}

/// Of the two products forward, as far as queries see keys.
pub fn flops(q: &Tensor, v: &Tensor, args: &AttentionArgs) -> f64 {
    let ([b, h, tq, d], [_, _, tk, dv]) = (dims(q), dims(v));
    2.0 * (b * h * tq) as f64 * args.keys_seen(tk) * (d + dv) as f64
}

/// See [`Backend::attention`](ferrograd_tensor::backend::Backend::attention).
#[track_caller]
pub fn attention(
    cuda: &'static Cuda,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    args: &AttentionArgs,
) -> Option<(Tensor, Tensor)> {
    let ([b, h, tq, _], [_, key_heads, tk, _]) = (dims(q), dims(k));
    if tq == 1 && args.dropout.is_none() {
        return decode(cuda, q, k, v, args);
    }
    let tile = tile(FORWARD, &[q, k, v])?;
    let out = empty_like(cuda, [b, h, tq, v.dims()[3]], q);
    let lse = cuda.empty(&[b, h, tq].into(), q.dtype().accumulator());
    let blocks = u32::try_from(b * h * tq.div_ceil(tile.rows())).ok()?;
    if blocks == 0 {
        return Some((out, lse));
    }
    let [q, k, v] = [q, k, v].map(|x| in_rows(cuda, x));
    let mask = args.mask.as_ref().map(|mask| within_reach(cuda, mask));
    let sizes = Sizes::new(cuda, [h, key_heads, tq, tk], mask.as_ref(), args);
    if attention_wgmma(cuda, [&q, &k, &v, &out], &lse, &sizes) {
        return Some((out, lse));
    }
    let rows = [&q, &k, &v, &out].map(Rows::of);
    let arguments = rows.into_iter().fold(Arguments::default(), Arguments::value);
    let arguments = arguments.tensor(&lse).value(sizes);
    let id = KernelId { file: "attention.cu", define: tile.define, name: "attention", dtype: None };
    let shared = tile.bytes(tile.rows() + 2 * tile.columns);
    // SAFETY: rows of the program's type, in runs and no wider than it takes; a mask of [B, H, Tq, Tk], a logsumexp for each query.
    unsafe { cuda.launch(id, [blocks, 1, 1], tile.threads(), shared, arguments) };
    Some((out, lse))
}

/// The same of a single query, without dropout.
#[track_caller]
fn decode(cuda: &'static Cuda, q: &Tensor, k: &Tensor, v: &Tensor, args: &AttentionArgs) -> Option<(Tensor, Tensor)> {
    let widest = widest(&[q, k, v])?;
    let &(dtype, head, define) = DECODE.iter().find(|(dtype, head, _)| *dtype == q.dtype() && *head >= widest)?;
    let ([b, h, _, _], [_, key_heads, tk, _]) = (dims(q), dims(k));
    let out = empty_like(cuda, [b, h, 1, v.dims()[3]], q);
    let lse = cuda.empty(&[b, h, 1].into(), dtype.accumulator());
    if b * h == 0 {
        return Some((out, lse));
    }
    let [q, k, v] = [q, k, v].map(|x| in_rows(cuda, x));
    let mask = args.mask.as_ref().map(|mask| within_reach(cuda, mask));
    let sizes = Sizes::new(cuda, [h, key_heads, 1, tk], mask.as_ref(), args);
    // Two blocks for each multiprocessor, if there are keys for them.
    let splits = (2 * cuda.multiprocessors as usize).div_ceil(b * h).min(tk.div_ceil(SPLIT)).clamp(1, SPLITS);
    let blocks = u32::try_from(b * h * splits).ok()?;
    let parts = cuda.empty(&[if splits > 1 { b * h * splits * (head + 2) } else { 0 }].into(), dtype.accumulator());
    let id = |name| KernelId { file: "attention_decode.cu", define, name, dtype: None };
    let arguments = [&q, &k, &v, &out].map(Rows::of).into_iter().fold(Arguments::default(), Arguments::value);
    let arguments = arguments.tensor(&lse).value(address(&parts)).value(splits as i32).value(sizes);
    // SAFETY: rows of the program's type, in runs and no wider than it takes; a mask of [B, H, 1, Tk], a logsumexp for each query,
    // and room for each split of each query, if there are several.
    unsafe { cuda.launch(id("attention_decode"), [blocks, 1, 1], DECODERS, 0, arguments) };
    if splits > 1 {
        let arguments = Arguments::default().tensor(&parts).value(Rows::of(&out)).tensor(&lse);
        let arguments = arguments.value(splits as i32).value(sizes);
        // SAFETY: these are the parts that were just made.
        unsafe { cuda.launch(id("attention_combine"), [(b * h) as u32, 1, 1], DECODERS, 0, arguments) };
    }
    Some((out, lse))
}

/// What the three kernels of the backward pass have in common.
struct Backward<'a> {
    cuda: &'static Cuda,
    tile: Tile,
    statistics: &'a Tensor,
    scale: f64,
    sizes: Sizes,
}

/// The same as `Operands` in `attention_backward.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Operands {
    kept: [Rows; 2],
    walked: [Rows; 2],
    statistics: u64,
}

impl Backward<'_> {
    /// Launches a kernel whose blocks keep rows of the first two tensors and walk over those of the others.
    ///
    /// # Safety
    /// It is a kernel for these, and takes `outputs` next.
    #[track_caller]
    unsafe fn launch(
        &self,
        name: &'static str,
        kept: [&Tensor; 2],
        walked: [&Tensor; 2],
        outputs: impl FnOnce(Arguments) -> Arguments,
    ) {
        let [b, h, t, _] = dims(kept[0]);
        let blocks = (b * h * t.div_ceil(self.tile.rows())) as u32;
        if blocks == 0 {
            return;
        }
        let statistics = address(self.statistics);
        let operands = Operands { kept: kept.map(Rows::of), walked: walked.map(Rows::of), statistics };
        let arguments = outputs(Arguments::default().value(operands)).value(self.scale).value(self.sizes);
        let of_queries = self.tile.columns * 2 * self.statistics.dtype().size();
        let step = self.tile.bytes(2 * self.tile.columns) + of_queries as u32;
        let shared = self.tile.bytes(2 * self.tile.rows()) + 2 * step;
        let id = KernelId { file: "attention_backward.cu", define: self.tile.define, name, dtype: None };
        // SAFETY: the caller's promise; the sizes are those of the operands.
        unsafe { self.cuda.launch(id, [blocks, 1, 1], self.tile.threads(), shared, arguments) };
    }
}

/// `L · log₂ e` and `Δ = rowsum(dO ∘ O)` of each query, and in places behind the last as if it saw nothing: `[B, H, places, 2]`.
#[track_caller]
fn statistics(cuda: &'static Cuda, tile: Tile, [out, lse, d_out]: [&Tensor; 3], places: usize) -> Tensor {
    let ([b, h, tq, _], lse, all) = (dims(out), lse.contiguous(), out.dim(0) * out.dim(1) * places);
    let statistics = cuda.empty(&[b, h, places, 2].into(), lse.dtype());
    if all > 0 {
        let arguments =
            Arguments::default().value(Rows::of(out)).value(Rows::of(d_out)).tensor(&lse).tensor(&statistics);
        let arguments = arguments.value(h as i32).value(tq as i32).value(places as i32).value(all as i64);
        let (define, name) = (tile.define, "attention_statistics");
        let id = KernelId { file: "attention_backward.cu", define, name, dtype: None };
        let blocks = all.div_ceil(tile.warps) as u32;
        // SAFETY: rows of the program's type, in runs; a logsumexp for each, and two statistics for each place.
        unsafe { cuda.launch(id, [blocks, 1, 1], tile.threads(), 0, arguments) };
    }
    statistics
}

/// See [`Backend::attention_backward`](ferrograd_tensor::backend::Backend::attention_backward).
#[track_caller]
pub fn attention_backward(
    cuda: &'static Cuda,
    qkv: [&Tensor; 3],
    args: &AttentionArgs,
    (out, lse): (&Tensor, &Tensor),
    d_out: &Tensor,
    mask_gradient: bool,
) -> Option<AttentionGradients> {
    let tile = tile(BACKWARD, &qkv)?;
    let ([b, h, tq, _], [_, key_heads, tk, _]) = (dims(qkv[0]), dims(qkv[1]));
    u32::try_from(b * h * tq.max(tk)).ok()?;
    let [query, key, value] = qkv.map(|x| empty_like(cuda, dims(x), x));
    let [q, k, v] = qkv.map(|x| in_rows(cuda, x));
    let [out, d_out] = [out, d_out].map(|x| in_rows(cuda, x));
    let mask = args.mask.as_ref().map(|mask| within_reach(cuda, mask));
    let statistics = |places| statistics(cuda, tile, [&out, lse, &d_out], places);
    let sizes = Sizes::new(cuda, [h, key_heads, tq, tk], mask.as_ref(), args);
    // Of what causality hides nobody writes the gradient.
    let d_mask = mask_gradient.then(|| full(cuda, &[b, h, tq, tk].into(), lse.dtype(), 0.0));
    let (operands, gradients) = ([&q, &k, &v, &d_out], [&query, &key, &value]);
    if attention_backward_wgmma(cuda, operands, gradients, d_mask.as_ref(), (&sizes, args.scale), statistics) {
        return Some(AttentionGradients { query, key, value, mask: d_mask });
    }
    let backward = Backward { cuda, tile, statistics: &statistics(tq), scale: args.scale, sizes };
    let [dq, dk, dv] = [&query, &key, &value].map(Rows::of);
    // SAFETY: the operands are rows of the program's type, in runs and no wider than it takes; so are the outputs.
    unsafe {
        let outputs = |a: Arguments| optional(a.value(dq), d_mask.as_ref());
        backward.launch("attention_backward_queries", [&q, &d_out], [&k, &v], outputs);
        let outputs = |a: Arguments| a.value(dk).value(dv);
        backward.launch("attention_backward_keys", [&k, &v], [&q, &d_out], outputs);
        if !tile.together() {
            backward.launch("attention_backward_values", [&k, &v], [&q, &d_out], outputs);
        }
    }
    Some(AttentionGradients { query, key, value, mask: d_mask })
}
