//! Scaled dot-product attention, backward.

use super::attention_tile::{Attention, AttentionShape, Operand};
use super::gemm::{MatRef, Packed, gemm};
use super::level::level;
use super::scratch::with_scratch;
use super::seq_math::{SeqFloat, dot, exp_shifted, scale, take_front};
use super::simd::simd_fn;
use crate::cpu::parallel::*;
use std::ops::Range;

/// Queries in a tile.
const TILE_Q: usize = 64;
/// Keys in a tile. Two tiles of scores are alive at once.
const TILE_K: usize = 128;
/// Fewest tasks to aim for. A constant and not the number of threads, so that results do not depend on that number.
const MIN_TASKS: usize = 16;
/// Most elements that the query gradients of additional tasks may take together.
const MAX_PARTIAL: usize = 1 << 25;

/// The gradients that [`attention_backward`] writes, all contiguous. They need not be initialised.
pub struct AttentionGradients<'a, T> {
    /// `[B, H, Tq, D]`.
    pub dq: &'a mut [T],
    /// `[B, Hₖ, Tk, D]`, summed over the query heads that share a key head.
    pub dk: &'a mut [T],
    /// `[B, Hₖ, Tk, Dᵥ]`, summed likewise.
    pub dv: &'a mut [T],
    /// `[B, H, Tq, Tk]`: the gradient of the additive mask, before it is summed over what the mask broadcasts over. It
    /// is as big as the matrix that the kernel otherwise avoids; ask for it only if the mask is trained.
    pub d_mask: Option<&'a mut [T]>,
}

/// The gradients of [`attention_forward`](super::attention::attention_forward), given its arguments, `out`, `lse` and
/// `d_out` `[B, H, Tq, Dᵥ]` (any strides).
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
/// A task owns the keys and values that it writes, and also a buffer for the queries: when there are too few heads to
/// keep a machine busy, the keys of a head are dealt out to several tasks whose query gradients are added up, in order,
/// afterwards. How many depends on the shape alone, so the result does not depend on the number of threads.
///
/// # Panics
/// If an array has the wrong length.
pub fn attention_backward<T: SeqFloat>(
    args: &Attention<T>,
    out: &[T],
    lse: &[T],
    d_out: Operand<T>,
    gradients: AttentionGradients<T>,
) {
    let AttentionShape { b, h, hk, tq, tk, d, dv } = args.shape;
    let AttentionGradients { dq, dk, dv: d_v, d_mask } = gradients;
    assert_eq!(out.len(), b * h * tq * dv, "attention: the output is [B, H, Tq, Dv]");
    assert_eq!(lse.len(), b * h * tq, "attention: the logsumexp is [B, H, Tq]");
    assert_eq!(dq.len(), b * h * tq * d, "attention: dq is [B, H, Tq, D]");
    assert_eq!(dk.len(), b * hk * tk * d, "attention: dk is [B, Hk, Tk, D]");
    assert_eq!(d_v.len(), b * hk * tk * dv, "attention: dv is [B, Hk, Tk, Dv]");
    if let Some(m) = &d_mask {
        assert_eq!(m.len(), b * h * tq * tk, "attention: the mask's gradient is [B, H, Tq, Tk]");
    }
    let (group, key_blocks) = (args.group(), tk.div_ceil(TILE_K));
    // A row of the mask's gradient is one task's.
    let parts =
        if d_mask.is_some() { 1 } else { MIN_TASKS.div_ceil((b * hk).max(1)).min(1 + MAX_PARTIAL / dq.len().max(1)) };
    let parts = parts.min(key_blocks).max(1);

    let mut delta = vec![T::zero(); b * h * tq];
    let width = (tq * h).max(1);
    delta.par_chunks_mut(width).enumerate().for_each(|(b, delta)| {
        with_scratch(dv, |grad: &mut [T]| {
            for (r, delta) in delta.iter_mut().enumerate() {
                d_out.row(b, r / tq, r % tq, 0, dv).zip_into(grad, |g, v| *g = v);
                *delta = dot(&out[(b * h * tq + r) * dv..][..dv], grad);
            }
        });
    });

    let blocks = args.row_blocks(TILE_Q);
    let mut partial = vec![T::zero(); (parts - 1) * dq.len()];
    let mut tasks: Vec<Task<T>> = Vec::with_capacity(b * hk * parts);
    let (queries, masks) = (group * tq * d, if d_mask.is_some() { group * tq * tk } else { 0 });
    let (mut dk, mut d_v, mut d_mask, mut more) = (dk, d_v, d_mask.unwrap_or_default(), &mut partial[..]);
    let mut dq_rest = &mut *dq;
    for b in 0..b {
        for hk in 0..hk {
            let first = tasks.len();
            for part in 0..parts {
                let dq = take_front(if part == 0 { &mut dq_rest } else { &mut more }, queries);
                let d_mask = take_front(&mut d_mask, if part == 0 { masks } else { 0 });
                tasks.push(Task { b, hk, dq, d_mask, keys: Vec::with_capacity(key_blocks.div_ceil(parts)) });
            }
            // Dealt out in turn: causality leaves more work for the first keys than for the last.
            for block in 0..key_blocks {
                let n = TILE_K.min(tk - block * TILE_K);
                let (dk, dv) = (take_front(&mut dk, n * d), take_front(&mut d_v, n * dv));
                tasks[first + block % parts].keys.push((block * TILE_K, n, dk, dv));
            }
        }
    }
    let saved = Saved { lse, delta: &delta, d_out };
    tasks.into_par_iter().with_max_len(1).for_each(|task| backward_keys(args, &saved, &blocks, task));

    if queries > 0 {
        let extra = (parts - 1) * queries;
        dq.par_chunks_mut(queries).enumerate().for_each(|(n, dq)| {
            for part in partial[n * extra..(n + 1) * extra].chunks(queries) {
                dq.iter_mut().zip(part).for_each(|(x, &p)| *x += p);
            }
            scale(dq, args.scale);
        });
    }
}

/// What the forward pass left, and the gradient that comes in.
struct Saved<'a, T> {
    lse: &'a [T],
    delta: &'a [T],
    d_out: Operand<'a, T>,
}

/// Some of the keys of one key head.
struct Task<'a, T> {
    b: usize,
    hk: usize,
    /// `[group, Tq, D]`: this task's share of the queries' gradient, not yet multiplied by `scale`.
    dq: &'a mut [T],
    /// `[group, Tq, Tk]`, or empty.
    d_mask: &'a mut [T],
    /// First key, number of keys, and their `dk` and `dv`.
    keys: Vec<(usize, usize, &'a mut [T], &'a mut [T])>,
}

fn backward_keys<T: SeqFloat>(args: &Attention<T>, saved: &Saved<T>, blocks: &[Range<usize>], task: Task<T>) {
    let AttentionShape { d, dv, .. } = args.shape;
    let Task { b, hk, dq, d_mask, keys } = task;
    dq.fill(T::zero());
    d_mask.fill(T::zero());
    let tallest = blocks.iter().map(|rows| rows.len()).max().unwrap_or(0);
    with_scratch(tallest * (d + dv + 2 * TILE_K), |scratch: &mut [T]| {
        let (q, rest) = scratch.split_at_mut(tallest * d);
        let (grad, rest) = rest.split_at_mut(tallest * dv);
        let (p, ds) = rest.split_at_mut(tallest * TILE_K);
        for (j, n, dk, d_v) in keys {
            dk.fill(T::zero());
            d_v.fill(T::zero());
            let (keys, values) = (args.k.matrix(b, hk, j), args.v.matrix(b, hk, j));
            // Every block of rows multiplies by these three.
            let (keys_t, values_t) = (Packed::new(level(), keys.t(), d, n), Packed::new(level(), values.t(), dv, n));
            let keys = Packed::new(level(), keys, n, d);
            for rows in blocks {
                let n = n.min(args.visible_to_any(rows).saturating_sub(j));
                if n == 0 || args.tile_is_masked(b, hk, rows, j, n) {
                    continue;
                }
                let count = rows.len();
                args.gather_rows(&args.q, (b, hk), rows, args.scale, d, q);
                args.gather_rows(&saved.d_out, (b, hk), rows, T::one(), dv, grad);
                let (q, grad) = (MatRef::row_major(q, d), MatRef::row_major(grad, dv));
                keys_t.part(count, (d, n), q, p, TILE_K, false, false);
                values_t.part(count, (dv, n), grad, ds, TILE_K, false, false);
                score_gradients(args, saved, (b, hk), rows, (j, n), p, ds, d_mask);
                let (p, ds) = (MatRef::row_major(p, TILE_K), MatRef::row_major(ds, TILE_K));
                gemm(n, dv, count, p.t(), grad, d_v, dv, true, false);
                gemm(n, d, count, ds.t(), q, dk, d, true, false);
                keys.part(count, (n, d), ds, &mut dq[rows.start * d..], d, true, false);
            }
        }
    });
}

/// Turns a tile of scores `p` and of `dO Vᵀ` `ds` into the dropped-out weights `P ∘ M` and into `dS`.
fn score_gradients<T: SeqFloat>(
    args: &Attention<T>,
    saved: &Saved<T>,
    (b, hk): (usize, usize),
    rows: &Range<usize>,
    (j, n): (usize, usize),
    p: &mut [T],
    ds: &mut [T],
    d_mask: &mut [T],
) {
    let AttentionShape { h: heads, tq, tk, .. } = args.shape;
    let mut keep = [true; TILE_K];
    for (x, r) in rows.clone().enumerate() {
        let (h, i) = args.head_and_query(hk, r);
        let at = (b * heads + h) * tq + i;
        let (lse, delta) = (saved.lse[at], saved.delta[at]);
        let seen = if lse == T::neg_infinity() { 0 } else { args.visible(i).saturating_sub(j).min(n) };
        let (p, hidden) = p[x * TILE_K..x * TILE_K + n].split_at_mut(seen);
        hidden.fill(T::zero());
        let (ds, hidden) = ds[x * TILE_K..x * TILE_K + n].split_at_mut(seen);
        hidden.fill(T::zero());
        args.mask_row(b, h, i, j, p);
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
