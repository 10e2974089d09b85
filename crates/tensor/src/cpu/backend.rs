//! The CPU as a [`Backend`].

use super::index::tensors as index;
use super::pool::{AdaptivePool2dGeometry, Pool2dGeometry};
use super::{
    along, attention_tensor, cat, conv, distribution, dropout, elementwise, gated, level, matmul, normalising,
    optimizer, plane, quantized, reduce, rope, sequence_tensor, strided,
};
use crate::backend::{Backend, Binary, Compare, CrossEntropyRows, Distribution, PlaneMap, Reduce, Unary};
use crate::dtype::Element;
use crate::ops::attention::{AttentionArgs, AttentionGradients};
use crate::ops::conv::Conv2dPlan;
use crate::ops::gru::{GruGradients, GruOutput};
use crate::ops::lstm::{LstmGradients, LstmOutput};
use crate::ops::optimizer::OptimizerStep;
use crate::ops::recurrence::{RecurrentWeights, SequenceArgs, SequenceGradients};
use crate::ops::rnn::{RnnGradients, RnnNonlinearity, RnnOutput};
use crate::ops::rope::RotaryPairs;
use crate::profile::kernel;
use crate::storage::{Buffer, CpuBuffer};
use crate::{Activation, DType, Layout, QuantizedTensor, Shape, Tensor, dispatch};
use std::sync::Arc;

/// The CPU backend. It has no state of its own: threads are rayon's, memory is the pool's.
pub struct CpuBackend;

/// Of the products of a recurrent network forward.
fn recurrent_flops(x: &Tensor, weights: &RecurrentWeights<Tensor>) -> f64 {
    2.0 * x.dim(0) as f64 * x.dim(1) as f64 * (weights.w_ih.numel() + weights.w_hh.numel()) as f64
}

/// Two products of `[Tq, Tk]` with the head dimension, as far as queries see keys.
fn attention_flops(q: &Tensor, k: &Tensor, v: &Tensor, args: &AttentionArgs) -> f64 {
    let (queries, keys) = ((q.numel() / q.dim(-1).max(1)) as f64, k.dim(-2));
    2.0 * queries * args.keys_seen(keys) * (q.dim(-1) + v.dim(-1)) as f64
}

impl Backend for CpuBackend {
    fn id(&self) -> (&'static str, usize) {
        ("cpu", 0)
    }
    fn description(&self) -> String {
        format!("CPU, {} threads, {:?}", rayon::current_num_threads(), level::level())
    }

    fn upload(&self, bytes: &[u8]) -> Arc<dyn Buffer> {
        Arc::new(CpuBuffer::from_slice(bytes))
    }
    fn download(&self, buffer: &dyn Buffer) -> Vec<u8> {
        buffer.as_any().downcast_ref::<CpuBuffer>().expect("a CPU buffer").as_slice::<u8>().to_vec()
    }

    fn full(&self, shape: &Shape, dtype: DType, value: f64) -> Tensor {
        kernel("full", &[], 0.0, || {
            let n = shape.numel();
            let buffer = dispatch!(dtype, T => {
                let stored = T::from_f64(value).store();
                if value.to_bits() == 0 {
                    CpuBuffer::zeroed::<<T as Element>::Stored>(n)
                } else {
                    strided::fill_chunks(n, |_, out: &mut [<T as Element>::Stored]| out.fill(stored))
                }
            });
            Tensor::from_cpu(buffer, shape, dtype)
        })
    }
    fn copy(&self, x: &Tensor) -> Tensor {
        kernel("copy", &[x], 0.0, || elementwise::copy(x))
    }
    fn write(&self, dst: &mut Tensor, region: &Layout, src: &Tensor) {
        let src = src.contiguous();
        let buffer = Arc::get_mut(&mut dst.buffer).expect("write: the destination is not shared");
        let buffer = buffer.as_any_mut().downcast_mut::<CpuBuffer>().expect("a CPU buffer");
        match src.dtype().size() {
            8 => strided::scatter(buffer.as_mut_slice::<u64>(), region, src.contiguous_slice()),
            4 => strided::scatter(buffer.as_mut_slice::<u32>(), region, src.contiguous_slice()),
            2 => strided::scatter(buffer.as_mut_slice::<u16>(), region, src.contiguous_slice()),
            _ => strided::scatter(buffer.as_mut_slice::<u8>(), region, src.contiguous_slice()),
        }
    }
    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor {
        kernel("cast", &[x], 0.0, || elementwise::cast(x, dtype))
    }

    fn unary(&self, op: Unary, x: &Tensor) -> Tensor {
        kernel(op.name(), &[x], 0.0, || elementwise::unary(op, x))
    }
    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
        kernel(op.name(), &[a, b], 0.0, || elementwise::binary(op, a, b))
    }
    fn binary_assign(&self, op: Binary, dst: &mut Tensor, src: &Tensor) {
        kernel(op.name(), &[src], 0.0, || elementwise::binary_assign(op, dst, src))
    }
    fn compare(&self, op: Compare, a: &Tensor, b: &Tensor) -> Tensor {
        kernel(op.name(), &[a, b], 0.0, || elementwise::compare(op, a, b))
    }
    fn select(&self, condition: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
        kernel("select", &[condition, a, b], 0.0, || elementwise::select(condition, a, b))
    }

    fn reduce(&self, op: Reduce, x: &Tensor, dims: &[usize]) -> Tensor {
        kernel(op.name(), &[x], 0.0, || reduce::reduce_tensor(op, x, dims))
    }
    fn mean_var(&self, x: &Tensor, dims: &[usize], correction: f64) -> Option<(Tensor, Tensor)> {
        kernel("mean_var", &[x], 0.0, || reduce::mean_var_tensor(x, dims, correction))
    }
    fn arg_reduce(&self, largest: bool, x: &Tensor, dim: usize) -> Tensor {
        kernel("arg_reduce", &[x], 0.0, || along::arg_reduce(largest, x, dim))
    }
    fn cumsum(&self, x: &Tensor, dim: usize) -> Tensor {
        kernel("cumsum", &[x], 0.0, || along::cumsum(x, dim))
    }
    fn sort(&self, x: &Tensor, dim: usize, descending: bool) -> (Tensor, Tensor) {
        kernel("sort", &[x], 0.0, || along::sort(x, dim, descending))
    }
    fn topk(&self, x: &Tensor, k: usize, dim: usize, largest: bool) -> Option<(Tensor, Tensor)> {
        kernel("topk", &[x], 0.0, || Some(along::topk(x, k, dim, largest)))
    }

    fn matmul(&self, a: &Tensor, b: &Tensor) -> Tensor {
        kernel("matmul", &[a, b], 2.0 * (a.numel() * b.dim(-1)) as f64, || matmul::matmul(a, b))
    }

    fn matmul_bias(&self, a: &Tensor, b: &Tensor, bias: &Tensor) -> Option<Tensor> {
        let flops = 2.0 * (a.numel() * b.dim(-1)) as f64;
        kernel("matmul_bias", &[a, b, bias], flops, || Some(matmul::matmul_bias(a, b, bias)))
    }

    fn int_mm(&self, a: &Tensor, b: &Tensor) -> Option<Tensor> {
        kernel("int_mm", &[a, b], 2.0 * (a.numel() * b.dim(-1)) as f64, || Some(matmul::int_mm(a, b)))
    }

    fn matmul_quantized(&self, x: &Tensor, weight: &QuantizedTensor) -> Option<Tensor> {
        let flops = 2.0 * (x.numel() * weight.shape()[0]) as f64;
        kernel("matmul_quantized", &[x, weight.blocks()], flops, || Some(quantized::matmul(x, weight)))
    }

    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, args: &AttentionArgs) -> Option<(Tensor, Tensor)> {
        kernel("attention", &[q, k, v], attention_flops(q, k, v, args), || {
            Some(attention_tensor::forward(q, k, v, args))
        })
    }
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
        kernel("attention_backward", &[q, k, v, d_out], 2.5 * attention_flops(q, k, v, args), || {
            Some(attention_tensor::backward([q, k, v], args, results, d_out, mask_gradient))
        })
    }
    fn gated(&self, gate: &Tensor, up: &Tensor, activation: Activation) -> Option<Tensor> {
        kernel("gated", &[gate, up], 0.0, || Some(gated::gated(gate, up, activation)))
    }
    fn gated_backward(
        &self,
        gate: &Tensor,
        up: &Tensor,
        activation: Activation,
        g: &Tensor,
    ) -> Option<(Tensor, Tensor)> {
        kernel("gated_backward", &[gate, up, g], 0.0, || Some(gated::gated_backward(gate, up, activation, g)))
    }
    fn rope(&self, x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: RotaryPairs, inverse: bool) -> Option<Tensor> {
        kernel("rope", &[x, cos, sin], 0.0, || Some(rope::rope(x, [cos, sin], pairs, inverse)))
    }
    fn lstm(&self, args: &SequenceArgs, c0: &Tensor) -> Option<LstmOutput> {
        let flops = recurrent_flops(args.x, args.weights);
        kernel("lstm", &[args.x, args.weights.w_ih, args.weights.w_hh], flops, || Some(sequence_tensor::lstm(args, c0)))
    }
    fn lstm_backward(
        &self,
        args: &SequenceArgs,
        c0: &Tensor,
        saved: &LstmOutput,
        gradients: &SequenceGradients,
        input_gradient: bool,
    ) -> Option<LstmGradients> {
        let operands = [args.x, args.weights.w_ih, args.weights.w_hh, &saved.gates, &saved.cells];
        kernel("lstm_backward", &operands, 2.0 * recurrent_flops(args.x, args.weights), || {
            Some(sequence_tensor::lstm_gradients(args, c0, saved, gradients, input_gradient))
        })
    }
    fn gru(&self, args: &SequenceArgs) -> Option<GruOutput> {
        let flops = recurrent_flops(args.x, args.weights);
        kernel("gru", &[args.x, args.weights.w_ih, args.weights.w_hh], flops, || Some(sequence_tensor::gru(args)))
    }
    fn gru_backward(
        &self,
        args: &SequenceArgs,
        saved: &GruOutput,
        gradients: &SequenceGradients,
        input_gradient: bool,
    ) -> Option<GruGradients> {
        let operands = [args.x, args.weights.w_ih, args.weights.w_hh, &saved.gates];
        kernel("gru_backward", &operands, 2.0 * recurrent_flops(args.x, args.weights), || {
            Some(sequence_tensor::gru_gradients(args, saved, gradients, input_gradient))
        })
    }
    fn rnn(&self, args: &SequenceArgs, nonlinearity: RnnNonlinearity) -> Option<RnnOutput> {
        let flops = recurrent_flops(args.x, args.weights);
        kernel("rnn", &[args.x, args.weights.w_ih, args.weights.w_hh], flops, || {
            Some(sequence_tensor::rnn(args, nonlinearity))
        })
    }
    fn rnn_backward(
        &self,
        args: &SequenceArgs,
        nonlinearity: RnnNonlinearity,
        hs: &Tensor,
        gradients: &SequenceGradients,
        input_gradient: bool,
    ) -> Option<RnnGradients> {
        let operands = [args.x, args.weights.w_ih, args.weights.w_hh, hs];
        kernel("rnn_backward", &operands, 2.0 * recurrent_flops(args.x, args.weights), || {
            Some(sequence_tensor::rnn_gradients(args, nonlinearity, hs, gradients, input_gradient))
        })
    }

    fn softmax(&self, x: &Tensor, dim: usize) -> Option<Tensor> {
        kernel("softmax", &[x], 0.0, || Some(normalising::softmax(normalising::Softmax::Plain, x, dim)))
    }
    fn softmax_backward(&self, y: &Tensor, g: &Tensor, dim: usize) -> Option<Tensor> {
        kernel("softmax_backward", &[y, g], 0.0, || {
            Some(normalising::softmax_backward(normalising::Softmax::Plain, y, g, dim))
        })
    }
    fn log_softmax(&self, x: &Tensor, dim: usize) -> Option<Tensor> {
        kernel("log_softmax", &[x], 0.0, || Some(normalising::softmax(normalising::Softmax::Log, x, dim)))
    }
    fn log_softmax_backward(&self, y: &Tensor, g: &Tensor, dim: usize) -> Option<Tensor> {
        kernel("log_softmax_backward", &[y, g], 0.0, || {
            Some(normalising::softmax_backward(normalising::Softmax::Log, y, g, dim))
        })
    }
    fn layer_norm(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        kernel("layer_norm", &[x], 0.0, || Some(normalising::layer_norm(x, weight, bias, eps)))
    }
    fn add_layer_norm(
        &self,
        x: &Tensor,
        residual: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Option<(Tensor, Tensor, Tensor, Tensor)> {
        kernel("add_layer_norm", &[x, residual], 0.0, || {
            Some(normalising::add_layer_norm(x, residual, weight, bias, eps))
        })
    }
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
        kernel("layer_norm_backward", &[x, g], 0.0, || {
            Some(normalising::layer_norm_backward(x, weight, mean, rstd, g, others, parameters))
        })
    }
    fn rms_norm(&self, x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Option<(Tensor, Tensor)> {
        kernel("rms_norm", &[x], 0.0, || Some(normalising::rms_norm(x, weight, eps)))
    }
    fn add_rms_norm(
        &self,
        x: &Tensor,
        residual: &Tensor,
        weight: Option<&Tensor>,
        eps: f64,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        kernel("add_rms_norm", &[x, residual], 0.0, || Some(normalising::add_rms_norm(x, residual, weight, eps)))
    }
    fn rms_norm_backward(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        rstd: &Tensor,
        g: &Tensor,
        others: Option<&Tensor>,
        parameters: bool,
    ) -> Option<(Tensor, Option<Tensor>)> {
        kernel("rms_norm_backward", &[x, g], 0.0, || {
            Some(normalising::rms_norm_backward(x, weight, rstd, g, others, parameters))
        })
    }
    fn group_norm(
        &self,
        x: &Tensor,
        groups: usize,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        kernel("group_norm", &[x], 0.0, || Some(normalising::group_norm(x, groups, weight, bias, eps)))
    }
    fn group_norm_backward(
        &self,
        x: &Tensor,
        groups: usize,
        weight: Option<&Tensor>,
        mean: &Tensor,
        rstd: &Tensor,
        g: &Tensor,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        kernel("group_norm_backward", &[x, g], 0.0, || {
            Some(normalising::group_norm_backward(x, groups, weight, mean, rstd, g))
        })
    }
    fn batch_norm_statistics(&self, x: &Tensor) -> Option<(Tensor, Tensor)> {
        kernel("batch_norm_statistics", &[x], 0.0, || Some(normalising::batch_norm_statistics(x)))
    }
    fn batch_norm_apply(
        &self,
        x: &Tensor,
        mean: &Tensor,
        rstd: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
    ) -> Option<Tensor> {
        kernel("batch_norm_apply", &[x], 0.0, || Some(normalising::batch_norm_apply(x, mean, rstd, weight, bias)))
    }
    fn batch_norm_backward(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        mean: &Tensor,
        rstd: &Tensor,
        g: &Tensor,
        training: bool,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        kernel("batch_norm_backward", &[x, g], 0.0, || {
            Some(normalising::batch_norm_backward(x, weight, mean, rstd, g, training))
        })
    }
    fn cross_entropy(
        &self,
        x: &Tensor,
        targets: &Tensor,
        options: &CrossEntropyRows,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        kernel("cross_entropy", &[x, targets], 0.0, || Some(normalising::cross_entropy(x, targets, options)))
    }
    fn cross_entropy_backward(
        &self,
        x: &Tensor,
        targets: &Tensor,
        lse: &Tensor,
        scale: &Tensor,
        options: &CrossEntropyRows,
    ) -> Option<Tensor> {
        kernel("cross_entropy_backward", &[x, targets], 0.0, || {
            Some(normalising::cross_entropy_backward(x, targets, lse, scale, options))
        })
    }

    fn random(&self, distribution: Distribution, shape: &Shape, dtype: DType, seed: u64, offset: u64) -> Tensor {
        kernel("random", &[], 0.0, || distribution::random(distribution, shape, dtype, seed, offset))
    }
    fn dropout(&self, x: &Tensor, p: f64, seed: u64, offset: u64) -> Option<Tensor> {
        kernel("dropout", &[x], 0.0, || Some(dropout::dropout(x, p, seed, offset)))
    }
    fn cat(&self, xs: &[Tensor], dim: usize) -> Option<Tensor> {
        kernel("cat", &xs.iter().collect::<Vec<_>>(), 0.0, || Some(cat::cat(xs, dim)))
    }
    fn gather(&self, x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
        kernel("gather", &[x, index], 0.0, || index::gather(x, dim, index))
    }
    fn scatter_add(&self, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
        kernel("scatter_add", &[x, index, src], 0.0, || index::scatter_add(x, dim, index, src))
    }
    fn index_select(&self, x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
        kernel("index_select", &[index], 0.0, || index::index_select(x, dim, index))
    }
    fn index_add(&self, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
        kernel("index_add", &[x, index, src], 0.0, || index::index_add(x, dim, index, src))
    }
    fn index_range(&self, index: &Tensor) -> (i64, i64) {
        kernel("index_range", &[index], 0.0, || index::range(index))
    }
    fn plane_map(&self, map: &PlaneMap, x: &Tensor) -> Tensor {
        kernel("plane_map", &[x], 0.0, || plane::plane_map(map, x))
    }
    fn plane_map_adjoint(&self, map: &PlaneMap, dy: &Tensor) -> Tensor {
        kernel("plane_map_adjoint", &[dy], 0.0, || plane::plane_map_adjoint(map, dy))
    }
    fn max_pool2d(&self, windows: &Pool2dGeometry, x: &Tensor) -> (Tensor, Tensor) {
        kernel("max_pool2d", &[x], 0.0, || plane::max_pool2d(windows, x))
    }
    fn adaptive_max_pool2d(&self, bins: &AdaptivePool2dGeometry, x: &Tensor) -> (Tensor, Tensor) {
        kernel("adaptive_max_pool2d", &[x], 0.0, || plane::adaptive_max_pool2d(bins, x))
    }
    fn plane_gather(&self, x: &Tensor, index: &Tensor) -> Tensor {
        kernel("plane_gather", &[x, index], 0.0, || plane::plane_gather(x, index))
    }
    fn plane_scatter(&self, dy: &Tensor, index: &Tensor, h: usize, w: usize) -> Tensor {
        kernel("plane_scatter", &[dy, index], 0.0, || plane::plane_scatter(dy, index, h, w))
    }
    fn conv2d(&self, plan: &Conv2dPlan, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Option<Tensor> {
        kernel("conv2d", &[x, w], plan.flops(), || Some(conv::conv2d_tensor(plan, x, w, bias)))
    }
    fn conv2d_input_grad(&self, plan: &Conv2dPlan, dy: &Tensor, w: &Tensor) -> Option<Tensor> {
        kernel("conv2d_input_grad", &[dy, w], plan.flops(), || Some(conv::conv2d_input_grad_tensor(plan, dy, w)))
    }
    fn conv2d_weight_grad(&self, plan: &Conv2dPlan, x: &Tensor, dy: &Tensor) -> Option<Tensor> {
        kernel("conv2d_weight_grad", &[x, dy], plan.flops(), || Some(conv::conv2d_weight_grad_tensor(plan, x, dy)))
    }

    fn optimizer_step(&self, step: &OptimizerStep, p: &mut Tensor, g: &Tensor, state: &mut [Tensor]) -> bool {
        kernel("optimizer_step", &[g], 0.0, || optimizer::step(step, p, g, state))
    }
}
