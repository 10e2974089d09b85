//! Linear maps and what follows them.

use ferrograd_tensor::ops::linear::{activation_grad, forward};
use ferrograd_tensor::{Activation, DType, Epilogue, Tensor, catch};

fn tensors() -> [Tensor; 4] {
    ferrograd_tensor::random::with_seed(1, || [&[2, 3, 4][..], &[5, 4], &[5], &[2, 3, 5]].map(Tensor::randn))
}

#[test]
fn an_epilogue_is_a_sum_a_function_and_a_sum() {
    let [x, w, bias, residual] = tensors();
    for activation in Activation::ALL {
        let epilogue = Epilogue { bias: Some(&bias), activation, residual: Some(&residual) };
        let z = x.linear(&w, Some(&bias));
        assert!(
            x.linear_with(&w, &epilogue).all_close(&(z.activate(activation) + &residual), 1e-6, 1e-6),
            "{activation:?}"
        );
        let (_, kept) = forward(&x, &w, &epilogue, true);
        assert_eq!(kept.expect("z").to_vec::<f32>(), z.to_vec::<f32>());

        let (z, g) = (z.reshape([6, 5]), residual.reshape([6, 5]));
        let want = z.activate_backward(activation, &g.matmul(&w.matmul(&w.t())));
        assert!(activation_grad(&g, &w.matmul(&w.t()), activation, &z).all_close(&want, 1e-6, 1e-6));
    }
    let plain = x.linear_with(&w, &Epilogue::default());
    assert_eq!(plain.to_vec::<f32>(), x.linear(&w, None).to_vec::<f32>());
    assert_eq!(*x.select(0, 0).select(0, 0).linear_with(&w, &Epilogue::default()).shape(), [5]);
}

#[test]
fn dtypes_are_promoted_and_mistakes_named() {
    let [x, w, bias, residual] = tensors();
    let wide = residual.to_dtype(DType::F64);
    let epilogue = Epilogue { bias: Some(&bias), residual: Some(&wide), ..Epilogue::default() };
    assert_eq!(x.linear_with(&w, &epilogue).dtype(), DType::F64);
    let epilogue = Epilogue { residual: Some(&bias), ..Epilogue::default() };
    let error = catch(|| x.linear_with(&w, &epilogue)).unwrap_err().to_string();
    assert!(error.contains("linear: residual has shape [5], the result [2, 3, 5]"), "{error}");
    let (g, z) = (Tensor::ones([2, 3]), Tensor::ones([1, 4]));
    let error = catch(|| activation_grad(&g, &Tensor::ones([3, 4]), Activation::Relu, &z)).unwrap_err();
    assert!(error.to_string().contains("z [R, I], got [2, 3], [3, 4] and [1, 4]"), "{error}");
}
