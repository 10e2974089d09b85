//! Scaled dot-product attention, forward.

use super::attention_tile::{Attention, AttentionShape};
use super::gemm::{MatRef, Packed, gemm};
use super::level::level;
use super::math::Real;
use super::scratch::with_scratch;
use super::seq_math::{SeqFloat, exp_shifted, max, scale, sum, take_front};
use super::simd::simd_fn;
use crate::cpu::parallel::*;
use std::ops::Range;

/// Queries in a tile.
const TILE_Q: usize = 64;
/// Keys in a tile: a tile of scores, its keys and its values fit a core's second-level cache together.
const TILE_K: usize = 256;
/// Fewest tasks to aim for. A task packs the keys and values that it uses, so fewer are better.
const MIN_TASKS: usize = 16;

/// `O = dropout(softmax(scale · Q Kᵀ + mask)) V`, and `L = logsumexp(scale · Q Kᵀ + mask)` for the backward pass.
///
/// Queries are `[B, H, Tq, D]`, keys `[B, Hₖ, Tk, D]`, values `[B, Hₖ, Tk, Dᵥ]` with any strides; `out` is `[B, H, Tq,
/// Dᵥ]` and `lse` `[B, H, Tq]`, contiguous, and need not be initialised. `H` is a multiple of `Hₖ` (grouped-query
/// attention).
///
/// The `Tq × Tk` scores are never stored. They are made in tiles, and the softmax is taken on the way: with the running
/// maximum `m` and sum `l` of a row, a further tile of scores `s` does
///
/// ```text
/// m' = max(m, max s),   l' = e^(m - m') l + Σ e^(s - m'),   O' = e^(m - m') O + e^(s - m') V
/// ```
///
/// and `O / l` is the answer (Milakov & Gimelshein 2018; Dao et al. 2022; Dao 2023). Tiles that causality or a padding
/// mask rules out entirely are skipped.
///
/// A query that may attend to nothing (every key masked, or `Tk = 0`) gives **zeros**, `lse = -∞` and zero gradients,
/// not NaN. NaN in the inputs comes out as NaN. The result does not depend on the number of threads.
///
/// # Panics
/// If `H` is not a multiple of `Hₖ`, or an output has the wrong length.
pub fn attention_forward<T: SeqFloat>(args: &Attention<T>, out: &mut [T], lse: &mut [T]) {
    let AttentionShape { b, h, hk, tq, dv, .. } = args.shape;
    assert_eq!(out.len(), b * h * tq * dv, "attention: the output is [B, H, Tq, Dv]");
    assert_eq!(lse.len(), b * h * tq, "attention: the logsumexp is [B, H, Tq]");
    let blocks = args.row_blocks(TILE_Q);
    let together = blocks.len().div_ceil(MIN_TASKS.div_ceil((b * hk).max(1))).max(1);
    let mut tasks = Vec::with_capacity(b * hk * blocks.len().div_ceil(together));
    let (mut out, mut lse) = (out, lse);
    for b in 0..b {
        for hk in 0..hk {
            for blocks in blocks.chunks(together) {
                let rows = blocks.iter().map(ExactSizeIterator::len).sum();
                tasks.push((b, hk, blocks, take_front(&mut out, rows * dv), take_front(&mut lse, rows)));
            }
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each(|(b, hk, blocks, mut out, mut lse)| {
        let tiles = KeyTiles::new(args, (b, hk), blocks);
        for rows in blocks {
            let (out, lse) = (take_front(&mut out, rows.len() * dv), take_front(&mut lse, rows.len()));
            forward_block(args, (b, hk), rows, &tiles, out, lse);
        }
    });
}

/// The tiles of keys `Kᵀ` and values `V` of a head, packed if several blocks of rows use them.
struct KeyTiles<T: SeqFloat>(Vec<(Packed<T>, Packed<T>)>);

impl<T: SeqFloat> KeyTiles<T> {
    fn new(args: &Attention<T>, (b, hk): (usize, usize), blocks: &[Range<usize>]) -> Self {
        let AttentionShape { d, dv, .. } = args.shape;
        if blocks.len() < 2 {
            return KeyTiles(Vec::new());
        }
        let end = blocks.iter().map(|rows| args.visible_to_any(rows)).max().unwrap_or(0);
        let tile = |j: usize| {
            let n = TILE_K.min(end - j);
            let keys = Packed::new(level(), args.k.matrix(b, hk, j).t(), d, n);
            (keys, Packed::new(level(), args.v.matrix(b, hk, j), n, dv))
        };
        KeyTiles((0..end).step_by(TILE_K).map(tile).collect())
    }
}

/// The rows of one block; `out` serves as the accumulator `O`, `lse` as the running maximum `m`.
fn forward_block<T: SeqFloat>(
    args: &Attention<T>,
    (b, hk): (usize, usize),
    rows: &Range<usize>,
    tiles: &KeyTiles<T>,
    out: &mut [T],
    lse: &mut [T],
) {
    let AttentionShape { d, dv, .. } = args.shape;
    let count = rows.len();
    let end = args.visible_to_any(rows);
    let mut keep = [true; TILE_K];
    lse.fill(T::neg_infinity());
    with_scratch(count * (d + TILE_K + 1), |scratch: &mut [T]| {
        let (q, rest) = scratch.split_at_mut(count * d);
        let (s, l) = rest.split_at_mut(count * TILE_K);
        l.fill(T::zero());
        args.gather_rows(&args.q, (b, hk), rows, args.scale, d, q);
        let q = MatRef::row_major(q, d);
        let mut first = true;
        for j in (0..end).step_by(TILE_K) {
            let n = TILE_K.min(end - j);
            if args.tile_is_masked(b, hk, rows, j, n) {
                continue;
            }
            let tile = tiles.0.get(j / TILE_K);
            match tile {
                Some((keys, _)) => keys.part(count, (d, n), q, s, TILE_K, false, false),
                None => gemm(count, n, d, q, args.k.matrix(b, hk, j).t(), s, TILE_K, false, false),
            }
            for (x, r) in rows.clone().enumerate() {
                let (h, i) = args.head_and_query(hk, r);
                let row = &mut s[x * TILE_K..x * TILE_K + n];
                let (row, hidden) = row.split_at_mut(args.visible(i).saturating_sub(j).min(n));
                hidden.fill(T::zero());
                args.mask_row(b, h, i, j, row);
                let (m, decay, sum) = online_softmax(level(), row, lse[x]);
                l[x] = l[x] * decay + sum;
                lse[x] = m;
                if !first && decay != T::one() {
                    scale(&mut out[x * dv..(x + 1) * dv], decay);
                }
                if let Some(dropout) = &args.dropout {
                    let keep = &mut keep[..row.len()];
                    dropout.mask.keep_row(args.weight_index(b, h, i, j), keep);
                    row.iter_mut().zip(keep).for_each(|(w, k)| *w = if *k { *w } else { T::zero() });
                }
            }
            let weights = MatRef::row_major(s, TILE_K);
            match tile {
                Some((_, values)) => values.part(count, (n, dv), weights, out, dv, !first, false),
                None => gemm(count, dv, n, weights, args.v.matrix(b, hk, j), out, dv, !first, false),
            }
            first = false;
        }
        let factor = args.dropout.map_or(T::one(), |dropout| dropout.factor());
        for x in 0..count {
            let o = &mut out[x * dv..(x + 1) * dv];
            if first || l[x] == T::zero() {
                o.fill(T::zero());
                lse[x] = T::neg_infinity();
            } else {
                scale(o, factor / l[x]);
                lse[x] += l[x].ln();
            }
        }
    });
}

simd_fn! {
    /// One row of a tile: `s` becomes `e^(s - m')`. Returns the new maximum `m'`, the decay `e^(m - m')` and the row's sum.
    fn online_softmax[S]<T: SeqFloat>(s: &mut [T], m: T) -> (T, T, T) {
        let new = m.max(max(s));
        // While all is masked, any finite shift will do: the weights are e^(-∞) = 0.
        let shift = if new == T::neg_infinity() { T::zero() } else { new };
        exp_shifted::<S, T>(s, shift);
        (new, Real::exp::<S>(m - shift), sum(s))
    }
}
