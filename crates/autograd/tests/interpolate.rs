//! Derivatives of interpolation: PyTorch's values, differences to second order, meeting gradients.

#[path = "../../../golden/reader.rs"]
mod golden;
mod numeric;

use ferrograd_autograd::*;
use golden::Golden;
use numeric::*;

const MODES: [Interpolation; 3] = [
    Interpolation::Nearest,
    Interpolation::Bilinear { align_corners: false },
    Interpolation::Bilinear { align_corners: true },
];

#[test]
fn pytorch() {
    let file = Golden::open("ops");
    let mut seen = 0;
    for case in file.cases().iter().filter(|c| c.starts_with("interpolate")) {
        let (config, expected) = (file.config(case), file.expect(case, "output.out"));
        let mode = match config["mode"].as_str() {
            Some("nearest") => Interpolation::Nearest,
            _ => Interpolation::Bilinear { align_corners: config["align_corners"].as_bool().unwrap() },
        };
        let x = Var::leaf(file.expect(case, "input.input"));
        let y = x.interpolate(&expected.dims()[2..], mode);
        assert_close(y.tensor(), &expected, 1e-14);
        let dx = y.backward_from(&file.expect(case, "grad_output")).wrt(&x).clone();
        assert_close(&dx, &file.expect(case, "grad_input.input"), 1e-14);
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn second_order() {
    for mode in MODES {
        for size in [[5, 4], [2, 3]] {
            check(|v| v[0].interpolate(&size, mode), &[values(&[1, 2, 3, 2], 1)]);
        }
    }
    check(|v| v[0].interpolate(&[5], Interpolation::Nearest), &[values(&[1, 2, 3], 1)]);
}

#[test]
fn gradients_that_meet_are_added_in_any_order() {
    for mode in MODES {
        let x = Var::leaf(values(&[1, 1, 2, 2], 1));
        let up = |x: &Var| x.interpolate(&[4, 4], mode).sum();
        for loss in [up(&x) + x.sum(), x.sum() + up(&x)] {
            // Each weight of the enlarged image comes from some pixel: 16 in all, here evenly.
            assert_close(loss.backward().wrt(&x), &x.tensor().full_like(5.0), 1e-14);
        }
        let x = Var::leaf(values(&[1, 1, 2, 2], 1));
        for loss in [up(&x.square()) + x.sum(), x.sum() + up(&x.square())] {
            assert_close(loss.backward().wrt(&x), &x.tensor().mul_scalar(8.0).add_scalar(1.0), 1e-14);
        }
    }
}
