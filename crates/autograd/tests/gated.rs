//! Gated activations: derivatives against differences and golden values.

mod differences;
#[path = "../../../golden/reader.rs"]
mod golden;

use differences::{derivatives, values};
use ferrograd_autograd::{Activation, Var};
use ferrograd_tensor::{DType, Tensor};
use golden::Golden;

#[test]
fn first_and_second_order() {
    for activation in Activation::ALL {
        derivatives(|v| v[0].gated(&v[1], activation), &[values(&[2, 3], 1) * 2.0, values(&[2, 3], 2)]);
        // The halves of one product, and one of them a constant.
        let halves = |v: &[Var]| v[0].chunk(2, -1);
        derivatives(|v| halves(v)[0].gated(&halves(v)[1], activation), &[values(&[3, 8], 3) * 2.0]);
        let up = Var::constant(values(&[2, 3], 4));
        derivatives(|v| v[0].gated(&up, activation), &[values(&[2, 3], 5) * 2.0]);
    }
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
fn golden_gradients() {
    let file = Golden::open("transformer");
    for (activation, name) in NAMED {
        let [gate, up] = ["gate", "up"].map(|input| Var::leaf(file.expect(name, &format!("input.{input}"))));
        let grads = gate.gated(&up, activation).backward_from(&file.expect(name, "grad_output"));
        for (input, v) in [("gate", &gate), ("up", &up)] {
            let want = file.expect(name, &format!("grad_input.{input}"));
            assert!(grads.wrt(v).all_close(&want, 1e-12, 1e-13), "{name} {input}");
        }
    }
}

#[test]
fn named_ones_dtypes_and_nothing_at_all() {
    let [gate, up] = [1, 2].map(|seed| Var::leaf(values(&[2, 3], seed)));
    assert!(gate.swiglu(&up).tensor().all_close((gate.silu() * &up).tensor(), 1e-15, 1e-15));
    assert!(gate.geglu(&up).tensor().all_close((gate.gelu() * &up).tensor(), 1e-15, 1e-15));
    let (narrow, wide) = (gate.to_dtype(DType::BF16), up.to_dtype(DType::F32));
    let y = narrow.swiglu(&wide);
    assert_eq!(y.dtype(), DType::F32);
    assert_eq!(y.sum().backward().wrt(&gate).dtype(), DType::F64);
    let x = Var::leaf(Tensor::zeros([0, 3]));
    assert_eq!(x.swiglu(&x).sum().backward().wrt(&x).dims(), [0, 3]);
}
