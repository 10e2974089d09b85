//! Matrix products of 8-bit integers.

use crate::tensor::same_device;
use crate::{DType, Tensor, ensure, fail};

impl Tensor {
    /// `C[m, n] = Σ_k A[m, k] · B[k, n]` of 8-bit integers in 32-bit ones: `[M, K] i8 × [K, N] i8 → [M, N] i32`, as
    /// PyTorch's `torch._int_mm`. This is the product of quantised layers: `x · w ≈ (s_x s_w) · (q_x · q_w)` for
    /// `x ≈ s_x q_x` and `w ≈ s_w q_w`.
    ///
    /// Exact: no sum of up to 131,071 products overflows, whatever the numbers; longer ones wrap modulo 2³². (In
    /// [`matmul`](Tensor::matmul) the product of two i8 tensors is i8, modulo 2⁸.) It has no derivative.
    ///
    /// # Panics
    /// With a DType error unless both are i8, with a Shape error unless they are matrices whose inner dimensions agree.
    ///
    /// ```
    /// # use ferrograd_tensor::{DType, Tensor};
    /// let a = Tensor::new([[-128i8, 127], [1, -1]]);
    /// let c = a.int_mm(&a.t());
    /// assert_eq!(c.dtype(), DType::I32);
    /// assert_eq!(c.to_vec::<i32>(), [32513, -255, -255, 2]);
    /// ```
    #[track_caller]
    pub fn int_mm(&self, other: &Tensor) -> Tensor {
        const OP: &str = "int_mm";
        same_device(OP, &[self, other]);
        ensure!(
            self.dtype == DType::I8 && other.dtype == DType::I8,
            DType,
            OP,
            "both operands must be i8: {} {} × {} {} (cast with to_dtype, or use matmul)",
            self.shape(),
            self.dtype,
            other.shape(),
            other.dtype
        );
        ensure!(
            self.rank() == 2 && other.rank() == 2,
            Shape,
            OP,
            "operands must be matrices, [M, K] × [K, N]: {} × {}",
            self.shape(),
            other.shape()
        );
        let (k, l) = (self.dims()[1], other.dims()[0]);
        if k != l {
            fail!(Shape, OP, "inner dimensions differ: {} × {} ({k} ≠ {l})", self.shape(), other.shape());
        }
        let wide = |x: &Tensor| x.to_dtype(DType::I32);
        self.device.backend().int_mm(self, other).unwrap_or_else(|| wide(self).matmul(&wide(other)))
    }
}
