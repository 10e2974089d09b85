//! A right operand that is packed once, for many products: the recurrent weights, which every step multiplies by.

use super::blocked::{Block, KC_BYTES, Output, PARALLEL, Start, TASK, even, tiles};
use super::buffer;
use super::kernel::{Accumulator, Kernel};
use super::pack::{Side, pack};
use super::scheme::{Scheme, Widened};
use super::{GemmElement, MatRef};
use crate::cpu::level::Level;
use crate::storage::CpuBuffer;

/// A right operand that is packed once, for many products.
pub struct Packed<T: GemmElement> {
    kernel: Kernel<T::Acc>,
    panels: CpuBuffer,
    k: usize,
    n: usize,
}

impl<T: Accumulator + GemmElement<Acc = T>> Packed<T> {
    /// Packs `b`, `[k, n]`.
    pub fn new(level: Level, b: MatRef<T>, k: usize, n: usize) -> Packed<T> {
        let kernel = <Widened as Scheme<T>>::kernel(level);
        let mut panels = CpuBuffer::scratch::<T>(k * n);
        if k * n > 0 {
            b.check("B", k, n);
            let (kc, data) = (Self::depth(k), panels.as_mut_slice::<T>());
            for p in (0..k).step_by(kc) {
                let (b, panels) = (b.at(p, 0).t(), &mut data[p * n..]);
                pack::<Widened, T>(&kernel, Side::Right, b, n, kc.min(k - p), kernel.nr, panels, false);
            }
        }
        Packed { kernel, panels, k, n }
    }

    fn depth(k: usize) -> usize {
        even(k, KC_BYTES / size_of::<T>(), 1)
    }

    /// `C = A·B` (or `C += A·B`), A is `[m, k]`, C is `[m, n]` with rows `ldc` apart; as [`gemm`](super::gemm).
    ///
    /// # Panics
    /// As [`gemm`](super::gemm).
    pub fn product(&self, m: usize, a: MatRef<T>, c: &mut [T], ldc: usize, accumulate: bool, parallel: bool) {
        self.part(m, (self.k, self.n), a, c, ldc, accumulate, parallel)
    }

    /// [`product`](Packed::product) with the first `k` rows and `n` columns of B alone.
    ///
    /// # Panics
    /// As there, or if B has fewer.
    pub fn part(
        &self,
        m: usize,
        (k, n): (usize, usize),
        a: MatRef<T>,
        c: &mut [T],
        ldc: usize,
        accumulate: bool,
        parallel: bool,
    ) {
        let kernel = &self.kernel;
        assert!(k <= self.k && n <= self.n, "gemm: B is {} × {}, not {k} × {n}", self.k, self.n);
        if m * n == 0 {
            return;
        }
        assert!(ldc >= n && (m - 1) * ldc + n <= c.len(), "gemm: C is too small");
        if k == 0 {
            if !accumulate {
                c.chunks_mut(ldc).take(m).for_each(|row| row[..n].fill(<T as Accumulator>::ZERO));
            }
            return;
        }
        a.check("A", m, k);
        let (depth, out) = (Self::depth(self.k), Output { c: c.as_mut_ptr(), ldc });
        let threads = if parallel { rayon::current_num_threads() } else { 1 };
        let tasks = if m * n * k < PARALLEL { 1 } else { (m * n * k / TASK).min(threads * 4) };
        let panels = self.panels.as_slice::<T>();
        let in_place = n <= 2 * kernel.nr || m * k * size_of::<T>() <= 32 << 10;
        buffer::with(if in_place { 0 } else { m * depth.min(k) }, |buf: &mut [T]| {
            for p in (0..k).step_by(depth) {
                let kc = depth.min(k - p);
                let a_block = if in_place {
                    Block::Direct(a.at(0, p))
                } else {
                    pack::<Widened, T>(kernel, Side::Left, a.at(0, p), m, kc, kernel.mr, buf, tasks > 1);
                    Block::Packed { data: &*buf, total: m, steps: kc }
                };
                let b_block =
                    Block::Packed { data: &panels[p * self.n..], total: self.n, steps: depth.min(self.k - p) };
                let start = Start { accumulate: accumulate || p > 0, bias: None };
                tiles(kernel, (m, n, kc), a_block, b_block, out, start, tasks);
            }
        });
    }
}
