//! Derivatives of einsum and matmul: finite differences to second order, and PyTorch.

#[path = "../../../golden/reader.rs"]
mod golden;

use ferrograd_autograd::{Var, gradcheck, gradgradcheck};
use ferrograd_tensor::{Tensor, catch};
use golden::Golden;

fn sample(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_vec((0..n).map(|i| (i as f64 * 2.3 + n as f64).sin()).collect::<Vec<_>>(), shape)
}

#[test]
fn first_and_second_derivatives() {
    let cases: [(&str, &[&[usize]]); 7] = [
        ("ij,jk->ki", &[&[2, 3], &[3, 2]]),
        ("bij,bjk", &[&[2, 2, 3], &[2, 3, 2]]),
        ("bi,oij,bj->bo", &[&[2, 2], &[3, 2, 2], &[2, 2]]),
        ("...i,i->...", &[&[2, 2, 3], &[3]]),
        ("iij,j->i", &[&[2, 2, 3], &[3]]),
        ("ij,kl->il", &[&[2, 3], &[2, 2]]),
        ("ij,ij->ij", &[&[1, 3], &[2, 3]]),
    ];
    for (equation, shapes) in cases {
        let xs: Vec<Tensor> = shapes.iter().map(|s| sample(s)).collect();
        let f = |xs: &[Var]| Var::einsum(equation, &xs.iter().collect::<Vec<_>>());
        gradcheck(f, &xs).unwrap();
        gradgradcheck(f, &xs).unwrap();
    }
}

#[test]
fn mistakes_are_named() {
    let (a, b) = (Var::leaf(sample(&[2, 3])), Var::leaf(sample(&[4, 5])));
    let error = catch(|| Var::einsum("ij,jk->ik", &[&a, &b])).unwrap_err().to_string();
    assert_eq!(error, "einsum: \"ij,jk->ik\": 'j' is 3, but 4 in operand 1");
}

#[test]
fn as_pytorch_does() {
    let golden = Golden::open("ops");
    let mut checked = 0;
    for case in golden.cases().iter().filter(|c| c.starts_with("einsum_") || c.starts_with("matmul_")) {
        let keys = golden.keys(case, "input.");
        let xs: Vec<Var> = keys.iter().map(|k| Var::leaf(golden.expect(case, k))).collect();
        let y = match golden.config(case)["equation"].as_str() {
            Some(equation) => Var::einsum(equation, &xs.iter().collect::<Vec<_>>()),
            None if case == "matmul_of_mT" => xs[0].t().matmul(&xs[1].t()),
            None => xs[0].matmul(&xs[1]),
        };
        let want = golden.expect(case, "output.out");
        assert_eq!(y.shape(), want.shape(), "{case}");
        assert!(y.tensor().all_close(&want, 1e-12, 1e-12), "{case}:\n{y}\nnot\n{want}");
        let gradients = y.backward_from(&golden.expect(case, "grad_output"));
        for (key, x) in keys.iter().zip(&xs) {
            let want = golden.expect(case, &format!("grad_{key}"));
            let got = gradients.wrt(x);
            assert_eq!(got.shape(), want.shape(), "{case}: gradient of {key}");
            assert!(got.all_close(&want, 1e-12, 1e-12), "{case}: gradient of {key} is\n{got}\nnot\n{want}");
        }
        checked += 1;
    }
    assert_eq!(checked, 31);
}
