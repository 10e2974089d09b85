//! Derivatives of reading and adding by index: finite differences to second order, and PyTorch.

#[path = "../../../golden/reader.rs"]
mod golden;

use ferrograd_autograd::{Var, gradcheck, gradgradcheck};
use ferrograd_tensor::{DType, Tensor, catch};
use golden::Golden;

fn sample(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_vec((0..n).map(|i| (i as f64 * 1.7).sin()).collect::<Vec<_>>(), shape)
}

#[track_caller]
fn both(f: impl Fn(&[Var]) -> Var, xs: &[Tensor]) {
    gradcheck(&f, xs).unwrap();
    gradgradcheck(&f, xs).unwrap();
}

#[test]
fn first_and_second_derivatives() {
    let (x, row) = (sample(&[3, 4]), sample(&[2, 4]));
    let index = Tensor::new([[2i64, 0, 0, 1], [2, 2, 0, 1]]);
    let one = Tensor::new([2i64, 2]);
    both(|x| x[0].gather(0, &index).powi(2), std::slice::from_ref(&x));
    both(|x| x[0].gather(1, &index.narrow(1, 0, 2)), std::slice::from_ref(&x));
    both(|x| x[0].scatter_add(0, &index, &x[1]).powi(2), &[x.clone(), row.clone()]);
    both(|x| x[0].scatter_add(1, &index.narrow(1, 0, 3), &x[1]), &[x.clone(), sample(&[2, 3])]);
    both(|x| x[0].index_select(-1, &one).powi(2), std::slice::from_ref(&x));
    both(|x| x[0].index_add(0, &one, &x[1]).powi(2), &[x.clone(), row]);
    both(|x| x[0].embedding(&index, None).powi(2), std::slice::from_ref(&x));
    both(|x| x[0].diagonal().powi(2), &[sample(&[2, 3, 4])]);
    both(|x| x[0].diagonal(), &[sample(&[4, 2])]);
}

#[test]
fn the_padding_row_gets_no_gradient() {
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        let table = Var::leaf(sample(&[4, 2]).to_dtype(dtype));
        let y = table.embedding(&Tensor::new([[0i64, 1], [1, 3]]), Some(1));
        let gradients = y.sum().backward();
        let g = gradients.wrt(&table);
        assert_eq!(g.dtype(), dtype);
        assert_eq!(g.to_f64_vec(), [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    }
    let none = Var::leaf(sample(&[4, 2]));
    let y = none.embedding(&Tensor::zeros([0, 3]).to_dtype(DType::I64), None);
    assert_eq!(*y.shape(), [0, 3, 2]);
    assert_eq!(y.sum().backward().wrt(&none).to_f64_vec(), [0.0; 8]);
}

#[test]
fn mistakes_are_named() {
    let x = Var::leaf(sample(&[10, 2]));
    let error = |f: &dyn Fn() -> Var| catch(f).unwrap_err().to_string();
    let message = error(&|| x.embedding(&Tensor::new([3i64, 12]), None));
    assert_eq!(message, "embedding: index 12 lies outside 0..10 (at [1] of the indices [2])");
    assert_eq!(error(&|| x.sum_dims(0).diagonal()), "diagonal: needs at least 2 dimensions, got [2]");
}

#[track_caller]
fn close(case: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.shape(), want.shape(), "{case}");
    assert!(got.all_close(want, 1e-12, 1e-12), "{case}:\n{got}\nnot\n{want}");
}

#[test]
fn as_pytorch_does() {
    let golden = Golden::open("ops");
    let mut checked = 0;
    for case in golden.cases() {
        let config = golden.config(&case);
        let leaf = |name: &str| Var::leaf(golden.expect(&case, &format!("input.{name}")));
        let index = || golden.expect(&case, "input.index");
        let dim = || config["dim"].as_i64().unwrap() as isize;
        let (y, inputs) = if case.starts_with("gather") {
            let x = leaf("input");
            (x.gather(dim(), &index()), vec![("input", x)])
        } else if case.starts_with("scatter_add") {
            let (x, src) = (leaf("input"), leaf("src"));
            (x.scatter_add(dim(), &index(), &src), vec![("input", x), ("src", src)])
        } else if case.starts_with("index_select") {
            let x = leaf("input");
            (x.index_select(dim(), &index()), vec![("input", x)])
        } else if case.starts_with("embedding") {
            let table = leaf("weight");
            // PyTorch counts a negative padding_idx from the end.
            let padding = config["padding_idx"].as_i64().map(|i| i.rem_euclid(table.dim(0) as i64) as usize);
            (table.embedding(&golden.expect(&case, "input.input"), padding), vec![("weight", table)])
        } else {
            continue;
        };
        close(&case, y.tensor(), &golden.expect(&case, "output.out"));
        let gradients = y.backward_from(&golden.expect(&case, "grad_output"));
        for (name, x) in inputs {
            close(&case, gradients.wrt(&x), &golden.expect(&case, &format!("grad_input.{name}")));
        }
        checked += 1;
    }
    assert_eq!(checked, 14);
}
