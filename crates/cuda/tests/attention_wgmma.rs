//! Attention on Hopper's tensor cores, at lengths that fill no tile, however the heads lie in memory; on other cards this is
//! attention like any other.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

#[path = "common/attention.rs"]
mod case;
mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use case::{Case, Mask, Sizes, check, check_both};
use common::counted;
use ferrograd_tensor::{DType, Tensor};
use layouts::Random;
use std::sync::{Mutex, PoisonError};

const HALVES: [DType; 2] = [DType::BF16, DType::F16];

/// The products of warpgroups that this takes; none are counted on a card.
fn products(attend: impl FnOnce()) -> Option<usize> {
    static ONE_TEST: Mutex<()> = Mutex::new(());
    let _alone = ONE_TEST.lock().unwrap_or_else(PoisonError::into_inner);
    let before = counted("emulator_count_wgmma");
    attend();
    Some(counted("emulator_count_wgmma")? - before?)
}

/// Are the answers right and the gradients that are made with their logsumexp, and were the answers made by the kernel that this
/// file is about?
#[track_caller]
fn by_hopper(case: &Case, random: &mut Random) {
    let made = products(|| check_both(case, random));
    assert!(made.is_none_or(|made| made > 0), "by another kernel");
}

/// Is it right, and left to another kernel?
#[track_caller]
fn elsewhere(case: &Case) {
    let made = products(|| check(case));
    assert!(made.is_none_or(|made| made == 0), "by the kernel for Hopper");
}

#[test]
fn lengths_and_widths_that_fill_no_tile() {
    let mut random = Random(1);
    // Fewer tiles of keys and values than the ring has places, and more; warps with queries of their own, all or some.
    let sizes: [Sizes; 6] = [
        [1, 1, 1, 2, 1, 64, 64],
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
    ]
    .into_iter()
    .enumerate()
    {
        let width = [64, 128][i % 2];
        let case = Case::new(&mut random, [1, 1, 1, tq, tk, width, width], HALVES[i / 2 % 2]).causal(offset);
        let case = if let Some(window) = window { case.window(window) } else { case };
        // Where no query sees a key there is nothing to multiply.
        if offset == 300 { check_both(&case, &mut random) } else { by_hopper(&case, &mut random) }
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

#[test]
fn what_is_not_finite_is_not_hidden() {
    let mut random = Random(4);
    let with = |x: &Tensor, at: usize, value: f64| {
        let mut numbers = x.to_f64_vec();
        numbers[at] = value;
        Tensor::from_vec(numbers, x.shape()).to_dtype(x.dtype())
    };
    for (dtype, value) in HALVES.into_iter().zip([f64::NAN, f64::INFINITY]) {
        let case = Case::new(&mut random, [1, 1, 1, 40, 140, 64, 64], dtype);
        for case in [
            Case { q: with(&case.q, 64 * 39, value), ..case.clone() },
            Case { k: with(&case.k, 64 * 139 + 3, value), ..case.clone() },
            Case { v: with(&case.v, 64 * 130, value), ..case },
        ] {
            assert!(products(|| check(&case)).is_none_or(|made| made > 0));
        }
    }
}

/// What the kernel does not take is made all the same.
#[test]
fn what_is_left_to_others() {
    let mut random = Random(5);
    const SIZES: Sizes = [2, 2, 1, 33, 40, 64, 64];
    for dtype in HALVES {
        for mask in [Mask::Boolean, Mask::Additive] {
            elsewhere(&Case::new(&mut random, SIZES, dtype).mask(&mut random, mask));
        }
        let case = Case::new(&mut random, SIZES, dtype);
        // The same keys for all batches; a factor that turns the order of scores round.
        elsewhere(&Case { k: case.k.narrow(0, 0, 1).expand(case.k.shape()), ..case.clone() });
        let mut turned = case;
        turned.args.scale = -0.5;
        elsewhere(&turned);
        for sizes in
            [[1, 1, 1, 1, 40, 64, 64], [1, 1, 1, 33, 40, 32, 32], [1, 1, 1, 33, 40, 136, 64], [1, 1, 1, 3, 0, 64, 64]]
        {
            elsewhere(&Case::new(&mut random, sizes, dtype));
        }
    }
    for dtype in [DType::F32, DType::F64] {
        elsewhere(&Case::new(&mut random, SIZES, dtype));
    }
}
