//! Derivatives of views.

use ferrograd_autograd::{Var, gradcheck, gradgradcheck};
use ferrograd_tensor::{DType, Tensor, catch, s};
use std::cell::RefCell;

/// Checks value, first and second order of `op` on `x`, which is also given transposed in memory and backwards.
fn check(name: &str, x: &Tensor, op: impl Fn(&Var) -> Var, on_tensor: impl Fn(&Tensor) -> Tensor) {
    let order: Vec<usize> = (0..x.rank()).rev().collect();
    let transposed = x.permute_dims(&order).contiguous().permute_dims(&order);
    for x in [x.clone(), transposed, x.flip(..).contiguous().flip(..)] {
        let y = op(&Var::leaf(x.clone()));
        assert_eq!(y.tensor().to_f64_vec(), on_tensor(&x).to_f64_vec(), "{name}");
        assert_eq!(y.shape(), on_tensor(&x).shape(), "{name}");
        gradcheck(|x| op(&x[0]), std::slice::from_ref(&x)).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Not linear, so that the second derivative is not 0.
        gradgradcheck(|x| op(&x[0]).powi(3), std::slice::from_ref(&x)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

macro_rules! views {
    ($($x:expr => $($method:ident($($arg:expr),*))+;)*) => {$($(
        check(stringify!($method), &$x, |x| x.$method($($arg),*), |x| x.$method($($arg),*));
    )+)*};
}

fn sample(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::from_vec((0..n).map(|i| (i as f64 * 0.7).sin() + 0.1).collect(), shape)
}

#[test]
fn to_second_order() {
    let x = sample(&[2, 3, 2]);
    views! {
        x => reshape([3, 4]) flatten() flatten_dims(0, 1) unflatten(1, &[1, 3]) permute([2, 0, 1]) transpose(0, -1) t()
            unsqueeze(1) unsqueeze(-1) narrow(1, 1, 2) narrow(0, 1, 0) select(1, -1) select(0, 0) flip([0, 2]) diagonal()
            slice(s![1, .., 0]) slice(s![.., 1..;2]) slice(s![.., ..;-1, -1]) slice(s![]);
        sample(&[2, 1, 3]) => squeeze(1) expand([2, 4, 3]) expand([2, 2, 1, 3]);
        sample(&[]) => unsqueeze(0) flatten() expand([2, 2]);
    }
}

#[test]
fn parts_and_missing_parts() {
    let x = sample(&[3, 5]);
    for n in [1, 2, 3, 7] {
        let whole = |x: &[Var]| {
            let parts = x[0].chunk(n, 1);
            parts.iter().enumerate().map(|(i, p)| p.powi(2 + i as i32).sum()).reduce(|a, b| a + b).unwrap()
        };
        gradcheck(whole, std::slice::from_ref(&x)).unwrap();
        gradgradcheck(whole, std::slice::from_ref(&x)).unwrap();
    }
    // The loss sees the second of three parts only.
    let second = |x: &[Var]| x[0].split(&[2, 1, 2], -1)[1].square();
    gradcheck(second, std::slice::from_ref(&x)).unwrap();
    gradgradcheck(second, &[x]).unwrap();
}

/// Gradients of a section land in zeros, whatever the dtype.
#[test]
fn half_types() {
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        let x = Var::leaf(Tensor::new([[1.0, 2.0], [3.0, 4.0]]).to_dtype(dtype));
        let g = x.select(0, 1).square().sum().backward().wrt(&x).clone();
        assert_eq!((g.dtype(), g.to_f64_vec()), (dtype, vec![0.0, 0.0, 6.0, 8.0]));
    }
}

/// Steps of a sequence, as a recurrent network takes them.
#[test]
fn every_step_of_a_sequence() {
    let x = Var::leaf(sample(&[4, 3]));
    let state = RefCell::new(Var::constant(sample(&[3])));
    for t in 0..4 {
        let next = (&*state.borrow() * 0.5 + x.select(0, t)).tanh();
        state.replace(next);
    }
    let g = state.into_inner().sum().backward().wrt(&x).clone();
    assert_eq!(*g.shape(), [4, 3]);
    assert!(g.ne_scalar(0.0).all().item::<bool>());
}

#[test]
fn mistakes() {
    let x = Var::leaf(Tensor::zeros([2, 3]));
    let message = |f: &dyn Fn() -> Var| catch(f).unwrap_err().to_string();
    assert_eq!(message(&|| x.squeeze(0)), "squeeze: dimension 0 of [2, 3] has extent 2, not 1");
    assert_eq!(message(&|| x.select(1, -4)), "select: index -4 lies outside dimension 1 of [2, 3] (extent 3)");
    assert_eq!(message(&|| x.narrow(0, 1, 2)), "narrow: 1..1+2 lies outside dimension 0 of [2, 3] (extent 2)");
    assert_eq!(message(&|| x.flip(5)), "flip: dimension 5 is out of range for a tensor of 2 dimensions");
    assert_eq!(message(&|| x.flatten_dims(1, 0)), "flatten: start dimension 1 lies behind end dimension 0");
    assert_eq!(
        catch(|| x.split(&[1], 0)).unwrap_err().to_string(),
        "split: sizes [1] do not add up to dimension 0 of [2, 3] (extent 2)"
    );
    assert_eq!(message(&|| x.slice(s![0, 0, 0])), "slice: 3 indices for the 2 dimensions of [2, 3]");
}
