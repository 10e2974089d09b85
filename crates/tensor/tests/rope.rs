//! Rotary position embedding: the kernel against its composition, what it means, golden values, errors.

#[path = "../../../golden/reader.rs"]
mod golden;
mod plain;
mod sample;

use ferrograd_tensor::ops::rope::composed;
use ferrograd_tensor::{DType, Device, RotaryPairs, Tensor, catch};
use golden::Golden;
use plain::device as plain;
use proptest::prelude::*;
use sample::{distance, values};

const PAIRS: [RotaryPairs; 2] = [RotaryPairs::Halves, RotaryPairs::Interleaved];
const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::BF16, DType::F16];

/// Cosines and sines of random angles, of any strides.
fn tables(shape: &[usize], dtype: DType, seed: u64) -> [Tensor; 2] {
    let angles = values(shape, DType::F64, seed) * 3.0;
    [angles.cos(), angles.sin()].map(|t| t.to_dtype(dtype))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn fused_is_composed(
        lead in prop::collection::vec(0usize..4, 0..3), t in 0usize..6, p in 0usize..10, rest in 0usize..4,
        own: bool, (which, dtype, seed) in (0usize..2, 0usize..4, 0u64..1 << 40),
    ) {
        let (dtype, pairs) = (FLOATS[dtype], PAIRS[which]);
        let shape = [&lead[..], &[t, 2 * p + rest]].concat();
        let angles = [&lead[..], &[t, p]].concat();
        let x = values(&shape[..], dtype, seed);
        // Tables of the positions, or of each head.
        let [cos, sin] = tables(if own { &angles[..] } else { &angles[lead.len()..] }, dtype.accumulator(), seed / 5);
        let [px, pcos, psin] = [&x, &cos, &sin].map(|t| t.to_device(&plain()));
        // Two products of at most 1, and their sum.
        let tolerance = 4.0 * dtype.accumulator().epsilon() + if dtype.is_half() { 2.0 * dtype.epsilon() } else { 0.0 };
        let here = |y: Tensor| y.to_device(&Device::default());
        prop_assert!(distance(&x.rope(&cos, &sin, pairs), &here(px.rope(&pcos, &psin, pairs))) <= tolerance);
        let (back, composed_back) = (x.rope_backward(&cos, &sin, pairs), px.rope_backward(&pcos, &psin, pairs));
        prop_assert!(distance(&back, &here(composed_back)) <= tolerance);
        prop_assert!(distance(&x.rope(&cos, &sin, pairs).rope_backward(&cos, &sin, pairs), &x) <= 3.0 * tolerance);
    }
}

#[test]
fn threads_do_not_show() {
    let x = values([3, 7, 40, 66], DType::F32, 4);
    let [cos, sin] = tables(&[7, 40, 32], DType::F32, 2);
    let angles = [3, 7, 40, 32];
    let want = |x: &Tensor, pairs| composed(x, &cos.expand(angles), &sin.expand(angles), pairs, false);
    for pairs in PAIRS {
        let y = x.rope(&cos, &sin, pairs);
        assert!(distance(&y, &want(&x, pairs)) <= 4.0 * DType::F32.epsilon());
        assert_eq!(y.narrow(-1, 64, 2).to_bytes(), x.narrow(-1, 64, 2).to_bytes());
    }
}

/// The point of it: with angles in proportion to positions, products depend on their distance.
#[test]
fn products_depend_on_distances() {
    let frequencies = Tensor::new([1.0f64, 0.3, 0.01]);
    let at = |x: &Tensor, position: f64, pairs| {
        let angles = frequencies.mul_scalar(position).unsqueeze(0);
        x.rope(&angles.cos(), &angles.sin(), pairs)
    };
    let (q, k) = (values([1, 6], DType::F64, 0), values([1, 6], DType::F64, 5));
    for pairs in PAIRS {
        let product = |m, n| (at(&q, m, pairs) * at(&k, n, pairs)).sum().item::<f64>();
        assert!((product(5.0, 2.0) - product(103.0, 100.0)).abs() < 1e-12);
        assert!((product(5.0, 2.0) - product(5.0, 3.0)).abs() > 1e-3);
    }
}

#[test]
fn golden_values() {
    let file = Golden::open("transformer");
    let mut seen = 0;
    for case in file.cases().iter().filter(|case| case.starts_with("rope")) {
        let [x, cos, sin] = ["x", "cos", "sin"].map(|name| file.expect(case, &format!("input.{name}")));
        let pairs = PAIRS[(file.config(case)["pairs"] == "interleaved") as usize];
        assert!(distance(&x.rope(&cos, &sin, pairs), &file.expect(case, "output.out")) < 1e-14, "{case}");
        let g = file.expect(case, "grad_output").rope_backward(&cos, &sin, pairs);
        assert!(distance(&g, &file.expect(case, "grad_input.x")) < 1e-14, "{case}");
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn errors_say_what_is_wrong() {
    let message = |x: &Tensor, table: &Tensor| catch(|| x.rope(table, table, PAIRS[0])).unwrap_err().to_string();
    let x = Tensor::zeros([2, 3, 4]);
    assert_eq!(
        message(&x, &Tensor::zeros([3, 3])),
        "rope: x [2, 3, 4] is not […, T, D] with cos [3, 3] and sin [3, 3] of one shape […, T, P], 2P ≤ D"
    );
    assert_eq!(
        message(&x, &Tensor::zeros([4, 2])),
        "rope: cos and sin [4, 2] do not broadcast to [2, 3, 2], the pairs of x [2, 3, 4]"
    );
    assert_eq!(
        message(&x, &Tensor::zeros([3, 2]).to_dtype(DType::I64)),
        "rope: needs float tensors, got f32, i64 and i64 (cast with to_dtype)"
    );
}
