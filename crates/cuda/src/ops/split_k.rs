//! Sums over a long K in parts: blocks of their own make each, and a last launch adds them up (`kernels/split_k.cu`).

use super::matmul::Output;
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::programs::KernelId;
use ferrograd_tensor::{DType, Tensor};

/// How K is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// How many parts there are.
    pub parts: usize,
    /// The extent of each along K, but for the last, which is what is left.
    pub part: usize,
}

impl Split {
    /// Of K into parts of `shortest` at least, for a product that fills `blocks` blocks if K is not cut, on a card that has room for so
    /// many at a time: as many as there is room for. Parts are multiples of what any kernel takes of K at a time.
    pub fn of(k: usize, blocks: usize, room: usize, shortest: usize) -> Split {
        const DEPTH: usize = 64;
        let parts = (room / blocks).min(k / shortest).max(1);
        let part = k.div_ceil(parts).next_multiple_of(DEPTH);
        Split { parts: k.div_ceil(part), part }
    }

    /// All of K at once.
    pub fn none(k: usize) -> Split {
        Split { parts: 1, part: k }
    }

    /// Memory for the sums of `c` in parts, if there are several. Those of integers are modulo 2³², as they are in `c`.
    #[track_caller]
    pub fn memory(self, cuda: &'static Cuda, c: &Tensor) -> Option<Tensor> {
        let dtype = if c.dtype() == DType::I32 { DType::I32 } else { c.dtype().accumulator() };
        (self.parts > 1).then(|| cuda.empty(&[self.parts, c.numel()].into(), dtype))
    }
}

/// The shortest part of K that is worth a block of its own in a product of matrices: reading the operands then takes some times as long
/// as writing the sums and reading them again. A guess, not a measurement.
pub const SHORTEST: usize = 512;

/// `c [… , N] = Σ parts` and what comes after, of floats; `output` is that of `c`, with so many parts.
#[track_caller]
pub fn add_parts(cuda: &'static Cuda, output: Output, count: usize, c: &Tensor) {
    /// The same as `Extents` in `split_k.cu`.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Extents {
        numel: i64,
        n: i64,
    }
    let extents = Extents { numel: c.numel() as i64, n: c.dim(-1) as i64 };
    let arguments = Arguments::default().value(output).value(extents).value(count as i64);
    let id = KernelId { file: "split_k.cu", define: "", name: "add_parts", dtype: Some(c.dtype()) };
    // SAFETY: each part is as large as `c`, in its accumulator; the rest of the output is made for `c`.
    unsafe { cuda.launch(id, cuda.grid_for(c.numel()), BLOCK, 0, arguments) };
}

#[cfg(test)]
mod tests {
    use super::{SHORTEST, Split};

    #[test]
    fn parts_fill_the_card_and_are_worth_their_while() {
        let split = |k, blocks, room| {
            let Split { parts, part } = Split::of(k, blocks, room, SHORTEST);
            assert!(part % 64 == 0 && part * (parts - 1) < k && part * parts >= k, "{k}: {parts} of {part}");
            parts
        };
        // The gradient of a weight 768 × 768 in tiles of 128 × 128, two of them on each multiprocessor.
        assert_eq!(split(32768, 36, 264), 7);
        // The card is full, or would be overfull.
        assert_eq!(split(32768, 264, 264), 1);
        assert_eq!(split(32768, 133, 264), 1);
        assert_eq!(split(32768, 1000, 264), 1);
        // K is short.
        assert_eq!(split(1023, 1, 264), 1);
        assert_eq!(split(1024, 1, 264), 2);
        assert_eq!(split(1, 1, 264), 1);
        // Of parts that are rounded up, fewer do.
        assert_eq!(Split::of(1030, 1, 264, SHORTEST), Split { parts: 2, part: 576 });
        assert_eq!(Split::of(700, 1, 264, 100), Split { parts: 6, part: 128 });
    }
}
