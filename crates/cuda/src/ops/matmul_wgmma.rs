//! Matrix products on Hopper's tensor cores (`kernels/matmul_wgmma.cu`): the half types, and f32 as TF32 where both operands lie
//! along K; operands that the copy engine can read.

use super::matmul::{InRuns, Product, matrices};
use super::split_k::{SHORTEST, Split};
use crate::cuda::Cuda;
use crate::launch::Arguments;
use crate::layout::Layout;
use crate::memory::address;
use crate::programs::{KernelId, Program};
use cudarc::driver::sys;
use ferrograd_tensor::{DType, Tensor};

/// The card that has these instructions; later ones have others.
pub const HOPPER: (i32, i32) = (9, 0);

/// The same as `Batch` in `matmul_wgmma.cu`: the inner extent of a batch in two dimensions, and whether A and B move along
/// the inner and the outer one.
#[repr(C)]
#[derive(Clone, Copy)]
struct Batch {
    inner: i32,
    a: [i32; 2],
    b: [i32; 2],
}

/// What a block makes of C at a time, in clusters of so many below each other, the places of its ring, and how long it takes
/// beside the other: twice the columns for less than twice the time, since operands are read less often (a guess, not a
/// measurement).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    kernel: &'static str,
    columns: usize,
    cluster: usize,
    stages: usize,
    time: usize,
}

const ROWS: usize = 128;
const THREADS: u32 = 384;
const LARGE: Tile = Tile { kernel: "matmul_large", columns: 256, cluster: 2, stages: 4, time: 7 };
const SMALL: Tile = Tile { kernel: "matmul_small", columns: 128, cluster: 1, stages: 6, time: 4 };
/// Of a panel, as in `panels.cuh`.
const LINE_BYTES: usize = 128;
const LINES: usize = 64;

impl Tile {
    /// For products of these extents (M, N, K and the matrices of the batch): the one whose blocks are done first, and how K is cut
    /// for it.
    fn of([m, n, k, batches]: [usize; 4], multiprocessors: usize) -> (Tile, Split) {
        let [large, small] = [LARGE, SMALL].map(|tile| {
            let (count, clusters) = (tile.count(m, n, batches), tile.clusters(multiprocessors));
            let split = Split::of(k, count, clusters, SHORTEST);
            ((count * split.parts).div_ceil(clusters) * split.part * tile.time, (tile, split))
        });
        if large.0 <= small.0 { large.1 } else { small.1 }
    }
    /// That are on the card at a time.
    fn clusters(self, multiprocessors: usize) -> usize {
        (multiprocessors / self.cluster).max(1)
    }
    /// Clusters' tiles.
    fn count(self, m: usize, n: usize, batches: usize) -> usize {
        m.div_ceil(ROWS * self.cluster) * n.div_ceil(self.columns) * batches
    }
    /// `Memory` in the kernel: the ring, four panels of C, two barriers for each place.
    fn shared(self) -> usize {
        (self.stages * (ROWS + self.columns) + 4 * LINES) * LINE_BYTES + self.stages * 2 * size_of::<u64>()
    }
}

/// The programs: A along K, B along K.
const DEFINES: [&str; 4] =
    ["A_ALONG_K=0 B_ALONG_K=0", "A_ALONG_K=0 B_ALONG_K=1", "A_ALONG_K=1 B_ALONG_K=0", BOTH_ALONG_K];
/// The one that f32 has.
pub const BOTH_ALONG_K: &str = "A_ALONG_K=1 B_ALONG_K=1";

/// What is compiled ahead of time.
pub fn programs() -> impl Iterator<Item = Program> {
    DEFINES.iter().map(|define| ("matmul_wgmma.cu", *define))
}

/// Is it a card for this kernel, and a size? Where half of each tile would be empty the other kernel has smaller ones.
pub fn suits(cuda: &Cuda, m: usize, n: usize) -> bool {
    cuda.capability == HOPPER && m > 64 && n > 64
}

/// Launches the product if it is one for Hopper, and says whether it was.
#[track_caller]
pub fn matmul_wgmma(product: &Product, a: &InRuns, b: &InRuns) -> bool {
    let extents @ [m, n, k, batches] = product.extents();
    let is_taken = product.c.dtype().is_half() || a.along_k && b.along_k;
    if !suits(product.cuda, m, n) || !is_taken || !a.in_chunks || !b.in_chunks {
        return false;
    }
    let layout = Layout::of([&matrices(product.a), &matrices(product.b)]);
    if layout.rank() > 2 {
        return false;
    }
    let [outer, inner] = match layout.rank() {
        2 => [layout.dimension(0), layout.dimension(1)],
        1 => [(1, [0; 2]), layout.dimension(0)],
        _ => [(1, [0; 2]); 2],
    };
    let moves = |x: usize| [inner, outer].map(|(_, strides)| (strides[x] != 0) as i32);
    let batch = Batch { inner: inner.0 as i32, a: moves(0), b: moves(1) };
    let multiprocessors = product.cuda.multiprocessors as usize;
    let (tile, split) = Tile::of(extents, multiprocessors);
    let maps = [
        operand(product.cuda, a, [k, m], [inner, outer].map(|(extent, strides)| (extent, strides[0]))),
        operand(product.cuda, b, [k, n], [inner, outer].map(|(extent, strides)| (extent, strides[1]))),
        result(product.cuda, product.c, [n, m, batches]),
    ];
    let [Some(a_map), Some(b_map), Some(c_map)] = maps else { return false };
    let clusters = (tile.count(m, n, batches) * split.parts).min(tile.clusters(multiprocessors));
    let grid = [(clusters * tile.cluster) as u32, 1, 1];
    let define = DEFINES[2 * a.along_k as usize + b.along_k as usize];
    let id = KernelId { file: "matmul_wgmma.cu", define, name: tile.kernel, dtype: Some(product.c.dtype()) };
    product.in_parts(split, |output, sizes| {
        let maps = Arguments::default().value(a_map).value(b_map).value(c_map);
        let arguments = maps.value(output).value(sizes).value(batch);
        // SAFETY: the maps are those of operands that lie as the program takes them, in the dtype after which the kernel is named.
        unsafe { product.cuda.launch(id, grid, THREADS, tile.shared() as u32, arguments) };
    });
    true
}

/// The map of an operand of these extents, K first, and of a batch of them: `(extent, stride)` of the inner and the outer
/// dimension.
#[track_caller]
fn operand(cuda: &Cuda, x: &InRuns, [k, other]: [usize; 2], batch: [(i64, i64); 2]) -> Option<sys::CUtensorMap> {
    let [run, lines] = if x.along_k { [k, other] } else { [other, k] };
    // Of a single line, or along which the operand stays the same, nobody asks for the stride: it only has to be valid.
    let any = run.next_multiple_of(8) as i64;
    let batch = batch.map(|(extent, stride)| if stride == 0 { (1, any) } else { (extent as usize, stride) });
    let pitch = if lines == 1 { any } else { x.pitch as i64 };
    let extents = [run, lines, batch[0].0, batch[1].0];
    panels(cuda, &x.matrix, &extents, &[pitch, batch[0].1, batch[1].1])
}

/// The map of C, which is row-major; of no use where rows begin at no multiple of 16 bytes, nor in f32, which threads store.
#[track_caller]
fn result(cuda: &Cuda, c: &Tensor, [n, m, batches]: [usize; 3]) -> Option<sys::CUtensorMap> {
    if n % 8 != 0 || c.dtype() == DType::F32 {
        return Some(sys::CUtensorMap { opaque: [0; 16] });
    }
    panels(cuda, c, &[n, m, batches], &[n as i64, (m * n) as i64])
}

/// A map whose boxes are panels, 64 lines of 128 bytes: 64 numbers of a half type, or 32 of f32, which is rounded to TF32 on the way.
/// Extents and strides are in elements, the contiguous dimension first. There is none of a tensor that is too large for it: kernels find
/// their way in numbers of 32 bits, maps in strides of 40.
#[track_caller]
pub fn panels(cuda: &Cuda, x: &Tensor, extents: &[usize], strides: &[i64]) -> Option<sys::CUtensorMap> {
    use sys::CUtensorMapDataType::{
        CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 as BF16, CU_TENSOR_MAP_DATA_TYPE_FLOAT16 as F16,
        CU_TENSOR_MAP_DATA_TYPE_TFLOAT32 as TF32,
    };
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    let dims: Vec<u64> = extents.iter().map(|&extent| extent as u64).collect();
    let (dtype, size) = (x.dtype(), x.dtype().size());
    let bytes: Vec<u64> = strides.iter().map(|&stride| (stride as u64).saturating_mul(size as u64)).collect();
    if dims.iter().any(|&extent| extent >= 1 << 31) || bytes.iter().any(|&stride| stride >= 1 << 40) {
        return None;
    }
    let panel = [(LINE_BYTES / size) as u32, LINES as u32, 1, 1];
    let number = match dtype {
        DType::BF16 => BF16,
        DType::F16 => F16,
        DType::F32 => TF32,
        _ => unreachable!("no kernel takes panels of {dtype}"),
    };
    // SAFETY: the arrays have as many entries as there are dimensions, strides one less; the tensor is on the card.
    let made = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            number,
            dims.len() as u32,
            address(x) as *mut _,
            dims.as_ptr(),
            bytes.as_ptr(),
            panel.as_ptr(),
            [1; 4].as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    made.result().unwrap_or_else(|e| cuda.broken("cuTensorMapEncodeTiled", e));
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::{LARGE, SMALL, Split, Tile};

    #[test]
    fn large_tiles_where_they_fill_the_card_as_well() {
        let tile = |m, n, k| Tile::of([m, n, k, 1], 132);
        assert_eq!(tile(4096, 4096, 640), (LARGE, Split::none(640)));
        assert_eq!(tile(2048, 2048, 640), (LARGE, Split::none(640)));
        // A quarter of the card, or half of it.
        assert_eq!(tile(1024, 1024, 640), (SMALL, Split::none(640)));
        // Two turns of the card, the second half empty, or three.
        assert_eq!(tile(8192, 768, 640), (SMALL, Split::none(640)));
        // Seven parts of 9 tiles for 66 clusters, in place of three parts of 36 for 132.
        assert_eq!(tile(768, 768, 32768), (LARGE, Split { parts: 7, part: 4736 }));
        // What the tests rely on, on a card of four multiprocessors.
        for (m, n) in [(130, 1000), (250, 500), (505, 480), (500, 505)] {
            assert_eq!(Tile::of([m, n, 64, 1], 4).0, LARGE);
        }
    }

    #[test]
    fn a_block_has_227_kib_of_shared_memory() {
        assert!([LARGE, SMALL].iter().all(|tile| tile.shared() <= 227 << 10));
    }
}
