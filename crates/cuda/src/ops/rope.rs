//! Rotary position embedding: pairs of features turned by the angles of their positions.

use super::copy::copy_into;
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::{Layout, in_chunks};
use crate::programs::KernelId;
use ferrograd_tensor::{RotaryPairs, Tensor};

/// See [`Backend::rope`](ferrograd_tensor::backend::Backend::rope).
#[track_caller]
pub fn rope(cuda: &'static Cuda, x: &Tensor, tables: [&Tensor; 2], pairs: RotaryPairs, inverse: bool) -> Tensor {
    let y = cuda.empty(x.shape(), x.dtype());
    if y.numel() == 0 {
        return y;
    }
    let (d, p) = (x.dim(-1), tables[0].dim(-1));
    let features = [x, &y].map(|t| t.narrow(-1, 0, 2 * p));
    let length = 16 / x.dtype().size();
    let vectors = p.is_multiple_of(length) && features.iter().chain(tables).all(|t| in_chunks(t, length));
    let (name, length) = match pairs {
        _ if !vectors => ("rope", 1),
        RotaryPairs::Halves => ("rope_in_vectors", length),
        RotaryPairs::Interleaved => ("rope_interleaved_in_vectors", length),
    };
    // Where each chunk of pairs begins, and how many features on its other half does.
    let (of_firsts, apart) = match pairs {
        RotaryPairs::Halves => (p, p),
        RotaryPairs::Interleaved => (2 * p, length),
    };
    let each = |t: &Tensor, n: usize| t.narrow(-1, 0, n).slice_dim(-1, 0, None, (n / p * length) as isize);
    let [x_firsts, y_firsts] = features.each_ref().map(|t| each(t, of_firsts));
    let [cos, sin] = tables.map(|t| each(t, p));
    let apart = |t: &Tensor| apart as i64 * t.layout().strides[t.rank() - 1] as i64;

    let shared = |dim: usize| dim + 1 < x.rank() && tables.iter().all(|t| t.layout().strides[dim] == 0);
    let angles = Layout::of([&x_firsts, &y_firsts, &cos, &sin].map(|t| only(t, |dim| !shared(dim))).each_ref());
    let heads = Layout::of([&x_firsts, &y_firsts].map(|t| only(t, shared)).each_ref());
    let block = angles.numel().next_multiple_of(32).min(BLOCK as usize);
    let across = angles.numel().div_ceil(block);
    // Enough blocks to fill the card twice over; beyond that, threads use their angles again.
    let down = heads.numel().min((cuda.multiprocessors as usize * 16).div_ceil(across));
    let arguments = Arguments::default().tensor(x).tensor(&y).tensor(tables[0]).tensor(tables[1]);
    let arguments = arguments.value(angles).value(heads).value(apart(x)).value(apart(&y));
    let arguments = arguments.value(if inverse { -1.0 } else { 1.0 });
    let id = KernelId { file: "rope.cu", define: "", name, dtype: Some(x.dtype()) };
    // SAFETY: the layouts were made of the operands themselves; the tables are of the type that x's is computed in.
    unsafe { cuda.launch(id, [across as u32, down as u32, 1], block as u32, 0, arguments) };
    if 2 * p < d {
        let [from, to] = [x, &y].map(|t| t.narrow(-1, 2 * p, d - 2 * p));
        copy_into(cuda, &from, &to);
    }
    y
}

/// The first entry of every dimension but those that are `kept`.
fn only(x: &Tensor, kept: impl Fn(usize) -> bool) -> Tensor {
    (0..x.rank()).fold(x.clone(), |x, dim| if kept(dim) { x } else { x.narrow(dim as isize, 0, 1) })
}
