//! What the cases cannot do without: the operations of their products, and bytes that must cross the memory bus.
//!
//! These are lower limits. Arithmetic beside the products is not counted, nor are activations, which may stay in a cache.

use bench_measure::Work;

/// Bytes of an `f32`.
const F32: f64 = 4.0;

/// A case with no floor: its cost is neither arithmetic nor memory.
pub const NONE: Work = Work { flops: 0.0, bytes: 0.0, bf16: false };

/// `[M, K] × [K, N]`.
pub fn gemm(m: usize, k: usize, n: usize, bf16: bool) -> Work {
    let size = if bf16 { F32 / 2.0 } else { F32 };
    Work { flops: 2.0 * (m * k * n) as f64, bytes: size * (m * k + k * n + m * n) as f64, bf16 }
}

/// `[M, K] × [K, N]` of i8 into i32. The CPU's dot product takes four neighbours of a sum where that of bf16 takes two, in
/// the same time: half as many operations of bf16.
pub fn int_gemm(m: usize, k: usize, n: usize) -> Work {
    Work { flops: (m * k * n) as f64, bytes: (m * k + k * n) as f64 + F32 * (m * n) as f64, bf16: true }
}

/// So many tensors of `elements` each, read or written once.
pub fn memory(tensors: usize, elements: usize) -> Work {
    Work { bytes: F32 * (tensors * elements) as f64, ..NONE }
}

/// Causal attention, forward: half of `QKᵀ` and half of `PV`. Reads q, k, v and writes the output.
pub fn attention([b, h, t, d]: [usize; 4]) -> Work {
    Work { flops: 2.0 * (b * h * t * t * d) as f64, ..memory(4, b * h * t * d) }
}

/// The sizes of a transformer.
pub struct Transformer {
    /// Layers.
    pub layers: usize,
    /// Width.
    pub width: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Positions that have an embedding.
    pub positions: usize,
}

impl Transformer {
    /// Parameters of the blocks: four projections of attention and two of four times the width.
    pub fn blocks(&self) -> f64 {
        (12 * self.layers * self.width * self.width) as f64
    }
    /// Parameters of the token and position embeddings.
    pub fn embeddings(&self) -> f64 {
        ((self.vocab + self.positions) * self.width) as f64
    }
    /// Operations of a forward pass through the blocks over `b` sequences of `t` tokens, each of which sees `seen`
    /// tokens on average.
    pub fn forward(&self, b: usize, t: usize, seen: f64) -> f64 {
        (b * t) as f64 * (2.0 * self.blocks() + 4.0 * (self.layers * self.width) as f64 * seen)
    }
    /// Operations of the head that shares the token embedding's weight.
    pub fn head(&self, tokens: usize) -> f64 {
        2.0 * (tokens * self.vocab * self.width) as f64
    }
}

/// A training step whose forward pass takes `forward` operations. Backward takes twice as many: one product for the
/// gradient of each operand. Adam reads and writes each of `parameters` and its two moments.
pub fn training(forward: f64, parameters: f64) -> Work {
    Work { flops: 3.0 * forward, bytes: 6.0 * F32 * parameters, bf16: false }
}

/// A training step of embedding (10,000 words), LSTM and one logit.
pub fn lstm_step(batch: usize, embed: usize, hidden: usize, time: usize) -> Work {
    let gates = (4 * hidden * (embed + hidden)) as f64;
    training(2.0 * gates * (batch * time) as f64, gates + (10_000 * embed) as f64)
}

/// Multiply-adds of Keras's MNIST example for an image: `outputs × (channels in × 3 × 3)` of each convolution, then the
/// dense layers.
const CNN: [usize; 5] = [26 * 26 * 32 * 9, 11 * 11 * 64 * 32 * 9, 3 * 3 * 64 * 64 * 9, 576 * 64, 64 * 10];

/// Inference of Keras's MNIST example.
pub fn cnn_forward(batch: usize) -> Work {
    Work { flops: 2.0 * (batch * CNN.iter().sum::<usize>()) as f64, ..NONE }
}

/// A training step of it. The images need no gradient, so the first layer's backward has one product, not two.
pub fn cnn_step(batch: usize) -> Work {
    Work { flops: 3.0 * cnn_forward(batch).flops - 2.0 * (batch * CNN[0]) as f64, ..NONE }
}
