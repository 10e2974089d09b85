//! Random numbers, the same as on the CPU.

use super::elementwise::{cast, full};
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::programs::KernelId;
use ferrograd_tensor::backend::Distribution;
use ferrograd_tensor::{DType, Shape, Tensor};

/// See [`Backend::random`](ferrograd_tensor::backend::Backend::random). The half types round f32's numbers, but for the uniform
/// distribution's bound, which stays excluded.
#[track_caller]
pub fn random(
    cuda: &'static Cuda,
    distribution: Distribution,
    shape: &Shape,
    dtype: DType,
    seed: u64,
    offset: u64,
) -> Tensor {
    let real = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let (name, made): (_, DType) = match distribution {
        Distribution::Uniform { .. } => ("uniform", real),
        Distribution::Normal { .. } => ("normal", real),
        Distribution::Bernoulli { .. } => ("bernoulli", DType::Bool),
        Distribution::Integers { .. } => ("integers", DType::I64),
    };
    let y = cuda.empty(shape, made);
    let arguments = Arguments::default().tensor(&y).value(y.numel() as i64).value(cuda.random_stream(seed, offset));
    let numbers = |arguments: Arguments, values: &[f64]| {
        values.iter().fold(arguments, |a, &v| if real == DType::F64 { a.value(v) } else { a.value(v as f32) })
    };
    let (arguments, named) = match distribution {
        Distribution::Uniform { low, high } => {
            (numbers(arguments, &[low, high - low, dtype.largest_below(high)]), Some(real))
        }
        Distribution::Normal { mean, std } => (numbers(arguments, &[mean, std]), Some(real)),
        Distribution::Bernoulli { p } => (arguments.value((p * 4_294_967_296.0).round() as u64), None),
        Distribution::Integers { low, high } => (arguments.value(low).value(high.wrapping_sub(low) as u64), None),
    };
    if y.numel() == 0 {
        return full(cuda, shape, dtype, 0.0);
    }
    let id = KernelId { file: "random.cu", define: "", name, dtype: named };
    // SAFETY: `y` has as many elements of the kernel's type.
    unsafe { cuda.launch(id, cuda.grid_for(y.numel().div_ceil(2)), BLOCK, 0, arguments) };
    if made == dtype { y } else { cast(cuda, &y, dtype) }
}
