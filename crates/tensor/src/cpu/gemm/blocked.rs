//! The blocked product: the loops around the micro-kernel.

use super::element::{Rounded, Rows};
use super::kernel::{Accumulator, Kernel, Tile};
use super::pack::{Side, pack};
use super::scheme::Scheme;
use super::{GemmElement, MatRef};
use crate::cpu::level::Level;
use crate::cpu::parallel::*;
use crate::cpu::scratch::with_scratch;

/// Most bytes of a row of a packed panel of `A` or `B` times depth: `KC` is this over the element's size.
pub const KC_BYTES: usize = 512 * 4;
/// Bytes of the columns of `B` that a tile keeps in the L2 cache.
const TILE_BYTES: usize = 600 << 10;
/// Bytes of the block of `B` that is packed at once.
const B_BLOCK_BYTES: usize = 4 << 20;
/// The same for few rows of `A`: it is used so few times that it had better not leave the L2 cache.
const B_BLOCK_FEW_ROWS: usize = 512 << 10;
/// Rows of `A` that are few.
const FEW_ROWS: usize = 48;
/// Most rows of `A` packed at once.
const M_BLOCK: usize = 4096;
/// Bytes of the L1 cache, and places in it for each line: the least of today's CPUs.
const L1_BYTES: usize = 32 << 10;
const L1_WAYS: usize = 8;
/// Multiply-adds below which waking threads up costs more than they bring: 160³, some 70 µs of one core.
const PARALLEL: usize = 4_000_000;
/// The same on a thread of the pool, which need not be woken up itself.
const PARALLEL_ON_POOL: usize = 1_500_000;
/// Multiply-adds that are worth a task of their own.
const TASK: usize = 1 << 19;

/// Threads that are to share a product of so many multiply-adds, if it may run `parallel`.
pub fn threads_for(work: usize, parallel: bool) -> usize {
    let worth = if rayon::current_thread_index().is_some() { PARALLEL_ON_POOL } else { PARALLEL };
    if parallel && work >= worth { rayon::current_num_threads() } else { 1 }
}

/// Pieces of so many multiply-adds for as many threads, so that none waits long for the last.
pub fn tasks_for(work: usize, threads: usize) -> usize {
    if threads == 1 { 1 } else { (work / TASK).min(threads * 4) }
}

/// The product's shape and operands.
#[derive(Clone, Copy)]
pub struct Product<'a, T: GemmElement> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: MatRef<'a, T>,
    pub b: MatRef<'a, T>,
    /// Add to what `C` holds.
    pub accumulate: bool,
    /// `[n]`, added to each row of `C`.
    pub bias: Option<&'a [T::Acc]>,
}

/// The output, to be written by several threads in disjoint tiles.
#[derive(Clone, Copy)]
pub struct Output<O> {
    pub c: *mut O,
    pub ldc: usize,
}
// SAFETY: threads write disjoint pieces (each is one range of rows × one of columns of a partition).
unsafe impl<O: Send> Send for Output<O> {}
// SAFETY: as above.
unsafe impl<O: Send> Sync for Output<O> {}

impl<O: Copy> Output<O> {
    /// From row `i` and column `j` on.
    fn at(self, i: usize, j: usize) -> Self {
        Output { c: self.c.wrapping_add(i * self.ldc + j), ..self }
    }
}

/// What the sums of a block of depth start from.
#[derive(Clone, Copy)]
pub struct Start<'a, A> {
    /// What `C` holds.
    pub accumulate: bool,
    /// One value for each column.
    pub bias: Option<&'a [A]>,
}

/// A block of an operand, as the micro-kernel is to read it.
#[derive(Clone, Copy)]
pub enum Block<'a, A> {
    /// In panels of `total` rows and `steps`; see [`pack`].
    Packed { data: &'a [A], total: usize, steps: usize },
    /// As it lies in memory, panels being ranges of its rows.
    Direct(MatRef<'a, A>),
}

impl<A: Copy> Block<'_, A> {
    /// Where the panel from row `i` on starts, and the strides to the next row and the next `p`; `width` is that of a
    /// whole panel.
    #[inline(always)]
    fn panel(&self, i: usize, width: usize) -> (*const A, isize, isize) {
        match self {
            Block::Packed { data, total, steps } => (data[i * steps..].as_ptr(), 1, width.min(total - i) as isize),
            // From the whole slice: strides may lead back before this element.
            Block::Direct(mat) => (mat.data.as_ptr().wrapping_add(mat.at(i, 0).offset), mat.rs, mat.cs),
        }
    }
}

/// `⌈total / ⌈total / most⌉⌉` rounded up to a multiple of `unit`: equal blocks rather than full ones and a remainder.
pub fn even(total: usize, most: usize, unit: usize) -> usize {
    let blocks = total.div_ceil(most.max(unit)).max(1);
    total.div_ceil(blocks).next_multiple_of(unit)
}

/// `C (+)= A · B`, with `C`'s rows `ldc` apart.
///
/// `C` is of the sum's type or of one that a sum is rounded to; then `k` is at most [`one_block`] terms, since nothing
/// may be rounded twice.
pub fn run<S: Scheme<T>, T: GemmElement, O: Rounded<T::Acc>>(
    level: Level,
    x: Product<T>,
    c: &mut [O],
    ldc: usize,
    parallel: bool,
) {
    // Not left to the caller alone: what follows writes through a raw pointer.
    assert!(ldc >= x.n && (x.m - 1) * ldc + x.n <= c.len(), "gemm: C is too small");
    assert!(O::SAME || x.k <= one_block::<S, T>(), "gemm: more terms than one block has");
    let kernel = S::kernel(level);
    assert!(O::SAME || kernel.mr * kernel.nr <= LARGEST_TILE, "gemm: a tile's sums have no room");
    let out = Output { c: c.as_mut_ptr(), ldc };
    let work = x.m * x.n * x.k;
    let threads = threads_for(work, parallel);
    let cuts = match x.m <= FEW_ROWS {
        // Packing B is much of the work, and evens out well.
        true => (1, tasks_for(work, threads)),
        false => grid(threads, x.m, x.n),
    };
    in_pieces((kernel.mr, kernel.nr), (x.m, x.n), cuts, out, |rows, columns, out| {
        let (a, b, bias) = (x.a.at(rows.start, 0), x.b.at(0, columns.start), x.bias.map(|b| &b[columns.clone()]));
        blocks::<S, T, O>(&kernel, Product { m: rows.len(), n: columns.len(), a, b, bias, ..x }, out);
    });
}

/// Computes `C`, `[m, n]`, in pieces of whole `[mr, nr]` tiles, about so many down and so many across: `piece(rows, columns, out)` on whichever
/// thread is free, where `out` starts with the piece.
///
/// Each packs what it uses, and none waits for another: packing together saves less than meeting costs.
pub fn in_pieces<O: Copy + Send>(
    (mr, nr): (usize, usize),
    (m, n): (usize, usize),
    (down, across): (usize, usize),
    out: Output<O>,
    piece: impl Fn(Range, Range, Output<O>) + Sync,
) {
    if down * across == 1 {
        return piece(0..m, 0..n, out);
    }
    let (mc, nc) = (even(m, m.div_ceil(down), mr), even(n, n.div_ceil(across), nr));
    let across = n.div_ceil(nc);
    (0..m.div_ceil(mc) * across).into_par_iter().with_max_len(1).for_each(|t| {
        let (i, j) = (t / across * mc, t % across * nc);
        piece(i..m.min(i + mc), j..n.min(j + nc), out.at(i, j));
    });
}

/// Cuts `[m, n]` into `pieces`, so many down and so many across, for which the least is packed in all: each row of pieces
/// packs all of `B`, `n` wide, and each column all of `A`.
fn grid(pieces: usize, m: usize, n: usize) -> (usize, usize) {
    let cuts = (1..=pieces).filter(|down| pieces % down == 0).map(|down| (down, pieces / down));
    cuts.min_by_key(|(down, across)| down * n + across * m).unwrap_or((1, 1))
}

/// Terms of a sum that are added before anything is rounded to a type other than the sum's.
pub fn one_block<S: Scheme<T>, T: GemmElement>() -> usize {
    S::DEPTH * 2 * KC_BYTES / size_of::<T::Acc>()
}

/// The three outer loops, on this thread.
fn blocks<S: Scheme<T>, T: GemmElement, O: Rounded<T::Acc>>(kernel: &Kernel<T::Acc>, x: Product<T>, out: Output<O>) {
    let Product { m, n, a, b, .. } = x;
    let (mr, nr) = (kernel.mr, kernel.nr);
    let size = size_of::<T::Acc>();
    let k = x.k.div_ceil(S::DEPTH);
    let kc = if O::SAME { even(k, KC_BYTES / size, 1) } else { k };
    let nc = even(n, if m <= FEW_ROWS { B_BLOCK_FEW_ROWS } else { B_BLOCK_BYTES } / (kc * size), nr);
    let mb = even(m, M_BLOCK, mr);

    let direct_a = S::direct(a, x.k).filter(|&a| readable_in_place(kernel, a, (m, n, kc)));
    let little_b = m <= 2 * mr || k * n * size <= 64 << 10;
    let direct_b = S::direct(b.t(), x.k).filter(|b| b.rs == 1 && little_b);
    let a_len = if direct_a.is_some() { 0 } else { (mb.min(m) * kc).next_multiple_of(64) };
    let b_len = if direct_b.is_some() { 0 } else { nc.min(n) * kc };
    let fix_len = if S::OFFSET { nc.min(n) } else { 0 };

    with_scratch(a_len + b_len + fix_len, |buf: &mut [T::Acc]| {
        let (a_buf, rest) = buf.split_at_mut(a_len);
        let (b_buf, fix) = rest.split_at_mut(b_len);
        for j in (0..n).step_by(nc) {
            let nc = nc.min(n - j);
            for p in (0..k).step_by(kc) {
                let kc = kc.min(k - p);
                // The same in terms of the sum.
                let first = p * S::DEPTH;
                let terms = (kc * S::DEPTH).min(x.k - first);
                let bias = x.bias.filter(|_| p == 0).map(|b| &b[j..j + nc]);
                if direct_b.is_none() {
                    pack::<S, T>(kernel, Side::Right, b.at(first, j).t(), nc, terms, nr, b_buf);
                }
                if S::OFFSET {
                    // The correction is one more bias.
                    match bias {
                        Some(bias) => fix[..nc].copy_from_slice(bias),
                        None => fix[..nc].fill(T::Acc::ZERO),
                    }
                    S::correct(&b_buf[..nc * kc], kc, nr, &mut fix[..nc]);
                }
                for i in (0..m).step_by(mb) {
                    let mb = mb.min(m - i);
                    if direct_a.is_none() {
                        pack::<S, T>(kernel, Side::Left, a.at(i, first), mb, terms, mr, a_buf);
                    }
                    let a_block = match direct_a {
                        Some(a) => Block::Direct(a.at(i, p)),
                        None => Block::Packed { data: &*a_buf, total: mb, steps: kc },
                    };
                    let b_block = match direct_b {
                        Some(b) => Block::Direct(b.at(j, p)),
                        None => Block::Packed { data: &*b_buf, total: nc, steps: kc },
                    };
                    let start = Start {
                        accumulate: x.accumulate || p > 0,
                        bias: if S::OFFSET { Some(&fix[..nc]) } else { bias },
                    };
                    tiles(kernel, (mb, nc, kc), a_block, b_block, out.at(i, j), start);
                }
            }
        }
    });
}

/// May the micro-kernel read `A`, `k` steps at a time, where it lies? It reads `mr` rows side by side, again and again, so
/// they must stay in the L1 cache; or `A` is used too little for packing to be worth its while.
pub fn readable_in_place<A>(kernel: &Kernel<A>, a: MatRef<A>, (m, n, k): (usize, usize, usize)) -> bool {
    let size = size_of::<A>();
    let little = n <= 2 * kernel.nr || m * k * size <= L1_BYTES;
    little || a.cs == 1 && !crowded(kernel.mr.min(m), a.rs.unsigned_abs() * size, k * size)
}

/// Do `rows` pieces of `length` bytes, `stride` bytes apart, want more than their share of some set of the L1 cache?
pub fn crowded(rows: usize, stride: usize, length: usize) -> bool {
    // A line can only be in the set that its address modulo `WAY` chooses.
    const WAY: usize = L1_BYTES / L1_WAYS;
    let covers = |i: usize, j: usize| (i * stride % WAY + WAY - j * stride % WAY) % WAY < length;
    (0..rows).any(|i| (0..rows).filter(|&j| covers(i, j)).count() > L1_WAYS)
}

/// One block product, in tiles of columns.
pub fn tiles<A: Accumulator, O: Rounded<A>>(
    kernel: &Kernel<A>,
    (m, n, k): (usize, usize, usize),
    a: Block<A>,
    b: Block<A>,
    out: Output<O>,
    start: Start<A>,
) {
    let nc = even(n, TILE_BYTES / (k * size_of::<A>()), kernel.nr);
    for j in (0..n).step_by(nc) {
        tile(kernel, m, (j..n.min(j + nc), k), a, b, out, start);
    }
}

/// Elements of the largest micro-tile of any kernel whose sums are rounded.
pub const LARGEST_TILE: usize = 14 * 32;

type Range = std::ops::Range<usize>;

/// The two inner loops: one tile, micro-tile by micro-tile.
///
/// A panel of `A` is used for all of `B`'s panels before the next, so it stays in the L1 cache and `B`'s columns in L2.
#[inline]
fn tile<A: Accumulator, O: Rounded<A>>(
    kernel: &Kernel<A>,
    m: usize,
    (columns, k): (Range, usize),
    a: Block<A>,
    b: Block<A>,
    out: Output<O>,
    start: Start<A>,
) {
    let mut sums = [A::ZERO; LARGEST_TILE];
    for i in (0..m).step_by(kernel.mr) {
        let h = kernel.mr.min(m - i);
        let (a, a_rs, a_cs) = a.panel(i, kernel.mr);
        for j in columns.clone().step_by(kernel.nr) {
            let w = kernel.nr.min(columns.end - j);
            let (b, _, b_rs) = b.panel(j, kernel.nr);
            let bias = start.bias.map_or(std::ptr::null(), |bias| bias[j..j + w].as_ptr());
            let c = out.at(i, j).c;
            let run = |c: *mut A, ldc: usize, accumulate: bool| {
                // SAFETY: `h` and `w` are in the kernel's range and the panels hold that many rows and columns for all
                // of `k` (operands' extents are checked in `gemm`, packed blocks are filled by `pack`); `C`'s extent is
                // checked in `run` and this tile of it is ours, as `sums` is; the kernel's level was checked when it
                // was chosen.
                unsafe { (kernel.run)(h, w, &Tile { a, a_rs, a_cs, b, b_rs, k, c, ldc, accumulate, bias }) };
            };
            if O::SAME {
                run(c.cast(), out.ldc, start.accumulate);
                continue;
            }
            run(sums.as_mut_ptr(), kernel.nr, false);
            // SAFETY: the rows of this tile, which is ours.
            let tile = unsafe { Rows::new(c, out.ldc, h, w) };
            O::round_tile(&mut sums[..h * kernel.nr], kernel.nr, tile, start.accumulate);
        }
    }
}
