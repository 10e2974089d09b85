//! Operands for tests: small tensors whose elements lie in memory in every possible way.

use ferrograd_tensor::{DType, Slice, Tensor};
use proptest::prelude::*;

/// Shapes of up to four dimensions, with extents 0 and 1 among them.
pub fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1 => Just(0usize), 2 => Just(1), 8 => 2usize..5], 0..5)
}

/// A tensor of `shape` with values in [−2, 2), whose bits of `kind` say how it lies in memory: permuted, every second
/// entry of something larger, backwards, one entry repeated along the first dimension.
pub fn strided(shape: &[usize], dtype: DType, seed: u64, kind: u8) -> Tensor {
    let mut target = shape.to_vec();
    if kind & 8 != 0 && !target.is_empty() {
        target[0] = target[0].min(1);
    }
    let mut held: Vec<usize> = target.iter().map(|n| if kind & 2 != 0 { 2 * n + 1 } else { *n }).collect();
    if kind & 1 != 0 {
        held.reverse();
    }
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1u64 << 22) as f64 - 2.0
    };
    let values: Vec<f64> = (0..held.iter().product()).map(|_| next()).collect();
    let mut x = Tensor::from_vec(values, held).to_dtype(dtype);
    if kind & 1 != 0 {
        let order: Vec<usize> = (0..target.len()).rev().collect();
        x = x.permute_dims(&order);
    }
    if kind & 2 != 0 {
        let odd = Slice::Range { start: 1, end: None, step: 2 };
        x = x.slice(vec![odd; target.len()]);
    }
    if kind & 4 != 0 {
        x = x.flip(..);
    }
    x.expand(shape)
}

/// A strided f64 tensor of any shape.
pub fn tensors() -> impl Strategy<Value = Tensor> {
    (shapes(), any::<u64>(), 0u8..16).prop_map(|(shape, seed, kind)| strided(&shape, DType::F64, seed, kind))
}

/// The index of each element of `shape` in row-major order.
pub fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for &n in shape {
        all = all.iter().flat_map(|i| (0..n).map(|k| i.iter().copied().chain([k]).collect())).collect();
    }
    all
}

/// The element at `index`.
pub fn at(x: &Tensor, index: &[usize]) -> f64 {
    index.iter().fold(x.clone(), |x, &i| x.select(0, i as isize)).item()
}

/// Each test uses the part it needs: none of this is dead code where it is included.
const _: () = {
    let _ = (shapes, strided, tensors, indices, at);
};
