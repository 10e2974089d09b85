//! Joining tensors: every element of the result is written once, in parallel, from operands of any strides.

use super::strided::{CHUNK, Source, fill_chunks};
use crate::Tensor;
use crate::storage::CpuBuffer;
use bytemuck::Pod;

/// `xs` one after another along `dim`: one dtype, equal in the other dimensions.
pub fn cat(xs: &[Tensor], dim: usize) -> Tensor {
    let total = xs.iter().map(|x| x.dims()[dim]).sum();
    let shape = xs[0].shape().with(dim, total);
    let buffer = match xs[0].dtype().size() {
        8 => join::<u64>(xs, dim),
        4 => join::<u32>(xs, dim),
        2 => join::<u16>(xs, dim),
        _ => join::<u8>(xs, dim),
    };
    Tensor::from_cpu(buffer, shape, xs[0].dtype())
}

/// Seen as rows `[leading dimensions, dim and what follows]`, a row of the result is the operands' rows one after
/// another.
fn join<T: Pod + Send + Sync>(xs: &[Tensor], dim: usize) -> CpuBuffer {
    let widths: Vec<usize> = xs.iter().map(|x| x.dims()[dim..].iter().product()).collect();
    let starts: Vec<usize> = widths
        .iter()
        .scan(0, |end, &w| {
            *end += w;
            Some(*end - w)
        })
        .collect();
    let sources: Vec<Source<T>> = xs.iter().map(Source::new).collect();
    let row: usize = widths.iter().sum();
    fill_chunks(xs.iter().map(Tensor::numel).sum(), |range, out: &mut [T]| {
        let mut scratch = [T::zeroed(); CHUNK];
        let mut at = range.start;
        while at < range.end {
            let (r, c) = (at / row, at % row);
            // The last operand that starts at or before column c: operands of width 0 share their start with the next.
            let i = starts.partition_point(|&start| start <= c) - 1;
            let len = (starts[i] + widths[i] - c).min(range.end - at);
            let from = r * widths[i] + c - starts[i];
            let run = sources[i].chunk(from..from + len, &mut scratch);
            out[at - range.start..][..len].copy_from_slice(run);
            at += len;
        }
    })
}
