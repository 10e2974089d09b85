//! The blocked product: the loops around the micro-kernel.

use super::element::Rounded;
use super::kernel::{Accumulator, Kernel, Tile};
use super::pack::{Side, correct, pack};
use super::scheme::Scheme;
use super::{GemmElement, MatRef};
use crate::cpu::level::Level;
use crate::cpu::parallel::*;
use crate::cpu::scratch::with_scratch;

/// Most bytes of a row of a packed panel of `A` or `B` times depth: `KC` is this over the element's size.
pub const KC_BYTES: usize = 512 * 4;
/// Bytes of the block of `A` that a tile of work keeps in the L2 cache.
const A_BLOCK_BYTES: usize = 384 * 1024;
/// Bytes of the block of `B` that all threads share in the L3 cache.
const B_BLOCK_BYTES: usize = 8 << 20;
/// The same for few rows of `A`: it is used so few times that it had better not leave the L2 cache.
const B_BLOCK_FEW_ROWS: usize = 512 << 10;
/// Rows of `A` that are few.
const FEW_ROWS: usize = 48;
/// Most rows of `A` packed at once.
const M_BLOCK: usize = 4096;
/// Multiply-adds below which waking threads up costs more than they bring: 160³, some 70 µs of one core.
const PARALLEL: usize = 4_000_000;
/// The same on a thread of the pool, which need not be woken up itself.
const PARALLEL_ON_POOL: usize = 1_500_000;
/// Multiply-adds of a block of depth from which on threads pack together: 512 × 1024 × 512.
const TOGETHER: usize = 1 << 28;
/// Multiply-adds that are worth a task of their own.
pub const TASK: usize = 1 << 19;

/// Is a product of so many multiply-adds worth more than one thread?
pub fn worth_sharing(work: usize) -> bool {
    work >= if rayon::current_thread_index().is_some() { PARALLEL_ON_POOL } else { PARALLEL }
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
// SAFETY: threads write disjoint tiles (each tile of work is one range of rows × one of columns of a partition).
unsafe impl<O: Send> Send for Output<O> {}
// SAFETY: as above.
unsafe impl<O: Send> Sync for Output<O> {}

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
    let threads = if parallel { rayon::current_num_threads() } else { 1 };
    let work = x.m * x.n * x.k;
    let tasks = (work / TASK).min(threads * 4);
    if threads == 1 || !worth_sharing(work) {
        return blocks::<S, T, O>(&kernel, x, out, 1);
    }
    // With few rows packing B is much of the work: each thread packs and uses its own columns, and none waits for
    // another. So it is where a block of depth is soon done: threads that pack together would meet too often.
    let few = x.m <= FEW_ROWS;
    if few || x.m * x.n * x.k.min(KC_BYTES / size_of::<T::Acc>()) < TOGETHER {
        return apart::<S, T, O>(&kernel, x, out, if few { tasks } else { threads });
    }
    blocks::<S, T, O>(&kernel, x, out, tasks);
}

/// The product as `pieces` products that share nothing, cut across the longer side of C.
fn apart<S: Scheme<T>, T: GemmElement, O: Rounded<T::Acc>>(
    kernel: &Kernel<T::Acc>,
    x: Product<T>,
    out: Output<O>,
    pieces: usize,
) {
    let across = x.n >= x.m;
    let (whole, unit) = if across { (x.n, kernel.nr) } else { (x.m, kernel.mr) };
    let size = even(whole, whole.div_ceil(pieces), unit);
    (0..whole.div_ceil(size)).into_par_iter().with_max_len(1).for_each(|t| {
        let (first, size) = (t * size, size.min(whole - t * size));
        let (piece, at) = match across {
            true => {
                (Product { n: size, b: x.b.at(0, first), bias: x.bias.map(|b| &b[first..first + size]), ..x }, first)
            }
            false => (Product { m: size, a: x.a.at(first, 0), ..x }, first * out.ldc),
        };
        blocks::<S, T, O>(kernel, piece, Output { c: { out }.c.wrapping_add(at), ..out }, 1);
    });
}

/// Terms of a sum that are added before anything is rounded to a type other than the sum's.
pub fn one_block<S: Scheme<T>, T: GemmElement>() -> usize {
    S::DEPTH * 4 * KC_BYTES / size_of::<T::Acc>()
}

/// The three outer loops; `tasks` is how many tiles of work to aim for, 1 for none but this thread.
fn blocks<S: Scheme<T>, T: GemmElement, O: Rounded<T::Acc>>(
    kernel: &Kernel<T::Acc>,
    x: Product<T>,
    out: Output<O>,
    tasks: usize,
) {
    let Product { m, n, a, b, .. } = x;
    let (mr, nr) = (kernel.mr, kernel.nr);
    let size = size_of::<T::Acc>();
    let parallel = tasks > 1;
    let k = x.k.div_ceil(S::DEPTH);
    let kc = if O::SAME { even(k, KC_BYTES / size, 1) } else { k };
    let nc = even(n, if m <= FEW_ROWS { B_BLOCK_FEW_ROWS } else { B_BLOCK_BYTES } / (kc * size), nr);
    let mb = even(m, M_BLOCK, mr);

    let direct_a = direct_a::<S, T>(&x, nr);
    let direct_b = S::direct(b.data).filter(|_| b.cs == 1 && (m <= 2 * mr || k * n * size <= 64 << 10));
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
                let pack_b = |buf: &mut [T::Acc], fix: &mut [T::Acc]| {
                    if direct_b.is_none() {
                        pack::<S, T>(kernel, Side::Right, b.at(first, j).t(), nc, terms, nr, buf, parallel);
                    }
                    if S::OFFSET {
                        // The correction is one more bias.
                        match bias {
                            Some(bias) => fix[..nc].copy_from_slice(bias),
                            None => fix[..nc].fill(T::Acc::ZERO),
                        }
                        correct::<S, T>(&buf[..nc * kc], kc, nr, &mut fix[..nc], parallel);
                    }
                };
                let pack_a = |i: usize, buf: &mut [T::Acc]| {
                    if direct_a.is_none() {
                        pack::<S, T>(kernel, Side::Left, a.at(i, first), mb.min(m - i), terms, mr, buf, parallel);
                    }
                };
                if parallel {
                    rayon::join(|| pack_b(b_buf, fix), || pack_a(0, a_buf));
                } else {
                    pack_b(b_buf, fix);
                    pack_a(0, a_buf);
                }
                for i in (0..m).step_by(mb) {
                    if i > 0 {
                        pack_a(i, a_buf);
                    }
                    let mb = mb.min(m - i);
                    let a_block = match direct_a {
                        Some(data) => Block::Direct(MatRef { data, offset: a.offset, rs: a.rs, cs: a.cs }.at(i, p)),
                        None => Block::Packed { data: &*a_buf, total: mb, steps: kc },
                    };
                    let b_block = match direct_b {
                        Some(data) => Block::Direct(MatRef { data, offset: b.offset, rs: b.rs, cs: b.cs }.at(p, j).t()),
                        None => Block::Packed { data: &*b_buf, total: nc, steps: kc },
                    };
                    let out = Output { c: out.c.wrapping_add(i * out.ldc + j), ..out };
                    let start = Start {
                        accumulate: x.accumulate || p > 0,
                        bias: if S::OFFSET { Some(&fix[..nc]) } else { bias },
                    };
                    tiles(kernel, (mb, nc, kc), a_block, b_block, out, start, tasks);
                }
            }
        }
    });
}

/// `A` where it lies, if it is what panels hold and is used too little to be worth packing.
fn direct_a<'a, S: Scheme<T>, T: GemmElement>(x: &Product<'a, T>, nr: usize) -> Option<&'a [T::Acc]> {
    S::direct(x.a.data).filter(|_| x.n <= 2 * nr || x.m * x.k * size_of::<T::Acc>() <= 32 << 10)
}

/// Cuts one block product into tiles of work, and runs them.
pub fn tiles<A: Accumulator, O: Rounded<A>>(
    kernel: &Kernel<A>,
    (m, n, k): (usize, usize, usize),
    a: Block<A>,
    b: Block<A>,
    out: Output<O>,
    start: Start<A>,
    tasks: usize,
) {
    let mc = even(m, A_BLOCK_BYTES / (k * size_of::<A>()), kernel.mr);
    if tasks <= 1 {
        for i in (0..m).step_by(mc) {
            tile(kernel, (i..m.min(i + mc), 0..n, k), a, b, out, start);
        }
        return;
    }
    let down = m.div_ceil(mc);
    let across = tasks.div_ceil(down).min(n.div_ceil(2 * kernel.nr));
    let nc = even(n, n.div_ceil(across), kernel.nr);
    let across = n.div_ceil(nc);
    (0..down * across).into_par_iter().with_max_len(1).for_each(|t| {
        let (i, j) = (t / across * mc, t % across * nc);
        tile(kernel, (i..m.min(i + mc), j..n.min(j + nc), k), a, b, out, start);
    });
}

/// Elements of the largest micro-tile of any kernel whose sums are rounded.
const LARGEST_TILE: usize = 14 * 32;

type Range = std::ops::Range<usize>;

/// The two inner loops: one tile of work, micro-tile by micro-tile.
///
/// A panel of `B` is used for all of `A`'s panels before the next, so it stays in the L1 cache and `A`'s block in L2.
#[inline]
fn tile<A: Accumulator, O: Rounded<A>>(
    kernel: &Kernel<A>,
    (rows, columns, k): (Range, Range, usize),
    a: Block<A>,
    b: Block<A>,
    out: Output<O>,
    start: Start<A>,
) {
    let mut sums = [A::ZERO; LARGEST_TILE];
    let mut rounded = [O::zeroed(); LARGEST_TILE];
    for j in columns.clone().step_by(kernel.nr) {
        let w = kernel.nr.min(columns.end - j);
        let (b, _, b_rs) = b.panel(j, kernel.nr);
        let bias = start.bias.map_or(std::ptr::null(), |bias| bias[j..j + w].as_ptr());
        for i in rows.clone().step_by(kernel.mr) {
            let h = kernel.mr.min(rows.end - i);
            let (a, a_rs, a_cs) = a.panel(i, kernel.mr);
            let c = out.c.wrapping_add(i * out.ldc + j);
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
            // SAFETY: a row of this tile, which is ours.
            let row = |i: usize| unsafe { std::slice::from_raw_parts_mut(c.wrapping_add(i * out.ldc), w) };
            // All rows at once: rounded one by one, they would cost a short product as much as its arithmetic.
            if start.accumulate {
                (0..h).for_each(|i| rounded[i * kernel.nr..][..w].copy_from_slice(row(i)));
            }
            O::round(&mut sums[..h * kernel.nr], &mut rounded[..h * kernel.nr], start.accumulate);
            (0..h).for_each(|i| row(i).copy_from_slice(&rounded[i * kernel.nr..][..w]));
        }
    }
}
