//! Matrices of quantised weights: blocks of small integers that share a scale.
//!
//! A model's crate may bring formats of its own: a [`BlockFormat`] says how a block is encoded and decoded, and that is all
//! a product with activations needs. [`Q8_0`] is the one that is built in.

use crate::cpu::level::level;
use crate::cpu::quantized::q8_0;
use crate::{DType, Device, Shape, Tensor, ensure, fail};
use std::fmt;

/// How weights are encoded: in blocks of [`block_len`](BlockFormat::block_len) neighbours of a row, each of
/// [`block_bytes`](BlockFormat::block_bytes) bytes that do not depend on any other block.
///
/// Products of few rows of activations, which memory limits, go through [`matvec`](BlockFormat::matvec): the weights are
/// read once, as they are. Products of many rows decode some rows of weights at a time by
/// [`dequantize`](BlockFormat::dequantize) into a panel that stays in the cache, and multiply by it with the packed
/// matrix product.
///
/// ```
/// # use ferrograd_tensor::{BlockFormat, QuantizedTensor, Tensor};
/// /// Signs, and one f32 scale for each eight of them.
/// #[derive(Debug)]
/// struct Signs;
///
/// impl BlockFormat for Signs {
///     fn name(&self) -> &'static str {
///         "signs"
///     }
///     fn block_len(&self) -> usize {
///         8
///     }
///     fn block_bytes(&self) -> usize {
///         5
///     }
///     fn quantize(&self, x: &[f32], out: &mut [u8]) -> Result<(), String> {
///         for (x, out) in x.chunks_exact(8).zip(out.chunks_exact_mut(5)) {
///             let scale = x.iter().map(|x| x.abs()).sum::<f32>() / 8.0;
///             out[..4].copy_from_slice(&scale.to_le_bytes());
///             out[4] = (0..8).map(|i| ((x[i] < 0.0) as u8) << i).sum();
///         }
///         Ok(())
///     }
///     fn dequantize(&self, blocks: &[u8], out: &mut [f32]) {
///         for (block, out) in blocks.chunks_exact(5).zip(out.chunks_exact_mut(8)) {
///             let scale = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
///             (0..8).for_each(|i| out[i] = if block[4] >> i & 1 == 1 { -scale } else { scale });
///         }
///     }
/// }
///
/// let w = QuantizedTensor::quantize(&Tensor::randn([3, 16]), &Signs);
/// let x = Tensor::randn([2, 16]);
/// assert!(x.matmul_quantized(&w).all_close(&x.matmul(&w.dequantize().t()), 1e-5, 1e-5));
/// ```
pub trait BlockFormat: fmt::Debug + Send + Sync {
    /// For messages.
    fn name(&self) -> &'static str;
    /// Weights in a block, at least 1. A row is a whole number of blocks.
    fn block_len(&self) -> usize;
    /// Bytes of a block, at least 1.
    fn block_bytes(&self) -> usize;
    /// Encodes whole blocks of finite numbers, one after another.
    ///
    /// # Errors
    /// What the format cannot hold, in words.
    fn quantize(&self, x: &[f32], out: &mut [u8]) -> Result<(), String>;
    /// Decodes whole blocks, one after another.
    fn dequantize(&self, blocks: &[u8], out: &mut [f32]);
    /// `y[i] = Σ_k w[i][k] · x[k]`, summed in f32: `y.len()` rows of weights, one after another, of `x.len()` each.
    ///
    /// Provided: decodes row by row. A format that is to run at the memory's speed decodes in registers instead.
    fn matvec(&self, rows: &[u8], x: &[f32], y: &mut [f32]) {
        let bytes = x.len() / self.block_len() * self.block_bytes();
        let mut row = vec![0.0; x.len()];
        for (i, y) in y.iter_mut().enumerate() {
            self.dequantize(&rows[i * bytes..][..bytes], &mut row);
            *y = row.iter().zip(x).map(|(w, x)| w * x).sum();
        }
    }
}

/// The format `q8_0` of ggml: blocks of 32 weights `w ≈ d·q`, an f16 scale `d` and 32 integers `q` of 8 bits, 34 bytes in
/// all. `d = max |w| / 127` and `q = round(w / d)`, halves away from zero.
///
/// The error of a weight is at most `d/2`, and what rounding `d` to f16 adds: `2⁻¹¹ |w|`, or up to `127 · 2⁻²⁵` where `d` is
/// below f16's normal numbers, `2⁻¹⁴`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Q8_0;

impl BlockFormat for Q8_0 {
    fn name(&self) -> &'static str {
        "q8_0"
    }
    fn block_len(&self) -> usize {
        q8_0::LEN
    }
    fn block_bytes(&self) -> usize {
        q8_0::BYTES
    }
    fn quantize(&self, x: &[f32], out: &mut [u8]) -> Result<(), String> {
        q8_0::quantize(x, out)
    }
    fn dequantize(&self, blocks: &[u8], out: &mut [f32]) {
        q8_0::dequantize(level(), blocks, out)
    }
    fn matvec(&self, rows: &[u8], x: &[f32], y: &mut [f32]) {
        q8_0::matvec(level(), rows, x, y)
    }
}

/// A matrix of weights `[N, K]` (outputs, inputs: as a linear layer stores it) in a [`BlockFormat`]; what
/// [`Tensor::matmul_quantized`] multiplies by. Cheap to clone.
#[derive(Clone)]
pub struct QuantizedTensor {
    /// u8, `[N, bytes of a row]`, row-major.
    blocks: Tensor,
    shape: Shape,
    format: &'static dyn BlockFormat,
}

impl QuantizedTensor {
    /// Encodes a float matrix `[N, K]`.
    ///
    /// # Panics
    /// With a DType error unless it is a float tensor, with a Shape error unless it is a matrix whose K is a multiple of
    /// the block's length, with a Value error if it holds NaN, infinity, or what the format cannot hold.
    #[track_caller]
    pub fn quantize(w: &Tensor, format: &'static dyn BlockFormat) -> QuantizedTensor {
        const OP: &str = "quantize";
        ensure!(w.dtype().is_float(), DType, OP, "needs a float tensor, got {} (cast with to_dtype)", w.dtype());
        let (n, k) = matrix(OP, w.shape(), format);
        let device = w.device();
        let values = w.to_dtype(DType::F32).to_device(&Device::CPU).contiguous();
        let x = values.contiguous_slice::<f32>();
        if let Some(at) = x.iter().position(|x| !x.is_finite()) {
            fail!(Value, OP, "{} at [{}, {}]: {} holds finite numbers only", x[at], at / k, at % k, format.name());
        }
        let row = k / format.block_len() * format.block_bytes();
        let mut blocks = vec![0; n * row];
        if let Err(what) = format.quantize(x, &mut blocks) {
            fail!(Value, OP, "{}: {what}", format.name());
        }
        let blocks = Tensor::from_vec(blocks, [n, row]).to_device(&device);
        QuantizedTensor { blocks, shape: w.shape().clone(), format }
    }

    /// A matrix `[N, K]` that is encoded already, as a file holds it: `blocks` is u8, `[N, K / block · bytes of a block]`.
    ///
    /// # Panics
    /// With a DType error unless `blocks` is u8, with a Shape error if its rows are no whole number of blocks.
    #[track_caller]
    pub fn from_blocks(blocks: &Tensor, format: &'static dyn BlockFormat) -> QuantizedTensor {
        const OP: &str = "from_blocks";
        ensure!(blocks.dtype() == DType::U8, DType, OP, "blocks are bytes, u8, not {}", blocks.dtype());
        let [n, row] = blocks.dims_of(OP);
        let bytes = format.block_bytes();
        ensure!(
            row % bytes == 0,
            Shape,
            OP,
            "rows of {row} bytes are no whole number of {} blocks of {bytes}: {}",
            format.name(),
            blocks.shape()
        );
        let shape = Shape::from([n, row / bytes * format.block_len()]);
        QuantizedTensor { blocks: blocks.contiguous(), shape, format }
    }

    /// The weights as an f32 tensor `[N, K]`, where they live. A format that their device does not know is decoded on the host, with
    /// a copy there and back.
    pub fn dequantize(&self) -> Tensor {
        if let Some(w) = self.device().backend().dequantize(self) {
            return w;
        }
        let bytes = self.blocks.to_bytes();
        let mut out = vec![0.0f32; self.shape.numel()];
        self.format.dequantize(&bytes, &mut out);
        Tensor::from_vec(out, self.shape.clone()).to_device(&self.blocks.device())
    }

    /// `[N, K]`: outputs, inputs.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }
    /// The encoded blocks: u8, `[N, K / block · bytes of a block]`, row-major.
    pub fn blocks(&self) -> &Tensor {
        &self.blocks
    }
    /// How they are encoded.
    pub fn format(&self) -> &'static dyn BlockFormat {
        self.format
    }
    /// Where they live.
    pub fn device(&self) -> Device {
        self.blocks.device()
    }
    /// A copy on another device (itself if it is there).
    pub fn to_device(&self, device: &Device) -> QuantizedTensor {
        QuantizedTensor { blocks: self.blocks.to_device(device), shape: self.shape.clone(), format: self.format }
    }
}

impl fmt::Debug for QuantizedTensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "QuantizedTensor {} {} on {}", self.shape, self.format.name(), self.device())
    }
}

/// N and K of a matrix that the format can hold.
#[track_caller]
fn matrix(op: &'static str, shape: &Shape, format: &dyn BlockFormat) -> (usize, usize) {
    ensure!(shape.rank() == 2, Shape, op, "weights are a matrix [N, K], got {shape}");
    let (k, block) = (shape[1], format.block_len());
    ensure!(k % block == 0, Shape, op, "K = {k} of {shape} is no multiple of {}'s block of {block}", format.name());
    (shape[0], k)
}
