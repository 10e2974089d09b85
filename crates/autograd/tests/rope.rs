//! Rotary position embedding: derivatives against differences and golden values.

mod differences;
#[path = "../../../golden/reader.rs"]
mod golden;

use differences::{derivatives, values};
use ferrograd_autograd::{RotaryPairs, Var, autocast};
use ferrograd_tensor::{DType, Tensor};
use golden::Golden;

const PAIRS: [RotaryPairs; 2] = [RotaryPairs::Halves, RotaryPairs::Interleaved];

#[test]
fn first_and_second_order() {
    let angles = values(&[3, 2], 2) * 3.0;
    for pairs in PAIRS {
        // With and without features that stay; squared, since the operation alone has no second derivative.
        for d in [4, 5] {
            let turned = |v: &[Var]| v[0].rope(&angles.cos(), &angles.sin(), pairs).square();
            derivatives(turned, &[values(&[2, 3, d], 1)]);
            derivatives(|v| turned(&[v[0].transpose(0, 1)]), &[values(&[3, 2, d], 1)]);
        }
    }
}

#[test]
fn golden_gradients() {
    let file = Golden::open("transformer");
    for case in file.cases().iter().filter(|case| case.starts_with("rope")) {
        let input = |name: &str| file.expect(case, &format!("input.{name}"));
        let pairs = PAIRS[(file.config(case)["pairs"] == "interleaved") as usize];
        let x = Var::leaf(input("x"));
        let grads = x.rope(&input("cos"), &input("sin"), pairs).backward_from(&file.expect(case, "grad_output"));
        assert!(grads.wrt(&x).all_close(&file.expect(case, "grad_input.x"), 1e-12, 1e-13), "{case}");
    }
}

#[test]
fn half_types_stay_and_nothing_works() {
    let angles = values(&[3, 2], 2).to_dtype(DType::F32);
    let rope = |x: &Var| autocast(DType::BF16, || x.rope(&angles.cos(), &angles.sin(), RotaryPairs::Halves));
    let x = Var::leaf(values(&[2, 3, 4], 1).to_dtype(DType::BF16));
    let y = rope(&x);
    assert_eq!((y.dtype(), y.sum().backward().wrt(&x).dtype()), (DType::BF16, DType::BF16));
    let x = Var::leaf(Tensor::zeros([0, 3, 4]));
    assert_eq!(rope(&x).sum().backward().wrt(&x).dims(), [0, 3, 4]);
}
