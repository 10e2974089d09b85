//! What a device must be able to do.
//!
//! The **required** methods are enough to run everything but quantised weights, whose formats a device that is not the host has to
//! know ([`dequantize`](Backend::dequantize)). The **provided** ones are fused kernels: they answer `None` unless a backend has
//! one, and the op then composes the required ones, on the same device. Shapes, dtypes and indices have been checked
//! by the op before a backend is called (but for indices that it [checks later](Backend::checks_later)), inputs live on
//! this device, and every input may have any strides.

mod operations;

use crate::ops::attention::{AttentionArgs, AttentionGradients};
use crate::ops::conv::Conv2dPlan;
use crate::ops::gru::{GruGradients, GruOutput};
use crate::ops::linear::Epilogue;
use crate::ops::lstm::{LstmGradients, LstmOutput};
use crate::ops::optimizer::{OptimizerStep, StepCell, Update};
use crate::ops::pool::{AdaptivePool2dGeometry, Pool2dGeometry};
use crate::ops::recurrence::{SequenceArgs, SequenceGradients};
use crate::ops::rnn::{RnnGradients, RnnNonlinearity, RnnOutput};
use crate::ops::rope::RotaryPairs;
use crate::{Activation, DType, Layout, QuantizedTensor, Shape, Tensor, storage::Buffer};
use std::sync::Arc;

pub use crate::ops::cross_entropy::CrossEntropyRows;
pub use crate::ops::pool::PlaneMap;
pub use operations::{Binary, Compare, Distribution, Reduce, Unary};

/// A device's memory and kernels. See the module's documentation.
#[allow(unused_variables)] // a default ignores its arguments, whose names are documentation
pub trait Backend: Send + Sync + 'static {
    /// Kind and index: `("cpu", 0)`, `("cuda", 1)`.
    fn id(&self) -> (&'static str, usize);
    /// For people: "CPU, 2 threads, AVX-512".
    fn description(&self) -> String;
    /// Waits until all work that was handed to the device is done.
    fn synchronize(&self) {}

    /// Copies bytes from the host into new memory.
    fn upload(&self, bytes: &[u8]) -> Arc<dyn Buffer>;
    /// Copies memory to the host.
    fn download(&self, buffer: &dyn Buffer) -> Vec<u8>;

    /// A new tensor, every element `value`.
    fn full(&self, shape: &Shape, dtype: DType, value: f64) -> Tensor;
    /// A row-major copy.
    fn copy(&self, x: &Tensor) -> Tensor;
    /// `dst[region] = src`: `region` is a layout inside `dst`'s storage with `src`'s shape. `dst` is not shared.
    fn write(&self, dst: &mut Tensor, region: &Layout, src: &Tensor);
    /// To another dtype, as `as` does in Rust (≠ 0 for bool): floats to integers truncate and saturate, with 0 for NaN;
    /// integers to narrower ones wrap.
    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor;

    /// Elementwise, one argument.
    fn unary(&self, op: Unary, x: &Tensor) -> Tensor;
    /// Elementwise, two arguments of one dtype and shape.
    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Tensor;
    /// `dst = op(dst, src)`, of one shape and dtype: in place where `dst` is row-major and nobody else holds its memory.
    fn binary_assign(&self, op: Binary, dst: &mut Tensor, src: &Tensor) {
        *dst = self.binary(op, dst, src);
    }
    /// Elementwise comparison of two arguments of one dtype and shape.
    fn compare(&self, op: Compare, a: &Tensor, b: &Tensor) -> Tensor;
    /// `if condition { a } else { b }` elementwise; one shape.
    fn select(&self, condition: &Tensor, a: &Tensor, b: &Tensor) -> Tensor;

    /// Reduces the dimensions `dims` (sorted) to extent 1.
    fn reduce(&self, op: Reduce, x: &Tensor, dims: &[usize]) -> Tensor;
    /// Index (i64) of the largest or smallest element along `dim`, which becomes extent 1; the first on ties, NaN wins.
    fn arg_reduce(&self, largest: bool, x: &Tensor, dim: usize) -> Tensor;
    /// Mean and variance `Σ(x − mean)²/(n − correction)` over `dims` (sorted), which become extent 1, of a float tensor.
    fn mean_var(&self, x: &Tensor, dims: &[usize], correction: f64) -> Option<(Tensor, Tensor)> {
        None
    }
    /// Running sum along `dim`; integers and bool sum to i64.
    fn cumsum(&self, x: &Tensor, dim: usize) -> Tensor;
    /// Stable sort along `dim`: values and i64 indices. NaN counts as largest.
    fn sort(&self, x: &Tensor, dim: usize, descending: bool) -> (Tensor, Tensor);
    /// The first `k` along `dim` of [`sort`](Backend::sort), without sorting the rest.
    fn topk(&self, x: &Tensor, k: usize, dim: usize, largest: bool) -> Option<(Tensor, Tensor)> {
        None
    }

    /// `[…, M, K] × […, K, N]`: equal leading dimensions, one dtype.
    fn matmul(&self, a: &Tensor, b: &Tensor) -> Tensor;

    /// `out[…, i, …] = x[…, index[…, i, …], …]`. `index` (i64) has x's extents but along `dim`.
    fn gather(&self, x: &Tensor, dim: usize, index: &Tensor) -> Tensor;
    /// `out = x; out[…, index[…, i, …], …] += src[…, i, …]`. `index` and `src` have x's extents but along `dim`.
    fn scatter_add(&self, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor;
    /// Whole slices `index[j]` (1-D) along `dim`.
    fn index_select(&self, x: &Tensor, dim: usize, index: &Tensor) -> Tensor;
    /// `out = x; out[…, index[j], …] += src[…, j, …]` (1-D index).
    fn index_add(&self, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor;
    /// Smallest and largest value of an i64 tensor that is not empty: ops check indices with it.
    fn index_range(&self, index: &Tensor) -> (i64, i64);
    /// Provided: a promise to check, without waiting now, that the values of an i64 tensor are in `0..n` or `ignored`. If one
    /// is not, the next call that waits for the device is an error, in the name of `op`; until then kernels bear with it.
    fn checks_later(&self, op: &'static str, index: &Tensor, n: usize, ignored: Option<i64>) -> bool {
        false
    }

    /// [`ops::pool::apply_map`](crate::ops::pool::apply_map) of floats.
    fn plane_map(&self, map: &PlaneMap, x: &Tensor) -> Tensor;
    /// [`ops::pool::apply_adjoint`](crate::ops::pool::apply_adjoint) of floats.
    fn plane_map_adjoint(&self, map: &PlaneMap, dy: &Tensor) -> Tensor;
    /// [`Tensor::max_pool2d_with_index`] of floats.
    fn max_pool2d(&self, windows: &Pool2dGeometry, x: &Tensor) -> (Tensor, Tensor);
    /// [`Tensor::adaptive_max_pool2d_with_index`] of floats.
    fn adaptive_max_pool2d(&self, bins: &AdaptivePool2dGeometry, x: &Tensor) -> (Tensor, Tensor);
    /// [`ops::pool::plane_gather`](crate::ops::pool::plane_gather) of floats.
    fn plane_gather(&self, x: &Tensor, index: &Tensor) -> Tensor;
    /// [`ops::pool::plane_scatter`](crate::ops::pool::plane_scatter) of floats.
    fn plane_scatter(&self, dy: &Tensor, index: &Tensor, h: usize, w: usize) -> Tensor;

    /// Random numbers from the counter-based generator: element `i` depends on `(seed, offset, i)` only.
    fn random(&self, distribution: Distribution, shape: &Shape, dtype: DType, seed: u64, offset: u64) -> Tensor;

    /// `x / (1 - p)` where a random number says so (probability `1 - p`), else 0: element `i` of the mask is element
    /// `i` of [`random`](Backend::random)'s `Bernoulli { p: 1 - p }` in bool.
    fn dropout(&self, x: &Tensor, p: f64, seed: u64, offset: u64) -> Option<Tensor> {
        None
    }
    /// The tensors, of one dtype and equal in every dimension but `dim`, one after another along `dim`.
    fn cat(&self, xs: &[Tensor], dim: usize) -> Option<Tensor> {
        None
    }

    /// `[M, K] × [K, N] + bias`, the bias `[N]` added to each row before the sum is rounded; all of one float dtype.
    fn matmul_bias(&self, a: &Tensor, b: &Tensor, bias: &Tensor) -> Option<Tensor> {
        None
    }
    /// Provided: `y = f(A B + bias) + residual` of `[M, K] × [K, N]`, the bias `[N]` and the residual `[M, N]`, all of one float dtype;
    /// and, to `keep`, `z = A B + bias`. Nothing is rounded but y and z. See [`ops::linear::forward`](crate::ops::linear::forward).
    fn matmul_epilogue(
        &self,
        a: &Tensor,
        b: &Tensor,
        epilogue: &Epilogue,
        keep: bool,
    ) -> Option<(Tensor, Option<Tensor>)> {
        None
    }
    /// Provided: `(A B) ⊙ f'(z)` of `[M, K] × [K, N]` and `z [M, N]`, all of one float dtype; rounded once. See
    /// [`ops::linear::activation_grad`](crate::ops::linear::activation_grad).
    fn matmul_activation_grad(&self, a: &Tensor, b: &Tensor, activation: Activation, z: &Tensor) -> Option<Tensor> {
        None
    }
    /// Provided: [`Tensor::int_mm`], `[M, K] × [K, N]` of i8 in i32, modulo 2³².
    fn int_mm(&self, a: &Tensor, b: &Tensor) -> Option<Tensor> {
        None
    }
    /// Provided: [`QuantizedTensor::dequantize`] where the weights live. On the host any format decodes itself; a device that is
    /// not the host has to know the format.
    fn dequantize(&self, weight: &QuantizedTensor) -> Option<Tensor> {
        None
    }
    /// Provided: [`Tensor::matmul_quantized`] of `[M, K]` f32, `[M, N]`.
    fn matmul_quantized(&self, x: &Tensor, weight: &QuantizedTensor) -> Option<Tensor> {
        None
    }
    /// Fused attention: the output `[B, H, Tq, Dᵥ]` and the logsumexp of the scores `[B, H, Tq]` in the accumulator dtype.
    /// See [`Tensor::attention_forward`].
    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, args: &AttentionArgs) -> Option<(Tensor, Tensor)> {
        None
    }
    /// Its gradients, from its results `(out, lse)` and the output's gradient; the additive mask's only if asked for.
    fn attention_backward(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        args: &AttentionArgs,
        results: (&Tensor, &Tensor),
        d_out: &Tensor,
        mask_gradient: bool,
    ) -> Option<AttentionGradients> {
        None
    }

    /// [`Tensor::gated`], of one shape and dtype.
    fn gated(&self, gate: &Tensor, up: &Tensor, activation: Activation) -> Option<Tensor> {
        None
    }
    /// [`Tensor::gated_backward`], of one shape and dtype.
    fn gated_backward(
        &self,
        gate: &Tensor,
        up: &Tensor,
        activation: Activation,
        g: &Tensor,
    ) -> Option<(Tensor, Tensor)> {
        None
    }
    /// [`Tensor::rope`] of `x` `[…, T, D]` by the angles whose cosines and sines are `[…, T, P]` in the accumulator dtype,
    /// `0 < 2P ≤ D`; back by them if `inverse`.
    fn rope(&self, x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: RotaryPairs, inverse: bool) -> Option<Tensor> {
        None
    }

    /// A fused LSTM, its first cell `c0`. See [`lstm`](crate::ops::lstm::lstm).
    fn lstm(&self, args: &SequenceArgs, c0: &Tensor) -> Option<LstmOutput> {
        None
    }
    /// Its gradients, from what it returned; the input's only if asked for.
    fn lstm_backward(
        &self,
        args: &SequenceArgs,
        c0: &Tensor,
        saved: &LstmOutput,
        gradients: &SequenceGradients,
        input_gradient: bool,
    ) -> Option<LstmGradients> {
        None
    }
    /// A fused GRU. See [`gru`](crate::ops::gru::gru).
    fn gru(&self, args: &SequenceArgs) -> Option<GruOutput> {
        None
    }
    /// Its gradients, from what it returned; the input's only if asked for.
    fn gru_backward(
        &self,
        args: &SequenceArgs,
        saved: &GruOutput,
        gradients: &SequenceGradients,
        input_gradient: bool,
    ) -> Option<GruGradients> {
        None
    }
    /// A fused RNN. See [`rnn`](crate::ops::rnn::rnn).
    fn rnn(&self, args: &SequenceArgs, nonlinearity: RnnNonlinearity) -> Option<RnnOutput> {
        None
    }
    /// Its gradients, from its outputs; the input's only if asked for.
    fn rnn_backward(
        &self,
        args: &SequenceArgs,
        nonlinearity: RnnNonlinearity,
        hs: &Tensor,
        gradients: &SequenceGradients,
        input_gradient: bool,
    ) -> Option<RnnGradients> {
        None
    }

    /// Fused [`Tensor::softmax`] along `dim`.
    fn softmax(&self, x: &Tensor, dim: usize) -> Option<Tensor> {
        None
    }
    /// `y·(g − Σ g·y)` along `dim`, from the softmax `y`.
    fn softmax_backward(&self, y: &Tensor, g: &Tensor, dim: usize) -> Option<Tensor> {
        None
    }
    /// Fused [`Tensor::log_softmax`] along `dim`.
    fn log_softmax(&self, x: &Tensor, dim: usize) -> Option<Tensor> {
        None
    }
    /// `g − eʸ·Σ g` along `dim`, from the log-softmax `y`.
    fn log_softmax_backward(&self, y: &Tensor, g: &Tensor, dim: usize) -> Option<Tensor> {
        None
    }

    /// Layer norm of the rows of `x = [R, N]` with `weight` and `bias` `[N]`: `(y [R, N], mean [R], rstd [R])`. Statistics
    /// of half types are f32, here and below; everything else has one dtype.
    fn layer_norm(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        None
    }
    /// [`layer_norm`](Backend::layer_norm) of `sum = x + residual`, which is rounded first: `(y, sum [R, N], mean, rstd)`.
    fn add_layer_norm(
        &self,
        x: &Tensor,
        residual: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Option<(Tensor, Tensor, Tensor, Tensor)> {
        None
    }
    /// `(dx [R, N], (dweight [N], dbias [N]) if parameters)`. `others`, if given, is added to dx: the gradient of x from where
    /// else it is used.
    fn layer_norm_backward(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        mean: &Tensor,
        rstd: &Tensor,
        g: &Tensor,
        others: Option<&Tensor>,
        parameters: bool,
    ) -> Option<(Tensor, Option<(Tensor, Tensor)>)> {
        None
    }
    /// RMS norm of the rows of `x = [R, N]` with `weight` `[N]`: `(y [R, N], rstd [R])`.
    fn rms_norm(&self, x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Option<(Tensor, Tensor)> {
        None
    }
    /// [`rms_norm`](Backend::rms_norm) of `sum = x + residual`, which is rounded first: `(y, sum [R, N], rstd)`.
    fn add_rms_norm(
        &self,
        x: &Tensor,
        residual: &Tensor,
        weight: Option<&Tensor>,
        eps: f64,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        None
    }
    /// `(dx [R, N], dweight [N] if parameters)`. `others`, if given, is added to dx.
    fn rms_norm_backward(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        rstd: &Tensor,
        g: &Tensor,
        others: Option<&Tensor>,
        parameters: bool,
    ) -> Option<(Tensor, Option<Tensor>)> {
        None
    }
    /// Group norm of `x = [B, C, S]` in `groups` groups of channels, with `weight` and `bias` `[C]`:
    /// `(y [B, C, S], mean [B·groups], rstd [B·groups])`.
    fn group_norm(
        &self,
        x: &Tensor,
        groups: usize,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        None
    }
    /// `(dx [B, C, S], dweight [C], dbias [C])`.
    fn group_norm_backward(
        &self,
        x: &Tensor,
        groups: usize,
        weight: Option<&Tensor>,
        mean: &Tensor,
        rstd: &Tensor,
        g: &Tensor,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        None
    }
    /// Mean and biased variance `[C]` over B and S of `x = [B, C, S]`.
    fn batch_norm_statistics(&self, x: &Tensor) -> Option<(Tensor, Tensor)> {
        None
    }
    /// `(x − mean)·rstd·weight + bias` by channel; `x = [B, C, S]`, everything else `[C]`.
    fn batch_norm_apply(
        &self,
        x: &Tensor,
        mean: &Tensor,
        rstd: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
    ) -> Option<Tensor> {
        None
    }
    /// `(dx [B, C, S], dweight [C], dbias [C])`; in `training` through the statistics, which came from `x`.
    fn batch_norm_backward(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        mean: &Tensor,
        rstd: &Tensor,
        g: &Tensor,
        training: bool,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        None
    }

    /// Cross-entropy of the logits `x = [P, V]` with i64 `targets` `[P]`, which are in range or ignored:
    /// `(loss [P], logsumexp [P], Σ w[target] over the targets that count [])`, f32 for half types.
    fn cross_entropy(
        &self,
        x: &Tensor,
        targets: &Tensor,
        options: &CrossEntropyRows,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        None
    }
    /// The gradient `[P, V]` of `Σ scale · loss`, `scale` `[P]`.
    fn cross_entropy_backward(
        &self,
        x: &Tensor,
        targets: &Tensor,
        lse: &Tensor,
        scale: &Tensor,
        options: &CrossEntropyRows,
    ) -> Option<Tensor> {
        None
    }

    /// Provided: [`ops::conv::forward`](crate::ops::conv::forward), float operands of one dtype, `bias [O]`.
    fn conv2d(&self, plan: &Conv2dPlan, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Option<Tensor> {
        None
    }
    /// Provided: [`ops::conv::input_grad`](crate::ops::conv::input_grad), float operands of one dtype.
    fn conv2d_input_grad(&self, plan: &Conv2dPlan, dy: &Tensor, w: &Tensor) -> Option<Tensor> {
        None
    }
    /// Provided: [`ops::conv::weight_grad`](crate::ops::conv::weight_grad), float operands of one dtype.
    fn conv2d_weight_grad(&self, plan: &Conv2dPlan, x: &Tensor, dy: &Tensor) -> Option<Tensor> {
        None
    }

    /// One optimiser step in place: `p` (f32 or f64) and `state` are row-major and not shared, `g` is row-major, and all
    /// have one shape and dtype. False if there is no kernel; nothing has changed then.
    fn optimizer_step(&self, step: &OptimizerStep, p: &mut Tensor, g: &Tensor, state: &mut [Tensor]) -> bool {
        false
    }
    /// Provided, one after another: the same step of many parameters, each as for [`optimizer_step`](Backend::optimizer_step); all of
    /// one dtype.
    fn optimizer_steps(&self, step: &StepCell, updates: &mut [Update]) {
        let step = step.get();
        for u in updates {
            if !self.optimizer_step(&step, u.p, u.g, u.state) {
                step.composed(u.p, u.g, u.state);
            }
        }
    }
    /// The 2-norm of all elements of row-major float tensors of one dtype, as one vector: a scalar (f64) that does not
    /// overflow where a square would.
    fn norm_of_all(&self, xs: &[&Tensor]) -> Option<Tensor> {
        None
    }
    /// Each tensor times a scalar (f64), in place: row-major float tensors of one dtype that are not shared. False if there is
    /// no kernel; nothing has changed then.
    fn scale_all(&self, xs: &mut [&mut Tensor], factor: &Tensor) -> bool {
        false
    }
}
