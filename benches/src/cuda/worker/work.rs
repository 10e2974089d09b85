//! What the cases on a card cannot do without. They have dtypes, and single operations are placed under the roofline by what they
//! compute, too.

pub use crate::work::{Transformer, gemm, training};

use bench_measure::Work;
use ferrograd::prelude::DType;

/// So many tensors of `elements` each, read or written once, and so many operations for each element: sums, products and
/// functions count as one.
pub fn elements(dtype: DType, tensors: usize, operations: usize, elements: usize) -> Work {
    Work { flops: (operations * elements) as f64, bytes: (dtype.size() * tensors * elements) as f64, bf16: false }
}

/// Attention forward in bf16 over `[B, H, T, D]`.
pub fn attention([b, h, t, d]: [usize; 4], causal: bool) -> Work {
    let flops = 4.0 * (b * h * t * t * d) as f64;
    Work { flops: if causal { flops / 2.0 } else { flops }, bf16: true, ..elements(DType::BF16, 4, 0, b * h * t * d) }
}

/// LSTM layers, forward, over sequences `[B, T, E]`: the weights are read once, and each layer reads its input and writes its
/// output.
pub fn lstm([batch, time, embed, hidden, layers]: [usize; 5], dtype: DType) -> Work {
    let inputs = (0..layers).map(|layer| if layer == 0 { embed } else { hidden });
    let (weights, moved) = inputs.fold((0, 0), |(weights, moved), input| {
        (weights + 4 * hidden * (input + hidden), moved + batch * time * (input + hidden))
    });
    let flops = 2.0 * (weights * batch * time) as f64;
    Work { flops, bf16: dtype.is_half(), ..elements(dtype, 1, 0, weights + moved) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_formulas() {
        let Work { flops, bytes, bf16 } = attention([2, 3, 5, 7], true);
        assert_eq!((flops, bytes, bf16), (2.0 * 2.0 * 3.0 * 25.0 * 7.0, 4.0 * 2.0 * 210.0, true));
        // Two layers, 4·3·(2 + 3) and 4·3·(3 + 3) weights, one sequence of ten steps.
        let Work { flops, bytes, .. } = lstm([1, 10, 2, 3, 2], DType::F32);
        assert_eq!((flops, bytes), (2.0 * 132.0 * 10.0, 4.0 * (132.0 + 50.0 + 60.0)));
    }
}
