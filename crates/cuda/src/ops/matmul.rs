//! Matrix products: which kernel makes one, and with what tiles.

use super::elementwise::region;
use super::matmul_wgmma::matmul_wgmma;
use super::matvec::matvec;
use crate::cuda::Cuda;
use crate::launch::Arguments;
use crate::layout::Layout;
use crate::memory::address;
use crate::programs::{KernelId, Program};
use ferrograd_tensor::{DType, MatmulPrecision, Shape, Tensor, matmul_precision};

/// The same as `Shape` in `matmul.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sizes {
    pub m: i64,
    pub n: i64,
    pub k: i64,
    pub a: [i64; 2],
    pub b: [i64; 2],
    pub batches: i64,
}

/// What a block makes of C, and its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    pub rows: usize,
    pub columns: usize,
    pub threads: u32,
}

impl Tile {
    /// How many it takes for `batches` matrices `[m, n]`.
    pub fn count(self, m: usize, n: usize, batches: usize) -> usize {
        m.div_ceil(self.rows) * n.div_ceil(self.columns) * batches
    }
}

/// A product `[B, M, K] × [B, K, N]`, as its kernels take it.
pub struct Product<'a> {
    pub cuda: &'static Cuda,
    pub a: &'a Tensor,
    pub b: &'a Tensor,
    bias: Option<Tensor>,
    pub c: &'a Tensor,
    pub sizes: Sizes,
}

/// `[…, M, K] × […, K, N]`, plus a bias `[N]` if there is one; see [`Backend`](ferrograd_tensor::backend::Backend).
#[track_caller]
pub fn matmul(cuda: &'static Cuda, a: &Tensor, b: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let r = a.rank();
    let (k, n) = (a.dims()[r - 1], b.dims()[r - 1]);
    let shape: Shape = a.dims()[..r - 1].iter().copied().chain([n]).collect();
    let c = cuda.empty(&shape, a.dtype());
    if c.numel() == 0 {
        return c;
    }
    let bias = bias.map(Tensor::contiguous);
    let simple = (1..1 << 30).contains(&k);
    if a.dtype().is_float() && simple && (c.dim(-2) == 1 || n == 1) {
        matvec(cuda, a, b, bias.as_ref(), &c);
    } else if simple && has_tensor_cores(a.dtype()) {
        let (a, b) = (InRuns::of(a, r - 1), InRuns::of(b, r - 2));
        let product = Product::new(cuda, &a.matrix, &b.matrix, bias, &c);
        if !matmul_wgmma(&product, &a, &b) {
            on_tensor_cores(&product, &a, &b);
        }
    } else if a.dtype().is_float() && simple {
        in_full_precision(&Product::new(cuda, a, b, bias, &c));
    } else {
        of_any_kind(&Product::new(cuda, a, b, bias, &c));
    }
    c
}

impl<'a> Product<'a> {
    fn new(cuda: &'static Cuda, a: &'a Tensor, b: &'a Tensor, bias: Option<Tensor>, c: &'a Tensor) -> Self {
        let size = |x: &Tensor, d| x.dim(d) as i64;
        let strides = |x: &Tensor| [2, 1].map(|d| x.layout().strides[x.rank() - d] as i64);
        let (m, n) = (size(c, -2), size(c, -1));
        let batches = c.numel() as i64 / (m * n);
        let sizes = Sizes { m, n, k: size(a, -1), a: strides(a), b: strides(b), batches };
        Product { cuda, a, b, bias, c, sizes }
    }

    /// M, N, K and the matrices of the batch.
    pub fn extents(&self) -> [usize; 4] {
        let Sizes { m, n, k, batches, .. } = self.sizes;
        [m, n, k, batches].map(|extent| extent as usize)
    }

    /// The arguments behind the operands.
    pub fn bias_and_result(&self, arguments: Arguments) -> Arguments {
        let arguments = match &self.bias {
            Some(bias) => arguments.tensor(bias),
            None => arguments.value(0u64),
        };
        arguments.tensor(self.c)
    }

    /// Launches a kernel whose blocks make a tile each.
    ///
    /// # Safety
    /// The kernel is one of those of `matmul.cuh`, of this dtype, tile and amount of shared memory, and can read the
    /// operands as they lie.
    #[track_caller]
    unsafe fn launch(&self, file: &'static str, define: &'static str, name: &'static str, tile: Tile, shared: u32) {
        let [m, n, _, batches] = self.extents();
        let batch = match self.sizes.k {
            // Without terms there is nothing that could be read.
            0 => Layout::of([&matrices(self.c), &matrices(self.c)]),
            _ => Layout::of([&matrices(self.a), &matrices(self.b)]),
        };
        let arguments = self.bias_and_result(Arguments::default().tensor(self.a).tensor(self.b));
        let arguments = arguments.value(self.sizes).value(batch);
        let blocks = tile.count(m, n, batches) as u32;
        let id = KernelId { file, define, name, dtype: Some(self.c.dtype()) };
        // SAFETY: sizes and strides are those of the operands, whose dtype is one; the rest is the caller's promise.
        unsafe { self.cuda.launch(id, [blocks, 1, 1], tile.threads, shared, arguments) };
    }
}

/// Element (0, 0) of each matrix of a batch.
pub fn matrices(x: &Tensor) -> Tensor {
    let mut layout = x.layout().clone();
    layout.shape = x.dims()[..x.rank() - 2].iter().copied().chain([1, 1]).collect();
    region(x, &layout)
}

/// `kernels/matmul_simt.cu`: f32 and f64, any strides.
#[track_caller]
fn in_full_precision(product: &Product) {
    let [m, n, _, batches] = product.extents();
    let small = Tile { threads: 256, ..SMALL };
    let tile = match product.c.dtype() {
        DType::F32 => tile(m, n, batches, product.cuda.multiprocessors as usize),
        _ => small,
    };
    let (name, tile) = if tile == LARGE { ("matmul_large", LARGE) } else { ("matmul_small", small) };
    // SAFETY: the kernel reads operands of any strides; it has no dynamic shared memory.
    unsafe { product.launch("matmul_simt.cu", "", name, tile, 0) };
}

/// `kernels/matmul.cu`: any strides and types.
#[track_caller]
fn of_any_kind(product: &Product) {
    let tile = Tile { rows: 64, columns: 64, threads: 256 };
    // SAFETY: the kernel reads operands of any strides; it has no dynamic shared memory.
    unsafe { product.launch("matmul.cu", "", "matmul", tile, 0) };
}

/// A matrix whose rows or columns are runs of memory.
pub struct InRuns {
    pub matrix: Tensor,
    /// Do the runs go along K?
    pub along_k: bool,
    /// From one run to the next, in elements.
    pub pitch: isize,
    /// Do they all begin at a multiple of 16 bytes, each behind the end of the one before?
    pub in_chunks: bool,
    /// … and end at one?
    aligned: bool,
}

impl InRuns {
    /// The matrix itself, or a copy if it has no runs. K is dimension `k`, the last but one or the last.
    #[track_caller]
    fn of(x: &Tensor, k: usize) -> InRuns {
        let other = 2 * x.rank() - 3 - k;
        let one = |d: usize| x.dims()[d] == 1;
        let run = |d: usize| x.layout().strides[d] == 1;
        let along_k = match () {
            () if run(k) && !one(k) => true,
            () if run(other) && !one(other) => false,
            // A run of one number.
            () if one(k) => true,
            () if one(other) => false,
            () => return InRuns::of(&x.contiguous(), k),
        };
        let (run, across) = if along_k { (k, other) } else { (other, k) };
        let mut layout = x.layout().clone();
        layout.strides[run] = 1;
        if one(across) {
            layout.strides[across] = 0;
        }
        let whole = |numbers: isize| numbers * x.dtype().size() as isize % 16 == 0;
        let mut strides = (0..x.rank()).filter(|&d| d != run && !one(d)).map(|d| layout.strides[d]);
        let at_chunks = address(x) % 16 == 0 && strides.clone().all(whole);
        let aligned = at_chunks && whole(x.dims()[run] as isize);
        let pitch = layout.strides[across];
        let in_order = one(across) || pitch >= x.dims()[run] as isize;
        let in_chunks = at_chunks && in_order && strides.all(|stride| stride >= 0);
        InRuns { matrix: region(x, &layout), along_k, pitch, in_chunks, aligned }
    }
}

/// Tiles of the fast kernels: the larger one reads each number of A and B half as often, the smaller one makes four times
/// the blocks.
pub const LARGE: Tile = Tile { rows: 128, columns: 128, threads: 256 };
pub const SMALL: Tile = Tile { rows: 64, columns: 64, threads: 128 };

/// The tile for `batches` matrices `[m, n]`: the larger one, if every multiprocessor has one to make.
pub fn tile(m: usize, n: usize, batches: usize, multiprocessors: usize) -> Tile {
    let wasteful = m <= SMALL.rows || n <= SMALL.columns;
    if !wasteful && LARGE.count(m, n, batches) >= multiprocessors { LARGE } else { SMALL }
}

/// Are products of these made by tensor cores? Those of f32 are where TF32 will do.
pub fn has_tensor_cores(dtype: DType) -> bool {
    dtype.is_half() || dtype == DType::F32 && matmul_precision() == MatmulPrecision::Tf32
}

/// Numbers, of so many bytes, in shared memory of so many rows of one operand, as `Slice` in `matmul_mma.cuh` lays them out.
pub fn slice(rows: usize, along_k: bool, size: usize) -> usize {
    // Of a copy, and of K at a time.
    let (chunk, depth) = (16 / size, 4 * 16 / size);
    match along_k {
        true => 2 * (2 * chunk * rows + 4 * chunk),
        false if size == 2 => rows / (2 * chunk) * (2 * chunk * depth + 2 * chunk),
        false => depth * (rows + 8),
    }
}

/// Slices of K in shared memory at a time.
pub const STAGES: usize = 4;

/// The programs of `matmul_mma.cu`: A along K, B along K, both aligned.
const DEFINES: [&str; 8] = [
    "A_ALONG_K=0 B_ALONG_K=0 ALIGNED=0",
    "A_ALONG_K=0 B_ALONG_K=0 ALIGNED=1",
    "A_ALONG_K=0 B_ALONG_K=1 ALIGNED=0",
    "A_ALONG_K=0 B_ALONG_K=1 ALIGNED=1",
    "A_ALONG_K=1 B_ALONG_K=0 ALIGNED=0",
    "A_ALONG_K=1 B_ALONG_K=0 ALIGNED=1",
    "A_ALONG_K=1 B_ALONG_K=1 ALIGNED=0",
    "A_ALONG_K=1 B_ALONG_K=1 ALIGNED=1",
];

/// What is compiled ahead of time.
pub fn programs() -> impl Iterator<Item = Program> {
    DEFINES.iter().map(|define| ("matmul_mma.cu", *define))
}

/// `kernels/matmul_mma.cu`: the half types, and f32 as TF32.
#[track_caller]
fn on_tensor_cores(product: &Product, a: &InRuns, b: &InRuns) {
    let [m, n, _, batches] = product.extents();
    let tile = tile(m, n, batches, product.cuda.multiprocessors as usize);
    let name = if tile == LARGE { "matmul_large" } else { "matmul_small" };
    let define = DEFINES[4 * a.along_k as usize + 2 * b.along_k as usize + (a.aligned && b.aligned) as usize];
    let size = product.c.dtype().size();
    let shared = STAGES * (slice(tile.rows, a.along_k, size) + slice(tile.columns, b.along_k, size)) * size;
    // SAFETY: the program reads operands that lie so.
    unsafe { product.launch("matmul_mma.cu", define, name, tile, shared as u32) };
}

#[cfg(test)]
mod tests {
    use super::{LARGE, SMALL, tile};

    #[test]
    fn large_tiles_for_products_that_fill_the_card() {
        assert_eq!(tile(4096, 4096, 1, 132), LARGE);
        assert_eq!(tile(1024, 1024, 1, 132), SMALL);
        assert_eq!(tile(1024, 1024, 3, 132), LARGE);
        // Half of each large tile would be empty.
        assert_eq!(tile(64, 1 << 20, 1, 132), SMALL);
        assert_eq!(tile(1 << 20, 33, 1, 132), SMALL);
    }
}
