//! Derivatives of joining, padding, repeating and triangles.

#[path = "../../../golden/reader.rs"]
mod golden;

use ferrograd_autograd::{Var, gradcheck, gradgradcheck};
use ferrograd_tensor::{DType, PadMode, Tensor, catch};
use golden::Golden;

fn sample(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::from_vec((0..n).map(|i| (i as f64 * 0.7).sin() + 0.1).collect(), shape)
}

fn check(name: &str, op: impl Fn(&[Var]) -> Var, inputs: &[Tensor]) {
    gradcheck(&op, inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
    gradgradcheck(|x| op(x).powi(3), inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
}

#[test]
fn joining_to_second_order() {
    let parts = [sample(&[2, 3]), sample(&[3, 1]).t().expand([2, 3]), sample(&[2, 0]), sample(&[4, 2]).t()];
    let joined = |x: &[Var]| Var::cat(&x.iter().collect::<Vec<_>>(), 1);
    check("cat", joined, &parts);
    check("cat of one", |x| Var::cat(&[&x[0]], 0), &parts[..1]);
    check("cat with itself", |x| Var::cat(&[&x[0], &x[1], &x[0]], 0), &parts[..2]);
    for dim in [0, 1, -1] {
        check("stack", |x| Var::stack(&[&x[0], &x[1]], dim), &parts[..2]);
    }
    let refs: Vec<&Tensor> = parts.iter().collect();
    let vars: Vec<Var> = parts.iter().map(Var::from).collect();
    assert_eq!(joined(&vars).tensor().to_vec::<f64>(), Tensor::cat(&refs, 1).to_vec::<f64>());
}

#[test]
fn gradients_come_back_in_each_dtype() {
    let (a, b) = (Var::leaf(Tensor::ones(2)), Var::leaf(Tensor::ones(3).to_dtype(DType::BF16)));
    let grads = (Var::cat(&[&a, &b, &Var::constant(Tensor::new([1i64]))], 0) * 2.0).sum().backward();
    assert_eq!((grads.wrt(&a).dtype(), grads.wrt(&a).to_f64_vec()), (DType::F32, vec![2.0; 2]));
    assert_eq!((grads.wrt(&b).dtype(), grads.wrt(&b).to_f64_vec()), (DType::BF16, vec![2.0; 3]));
}

#[test]
fn padding_to_second_order() {
    let x = sample(&[2, 3, 4]);
    for mode in [PadMode::Constant(1.5), PadMode::Reflect, PadMode::Replicate, PadMode::Circular] {
        for pads in [&[(2, 1)][..], &[(0, 2), (3, 0)], &[(-1, 1), (2, -1)], &[(1, 0), (0, 0), (-2, 1)], &[]] {
            // A mode that cannot pad says so; the others must be right.
            if catch(|| x.pad(pads, mode)).is_ok() {
                check(&format!("{mode:?} {pads:?}"), |x| x[0].pad(pads, mode), std::slice::from_ref(&x));
                let y = Var::constant(x.clone()).pad(pads, mode);
                assert_eq!(y.tensor().to_vec::<f64>(), x.pad(pads, mode).to_vec::<f64>());
            } else {
                assert!(catch(|| Var::constant(x.clone()).pad(pads, mode)).is_err());
                assert_eq!(mode, PadMode::Reflect);
            }
        }
    }
}

#[test]
fn repeating_rolling_and_triangles_to_second_order() {
    let x = [sample(&[3, 4])];
    check("repeat", |x| x[0].repeat(&[2, 1, 3]), &x);
    check("repeat 0 times", |x| x[0].repeat(&[0, 2]), &x);
    for shift in [-5, 0, 1, 3] {
        check("roll", |x| x[0].roll(shift, 1), &x);
        assert_eq!(
            Var::constant(x[0].clone()).roll(shift, -1).tensor().to_vec::<f64>(),
            x[0].roll(shift, -1).to_vec::<f64>()
        );
    }
    for k in [-4, -1, 0, 2, 5] {
        check("tril", |x| x[0].tril(k), &x);
        check("triu", |x| x[0].triu(k), &x);
    }
}

#[test]
fn mistakes() {
    let x = Var::leaf(Tensor::zeros([2, 3]));
    let message = |f: &dyn Fn() -> Var| catch(f).unwrap_err().to_string();
    assert_eq!(message(&|| Var::cat(&[], 0)), "cat: needs at least one tensor");
    assert_eq!(
        message(&|| Var::cat(&[&x, &x.t()], 0)),
        "cat: shapes may differ in dimension 0 only: tensor 0 is [2, 3], tensor 1 is [3, 2]"
    );
    assert_eq!(message(&|| Var::stack(&[], 0)), "stack: needs at least one tensor");
    assert_eq!(
        message(&|| x.pad(&[(0, 4)], PadMode::Circular)),
        "pad: (0, 4) for dimension 1 of [2, 3] (extent 3): circular padding reaches at most the extent"
    );
    assert_eq!(message(&|| x.roll(1, 2)), "roll: dimension 2 is out of range for a tensor of 2 dimensions");
    assert_eq!(message(&|| x.select(0, 0).triu(0)), "triu: needs at least 2 dimensions, got [3]");
}

#[test]
fn golden_values() {
    let ops = Golden::open("ops");
    let check = |case: &str, op: &dyn Fn(&Var) -> Var| {
        let x = Var::leaf(ops.expect(case, "input.input"));
        let y = op(&x);
        assert!(y.tensor().all_close(&ops.expect(case, "output.out"), 0.0, 0.0), "{case}");
        let grads = y.backward_from(&ops.expect(case, "grad_output"));
        assert!(grads.wrt(&x).all_close(&ops.expect(case, "grad_input.input"), 1e-14, 1e-15), "{case}: gradient");
    };
    for (name, mode) in [
        ("constant", PadMode::Constant(1.5)),
        ("reflect", PadMode::Reflect),
        ("replicate", PadMode::Replicate),
        ("circular", PadMode::Circular),
    ] {
        check(&format!("pad_{name}_1d"), &|x| x.pad(&[(3, 1)], mode));
        check(&format!("pad_{name}_2d"), &|x| x.pad(&[(2, 0), (1, 3)], mode));
    }
    check("pad_constant_negative", &|x| x.pad(&[(1, -1), (-1, 2)], PadMode::Constant(0.0)));
    for (name, k) in [("0", 0), ("1", 1), ("minus_2", -2)] {
        check(&format!("tril_{name}"), &|x| x.tril(k));
        check(&format!("triu_{name}"), &|x| x.triu(k));
    }
    check("masked_fill", &|x| x.masked_fill(&ops.expect("masked_fill", "input.mask"), -2.5));
}
