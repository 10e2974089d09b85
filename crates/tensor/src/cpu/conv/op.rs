//! The slice kernels on tensors: contiguous operands, half types computed in f32.

use super::{ConvElement, Plan, forward, input_grad, weight_grad};
use crate::cpu::widened;
use crate::ops::conv::Conv2dPlan;
use crate::storage::CpuBuffer;
use crate::{DType, Shape, Tensor};

type Kernel<T> = fn(&Plan, &[T], &[T], &mut [T]);

fn plan(p: &Conv2dPlan) -> Plan {
    let g = &p.geometry;
    Plan::new(g, p.out, g.input_len(), g.weight_len(), g.n * g.o * p.out.0 * p.out.1)
}

fn run<T: ConvElement>(
    p: &Conv2dPlan,
    a: &Tensor,
    b: &Tensor,
    shape: Shape,
    kernel: impl Fn(&Plan, &[T], &[T], &mut [T]),
) -> Tensor {
    let (a, b) = (a.contiguous(), b.contiguous());
    let mut out = CpuBuffer::scratch::<T>(shape.numel());
    kernel(&plan(p), a.contiguous_slice(), b.contiguous_slice(), out.as_mut_slice());
    Tensor::from_cpu(out, shape, a.dtype())
}

fn dispatch(p: &Conv2dPlan, a: &Tensor, b: &Tensor, shape: Shape, single: Kernel<f32>, double: Kernel<f64>) -> Tensor {
    widened([a, b], |[a, b]| match a.dtype() {
        DType::F64 => run(p, a, b, shape, double),
        _ => run(p, a, b, shape, single),
    })
}

/// [`ops::conv::forward`](crate::ops::conv::forward).
pub fn conv2d_tensor(p: &Conv2dPlan, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Tensor {
    fn forward_as<T: ConvElement>(p: &Conv2dPlan, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let bias = bias.map(|b| b.to_dtype(x.dtype()).contiguous());
        let bias = bias.as_ref().map(|b| b.contiguous_slice());
        run(p, x, w, p.output_shape(), |p, x, w, y| forward::forward::<T>(p, x, w, bias, y))
    }
    widened([x, w], |[x, w]| match x.dtype() {
        DType::F64 => forward_as::<f64>(p, x, w, bias),
        _ => forward_as::<f32>(p, x, w, bias),
    })
}
/// [`ops::conv::input_grad`](crate::ops::conv::input_grad).
pub fn conv2d_input_grad_tensor(p: &Conv2dPlan, dy: &Tensor, w: &Tensor) -> Tensor {
    dispatch(p, dy, w, p.input_shape(), input_grad::input_grad, input_grad::input_grad)
}
/// [`ops::conv::weight_grad`](crate::ops::conv::weight_grad).
pub fn conv2d_weight_grad_tensor(p: &Conv2dPlan, x: &Tensor, dy: &Tensor) -> Tensor {
    dispatch(p, x, dy, p.weight_shape(), weight_grad::weight_grad, weight_grad::weight_grad)
}
