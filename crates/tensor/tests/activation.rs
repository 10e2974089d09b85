//! Activations as values: names, functions, derivatives.

use ferrograd_tensor::{Activation, DType, Tensor, catch};

#[test]
fn names_are_read_back() {
    for f in Activation::ALL {
        assert_eq!(f.to_string().parse::<Activation>().unwrap(), f);
    }
    for (name, f) in [
        ("gelu_new", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("swish", Activation::Silu),
        ("linear", Activation::Identity),
    ] {
        assert_eq!(name.parse::<Activation>().unwrap(), f);
    }
}

#[test]
fn each_is_the_function_of_its_name() {
    let functions: [fn(&Tensor) -> Tensor; 10] = [
        Tensor::clone,
        Tensor::relu,
        Tensor::gelu,
        Tensor::gelu_tanh,
        Tensor::silu,
        Tensor::tanh,
        Tensor::sigmoid,
        |x| x.elu(1.0),
        |x| x.leaky_relu(0.01),
        Tensor::softplus,
    ];
    let x = Tensor::new([-3.0f64, -0.5, 0.0, 0.5, 3.0]);
    for (f, function) in Activation::ALL.into_iter().zip(functions) {
        assert_eq!(x.activate(f).to_vec::<f64>(), function(&x).to_vec::<f64>(), "{f}");
    }
}

#[test]
fn derivatives_are_the_limits_of_differences() {
    // Away from 0, where some have a kink.
    let x = Tensor::new([-40.0f64, -2.0, -0.3, 0.4, 1.5, 40.0]);
    let (g, step) = (Tensor::new([1.0, -2.0, 3.0, 0.5, 2.0, -1.0]), 1e-5);
    for f in Activation::ALL {
        let slope = (x.add_scalar(step).activate(f) - x.add_scalar(-step).activate(f)).div_scalar(2.0 * step);
        assert!(x.activate_backward(f, &g).all_close(&(slope * &g), 1e-8, 1e-9), "{f}");
    }
}

#[test]
fn gradients_that_are_of_another_kind_are_refused() {
    let x = Tensor::ones([2, 3]);
    let message = |g: &Tensor| catch(|| x.activate_backward(Activation::Gelu, g)).unwrap_err().to_string();
    assert!(message(&Tensor::ones([3, 2])).starts_with("activate_backward: the gradient [3, 2]"));
    assert!(message(&x.to_dtype(DType::F64)).starts_with("activate_backward: the gradient is f64"));
}
