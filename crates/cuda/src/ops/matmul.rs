//! Matrix products: which kernel makes one, and with what tiles.

use super::elementwise::region;
use super::matmul_wgmma::{matmul_wgmma, suits};
use super::matvec::matvec;
use super::split_k::{SHORTEST, Split, add_parts};
use crate::cuda::Cuda;
use crate::launch::Arguments;
use crate::layout::Layout;
use crate::memory::address;
use crate::programs::{KernelId, Program};
use ferrograd_tensor::{Activation, DType, Epilogue, MatmulPrecision, Shape, Tensor, matmul_precision};

/// The same as `Shape` in `matmul.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sizes {
    pub m: i64,
    pub n: i64,
    pub k: i64,
    pub part: i64,
    pub a: [i64; 2],
    pub b: [i64; 2],
    pub batches: i64,
}

/// The same as `Output` in `matmul.cuh`: addresses, 0 of what there is not.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Output {
    c: u64,
    parts: u64,
    bias: u64,
    residual: u64,
    slope_at: u64,
    keep: u64,
    activation: i32,
}

impl Output {
    /// `c` is row-major; `parts` is there if K is cut.
    pub fn new(c: &Tensor, after: &After, parts: Option<&Tensor>) -> Output {
        let or_none = |x: &Option<Tensor>| x.as_ref().map_or(0, address);
        Output {
            c: address(c),
            parts: parts.map_or(0, address),
            bias: or_none(&after.bias),
            residual: or_none(&after.residual),
            slope_at: or_none(&after.slope_at),
            keep: or_none(&after.keep),
            activation: after.activation,
        }
    }
    /// Where sums go that nothing comes after: to C, or to the parts.
    pub fn sums(&self) -> u64 {
        if self.parts == 0 { self.c } else { self.parts }
    }
}

/// An activation's number in `epilogue.cuh`, if it is there.
fn in_epilogue(activation: Activation) -> Option<i32> {
    match activation {
        Activation::Identity => Some(0),
        Activation::Relu => Some(1),
        Activation::Gelu => Some(2),
        Activation::GeluTanh => Some(3),
        Activation::Silu => Some(4),
        _ => None,
    }
}

/// What becomes of the sums of a product, as `Epilogue` in `epilogue.cuh` has it: row-major, and but for the bias beginning at multiples of
/// 16 bytes, since neighbours are read at once.
#[derive(Default)]
pub struct After {
    pub bias: Option<Tensor>,
    /// See [`in_epilogue`].
    activation: i32,
    residual: Option<Tensor>,
    slope_at: Option<Tensor>,
    keep: Option<Tensor>,
}

impl After {
    #[track_caller]
    fn bias(bias: Option<&Tensor>) -> After {
        After { bias: bias.map(Tensor::contiguous), ..After::default() }
    }
}

/// Row-major, the first element at a multiple of 16 bytes: the tensor itself if it lies so, or a copy.
#[track_caller]
fn aligned(x: &Tensor) -> Tensor {
    if x.is_contiguous() && address(x) % 16 == 0 { x.clone() } else { x.copy() }
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
    /// How K is cut for products of these extents: M, N, K and the matrices of the batch. A multiprocessor has room for blocks of 512
    /// threads together, which is what the kernels' registers leave.
    pub fn split(self, [m, n, k, batches]: [usize; 4], multiprocessors: usize) -> Split {
        let room = multiprocessors * (512 / self.threads as usize);
        Split::of(k, self.count(m, n, batches), room, SHORTEST)
    }
}

/// A product `[B, M, K] × [B, K, N]`, as its kernels take it.
pub struct Product<'a> {
    pub cuda: &'static Cuda,
    pub a: &'a Tensor,
    pub b: &'a Tensor,
    after: After,
    pub c: &'a Tensor,
    pub sizes: Sizes,
}

/// `[…, M, K] × […, K, N]`, plus a bias `[N]` if there is one; see [`Backend`](ferrograd_tensor::backend::Backend).
#[track_caller]
pub fn matmul(cuda: &'static Cuda, a: &Tensor, b: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let (r, n) = (a.rank(), b.dim(-1));
    let shape: Shape = a.dims()[..r - 1].iter().copied().chain([n]).collect();
    let c = cuda.empty(&shape, a.dtype());
    if c.numel() == 0 {
        return c;
    }
    let after = After::bias(bias);
    match is_simple(a, b) {
        true => of_floats(cuda, a, b, after, &c),
        false => of_any_kind(&Product::new(cuda, a, b, after, &c)),
    }
    c
}

/// Is there a kernel for it that is faster than the one for everything?
fn is_simple(a: &Tensor, b: &Tensor) -> bool {
    a.dtype().is_float() && (1..1 << 30).contains(&b.dim(-2))
}

#[track_caller]
fn of_floats(cuda: &'static Cuda, a: &Tensor, b: &Tensor, after: After, c: &Tensor) {
    if c.dim(-2) == 1 || c.dim(-1) == 1 {
        return matvec(cuda, a, b, &after, c);
    }
    of_matrices(cuda, a, b, after, c);
}

#[track_caller]
fn of_matrices(cuda: &'static Cuda, a: &Tensor, b: &Tensor, after: After, c: &Tensor) {
    if !has_tensor_cores(a.dtype()) {
        return in_full_precision(&Product::new(cuda, a, b, after, c));
    }
    let (mut a, mut b) = (InRuns::of(a, a.rank() - 1), InRuns::of(b, b.rank() - 2));
    if c.dtype() == DType::F32 && c.rank() == 2 && suits(cuda, c.dim(0), c.dim(1)) {
        lay_along_k(&mut a, &mut b);
    }
    let product = Product::new(cuda, &a.matrix, &b.matrix, after, c);
    if !matmul_wgmma(&product, &a, &b) {
        on_tensor_cores(&product, &a, &b);
    }
}

/// Hopper's own instructions take f32 along K alone: lays matrices `[M, K]` and `[K, N]` so, if that pays.
#[track_caller]
fn lay_along_k(a: &mut InRuns, b: &mut InRuns) {
    let [m, k, n] = [a.matrix.dim(0), a.matrix.dim(1), b.matrix.dim(1)];
    let lies = |x: &InRuns| x.along_k && x.in_chunks;
    let moved = [(&*a, m), (&*b, n)].into_iter().filter(|(x, _)| !lies(x)).map(|(_, extent)| extent * k);
    if k % 4 != 0 || !pays(m * n * k, moved) {
        return;
    }
    if !lies(a) {
        *a = InRuns::of(&a.matrix.copy(), 1);
    }
    if !lies(b) {
        *b = InRuns::of(&b.matrix.t().copy().t(), 0);
    }
}

/// Is a product of so many terms faster by `wgmma`, though matrices of so many elements have to be copied for it? In seconds; the rates
/// are guesses from the card's peaks, not measurements.
fn pays(terms: usize, moved: impl Iterator<Item = usize>) -> bool {
    const MMA: f64 = 245e12;
    const WGMMA: f64 = 370e12;
    const BYTES: f64 = 2.5e12;
    const LAUNCH: f64 = 1e-6;
    let copies: f64 = moved.map(|elements| LAUNCH + 8.0 * elements as f64 / BYTES).sum();
    2.0 * terms as f64 * (1.0 / MMA - 1.0 / WGMMA) > copies
}

/// `[M, N]`, if there is a kernel for its product that has an epilogue.
#[track_caller]
fn with_epilogue(cuda: &'static Cuda, a: &Tensor, b: &Tensor) -> Option<Tensor> {
    let (m, n) = (a.dim(-2), b.dim(-1));
    (is_simple(a, b) && m > 0 && n > 0).then(|| cuda.empty(&[m, n].into(), a.dtype()))
}

/// See [`Backend::matmul_epilogue`](ferrograd_tensor::backend::Backend::matmul_epilogue).
#[track_caller]
pub fn matmul_epilogue(
    cuda: &'static Cuda,
    a: &Tensor,
    b: &Tensor,
    epilogue: &Epilogue,
    keep: bool,
) -> Option<(Tensor, Option<Tensor>)> {
    let activation = in_epilogue(epilogue.activation)?;
    let c = with_epilogue(cuda, a, b)?;
    let z = keep.then(|| cuda.empty(c.shape(), c.dtype()));
    let after =
        After { activation, residual: epilogue.residual.map(aligned), keep: z.clone(), ..After::bias(epilogue.bias) };
    of_floats(cuda, a, b, after, &c);
    Some((c, z))
}

/// See [`Backend::matmul_activation_grad`](ferrograd_tensor::backend::Backend::matmul_activation_grad).
#[track_caller]
pub fn matmul_activation_grad(
    cuda: &'static Cuda,
    a: &Tensor,
    b: &Tensor,
    activation: Activation,
    z: &Tensor,
) -> Option<Tensor> {
    let activation = in_epilogue(activation)?;
    let c = with_epilogue(cuda, a, b)?;
    let after = After { activation, slope_at: Some(aligned(z)), ..After::default() };
    of_floats(cuda, a, b, after, &c);
    Some(c)
}

impl<'a> Product<'a> {
    pub fn new(cuda: &'static Cuda, a: &'a Tensor, b: &'a Tensor, after: After, c: &'a Tensor) -> Self {
        let size = |x: &Tensor, d| x.dim(d) as i64;
        let strides = |x: &Tensor| [2, 1].map(|d| x.layout().strides[x.rank() - d] as i64);
        let (m, n) = (size(c, -2), size(c, -1));
        let batches = c.numel() as i64 / (m * n);
        let k = size(a, -1);
        let sizes = Sizes { m, n, k, part: k, a: strides(a), b: strides(b), batches };
        Product { cuda, a, b, after, c, sizes }
    }

    /// M, N, K and the matrices of the batch.
    pub fn extents(&self) -> [usize; 4] {
        let Sizes { m, n, k, batches, .. } = self.sizes;
        [m, n, k, batches].map(|extent| extent as usize)
    }

    /// Launches what makes the product, `launch`, given where the sums go and what of K a block adds up, and adds up the parts of K if
    /// there are several.
    #[track_caller]
    pub fn in_parts(&self, split: Split, launch: impl FnOnce(Output, Sizes)) {
        let parts = split.memory(self.cuda, self.c);
        let output = Output::new(self.c, &self.after, parts.as_ref());
        launch(output, Sizes { part: split.part as i64, ..self.sizes });
        if parts.is_some() {
            add_parts(self.cuda, output, split.parts, self.c);
        }
    }

    /// Launches a kernel whose blocks make a tile, of a part of K, each.
    ///
    /// # Safety
    /// The kernel is one of those of `matmul.cuh`, of this dtype, tile and amount of shared memory, and can read the
    /// operands as they lie.
    #[track_caller]
    unsafe fn launch(&self, (file, define): Program, name: &'static str, tile: Tile, split: Split, shared: u32) {
        let [m, n, _, batches] = self.extents();
        let batch = match self.sizes.k {
            // Without terms there is nothing that could be read.
            0 => Layout::of([&matrices(self.c), &matrices(self.c)]),
            _ => Layout::of([&matrices(self.a), &matrices(self.b)]),
        };
        let grid = [tile.count(m, n, batches) as u32, split.parts as u32, 1];
        let id = KernelId { file, define, name, dtype: Some(self.c.dtype()) };
        self.in_parts(split, |output, sizes| {
            let operands = Arguments::default().tensor(self.a).tensor(self.b);
            let arguments = operands.value(output).value(sizes).value(batch);
            // SAFETY: sizes and strides are those of the operands, whose dtype is one; the rest is the caller's promise.
            unsafe { self.cuda.launch(id, grid, tile.threads, shared, arguments) };
        });
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
    let (extents, multiprocessors) = (product.extents(), product.cuda.multiprocessors as usize);
    let tile = match product.c.dtype() {
        DType::F32 => tile(SIMT_SMALL, extents, multiprocessors),
        _ => SIMT_SMALL,
    };
    let name = if tile == LARGE { "matmul_large" } else { "matmul_small" };
    // SAFETY: the kernel reads operands of any strides; it has no dynamic shared memory.
    unsafe { product.launch(("matmul_simt.cu", ""), name, tile, tile.split(extents, multiprocessors), 0) };
}

/// `kernels/matmul.cu`: any strides and types.
#[track_caller]
fn of_any_kind(product: &Product) {
    let tile = Tile { rows: 64, columns: 64, threads: 256 };
    let split = Split::none(product.sizes.k as usize);
    // SAFETY: the kernel reads operands of any strides; it has no dynamic shared memory.
    unsafe { product.launch(("matmul.cu", ""), "matmul", tile, split, 0) };
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
/// SMALL, as it is made without tensor cores.
pub const SIMT_SMALL: Tile = Tile { threads: 256, ..SMALL };

/// The tile for products of these extents (M, N, K and the matrices of the batch), LARGE or `small`: the larger one, if every
/// multiprocessor has one to make, or a part of K of one.
pub fn tile(small: Tile, extents: [usize; 4], multiprocessors: usize) -> Tile {
    let [m, n, _, batches] = extents;
    let wasteful = m <= small.rows || n <= small.columns;
    let blocks = LARGE.count(m, n, batches) * LARGE.split(extents, multiprocessors).parts;
    if !wasteful && blocks >= multiprocessors { LARGE } else { small }
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
    let (extents, multiprocessors) = (product.extents(), product.cuda.multiprocessors as usize);
    let tile = tile(SMALL, extents, multiprocessors);
    let name = if tile == LARGE { "matmul_large" } else { "matmul_small" };
    let define = DEFINES[4 * a.along_k as usize + 2 * b.along_k as usize + (a.aligned && b.aligned) as usize];
    let size = product.c.dtype().size();
    let shared = STAGES * (slice(tile.rows, a.along_k, size) + slice(tile.columns, b.along_k, size)) * size;
    // SAFETY: the program reads operands that lie so.
    unsafe {
        product.launch(("matmul_mma.cu", define), name, tile, tile.split(extents, multiprocessors), shared as u32)
    };
}

#[cfg(test)]
mod tests {
    use super::{LARGE, SMALL, pays, tile};

    #[test]
    fn copies_that_a_faster_product_wins_back() {
        let pays = |[m, n, k]: [usize; 3], a: bool, b: bool| {
            pays(m * n * k, [(a, m * k), (b, n * k)].into_iter().filter(|x| x.0).map(|x| x.1))
        };
        assert!(pays([4096, 4096, 4096], true, true) && pays([1024, 2048, 8192], true, false));
        // Two are more than one, short rows are copied for few products, and small ones are over before the copy has begun.
        assert!(!pays([1024, 1024, 8192], true, true) && !pays([8192, 512, 8192], true, false));
        assert!(!pays([1024, 2048, 64], true, false));
        // What the tests rely on.
        assert!(pays([72, 4096, 2048], true, false) && pays([4096, 72, 2048], false, true));
    }

    #[test]
    fn large_tiles_for_products_that_fill_the_card() {
        let tile = |m, n, k, batches| tile(SMALL, [m, n, k, batches], 132);
        assert_eq!(tile(4096, 4096, 64, 1), LARGE);
        assert_eq!(tile(1024, 1024, 64, 1), SMALL);
        assert_eq!(tile(1024, 1024, 64, 3), LARGE);
        // They do if K is cut.
        assert_eq!(tile(768, 768, 768, 1), SMALL);
        assert_eq!(tile(768, 768, 32768, 1), LARGE);
        // Half of each large tile would be empty.
        assert_eq!(tile(64, 1 << 20, 64, 1), SMALL);
        assert_eq!(tile(1 << 20, 33, 64, 1), SMALL);
    }
}
