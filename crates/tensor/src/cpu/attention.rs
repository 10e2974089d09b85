//! Scaled dot-product attention, forward.

use super::attention_tile::{Attention, AttentionElement, AttentionShape, Output, score_row};
use super::gemm::{GemmElement, MatRef, Packed, gemm_wide};
use super::level::level;
use super::math::Real;
use super::scratch::with_scratch;
use super::seq_math::{SeqFloat, exp_shifted, max, scale, sum, take_front};
use super::simd::simd_fn;
use crate::cpu::parallel::*;
use num_traits::{Float, One, Zero};
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
/// Dᵥ]` in an order of its own and `lse` `[B, H, Tq]`, contiguous; neither need be initialised. `H` is a multiple of `Hₖ` (grouped-query
/// attention).
///
/// The `Tq × Tk` scores are never stored. They are made in tiles, and the softmax is taken on the way: with the running
/// maximum `m` and sum `l` of a row, a further tile of scores `s` does
///
/// ```text
/// m' = max(m, max s),   l' = e^(m - m') l + Σ e^(s - m'),   O' = e^(m - m') O + e^(s - m') V
/// ```
///
/// and `O / l` is the answer (Milakov & Gimelshein 2018; Dao et al. 2022; Dao 2023). Tiles that causality, the keys' number
/// or a padding mask rule out entirely are skipped.
///
/// A query that may attend to nothing (every key masked, or `Tk = 0`) gives **zeros**, `lse = -∞` and zero gradients,
/// not NaN. NaN in the inputs comes out as NaN. The result does not depend on the number of threads.
///
/// bf16 is summed, and the softmax taken, in f32; each weight is a sum of two bf16 in its product with the values (the
/// second may be 0, so that an infinite value comes out as NaN).
///
/// # Panics
/// If `H` is not a multiple of `Hₖ`, or an output has the wrong shape.
pub fn attention_forward<T: AttentionElement>(args: &Attention<T>, out: Output<T>, lse: &mut [T::Acc]) {
    let AttentionShape { b, h, hk, tq, dv, .. } = args.shape;
    assert_eq!(out.dims(), [b, h, tq, dv], "attention: the output is [B, H, Tq, Dv]");
    assert_eq!(lse.len(), b * h * tq, "attention: the logsumexp is [B, H, Tq]");
    let blocks = args.row_blocks(TILE_Q);
    let together = blocks.len().div_ceil(MIN_TASKS.div_ceil((b * hk).max(1))).max(1);
    let mut tasks = Vec::with_capacity(b * hk * blocks.len().div_ceil(together));
    let mut lse = lse;
    for b in 0..b {
        for hk in 0..hk {
            for blocks in blocks.chunks(together) {
                let rows = blocks.iter().map(ExactSizeIterator::len).sum();
                tasks.push((b, hk, blocks, take_front(&mut lse, rows)));
            }
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each(|(b, hk, blocks, mut lse)| {
        let tiles = KeyTiles::new(args, (b, hk), blocks);
        for rows in blocks {
            forward_block(args, (b, hk), rows, &tiles, &out, take_front(&mut lse, rows.len()));
        }
    });
}

/// The tiles of keys `Kᵀ` and values `V` of a head from key `first` on, packed if several blocks of rows use them.
struct KeyTiles<T: GemmElement> {
    first: usize,
    tiles: Vec<(Packed<T>, Packed<T>)>,
}

impl<T: AttentionElement> KeyTiles<T> {
    fn new(args: &Attention<T>, (b, hk): (usize, usize), blocks: &[Range<usize>]) -> Self {
        let AttentionShape { d, dv, .. } = args.shape;
        if blocks.len() < 2 {
            return KeyTiles { first: 0, tiles: Vec::new() };
        }
        let seen = || blocks.iter().map(|rows| args.visible_to_any(b, rows));
        let end = seen().map(|keys| keys.end).max().unwrap_or(0);
        let first = seen().map(|keys| keys.start).min().unwrap_or(0) / TILE_K * TILE_K;
        let tile = |j: usize| {
            let n = TILE_K.min(end - j);
            let keys = Packed::new(level(), args.k.matrix(b, hk, j).t(), d, n);
            (keys, Packed::new(level(), args.v.matrix(b, hk, j), n, dv))
        };
        KeyTiles { first, tiles: (first..end).step_by(TILE_K).map(tile).collect() }
    }

    /// The tile that begins with key `j`.
    fn get(&self, j: usize) -> Option<&(Packed<T>, Packed<T>)> {
        self.tiles.get((j - self.first) / TILE_K)
    }
}

/// The rows of one block, which are this task's alone; `lse` serves as the running maximum `m`.
fn forward_block<T: AttentionElement>(
    args: &Attention<T>,
    (b, hk): (usize, usize),
    rows: &Range<usize>,
    tiles: &KeyTiles<T>,
    out: &Output<T>,
    lse: &mut [T::Acc],
) {
    let AttentionShape { d, dv, .. } = args.shape;
    let count = rows.len();
    lse.fill(T::Acc::neg_infinity());
    with_scratch(count * d + T::room(count * TILE_K), |scratch: &mut [T]| {
        let (q, weights) = scratch.split_at_mut(count * d);
        args.gather_rows(&args.q, (b, hk), rows, d, q);
        with_scratch(count * (dv + TILE_K + 1), |scratch: &mut [T::Acc]| {
            let (o, rest) = scratch.split_at_mut(count * dv);
            let (s, l) = rest.split_at_mut(count * TILE_K);
            o.fill(T::Acc::zero());
            l.fill(T::Acc::zero());
            let Range { start, end } = args.visible_to_any(b, rows);
            for j in (start / TILE_K * TILE_K..end).step_by(TILE_K) {
                let n = TILE_K.min(end - j);
                if args.tile_is_masked(b, hk, rows, j, n) {
                    continue;
                }
                let tile = Tile { j, n, packed: tiles.get(j), s, weights };
                forward_tile(args, (b, hk), rows, q, tile, Running { o, m: lse, l });
            }
            let factor = args.dropout.map_or(T::Acc::one(), |dropout| dropout.factor());
            for (x, r) in rows.clone().enumerate() {
                let o = &mut o[x * dv..(x + 1) * dv];
                if l[x] == T::Acc::zero() {
                    o.fill(T::Acc::zero());
                    lse[x] = T::Acc::neg_infinity();
                } else {
                    scale(o, factor / l[x]);
                    lse[x] += l[x].ln();
                }
                let (h, i) = args.head_and_query(hk, r);
                // SAFETY: rows are of one block only, and a block of one task.
                unsafe { out.write([b, h, i], o) };
            }
        });
    });
}

/// What the tiles so far have made of each row: `O`, `m` and `l`.
struct Running<'a, A> {
    o: &'a mut [A],
    m: &'a mut [A],
    l: &'a mut [A],
}

/// The keys `j..j + n` with a block of rows: room for their scores, and for these as weights.
struct Tile<'a, T: GemmElement> {
    j: usize,
    n: usize,
    packed: Option<&'a (Packed<T>, Packed<T>)>,
    s: &'a mut [T::Acc],
    weights: &'a mut [T],
}

/// Adds a tile to the running results of the rows whose queries are `q`.
fn forward_tile<T: AttentionElement>(
    args: &Attention<T>,
    (b, hk): (usize, usize),
    rows: &Range<usize>,
    q: &[T],
    Tile { j, n, packed, s, weights }: Tile<T>,
    Running { o, m, l }: Running<T::Acc>,
) {
    let AttentionShape { d, dv, .. } = args.shape;
    let (count, q) = (rows.len(), MatRef::row_major(q, d));
    // Rows begin at whole vectors, and those of a narrow tile are not spread out.
    let width = n.next_multiple_of(16);
    let s = &mut s[..count * width];
    match packed {
        Some((keys, _)) => keys.part(count, (d, n), q, s, width, false, false),
        None => gemm_wide(count, n, d, q, args.k.matrix(b, hk, j).t(), s, width, false, false),
    }
    let mut keep = [true; TILE_K];
    for (x, r) in rows.clone().enumerate() {
        let (h, i) = args.head_and_query(hk, r);
        let (seen, row) = (args.visible_in((b, i), j, n), &mut s[x * width..][..n]);
        row[..seen.start].fill(T::Acc::zero());
        row[seen.end..].fill(T::Acc::zero());
        let (j, row) = (j + seen.start, &mut row[seen]);
        score_row(level(), args, [b, h, i, j], row);
        let (top, decay, sum) = online_softmax(level(), row, m[x]);
        m[x] = top;
        l[x] = l[x] * decay + sum;
        if decay != T::Acc::one() {
            scale(&mut o[x * dv..(x + 1) * dv], decay);
        }
        if let Some(dropout) = &args.dropout {
            let keep = &mut keep[..row.len()];
            dropout.mask.keep_row(args.weight_index(b, h, i, j), keep);
            row.iter_mut().zip(keep).for_each(|(w, k)| *w = if *k { *w } else { T::Acc::zero() });
        }
    }
    let room = T::room(s.len());
    // The weights as they are, or as a rounded part and what that lacks.
    for part in 0..if T::SAME { 1 } else { 2 } {
        let operand = T::operand(s, &mut weights[..room]);
        let w = MatRef::row_major(operand, width);
        match packed {
            Some((_, values)) => values.part(count, (n, dv), w, o, dv, true, false),
            None => gemm_wide(count, dv, n, w, args.v.matrix(b, hk, j), o, dv, true, false),
        }
        if part == 0 && !T::SAME {
            T::remainder(s, &weights[..room]);
        }
    }
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
