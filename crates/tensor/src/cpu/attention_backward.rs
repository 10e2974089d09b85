//! Scaled dot-product attention, backward.

use super::attention_tile::{Attention, AttentionElement, AttentionShape, Operand, Output, score_row};
use super::gemm::{GemmElement, MatRef, Packed, gemm_wide};
use super::level::level;
use super::scratch::with_scratch;
use super::seq_math::{SeqFloat, dot, exp_shifted, scale, take_front};
use super::simd::simd_fn;
use crate::cpu::parallel::*;
use crate::storage::CpuBuffer;
use num_traits::{Float, Zero};
use std::ops::Range;

/// Queries in a tile.
const TILE_Q: usize = 64;
/// Keys in a tile. Two tiles of scores are alive at once.
const TILE_K: usize = 128;
/// Fewest tasks to aim for. A constant and not the number of threads, so that results do not depend on that number.
const MIN_TASKS: usize = 16;
/// Most elements that the query gradients of additional tasks may take together.
const MAX_PARTIAL: usize = 1 << 25;

/// The gradients that [`attention_backward`] writes. They need not be initialised.
pub struct AttentionGradients<'a, T: GemmElement> {
    /// `[B, H, Tq, D]`.
    pub dq: Output<'a, T>,
    /// `[B, Hₖ, Tk, D]`, summed over the query heads that share a key head.
    pub dk: Output<'a, T>,
    /// `[B, Hₖ, Tk, Dᵥ]`, summed likewise.
    pub dv: Output<'a, T>,
    /// `[B, H, Tq, Tk]`, contiguous: the gradient of the additive mask, before it is summed over what the mask broadcasts
    /// over. It is as big as the matrix that the kernel otherwise avoids; ask for it only if the mask is trained.
    pub d_mask: Option<&'a mut [T::Acc]>,
}

/// The gradients of [`attention_forward`](super::attention::attention_forward), given its arguments, `out`
/// `[B, H, Tq, Dᵥ]` (any strides), `lse`, and `d_out`, of the shape of `out` (any strides).
///
/// The weights are made again, tile by tile, from `P = exp(S - L)` with `S = scale · Q Kᵀ + mask`, and then, with `M`
/// the dropout's zeros and `1 / (1 - p)`s,
///
/// ```text
/// Δ  = rowsum(dO ∘ O)                 dV = (P ∘ M)ᵀ dO
/// dS = P ∘ (M ∘ (dO Vᵀ) - Δ)          dQ = scale · dS K,   dK = scale · dSᵀ Q,   dmask = dS
/// ```
///
/// (Dao et al. 2022, Algorithm 4; Dao 2023). A query that may attend to nothing has, and causes, zero gradients.
///
/// A task owns the keys and values that it writes, and also the sums of the queries: when there are too few heads to
/// keep a machine busy, the keys of a head are dealt out to several tasks whose query gradients are added up, in order,
/// afterwards. How many depends on the shape alone, so the result does not depend on the number of threads.
///
/// bf16 is summed in f32; `P ∘ M` and `dS` are rounded to bf16 for the products that they are operands of.
///
/// # Panics
/// If an array has the wrong shape.
pub fn attention_backward<T: AttentionElement>(
    args: &Attention<T>,
    out: Operand<T>,
    lse: &[T::Acc],
    d_out: Operand<T>,
    gradients: AttentionGradients<T>,
) {
    let AttentionShape { b, h, hk, tq, tk, d, dv } = args.shape;
    let AttentionGradients { dq, dk, dv: d_v, d_mask } = gradients;
    assert_eq!(lse.len(), b * h * tq, "attention: the logsumexp is [B, H, Tq]");
    assert_eq!(dq.dims(), [b, h, tq, d], "attention: dq is [B, H, Tq, D]");
    assert_eq!(dk.dims(), [b, hk, tk, d], "attention: dk is [B, Hk, Tk, D]");
    assert_eq!(d_v.dims(), [b, hk, tk, dv], "attention: dv is [B, Hk, Tk, Dv]");
    if let Some(m) = &d_mask {
        assert_eq!(m.len(), b * h * tq * tk, "attention: the mask's gradient is [B, H, Tq, Tk]");
    }
    let (group, key_blocks) = (args.group(), tk.div_ceil(TILE_K));
    let queries = group * tq * d;
    // A row of the mask's gradient is one task's.
    let parts = if d_mask.is_some() {
        1
    } else {
        MIN_TASKS.div_ceil((b * hk).max(1)).min(1 + MAX_PARTIAL / (b * hk * queries).max(1))
    };
    let parts = parts.min(key_blocks).max(1);

    let delta = row_sums(args.shape, out, d_out);
    let mut sums = CpuBuffer::scratch::<T::Acc>(b * hk * parts * queries);
    let mut tasks: Vec<Task<T::Acc>> = Vec::with_capacity(b * hk * parts);
    let masks = if d_mask.is_some() { group * tq * tk } else { 0 };
    let (mut rest, mut d_mask) = (sums.as_mut_slice::<T::Acc>(), d_mask.unwrap_or_default());
    for b in 0..b {
        for hk in 0..hk {
            for part in 0..parts {
                let dq = take_front(&mut rest, queries);
                let d_mask = take_front(&mut d_mask, if part == 0 { masks } else { 0 });
                // Dealt out in turn: causality leaves more work for the first keys than for the last.
                let keys = (part..key_blocks).step_by(parts).map(|block| block * TILE_K..tk.min((block + 1) * TILE_K));
                tasks.push(Task { b, hk, dq, d_mask, keys: keys.collect() });
            }
        }
    }
    let (saved, blocks) = (Saved { lse, delta: &delta, d_out }, args.row_blocks(TILE_Q));
    tasks.into_par_iter().with_max_len(1).for_each(|task| backward_keys(args, &saved, &blocks, task, (&dk, &d_v)));

    if queries > 0 {
        let sums = sums.as_mut_slice::<T::Acc>();
        sums.par_chunks_mut(parts * queries).enumerate().for_each(|(n, sums)| {
            let (sums, more) = sums.split_at_mut(queries);
            for part in more.chunks(queries) {
                sums.iter_mut().zip(part).for_each(|(x, &p)| *x += p);
            }
            scale(sums, args.scale);
            for (r, row) in sums.chunks_mut(d).enumerate() {
                let (h, i) = args.head_and_query(n % hk, r);
                // SAFETY: a query is of one key head, which is this closure's.
                unsafe { dq.write([n / hk, h, i], row) };
            }
        });
    }
}

/// `Δ = rowsum(dO ∘ O)`, `[B, H, Tq]`.
fn row_sums<T: AttentionElement>(shape: AttentionShape, out: Operand<T>, d_out: Operand<T>) -> Vec<T::Acc> {
    let AttentionShape { b, h, tq, dv, .. } = shape;
    let mut delta = vec![T::Acc::zero(); b * h * tq];
    delta.par_chunks_mut((tq * h).max(1)).enumerate().for_each(|(b, delta)| {
        with_scratch(2 * dv, |scratch: &mut [T::Acc]| {
            let (o, grad) = scratch.split_at_mut(dv);
            for (r, delta) in delta.iter_mut().enumerate() {
                out.row(b, r / tq, r % tq, 0, dv).widen_into(o);
                d_out.row(b, r / tq, r % tq, 0, dv).widen_into(grad);
                *delta = dot(o, grad);
            }
        });
    });
    delta
}

/// What the forward pass left, and the gradient that comes in.
struct Saved<'a, T: GemmElement> {
    lse: &'a [T::Acc],
    delta: &'a [T::Acc],
    d_out: Operand<'a, T>,
}

/// Some of the keys of one key head.
struct Task<'a, A> {
    b: usize,
    hk: usize,
    /// `[group, Tq, D]`: this task's share of the queries' gradient, not yet multiplied by `scale`.
    dq: &'a mut [A],
    /// `[group, Tq, Tk]`, or empty.
    d_mask: &'a mut [A],
    /// In pieces of at most `TILE_K`.
    keys: Vec<Range<usize>>,
}

fn backward_keys<T: AttentionElement>(
    args: &Attention<T>,
    saved: &Saved<T>,
    blocks: &[Range<usize>],
    task: Task<T::Acc>,
    (dk, d_v): (&Output<T>, &Output<T>),
) {
    let AttentionShape { d, dv, .. } = args.shape;
    let Task { b, hk, dq, d_mask, keys } = task;
    dq.fill(T::Acc::zero());
    d_mask.fill(T::Acc::zero());
    with_scratch(TILE_K * (d + dv), |sums: &mut [T::Acc]| {
        for keys in keys {
            let (k_sums, v_sums) = sums[..keys.len() * (d + dv)].split_at_mut(keys.len() * d);
            k_sums.fill(T::Acc::zero());
            v_sums.fill(T::Acc::zero());
            backward_tiles(args, saved, (b, hk), blocks, keys.clone(), (dq, d_mask), (k_sums, v_sums));
            scale(k_sums, args.scale);
            for (x, j) in keys.enumerate() {
                // SAFETY: a key is of one task only.
                unsafe {
                    dk.write([b, hk, j], &mut k_sums[x * d..(x + 1) * d]);
                    d_v.write([b, hk, j], &mut v_sums[x * dv..(x + 1) * dv]);
                }
            }
        }
    });
}

/// Adds what the keys `keys` and all blocks of rows do together to `dQ`, `dK` (both without `scale`) and `dV`.
fn backward_tiles<T: AttentionElement>(
    args: &Attention<T>,
    saved: &Saved<T>,
    (b, hk): (usize, usize),
    blocks: &[Range<usize>],
    keys: Range<usize>,
    (dq, d_mask): (&mut [T::Acc], &mut [T::Acc]),
    (dk, d_v): (&mut [T::Acc], &mut [T::Acc]),
) {
    let AttentionShape { d, dv, .. } = args.shape;
    let (j, n) = (keys.start, keys.len());
    let (k, v) = (args.k.matrix(b, hk, j), args.v.matrix(b, hk, j));
    // Every block of rows multiplies by these three.
    let (keys_t, values_t) = (Packed::new(level(), k.t(), d, n), Packed::new(level(), v.t(), dv, n));
    let keys = Packed::new(level(), k, n, d);
    let tallest = blocks.iter().map(|rows| rows.len()).max().unwrap_or(0);
    let (tile, room) = (tallest * TILE_K, T::room(tallest * TILE_K));
    with_scratch(tallest * (d + dv) + 2 * room, |operands: &mut [T]| {
        with_scratch(2 * tile, |sums: &mut [T::Acc]| {
            let (q, rest) = operands.split_at_mut(tallest * d);
            let (grad, rooms) = rest.split_at_mut(tallest * dv);
            let (p_room, ds_room) = rooms.split_at_mut(room);
            for rows in blocks {
                let seen = args.visible_to_any(b, rows);
                let n = n.min(seen.end.saturating_sub(j));
                if n == 0 || seen.start >= j + n || args.tile_is_masked(b, hk, rows, j, n) {
                    continue;
                }
                args.gather_rows(&args.q, (b, hk), rows, d, q);
                args.gather_rows(&saved.d_out, (b, hk), rows, dv, grad);
                let (q, grad) = (MatRef::row_major(q, d), MatRef::row_major(grad, dv));
                // Rows begin at whole vectors, and those of a narrow tile are not spread out.
                let (count, width) = (rows.len(), n.next_multiple_of(16));
                let (p, ds) = sums[..2 * count * width].split_at_mut(count * width);
                keys_t.part(count, (d, n), q, p, width, false, false);
                values_t.part(count, (dv, n), grad, ds, width, false, false);
                score_gradients(args, saved, (b, hk), rows, (j, n), (p, ds, width), d_mask);
                let room = T::room(p.len());
                let p = MatRef::row_major(T::operand(p, &mut p_room[..room]), width);
                let ds = MatRef::row_major(T::operand(ds, &mut ds_room[..room]), width);
                gemm_wide(n, dv, count, p.t(), grad, d_v, dv, true, false);
                gemm_wide(n, d, count, ds.t(), q, dk, d, true, false);
                keys.part(count, (n, d), ds, &mut dq[rows.start * d..], d, true, false);
            }
        });
    });
}

/// Turns a tile of products `QKᵀ` `p` and of `dO Vᵀ` `ds`, in rows of `width`, into the dropped-out weights `P ∘ M` and
/// into `dS`.
fn score_gradients<T: AttentionElement>(
    args: &Attention<T>,
    saved: &Saved<T>,
    (b, hk): (usize, usize),
    rows: &Range<usize>,
    (j, n): (usize, usize),
    (p, ds, width): (&mut [T::Acc], &mut [T::Acc], usize),
    d_mask: &mut [T::Acc],
) {
    let AttentionShape { h: heads, tq, tk, .. } = args.shape;
    let mut keep = [true; TILE_K];
    for (x, r) in rows.clone().enumerate() {
        let (h, i) = args.head_and_query(hk, r);
        let at = (b * heads + h) * tq + i;
        let (lse, delta) = (saved.lse[at], saved.delta[at]);
        let seen = if lse == T::Acc::neg_infinity() { 0..0 } else { args.visible_in((b, i), j, n) };
        let [p, ds] = [&mut *p, &mut *ds].map(|tile| {
            let row = &mut tile[x * width..][..n];
            row[..seen.start].fill(T::Acc::zero());
            row[seen.end..].fill(T::Acc::zero());
            &mut row[seen.clone()]
        });
        let (j, seen) = (j + seen.start, seen.len());
        score_row(level(), args, [b, h, i, j], p);
        let keep = args.dropout.map(|dropout| {
            dropout.mask.keep_row(args.weight_index(b, h, i, j), &mut keep[..seen]);
            (&keep[..seen], dropout.factor())
        });
        row_gradient(level(), p, ds, lse, delta, keep);
        if !d_mask.is_empty() {
            d_mask[r * tk + j..][..seen].copy_from_slice(ds);
        }
    }
}

simd_fn! {
    /// One row of a tile: `p` goes from scores to `P ∘ M`, `ds` from `dO Vᵀ` to `dS`.
    fn row_gradient[S]<T: SeqFloat>(p: &mut [T], ds: &mut [T], lse: T, delta: T, keep: Option<(&[bool], T)>) {
        exp_shifted::<S, T>(p, lse);
        match keep {
            None => p.iter().zip(ds).for_each(|(&p, ds)| *ds = p * (*ds - delta)),
            Some((keep, factor)) => {
                for ((p, ds), &k) in p.iter_mut().zip(ds).zip(keep) {
                    let m = if k { factor } else { T::zero() };
                    *ds = *p * (*ds * m - delta);
                    *p *= m;
                }
            }
        }
    }
}
