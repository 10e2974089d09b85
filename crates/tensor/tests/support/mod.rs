//! What the tests of convolution, pooling and interpolation share.

use ferrograd_tensor::{DType, Tensor};
use serde_json::Value;

/// A pair from a configuration's number or list of two, or `default` if it is absent.
pub fn pair(config: &Value, key: &str, default: usize) -> [usize; 2] {
    let number = |v: &Value| v.as_u64().expect("a number") as usize;
    match &config[key] {
        Value::Null => [default; 2],
        Value::Array(items) => [number(&items[0]), number(&items[1])],
        v => [number(v); 2],
    }
}

/// Reproducible values in `[-1, 1)`, f64.
pub fn values(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1u64 << 30) as f64 - 1.0
    };
    Tensor::from_vec((0..shape.iter().product()).map(|_| next()).collect::<Vec<f64>>(), shape)
}

/// The same values behind other strides: a permuted copy, a section of every second element, or a flipped copy.
pub fn restrided(x: &Tensor, way: usize) -> Tensor {
    let r = x.rank();
    match way % 4 {
        0 => x.clone(),
        1 => {
            let order: Vec<usize> = (0..r).rev().collect();
            x.permute_dims(&order).contiguous().permute_dims(&order)
        }
        2 => {
            let shape: Vec<usize> = x.dims().iter().copied().chain([2]).collect();
            x.unsqueeze(-1).expand(shape).contiguous().select(-1, 1)
        }
        _ => x.flip(..).contiguous().flip(..),
    }
}

/// Equal to `tol`, relative to the larger of 1 and the value.
#[track_caller]
pub fn assert_close(a: &Tensor, b: &Tensor, tol: f64) {
    assert_eq!(a.shape(), b.shape());
    for (i, (a, b)) in a.to_f64_vec().into_iter().zip(b.to_f64_vec()).enumerate() {
        assert!(a == b || (a - b).abs() <= tol * b.abs().max(1.0), "element {i}: {a} ≠ {b}");
    }
}

/// Unit roundoff of a dtype.
pub fn eps(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        DType::F32 => f32::EPSILON as f64,
        DType::F16 => 2f64.powi(-10),
        _ => 2f64.powi(-7),
    }
}

/// `⟨a, b⟩`
pub fn inner(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).sum().item()
}

/// The message of the error that `f` panics with.
#[track_caller]
pub fn message<T, F: FnOnce() -> T>(f: F) -> String {
    match ferrograd_tensor::catch(f) {
        Ok(_) => panic!("this should have been an error"),
        Err(e) => e.to_string(),
    }
}

/// Each test uses the part it needs.
const _: () = {
    let _ = (pair, values, restrided, assert_close, eps, inner);
    let _ = message::<Tensor, fn() -> Tensor>;
};
