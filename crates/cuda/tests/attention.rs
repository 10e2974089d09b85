//! Attention on the card against the CPU in f64: lengths that fill no tile, every kind of mask, and whatever may be together.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

#[path = "common/attention.rs"]
mod case;
mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use case::{Case, Mask, Sizes, check, check_both};
use common::card;
use ferrograd_tensor::{DType, Tensor};
use layouts::Random;

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

const MASKS: [Mask; 4] = [Mask::None, Mask::Boolean, Mask::Padding, Mask::Additive];

/// Lengths around those of tiles; widths that fill a program's and do not.
fn sizes(random: &mut Random) -> Vec<Sizes> {
    const LENGTHS: [usize; 8] = [1, 15, 17, 63, 65, 64, 130, 200];
    const WIDTHS: [usize; 6] = [8, 32, 40, 64, 72, 128];
    let mut sizes = vec![[1, 2, 2, 130, 65, 64, 64], [2, 2, 1, 17, 200, 32, 32], [1, 2, 2, 33, 50, 200, 256]];
    for i in 0..6 {
        let hk = 1 + random.below(2);
        let [tq, tk] = [0, 1].map(|_| LENGTHS[random.below(8)]);
        let (b, h) = [(1, 3), (1, 2), (2, 1)][random.below(3)];
        sizes.push([b, hk * h, hk, tq, tk, WIDTHS[i], WIDTHS[random.below(6)]]);
    }
    sizes
}

/// No f64 as wide as that.
fn there_is(dtype: DType, sizes: &Sizes) -> bool {
    dtype != DType::F64 || sizes[5].max(sizes[6]) <= 128
}

#[test]
fn attention_of_any_length_under_any_mask() {
    let mut random = Random(1);
    for dtype in FLOATS {
        for sizes in sizes(&mut random).into_iter().filter(|sizes| there_is(dtype, sizes)) {
            check_both(&Case::new(&mut random, sizes, dtype), &mut random);
            for mask in MASKS {
                let case = Case::new(&mut random, sizes, dtype).mask(&mut random, mask);
                let case = match random.below(3) {
                    0 => case,
                    1 => case.causal(random.below(4) * 20),
                    _ => case.causal(random.below(3)).dropout(0.25),
                };
                check_both(&case, &mut random);
            }
        }
    }
}

#[test]
fn causal_attention() {
    let mut random = Random(2);
    for dtype in FLOATS {
        for (tq, tk, offset) in
            [(130, 130, 0), (65, 200, 135), (200, 65, 0), (1, 100, 99), (70, 30, 1 << 40), (64, 64, 1)]
        {
            check_both(&Case::new(&mut random, [1, 2, 1, tq, tk, 32, 32], dtype).causal(offset), &mut random);
        }
    }
}

#[test]
fn sliding_windows() {
    let mut random = Random(9);
    for dtype in FLOATS {
        for (tq, tk, offset, window) in [
            (200, 200, 0, 1),
            (200, 200, 0, 70),
            (130, 200, 70, 33),
            (65, 30, 0, 500),
            (70, 40, 50, 20),
            (33, 20, 1 << 40, 1 << 40),
            (1, 300, 299, 130),
            (1, 300, 500, 50),
        ] {
            let case = Case::new(&mut random, [1, 2, 1, tq, tk, 32, 32], dtype).causal(offset).window(window);
            check_both(&case, &mut random);
            check_both(&case.dropout(0.25).mask(&mut random, Mask::Additive), &mut random);
        }
    }
}

#[test]
fn keys_of_several_lengths() {
    let mut random = Random(10);
    for dtype in FLOATS {
        for (b, tq, tk) in [(3, 33, 130), (2, 70, 65), (2, 130, 17), (4, 1, 300), (2, 5, 1)] {
            let case = Case::new(&mut random, [b, 4, 2, tq, tk, 32, 40], dtype).lengths(&mut random);
            check_both(&case, &mut random);
            check_both(&case.clone().causal(10).window(30), &mut random);
            check_both(&case.mask(&mut random, Mask::Boolean).dropout(0.25), &mut random);
        }
    }
}

#[test]
fn attention_however_heads_lie() {
    let mut random = Random(3);
    for dtype in FLOATS {
        for gap in [0, 8, 3] {
            let case = Case::new(&mut random, [2, 4, 2, 33, 40, 32, 16], dtype).time_first(gap);
            check_both(&case, &mut random);
            // What takes all heads of a token together finds them together.
            let (out, _) = case.on_the_card().forward(card()).expect("a kernel");
            assert!(out.transpose(1, 2).is_contiguous());
        }
        let mut case = Case::new(&mut random, [1, 2, 2, 20, 20, 32, 32], dtype);
        for _ in 0..6 {
            case.q = random.strided(&[1, 2, 20, 32], dtype);
            case.k = random.strided(&[1, 2, 20, 32], dtype);
            case.v = random.strided(&[1, 2, 20, 32], dtype);
            case.args.mask = Some(random.strided(&[1, 2, 20, 20], dtype.accumulator()));
            check_both(&case, &mut random);
        }
    }
}

#[test]
fn dropout_of_weights() {
    let mut random = Random(4);
    for dtype in FLOATS {
        for p in [0.1, 0.5, 1.0] {
            check_both(&Case::new(&mut random, [2, 2, 1, 33, 71, 32, 32], dtype).dropout(p), &mut random);
        }
    }
}

/// A single query is for kernels that cut its keys into splits.
#[test]
fn one_query() {
    let mut random = Random(8);
    let with_nan = |x: &Tensor| {
        let mut numbers = x.to_f64_vec();
        *numbers.last_mut().expect("a number") = f64::NAN;
        Tensor::from_vec(numbers, x.shape()).to_dtype(x.dtype())
    };
    for dtype in FLOATS {
        for (tk, d, dv) in [(1, 8, 32), (5, 64, 64), (127, 40, 72), (129, 128, 8), (300, 32, 200), (1000, 16, 128)] {
            let (h, hk) = [(1, 1), (2, 2), (6, 3)][random.below(3)];
            let sizes = [1 + random.below(2), h, hk, 1, tk, d, dv];
            if !there_is(dtype, &sizes) {
                continue;
            }
            for mask in MASKS {
                let case = Case::new(&mut random, sizes, dtype).mask(&mut random, mask).time_first(8);
                check(&case);
                check(&case.clone().causal(tk / 2));
                check(&Case { k: with_nan(&case.k), ..case.clone() });
                check(&Case { v: with_nan(&case.v), ..case });
            }
            let mut case = Case::new(&mut random, sizes, dtype);
            case.args.scale = -0.5;
            check(&case);
        }
        // No keys: an answer of zeros.
        check(&Case::new(&mut random, [1, 2, 1, 1, 0, 8, 8], dtype));
    }
}

#[test]
fn scales_of_any_sign() {
    let mut random = Random(5);
    for dtype in FLOATS {
        for scale in [-0.5, 0.0, 1.0] {
            let mut case = Case::new(&mut random, [1, 1, 1, 40, 70, 16, 16], dtype);
            case.args.scale = scale;
            check_both(&case, &mut random);
            check_both(&case.causal(3), &mut random);
        }
    }
}

#[test]
fn attention_of_nothing() {
    let mut random = Random(6);
    for dtype in FLOATS {
        for sizes in [[0, 2, 1, 3, 3, 8, 8], [1, 0, 1, 3, 3, 8, 8], [1, 2, 2, 0, 3, 8, 8], [1, 2, 2, 3, 0, 8, 8]] {
            check_both(&Case::new(&mut random, sizes, dtype), &mut random);
            check_both(&Case::new(&mut random, sizes, dtype).causal(1).dropout(0.5), &mut random);
        }
        // No rows, or rows of no whole chunks, are for the composition.
        for (d, dv) in [(8, 0), (8, 12), (7, 8), (264, 8)] {
            let case = Case::new(&mut random, [1, 2, 2, 3, 3, d, dv], dtype);
            assert!(case.on_the_card().forward(card()).is_none());
        }
    }
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    let mut random = Random(7);
    let with = |x: &Tensor, at: usize, value: f64| {
        let mut numbers = x.to_f64_vec();
        numbers[at] = value;
        Tensor::from_vec(numbers, x.shape()).to_dtype(x.dtype())
    };
    for dtype in FLOATS {
        for value in [f64::NAN, f64::INFINITY] {
            let case = Case::new(&mut random, [1, 1, 1, 40, 70, 16, 16], dtype);
            check(&Case { q: with(&case.q, 16 * 39, value), ..case.clone() });
            check(&Case { k: with(&case.k, 16 * 69 + 3, value), ..case.clone() });
            check(&Case { v: with(&case.v, 16 * 20, value), ..case });
        }
    }
}
