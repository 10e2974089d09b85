//! The card as a [`Backend`].

use crate::cuda::Cuda;
use crate::graph;
use crate::memory::CudaBuffer;
use crate::ops::layer_norm::{LAYER_NORM, Normed, RMS_NORM};
use crate::ops::softmax::Softmax;
use crate::ops::{
    attention, cat, channel_norm, conv, copy, cross_entropy, dropout, elementwise, gated, gradient_norm, gru, index,
    int_mm, lstm, matmul, matmul_quantized, moments, optimizer, plane, random, recurrence, reduce, rms_norm, rnn, rope,
    softmax, sort,
};
use ferrograd_tensor::backend::{Backend, Binary, Compare, CrossEntropyRows, Distribution, PlaneMap, Reduce, Unary};
use ferrograd_tensor::ops::attention::{AttentionArgs, AttentionGradients};
use ferrograd_tensor::ops::conv::Conv2dPlan;
use ferrograd_tensor::ops::gru::{GruGradients, GruOutput};
use ferrograd_tensor::ops::lstm::{LstmGradients, LstmOutput};
use ferrograd_tensor::ops::optimizer::{OptimizerStep, StepCell, Update};
use ferrograd_tensor::ops::pool::{AdaptivePool2dGeometry, Pool2dGeometry};
use ferrograd_tensor::ops::recurrence::{SequenceArgs, SequenceGradients};
use ferrograd_tensor::ops::rnn::{RnnGradients, RnnNonlinearity, RnnOutput};
use ferrograd_tensor::profile::kernel;
use ferrograd_tensor::storage::Buffer;
use ferrograd_tensor::{Activation, DType, Epilogue, Layout, QuantizedTensor, RotaryPairs, Shape, Tensor};
use std::sync::Arc;

fn memory(buffer: &dyn Buffer) -> &CudaBuffer {
    buffer.as_any().downcast_ref().expect("a CUDA tensor has CUDA memory")
}

impl Backend for Cuda {
    fn id(&self) -> (&'static str, usize) {
        ("cuda", self.index)
    }
    fn description(&self) -> String {
        let (major, minor) = self.capability;
        let memory = self.memory_use();
        format!(
            "{}, compute capability {major}.{minor}, {} multiprocessors, {:.1} GiB",
            self.name,
            self.multiprocessors,
            memory.total as f64 / (1u64 << 30) as f64
        )
    }
    fn synchronize(&self) {
        self.wait();
    }

    fn upload(&self, bytes: &[u8]) -> Arc<dyn Buffer> {
        let buffer: Arc<dyn Buffer> = Arc::new(self.card().upload(bytes));
        graph::hold(self, &buffer);
        buffer
    }
    fn download(&self, buffer: &dyn Buffer) -> Vec<u8> {
        self.card().download(memory(buffer))
    }

    fn full(&self, shape: &Shape, dtype: DType, value: f64) -> Tensor {
        kernel("full", &[], 0.0, || elementwise::full(self.card(), shape, dtype, value))
    }
    fn copy(&self, x: &Tensor) -> Tensor {
        kernel("copy", &[x], 0.0, || copy::copy(self.card(), x))
    }
    fn write(&self, dst: &mut Tensor, region: &Layout, src: &Tensor) {
        let region = elementwise::region(dst, region);
        kernel("write", &[src], 0.0, || copy::copy_into(self.card(), src, &region))
    }
    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor {
        kernel("cast", &[x], 0.0, || elementwise::cast(self.card(), x, dtype))
    }

    fn unary(&self, op: Unary, x: &Tensor) -> Tensor {
        kernel(op.name(), &[x], 0.0, || elementwise::unary(self.card(), op, x))
    }
    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
        kernel(op.name(), &[a, b], 0.0, || elementwise::binary(self.card(), op, a, b))
    }
    fn binary_assign(&self, op: Binary, dst: &mut Tensor, src: &Tensor) {
        kernel(op.name(), &[src], 0.0, || elementwise::binary_assign(self.card(), op, dst, src))
    }
    fn compare(&self, op: Compare, a: &Tensor, b: &Tensor) -> Tensor {
        kernel(op.name(), &[a, b], 0.0, || elementwise::compare(self.card(), op, a, b))
    }
    fn select(&self, condition: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
        kernel("select", &[condition, a, b], 0.0, || elementwise::select(self.card(), condition, a, b))
    }

    fn reduce(&self, op: Reduce, x: &Tensor, dims: &[usize]) -> Tensor {
        kernel(op.name(), &[x], 0.0, || reduce::reduce(self.card(), op, x, dims))
    }
    fn arg_reduce(&self, largest: bool, x: &Tensor, dim: usize) -> Tensor {
        kernel("arg_reduce", &[x], 0.0, || reduce::arg_reduce(self.card(), largest, x, dim))
    }
    fn mean_var(&self, x: &Tensor, dims: &[usize], correction: f64) -> Option<(Tensor, Tensor)> {
        kernel("mean_var", &[x], 0.0, || moments::mean_var(self.card(), x, dims, correction))
    }
    fn cumsum(&self, x: &Tensor, dim: usize) -> Tensor {
        kernel("cumsum", &[x], 0.0, || reduce::cumsum(self.card(), x, dim))
    }
    fn sort(&self, x: &Tensor, dim: usize, descending: bool) -> (Tensor, Tensor) {
        kernel("sort", &[x], 0.0, || sort::sort(self.card(), x, x.dims()[dim], dim, descending))
    }
    fn topk(&self, x: &Tensor, k: usize, dim: usize, largest: bool) -> Option<(Tensor, Tensor)> {
        kernel("topk", &[x], 0.0, || Some(sort::sort(self.card(), x, k, dim, largest)))
    }

    fn matmul(&self, a: &Tensor, b: &Tensor) -> Tensor {
        let flops = 2.0 * (a.numel() * b.dim(-1)) as f64;
        kernel("matmul", &[a, b], flops, || matmul::matmul(self.card(), a, b, None))
    }
    fn matmul_bias(&self, a: &Tensor, b: &Tensor, bias: &Tensor) -> Option<Tensor> {
        let flops = 2.0 * (a.numel() * b.dim(-1)) as f64;
        kernel("matmul_bias", &[a, b, bias], flops, || Some(matmul::matmul(self.card(), a, b, Some(bias))))
    }
    fn matmul_epilogue(
        &self,
        a: &Tensor,
        b: &Tensor,
        epilogue: &Epilogue,
        keep: bool,
    ) -> Option<(Tensor, Option<Tensor>)> {
        let flops = 2.0 * (a.numel() * b.dim(-1)) as f64;
        kernel("matmul_epilogue", &[a, b], flops, || matmul::matmul_epilogue(self.card(), a, b, epilogue, keep))
    }
    fn matmul_activation_grad(&self, a: &Tensor, b: &Tensor, activation: Activation, z: &Tensor) -> Option<Tensor> {
        let flops = 2.0 * (a.numel() * b.dim(-1)) as f64;
        kernel("matmul_activation_grad", &[a, b, z], flops, || {
            matmul::matmul_activation_grad(self.card(), a, b, activation, z)
        })
    }
    fn int_mm(&self, a: &Tensor, b: &Tensor) -> Option<Tensor> {
        let flops = 2.0 * (a.numel() * b.dim(-1)) as f64;
        kernel("int_mm", &[a, b], flops, || int_mm::int_mm(self.card(), a, b))
    }
    fn dequantize(&self, weight: &QuantizedTensor) -> Option<Tensor> {
        kernel("dequantize", &[weight.blocks()], 0.0, || matmul_quantized::dequantize(self.card(), weight))
    }
    fn matmul_quantized(&self, x: &Tensor, weight: &QuantizedTensor) -> Option<Tensor> {
        let flops = 2.0 * (x.numel() * weight.shape()[0]) as f64;
        kernel("matmul_quantized", &[x, weight.blocks()], flops, || {
            matmul_quantized::matmul_quantized(self.card(), x, weight)
        })
    }

    fn gather(&self, x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
        kernel("gather", &[x, index], 0.0, || index::gather(self.card(), x, dim, index))
    }
    fn scatter_add(&self, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
        kernel("scatter_add", &[x, index, src], 0.0, || index::scatter_add(self.card(), x, dim, index, src))
    }
    fn index_select(&self, x: &Tensor, dim: usize, index: &Tensor) -> Tensor {
        kernel("index_select", &[x, index], 0.0, || index::index_select(self.card(), x, dim, index))
    }
    fn index_add(&self, x: &Tensor, dim: usize, index: &Tensor, src: &Tensor) -> Tensor {
        kernel("index_add", &[x, index, src], 0.0, || index::index_add(self.card(), x, dim, index, src))
    }
    fn index_range(&self, index: &Tensor) -> (i64, i64) {
        index::index_range(self.card(), index)
    }
    fn checks_later(&self, op: &'static str, index: &Tensor, n: usize, ignored: Option<i64>) -> bool {
        self.card().check_later(op, index, n, ignored)
    }

    fn plane_map(&self, map: &PlaneMap, x: &Tensor) -> Tensor {
        kernel("plane_map", &[x], 0.0, || plane::plane_map(self.card(), map, x))
    }
    fn plane_map_adjoint(&self, map: &PlaneMap, dy: &Tensor) -> Tensor {
        kernel("plane_map_adjoint", &[dy], 0.0, || plane::plane_map_adjoint(self.card(), map, dy))
    }
    fn max_pool2d(&self, windows: &Pool2dGeometry, x: &Tensor) -> (Tensor, Tensor) {
        kernel("max_pool2d", &[x], 0.0, || plane::max_pool2d(self.card(), windows, x))
    }
    fn adaptive_max_pool2d(&self, bins: &AdaptivePool2dGeometry, x: &Tensor) -> (Tensor, Tensor) {
        kernel("adaptive_max_pool2d", &[x], 0.0, || plane::adaptive_max_pool2d(self.card(), bins, x))
    }
    fn plane_gather(&self, x: &Tensor, index: &Tensor) -> Tensor {
        kernel("plane_gather", &[x, index], 0.0, || plane::plane_gather(self.card(), x, index))
    }
    fn plane_scatter(&self, dy: &Tensor, index: &Tensor, h: usize, w: usize) -> Tensor {
        kernel("plane_scatter", &[dy, index], 0.0, || plane::plane_scatter(self.card(), dy, index, h, w))
    }

    fn random(&self, distribution: Distribution, shape: &Shape, dtype: DType, seed: u64, offset: u64) -> Tensor {
        kernel("random", &[], 0.0, || random::random(self.card(), distribution, shape, dtype, seed, offset))
    }

    fn dropout(&self, x: &Tensor, p: f64, seed: u64, offset: u64) -> Option<Tensor> {
        kernel("dropout", &[x], 0.0, || Some(dropout::dropout(self.card(), x, p, seed, offset)))
    }
    fn cat(&self, xs: &[Tensor], dim: usize) -> Option<Tensor> {
        let operands: Vec<&Tensor> = xs.iter().collect();
        kernel("cat", &operands, 0.0, || Some(cat::cat(self.card(), xs, dim)))
    }

    fn softmax(&self, x: &Tensor, dim: usize) -> Option<Tensor> {
        kernel("softmax", &[x], 0.0, || Some(softmax::softmax(self.card(), Softmax::Plain, x, dim)))
    }
    fn softmax_backward(&self, y: &Tensor, g: &Tensor, dim: usize) -> Option<Tensor> {
        kernel("softmax_backward", &[y, g], 0.0, || {
            Some(softmax::softmax_backward(self.card(), Softmax::Plain, y, g, dim))
        })
    }
    fn log_softmax(&self, x: &Tensor, dim: usize) -> Option<Tensor> {
        kernel("log_softmax", &[x], 0.0, || Some(softmax::softmax(self.card(), Softmax::Log, x, dim)))
    }
    fn log_softmax_backward(&self, y: &Tensor, g: &Tensor, dim: usize) -> Option<Tensor> {
        kernel("log_softmax_backward", &[y, g], 0.0, || {
            Some(softmax::softmax_backward(self.card(), Softmax::Log, y, g, dim))
        })
    }

    fn layer_norm(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        kernel("layer_norm", &[x], 0.0, || {
            let Normed { y, mean, rstd, .. } = LAYER_NORM.forward(self.card(), x, None, weight, bias, eps);
            Some((y, mean?, rstd))
        })
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
            let Normed { y, sum, mean, rstd } = LAYER_NORM.forward(self.card(), x, Some(residual), weight, bias, eps);
            Some((y, sum?, mean?, rstd))
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
            Some(LAYER_NORM.backward(self.card(), x, weight, Some(mean), rstd, g, others, parameters))
        })
    }
    fn rms_norm(&self, x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Option<(Tensor, Tensor)> {
        kernel("rms_norm", &[x], 0.0, || Some(rms_norm::rms_norm(self.card(), x, weight, eps)))
    }
    fn add_rms_norm(
        &self,
        x: &Tensor,
        residual: &Tensor,
        weight: Option<&Tensor>,
        eps: f64,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        kernel("add_rms_norm", &[x, residual], 0.0, || {
            let Normed { y, sum, rstd, .. } = RMS_NORM.forward(self.card(), x, Some(residual), weight, None, eps);
            Some((y, sum?, rstd))
        })
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
            Some(rms_norm::rms_norm_backward(self.card(), x, weight, rstd, g, others, parameters))
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
        kernel("group_norm", &[x], 0.0, || Some(channel_norm::group_norm(self.card(), x, groups, weight, bias, eps)))
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
            Some(channel_norm::group_norm_backward(self.card(), x, groups, weight, mean, rstd, g))
        })
    }
    fn batch_norm_statistics(&self, x: &Tensor) -> Option<(Tensor, Tensor)> {
        kernel("batch_norm_statistics", &[x], 0.0, || Some(channel_norm::batch_norm_statistics(self.card(), x)))
    }
    fn batch_norm_apply(
        &self,
        x: &Tensor,
        mean: &Tensor,
        rstd: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
    ) -> Option<Tensor> {
        kernel("batch_norm_apply", &[x], 0.0, || {
            Some(channel_norm::batch_norm_apply(self.card(), x, mean, rstd, weight, bias))
        })
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
            Some(channel_norm::batch_norm_backward(self.card(), x, weight, mean, rstd, g, training))
        })
    }

    fn cross_entropy(
        &self,
        x: &Tensor,
        targets: &Tensor,
        options: &CrossEntropyRows,
    ) -> Option<(Tensor, Tensor, Tensor)> {
        kernel("cross_entropy", &[x], 0.0, || Some(cross_entropy::cross_entropy(self.card(), x, targets, options)))
    }
    fn cross_entropy_backward(
        &self,
        x: &Tensor,
        targets: &Tensor,
        lse: &Tensor,
        scale: &Tensor,
        options: &CrossEntropyRows,
    ) -> Option<Tensor> {
        kernel("cross_entropy_backward", &[x], 0.0, || {
            Some(cross_entropy::cross_entropy_backward(self.card(), x, targets, lse, scale, options))
        })
    }

    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, args: &AttentionArgs) -> Option<(Tensor, Tensor)> {
        kernel("attention", &[q, k, v], attention::flops(q, v, args), || {
            attention::attention(self.card(), q, k, v, args)
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
        kernel("attention_backward", &[q, k, v, d_out], 2.5 * attention::flops(q, v, args), || {
            attention::attention_backward(self.card(), [q, k, v], args, results, d_out, mask_gradient)
        })
    }

    fn gated(&self, gate: &Tensor, up: &Tensor, activation: Activation) -> Option<Tensor> {
        kernel("gated", &[gate, up], 0.0, || gated::gated(self.card(), gate, up, activation))
    }
    fn gated_backward(
        &self,
        gate: &Tensor,
        up: &Tensor,
        activation: Activation,
        g: &Tensor,
    ) -> Option<(Tensor, Tensor)> {
        kernel("gated_backward", &[gate, up, g], 0.0, || gated::gated_backward(self.card(), gate, up, activation, g))
    }
    fn rope(&self, x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: RotaryPairs, inverse: bool) -> Option<Tensor> {
        kernel("rope", &[x, cos, sin], 0.0, || Some(rope::rope(self.card(), x, [cos, sin], pairs, inverse)))
    }
    fn lstm(&self, args: &SequenceArgs, c0: &Tensor) -> Option<LstmOutput> {
        kernel("lstm", &[args.x, args.h0], recurrence::flops(args), || lstm::lstm(self.card(), args, c0))
    }
    fn lstm_backward(
        &self,
        args: &SequenceArgs,
        c0: &Tensor,
        saved: &LstmOutput,
        gradients: &SequenceGradients,
        input_gradient: bool,
    ) -> Option<LstmGradients> {
        kernel("lstm_backward", &[args.x, args.h0], 2.0 * recurrence::flops(args), || {
            lstm::lstm_backward(self.card(), args, c0, saved, gradients, input_gradient)
        })
    }
    fn gru(&self, args: &SequenceArgs) -> Option<GruOutput> {
        kernel("gru", &[args.x, args.h0], recurrence::flops(args), || gru::gru(self.card(), args))
    }
    fn gru_backward(
        &self,
        args: &SequenceArgs,
        saved: &GruOutput,
        gradients: &SequenceGradients,
        input_gradient: bool,
    ) -> Option<GruGradients> {
        kernel("gru_backward", &[args.x, args.h0], 2.0 * recurrence::flops(args), || {
            Some(gru::gru_backward(self.card(), args, saved, gradients, input_gradient))
        })
    }
    fn rnn(&self, args: &SequenceArgs, nonlinearity: RnnNonlinearity) -> Option<RnnOutput> {
        kernel("rnn", &[args.x, args.h0], recurrence::flops(args), || Some(rnn::rnn(self.card(), args, nonlinearity)))
    }
    fn rnn_backward(
        &self,
        args: &SequenceArgs,
        nonlinearity: RnnNonlinearity,
        hs: &Tensor,
        gradients: &SequenceGradients,
        input_gradient: bool,
    ) -> Option<RnnGradients> {
        kernel("rnn_backward", &[args.x, args.h0], 2.0 * recurrence::flops(args), || {
            Some(rnn::rnn_backward(self.card(), args, nonlinearity, hs, gradients, input_gradient))
        })
    }

    fn conv2d(&self, plan: &Conv2dPlan, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Option<Tensor> {
        kernel("conv2d", &[x, w], plan.flops(), || Some(conv::conv2d(self.card(), plan, x, w, bias)))
    }
    fn conv2d_input_grad(&self, plan: &Conv2dPlan, dy: &Tensor, w: &Tensor) -> Option<Tensor> {
        kernel("conv2d_input_grad", &[dy, w], plan.flops(), || Some(conv::conv2d_input_grad(self.card(), plan, dy, w)))
    }
    fn conv2d_weight_grad(&self, plan: &Conv2dPlan, x: &Tensor, dy: &Tensor) -> Option<Tensor> {
        kernel("conv2d_weight_grad", &[x, dy], plan.flops(), || {
            Some(conv::conv2d_weight_grad(self.card(), plan, x, dy))
        })
    }

    fn optimizer_step(&self, step: &OptimizerStep, p: &mut Tensor, g: &Tensor, state: &mut [Tensor]) -> bool {
        self.optimizer_steps(&StepCell::new(*step), &mut [Update { p, g, state }]);
        true
    }
    fn optimizer_steps(&self, step: &StepCell, updates: &mut [Update]) {
        let gradients: Vec<&Tensor> = updates.iter().map(|u| u.g).collect();
        kernel("optimizer_step", &gradients, 0.0, || optimizer::optimizer_steps(self.card(), step, updates));
    }
    fn norm_of_all(&self, xs: &[&Tensor]) -> Option<Tensor> {
        kernel("norm_of_all", xs, 0.0, || gradient_norm::norm_of_all(self.card(), xs))
    }
    fn scale_all(&self, xs: &mut [&mut Tensor], factor: &Tensor) -> bool {
        kernel("scale_all", &[factor], 0.0, || gradient_norm::scale_all(self.card(), xs, factor));
        true
    }
}
