//! Attention and its gradients on Hopper's tensor cores, at lengths that fill no tile, however the heads lie in memory; on other cards this is
//! attention like any other.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

#[path = "common/attention.rs"]
mod case;
mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use case::{Case, Mask, Sizes, backward, check, check_both};
use common::{card, counted, there};
use ferrograd_tensor::ops::attention::{AttentionArgs, AttentionGradients};
use ferrograd_tensor::{DType, Tensor};
use layouts::Random;
use std::sync::{Mutex, PoisonError};

const HALVES: [DType; 2] = [DType::BF16, DType::F16];

/// Are the answers and the gradients right, and made by the kernels that this file is about? Products of warpgroups tell; they are not
/// counted on a card.
#[track_caller]
fn by_hopper(case: &Case, random: &mut Random) {
    let products = alone(|| check_both(case, random));
    assert!(products.is_none_or(|[forward, backward]| forward > 0 && backward > 0), "by another kernel: {products:?}");
}

/// Are they right, and left to other kernels?
#[track_caller]
fn elsewhere(case: &Case, random: &mut Random) {
    let products = alone(|| check_both(case, random));
    assert!(products.is_none_or(|products| products == [0, 0]), "by the kernels for Hopper: {products:?}");
}

/// One test after another, so that none counts what others need.
fn alone<T>(f: impl FnOnce() -> T) -> T {
    static ONE_TEST: Mutex<()> = Mutex::new(());
    let _alone = ONE_TEST.lock().unwrap_or_else(PoisonError::into_inner);
    f()
}

#[test]
fn lengths_and_widths_that_fill_no_tile() {
    let mut random = Random(1);
    // Fewer tiles than the rings have places, and more; warps with rows of their own, all or some.
    let sizes: [Sizes; 7] = [
        [1, 1, 1, 2, 1, 64, 64],
        [1, 1, 1, 500, 150, 64, 64],
        [2, 1, 1, 193, 129, 40, 64],
        [1, 1, 1, 190, 600, 64, 8],
        [1, 2, 2, 130, 128, 128, 128],
        [1, 1, 1, 125, 520, 72, 128],
        [1, 1, 1, 64, 127, 128, 80],
    ];
    for (i, sizes) in sizes.into_iter().enumerate() {
        by_hopper(&Case::new(&mut random, sizes, HALVES[i % 2]), &mut random);
        by_hopper(&Case::new(&mut random, sizes, HALVES[(i + 1) % 2]).dropout(0.25), &mut random);
    }
    assert_eq!(counted("emulator_count_bank_conflicts").unwrap_or(0), 0);
}

#[test]
fn causal_attention_and_windows() {
    let mut random = Random(2);
    for (i, (tq, tk, offset, window)) in [
        (200, 200, 0, None),
        (130, 300, 170, None),
        (300, 65, 0, None),
        (70, 30, 1 << 40, None),
        (260, 260, 0, Some(1)),
        (200, 400, 200, Some(70)),
        (65, 30, 0, Some(500)),
        // Late queries see nothing, or all of them.
        (200, 40, 50, Some(20)),
        (70, 100, 300, Some(50)),
        (33, 20, 1 << 40, Some(1 << 40)),
        (33, 20, 1 << 40, Some((1 << 40) + 5)),
    ]
    .into_iter()
    .enumerate()
    {
        let width = [64, 128][i % 2];
        let case = Case::new(&mut random, [1, 1, 1, tq, tk, width, width], HALVES[i / 2 % 2]).causal(offset);
        let case = if let Some(window) = window { case.window(window) } else { case };
        // Where no query sees a key there is nothing to multiply.
        if offset == 300 { elsewhere(&case, &mut random) } else { by_hopper(&case, &mut random) }
    }
}

/// What lies behind them is not looked at: it is no numbers.
#[test]
fn keys_of_several_lengths() {
    let mut random = Random(6);
    for (dtype, width) in HALVES.into_iter().zip([128, 64]) {
        for tk in [50, 128, 400] {
            let case = Case::new(&mut random, [4, 2, 1, 66, tk, width, width], dtype).lengths(&mut random);
            by_hopper(&case, &mut random);
            by_hopper(&case.causal(tk / 2), &mut random);
        }
    }
}

#[test]
fn heads_that_share_keys_however_they_lie() {
    let mut random = Random(3);
    for (dtype, width) in HALVES.into_iter().zip([64, 128]) {
        for gap in [0, 8, 3] {
            let case = Case::new(&mut random, [2, 4, 2, 70, 40, width, 48], dtype).time_first(gap);
            by_hopper(&case.causal(0), &mut random);
        }
        // Every other token, and one key head of several.
        let mut case = Case::new(&mut random, [1, 6, 3, 66, 150, width, width], dtype);
        case.k = case.k.slice_dim(2, 1, None, 2);
        case.v = case.v.slice_dim(2, 0, None, 2);
        by_hopper(&case, &mut random);
        let one = |x: &Tensor| x.narrow(1, 1, 1);
        by_hopper(&Case { k: one(&case.k), v: one(&case.v), ..case }, &mut random);
    }
}

/// The same numbers but for one.
fn with(x: &Tensor, at: usize, value: f64) -> Tensor {
    let mut numbers = x.to_f64_vec();
    numbers[at] = value;
    Tensor::from_vec(numbers, x.shape()).to_dtype(x.dtype())
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    let mut random = Random(4);
    for (dtype, value) in HALVES.into_iter().zip([f64::NAN, f64::INFINITY]) {
        let case = Case::new(&mut random, [1, 1, 1, 40, 140, 64, 64], dtype);
        for case in [
            Case { q: with(&case.q, 64 * 39, value), ..case.clone() },
            Case { k: with(&case.k, 64 * 139 + 3, value), ..case.clone() },
            Case { v: with(&case.v, 64 * 130, value), ..case },
        ] {
            alone(|| check(&case));
        }
    }
}

/// What the card makes of an output's gradient.
#[track_caller]
fn gradients(case: &Case, g: &Tensor) -> AttentionGradients {
    let made = case.forward(card()).expect("a kernel");
    backward(card(), case, made, g, false)
}

#[test]
fn gradients_of_what_is_not_finite() {
    let mut random = Random(4);
    for dtype in HALVES {
        let case = Case::new(&mut random, [1, 1, 1, 40, 140, 64, 64], dtype).on_the_card();
        let g = random.values(&[1, 1, 40, 64], dtype);
        let g = there(&with(&g, 64 * 7, f64::NAN));
        let made = alone(|| gradients(&case, &g));
        let numbers = |x: &Tensor| x.to_f64_vec().iter().filter(|x| !x.is_nan()).count();
        // One query's weights go to all keys, and column 0 of dO to that of all values.
        assert_eq!(numbers(&made.query), 39 * 64);
        assert_eq!(numbers(&made.key), 0);
        assert_eq!(numbers(&made.value), 140 * 63);
    }
}

/// Blocks add to the same gradients of queries, always in the same order.
#[test]
fn the_same_bits_twice() {
    let mut random = Random(7);
    for (dtype, width) in HALVES.into_iter().zip([64, 128]) {
        let case = Case::new(&mut random, [1, 2, 1, 130, 600, width, width], dtype).on_the_card();
        let g = there(&random.values(&[1, 2, 130, width], dtype));
        let [one, other] = [(), ()].map(|()| alone(|| gradients(&case, &g)));
        assert_eq!(one.query.to_f64_vec(), other.query.to_f64_vec());
        assert_eq!(one.key.to_f64_vec(), other.key.to_f64_vec());
        assert_eq!(one.value.to_f64_vec(), other.value.to_f64_vec());
    }
}

/// Some that are the same for all batches, heads, queries or keys, and every other number of a larger one, with its sides exchanged.
fn lying_otherwise(case: &Case) -> impl Iterator<Item = Case> {
    let mask = case.args.mask.clone().expect("a mask");
    let shape = mask.shape().clone();
    let same = [0, 1, 2, 3].map(|d| mask.narrow(d, mask.dim(d) - 1, 1).expand(&shape));
    let [b, h, tq, tk]: [usize; 4] = mask.dims_of("test");
    let strided = mask.transpose(2, 3).unsqueeze(4).expand([b, h, tk, tq, 2]).contiguous().reshape([b, h, tk, 2 * tq]);
    let strided = strided.slice_dim(3, 1, None, 2).transpose(2, 3);
    same.into_iter()
        .chain([strided])
        .map(|mask| Case { args: AttentionArgs { mask: Some(mask), ..case.args.clone() }, ..case.clone() })
}

#[test]
fn masks() {
    let mut random = Random(7);
    // One tile of keys, several, and more than the ring has places; warps of which none, some or all have queries.
    let sizes: [Sizes; 4] = [
        [1, 2, 1, 2, 1, 64, 64],
        [2, 2, 2, 66, 65, 40, 64],
        [1, 2, 1, 130, 200, 128, 128],
        [2, 1, 1, 193, 130, 64, 48],
    ];
    for (i, sizes) in sizes.into_iter().enumerate() {
        for (dtype, mask) in
            HALVES.into_iter().zip([[Mask::Boolean, Mask::Additive], [Mask::Additive, Mask::Boolean]][i % 2])
        {
            let case = Case::new(&mut random, sizes, dtype).mask(&mut random, mask);
            by_hopper(&case, &mut random);
            by_hopper(&case.dropout(0.25), &mut random);
        }
    }
    assert_eq!(counted("emulator_count_bank_conflicts").unwrap_or(0), 0);
}

#[test]
fn masks_beside_what_else_hides_keys() {
    let mut random = Random(8);
    for ((dtype, mask), width) in HALVES.into_iter().zip([Mask::Additive, Mask::Boolean]).zip([64, 128]) {
        let case = |random: &mut Random| Case::new(random, [2, 2, 1, 70, 150, width, width], dtype);
        let masked = case(&mut random).mask(&mut random, mask);
        by_hopper(&masked.clone().causal(0), &mut random);
        by_hopper(&masked.clone().causal(90).window(40).dropout(0.25), &mut random);
        by_hopper(&case(&mut random).lengths(&mut random).mask(&mut random, mask).causal(80), &mut random);
        by_hopper(&case(&mut random).time_first(8).mask(&mut random, Mask::Padding), &mut random);
        // A factor that turns the order of scores round, and one that makes them the same.
        for scale in [-0.125, 0.0] {
            let mut turned = masked.clone();
            turned.args.scale = scale;
            by_hopper(&turned, &mut random);
            turned.args.mask = None;
            by_hopper(&turned, &mut random);
        }
    }
}

#[test]
fn masks_however_they_lie() {
    let mut random = Random(9);
    for (dtype, mask) in HALVES.into_iter().zip([Mask::Boolean, Mask::Additive]) {
        let case = Case::new(&mut random, [2, 2, 1, 35, 70, 64, 64], dtype).mask(&mut random, mask);
        for case in lying_otherwise(&case) {
            by_hopper(&case, &mut random);
        }
    }
}

/// What the kernels do not take is made all the same.
#[test]
fn what_is_left_to_others() {
    let mut random = Random(5);
    const SIZES: Sizes = [2, 2, 1, 33, 40, 64, 64];
    for dtype in HALVES {
        let case = Case::new(&mut random, SIZES, dtype);
        // The same keys for all batches.
        elsewhere(&Case { k: case.k.narrow(0, 0, 1).expand(case.k.shape()), ..case }, &mut random);
        for sizes in [[1, 1, 1, 33, 40, 32, 32], [1, 1, 1, 3, 0, 64, 64]] {
            elsewhere(&Case::new(&mut random, sizes, dtype), &mut random);
        }
        // Registers do not hold the gradients of wide rows, nor wide rows beside a mask.
        let wide = Case::new(&mut random, [1, 2, 1, 130, 200, 256, 136], dtype);
        for case in [wide.clone(), wide.clone().causal(20).window(90).dropout(0.25)] {
            let products = alone(|| check_both(&case, &mut random));
            assert!(products.is_none_or(|[forward, backward]| forward > 0 && backward == 0), "{products:?}");
        }
        elsewhere(&wide.mask(&mut random, Mask::Boolean), &mut random);
        // A single query has a kernel of its own; its gradients have not.
        let single = Case::new(&mut random, [1, 1, 1, 1, 40, 64, 64], dtype);
        let products = alone(|| check_both(&single, &mut random));
        assert!(products.is_none_or(|[forward, backward]| forward == 0 && backward > 0), "{products:?}");
    }
    for dtype in [DType::F32, DType::F64] {
        elsewhere(&Case::new(&mut random, SIZES, dtype), &mut random);
    }
}
