//! Gated activations: the kernels against their composition, golden values, errors.

#[path = "../../../golden/reader.rs"]
mod golden;
mod plain;
mod sample;

use ferrograd_tensor::{Activation, DType, Device, Tensor, catch};
use golden::Golden;
use plain::device as plain;
use proptest::prelude::*;
use sample::{distance, values};

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::BF16, DType::F16];

/// What may be lost to rounding, of numbers below 8: half types round once.
fn tolerance(dtype: DType) -> f64 {
    64.0 * dtype.accumulator().epsilon() + if dtype.is_half() { 8.0 * dtype.epsilon() } else { 0.0 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn fused_is_composed(
        shape in prop::collection::vec(prop_oneof![1 => Just(0usize), 8 => 1usize..12], 0..4), halves: bool,
        (which, dtype, seed) in (0usize..10, 0usize..4, 0u64..1 << 40),
    ) {
        let (activation, dtype) = (Activation::ALL[which], FLOATS[dtype]);
        let [gate, up] = match shape.split_last() {
            // Of one product.
            Some((&n, lead)) if halves => {
                let both = values([lead, &[2 * n]].concat(), dtype, seed);
                [0, n].map(|start| both.narrow(-1, start, n))
            }
            _ => [seed, seed / 7].map(|seed| values(&shape[..], dtype, seed)),
        };
        let gate = gate.mul_scalar(4.0);
        let g = values(&shape[..], dtype, seed / 3);
        let [pg, pu, pd] = [&gate, &up, &g].map(|t| t.to_device(&plain()));
        let close = |a: &Tensor, b: Tensor| distance(a, &b.to_device(&Device::default())) <= tolerance(dtype);
        prop_assert!(close(&gate.gated(&up, activation), pg.gated(&pu, activation)));
        let (dgate, dup) = gate.gated_backward(&up, activation, &g);
        let (want_gate, want_up) = pg.gated_backward(&pu, activation, &pd);
        prop_assert!(close(&dgate, want_gate) && close(&dup, want_up), "{activation:?}");
    }
}

#[test]
fn large_enough_for_threads() {
    let both = values([50, 2, 1300], DType::F32, 6);
    let (gate, up) = (both.select(1, 0), both.select(1, 1));
    for activation in Activation::ALL {
        let y = gate.gated(&up, activation);
        let [gate64, up64] = [&gate, &up].map(|t| t.to_dtype(DType::F64));
        assert!(distance(&y.to_dtype(DType::F64), &gate64.gated(&up64, activation)) <= tolerance(DType::F32));
        let (dgate, dup) = gate.gated_backward(&up, activation, &y);
        let (want_gate, want_up) = gate64.gated_backward(&up64, activation, &y.to_dtype(DType::F64));
        assert!(distance(&dgate.to_dtype(DType::F64), &want_gate) <= tolerance(DType::F32));
        assert!(distance(&dup.to_dtype(DType::F64), &want_up) <= tolerance(DType::F32));
    }
}

#[test]
fn a_closed_gate_lets_no_gradient_through() {
    let (gate, up) = (Tensor::new([-1.0, 0.0]), Tensor::new([f64::INFINITY, f64::NAN]));
    let (dgate, _) = gate.gated_backward(&up, Activation::Relu, &Tensor::new([1.0, 1.0]));
    assert_eq!(dgate.to_vec::<f64>(), [0.0, 0.0]);
}

/// The gates of which there are golden values, and their names.
const NAMED: [(Activation, &str); 5] = [
    (Activation::Sigmoid, "glu"),
    (Activation::Relu, "reglu"),
    (Activation::Gelu, "geglu"),
    (Activation::GeluTanh, "geglu_tanh"),
    (Activation::Silu, "swiglu"),
];

#[test]
fn golden_values() {
    let file = Golden::open("transformer");
    for (activation, name) in NAMED {
        let [gate, up] = ["gate", "up"].map(|input| file.expect(name, &format!("input.{input}")));
        assert!(distance(&gate.gated(&up, activation), &file.expect(name, "output.out")) < 1e-14, "{name}");
        let (dgate, dup) = gate.gated_backward(&up, activation, &file.expect(name, "grad_output"));
        assert!(distance(&dgate, &file.expect(name, "grad_input.gate")) < 1e-14, "{name}");
        assert!(distance(&dup, &file.expect(name, "grad_input.up")) < 1e-14, "{name}");
    }
}

#[test]
fn dtypes_are_promoted_and_errors_say_what_is_wrong() {
    let x = Tensor::zeros([2, 3]);
    assert_eq!(x.to_dtype(DType::BF16).gated(&x, Activation::Silu).dtype(), DType::F32);
    let message = |up: &Tensor| catch(|| x.gated(up, Activation::Silu)).unwrap_err().to_string();
    assert_eq!(message(&Tensor::zeros([3])), "gated: gate [2, 3] and up [3] differ");
    assert_eq!(
        message(&Tensor::zeros([2, 3]).to_dtype(DType::I64)),
        "gated: needs float tensors, got f32 and i64 (cast with to_dtype)"
    );
}
