//! Products of activations with quantised weights.

use crate::shape::Shape;
use crate::{DType, QuantizedTensor, Tensor, ensure, fail};

impl Tensor {
    /// `y[…, n] = Σ_k x[…, k] · W[n, k]`: `[…, K] × [N, K]ᵀ → […, N]`, as [`linear`](Tensor::linear) with weights that are
    /// quantised and stay so. x is a float tensor, whose dtype y has; the sums are f32 (also of f64: the weights have no
    /// more to give), and rounded once. It has no derivative.
    ///
    /// # Panics
    /// With a DType error unless x is a float, with a Shape error unless its last dimension is K, with a Device error if
    /// the two live on different devices.
    ///
    /// ```
    /// # use ferrograd_tensor::{Q8_0, QuantizedTensor, Tensor};
    /// let w = QuantizedTensor::quantize(&Tensor::randn([16, 64]), &Q8_0);
    /// let y = Tensor::randn([2, 3, 64]).matmul_quantized(&w);
    /// assert_eq!(*y.shape(), [2, 3, 16]);
    /// ```
    #[track_caller]
    pub fn matmul_quantized(&self, weight: &QuantizedTensor) -> Tensor {
        const OP: &str = "matmul_quantized";
        ensure!(self.dtype.is_float(), DType, OP, "needs a float tensor, got {} (cast with to_dtype)", self.dtype);
        ensure!(
            self.device == weight.device(),
            Device,
            OP,
            "operands live on different devices: {} and {}",
            self.device,
            weight.device()
        );
        let [n, k] = [weight.shape()[0], weight.shape()[1]];
        if self.rank() == 0 || self.dims()[self.rank() - 1] != k {
            fail!(
                Shape,
                OP,
                "the last dimension of the input {} is not the weight's number of inputs: {} {} is [N, K = {k}]",
                self.shape(),
                weight.format().name(),
                weight.shape()
            );
        }
        let lead = &self.dims()[..self.rank() - 1];
        let shape: Shape = lead.iter().copied().chain([n]).collect();
        let x = self.to_dtype(DType::F32).reshape([lead.iter().product(), k]);
        let backend = self.device.backend();
        let y = backend.matmul_quantized(&x, weight).unwrap_or_else(|| match backend.dequantize(weight) {
            Some(w) => x.matmul(&w.t()),
            None => fail!(
                Device,
                OP,
                "{} does not know the format {}: multiply by weight.dequantize(), which decodes on the host, once",
                self.device,
                weight.format().name()
            ),
        });
        y.to_dtype(self.dtype).reshape(shape)
    }
}
