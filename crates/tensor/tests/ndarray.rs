//! Arrays of the crate `ndarray`, with the feature of that name.
#![cfg(feature = "ndarray")]

use ferrograd_tensor::Tensor;
use ndarray::{Array2, ArrayD};

#[test]
fn ndarray_there_and_back() {
    let array = Array2::from_shape_fn((3, 4), |(i, j)| (10 * i + j) as f32);
    let x = Tensor::from(array.t());
    assert_eq!(*x.shape(), [4, 3]);
    let back = ArrayD::<f32>::try_from(&x.t()).unwrap();
    assert_eq!(back, array.into_dyn());
    assert!(ArrayD::<f64>::try_from(&x).is_err());
}
