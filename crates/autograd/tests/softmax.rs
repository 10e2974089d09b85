//! Derivatives of softmax and log-softmax.

mod differences;
#[path = "../../../golden/reader.rs"]
mod golden;

use differences::{derivatives, values};
use ferrograd_autograd::{Var, autocast};
use ferrograd_tensor::{DType, Tensor, catch};
use golden::Golden;

#[test]
fn first_and_second_order() {
    let x = values(&[2, 3, 4], 1) * 2.0;
    for dim in [-1, 0, 1] {
        derivatives(|x| x[0].softmax(dim), std::slice::from_ref(&x));
        derivatives(|x| x[0].log_softmax(dim), std::slice::from_ref(&x));
    }
    derivatives(|x| x[0].permute([2, 0, 1]).softmax(1), &[x]);
}

#[test]
fn golden_gradients() {
    let file = Golden::open("ops");
    for case in file.cases().iter().filter(|c| c.contains("softmax_")) {
        let x = Var::leaf(file.expect(case, "input.input"));
        let dim = file.config(case)["dim"].as_i64().unwrap() as isize;
        let y = if case.starts_with("log") { x.log_softmax(dim) } else { x.softmax(dim) };
        assert!(y.tensor().all_close(&file.expect(case, "output.out"), 1e-13, 1e-15), "{case}");
        let grads = y.backward_from(&file.expect(case, "grad_output"));
        assert!(grads.wrt(&x).all_close(&file.expect(case, "grad_input.input"), 1e-12, 1e-14), "{case}");
    }
}

#[test]
fn half_types_and_autocast() {
    for dtype in [DType::BF16, DType::F16] {
        let wide = values(&[3, 5], 2).to_dtype(dtype).to_dtype(DType::F64);
        let x = Var::leaf(wide.to_dtype(dtype));
        let (y, g) = (x.softmax(-1), values(&[3, 5], 3).to_dtype(dtype));
        assert_eq!(y.dtype(), dtype);
        let dx = y.backward_from(&g).wrt(&x).clone();
        assert_eq!(dx.dtype(), dtype);
        let reference = Var::leaf(wide);
        let want = reference.softmax(-1).backward_from(&g.to_dtype(DType::F64)).wrt(&reference).clone();
        // y and dx are rounded once each; |dx| ≤ 1.
        assert!(dx.to_dtype(DType::F64).all_close(&want, 0.0, 2.0 * dtype.epsilon()));
        let y = autocast(dtype, || x.softmax(-1));
        assert_eq!(y.dtype(), DType::F32);
        assert_eq!(y.sum().backward().wrt(&x).dtype(), dtype);
    }
}

#[test]
fn nothing_and_errors() {
    let x = Var::leaf(Tensor::zeros([0, 3]));
    assert_eq!(*x.softmax(1).sum().backward().wrt(&x).shape(), [0, 3]);
    let error = catch(|| x.log_softmax(2)).unwrap_err().to_string();
    assert_eq!(error, "log_softmax: dimension 2 is out of range for a tensor of 2 dimensions");
}
