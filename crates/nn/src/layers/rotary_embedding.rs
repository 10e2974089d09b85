//! Rotary position embedding.

use crate::Module;
use ferrograd_autograd::Var;
use ferrograd_tensor::{DType, Device, RotaryPairs, Tensor, ensure};
use std::sync::{Mutex, PoisonError};

/// Rotary position embedding, J. Su et al. 2021: pair `i` of the features of a query or key at position `m` is turned by the
/// angle `m · base^(−2i/dim)`, so that their products depend on the distance of their positions alone. `[…, T, D]` → the
/// same, `D ≥ dim`: features from `dim` on stay as they are.
///
/// The cosines and sines are computed in f64, once for each device, and kept in f32 (f64 for f64), whatever the dtype of the
/// model; they are no part of its state. It has no parameters.
///
/// ```
/// use ferrograd_autograd::{AttentionOptions, Var};
/// use ferrograd_nn::RotaryEmbedding;
/// use ferrograd_tensor::Tensor;
/// let rotary = RotaryEmbedding::new(8, 1024);
/// let [q, k, v] = [0; 3].map(|_| Var::constant(Tensor::randn([1, 2, 5, 8]))); // [B, H, T, D]
/// let causal = AttentionOptions { causal: true, ..AttentionOptions::default() };
/// let y = rotary.forward(&q).scaled_dot_product_attention(&rotary.forward(&k), &v, &causal);
/// // The sixth token, behind a cache of five keys:
/// let next = rotary.forward_from(&Var::constant(Tensor::randn([1, 2, 1, 8])), 5);
/// # assert_eq!((y.dims(), next.dims()), (&[1, 2, 5, 8][..], &[1, 2, 1, 8][..]));
/// ```
#[derive(Module)]
#[module(extra_repr)]
pub struct RotaryEmbedding {
    /// Of each pair, the angle by which one position turns it.
    #[module(skip)]
    frequencies: Vec<f64>,
    max_positions: usize,
    #[module(skip)]
    pairs: RotaryPairs,
    #[module(skip)]
    tables: Mutex<Vec<Tables>>,
}
layer!(RotaryEmbedding);

/// Cosines and sines `[max_positions, dim/2]`, in one dtype on one device.
#[derive(Clone)]
struct Tables {
    cos: Tensor,
    sin: Tensor,
}

impl RotaryEmbedding {
    /// For `dim` features, the first ones of each head, at positions below `max_positions`; base 10000, features paired by
    /// halves, as in Llama.
    ///
    /// # Panics
    /// If `dim` is odd.
    #[track_caller]
    pub fn new(dim: usize, max_positions: usize) -> RotaryEmbedding {
        ensure!(dim.is_multiple_of(2), Value, "RotaryEmbedding", "dim {dim} is odd, but features are turned in pairs");
        RotaryEmbedding::from_frequencies(powers(10_000.0, dim), max_positions)
    }
    /// With frequencies of one's own, one for each pair: scaled ones for longer contexts than the model was trained for.
    pub fn from_frequencies(frequencies: Vec<f64>, max_positions: usize) -> RotaryEmbedding {
        RotaryEmbedding { frequencies, max_positions, pairs: RotaryPairs::default(), tables: Mutex::default() }
    }
    /// Frequencies `base^(−2i/dim)`.
    ///
    /// # Panics
    /// If the base is not positive.
    #[track_caller]
    pub fn base(mut self, base: f64) -> RotaryEmbedding {
        ensure!(base > 0.0, Value, "RotaryEmbedding", "base {base} is not positive");
        self.frequencies = powers(base, self.dim());
        self.tables = Mutex::default();
        self
    }
    /// Which features make a pair: [`RotaryPairs::Interleaved`] for GPT-J's weights.
    pub fn pairs(mut self, pairs: RotaryPairs) -> RotaryEmbedding {
        self.pairs = pairs;
        self
    }
    /// Features that are turned.
    pub fn dim(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// `x` `[…, T, D]` at positions 0 to T − 1.
    ///
    /// # Panics
    /// As [`forward_from`](RotaryEmbedding::forward_from).
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        self.forward_from(x, 0)
    }
    /// `x` `[…, T, D]` at positions `offset` to `offset + T − 1`: behind a cache of `offset` keys.
    ///
    /// # Panics
    /// If `x` has fewer than `dim` features, or a position is not below `max_positions`.
    #[track_caller]
    pub fn forward_from(&self, x: &Var, offset: usize) -> Var {
        let Tables { cos, sin } = self.tables_for(x);
        let (t, max) = (x.dim(-2), self.max_positions);
        ensure!(offset + t <= max, Index, "RotaryEmbedding", "position {} is not below {max}", (offset + t).max(1) - 1);
        x.rope(&cos.narrow(0, offset, t), &sin.narrow(0, offset, t), self.pairs)
    }
    /// `x` `[B, H, T, D]` where token `t` of sequence `b` has the position `positions[b, t]` (integers `[B, T]`): sequences that
    /// are packed, or padded on the left.
    ///
    /// # Panics
    /// As [`forward_from`](RotaryEmbedding::forward_from), or if the shapes do not fit.
    #[track_caller]
    pub fn forward_at(&self, x: &Var, positions: &Tensor) -> Var {
        let Tables { cos, sin } = self.tables_for(x);
        let fits = x.rank() == 4 && *positions.shape() == [x.dim(0), x.dim(2)];
        ensure!(fits, Shape, "RotaryEmbedding", "positions {} are not [B, T] of x {}", positions.shape(), x.shape());
        let [b, t] = positions.dims_of("RotaryEmbedding");
        let rows = |table: &Tensor| table.index_select(0, &positions.flatten()).reshape([b, 1, t, self.dim() / 2]);
        x.rope(&rows(&cos), &rows(&sin), self.pairs)
    }

    /// The tables where `x` is and in the dtype that it is computed in.
    #[track_caller]
    fn tables_for(&self, x: &Var) -> Tables {
        let (dim, dtype) = (self.dim(), x.dtype());
        let fits = x.rank() >= 2 && x.dim(-1) >= dim && dtype.is_float();
        ensure!(fits, Shape, "RotaryEmbedding", "expected floats […, T, {dim} or more], got {dtype}{}", x.shape());
        let (device, dtype) = (x.device(), dtype.accumulator());
        let all = || self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let here = |tables: &&Tables| tables.cos.device() == device && tables.cos.dtype() == dtype;
        let found = all().iter().find(here).cloned();
        found.unwrap_or_else(|| {
            // Not under the lock: a thread that waits for parallel work may be given other work that wants it, too.
            let made = self.make_tables(dtype, &device);
            let mut all = all();
            if !all.iter().any(|tables| here(&tables)) {
                all.push(made.clone());
            }
            made
        })
    }
    fn make_tables(&self, dtype: DType, device: &Device) -> Tables {
        let angles = (0..self.max_positions).flat_map(|m| self.frequencies.iter().map(move |f| m as f64 * f));
        let angles: Vec<f64> = angles.collect();
        let table = |of: fn(f64) -> f64| {
            let values: Vec<f64> = angles.iter().map(|&angle| of(angle)).collect();
            let table = Tensor::from_vec(values, [self.max_positions, self.frequencies.len()]);
            table.to_dtype(dtype).to_device(device)
        };
        Tables { cos: table(f64::cos), sin: table(f64::sin) }
    }
    fn extra_repr(&self) -> String {
        format!("{}, max_positions={}, pairs={:?}", self.dim(), self.max_positions, self.pairs)
    }
}

/// `base^(−2i/dim)` for each pair `i` of `dim` features.
fn powers(base: f64, dim: usize) -> Vec<f64> {
    (0..dim / 2).map(|i| base.powf(-2.0 * i as f64 / dim as f64)).collect()
}
