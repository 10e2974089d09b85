//! Einstein summation, by the tensor crate's plan on variables: its derivative is that of the products and sums.

use crate::Var;
use ferrograd_tensor::Shape;
use ferrograd_tensor::ops::einsum::{Operand, einsum};

impl Operand for Var {
    fn dims(&self) -> &[usize] {
        Var::dims(self)
    }
    fn permute_dims(&self, order: &[usize]) -> Self {
        Var::permute_dims(self, order)
    }
    fn reshape(&self, shape: Shape) -> Self {
        Var::reshape(self, shape)
    }
    #[track_caller]
    fn matmul(&self, other: &Self) -> Self {
        Var::matmul(self, other)
    }
    #[track_caller]
    fn mul(&self, other: &Self) -> Self {
        Var::mul(self, other)
    }
    fn sum_dims(&self, dims: &[usize]) -> Self {
        Var::sum_dims(self, dims)
    }
    fn diagonal(&self) -> Self {
        Var::diagonal(self)
    }
}

impl Var {
    /// `Var::einsum("bij,bjk->bik", &[&a, &b])`, see [`Tensor::einsum`](ferrograd_tensor::Tensor::einsum). Matrix products
    /// compute in the autocast dtype.
    #[track_caller]
    pub fn einsum(equation: &str, operands: &[&Var]) -> Var {
        einsum(equation, operands)
    }
}
