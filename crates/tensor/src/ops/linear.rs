//! The linear map of a layer, and what may follow it before its sums are rounded.

use super::layer_norm::common_dtype;
use crate::shape::Shape;
use crate::tensor::same_device;
use crate::{Activation, DType, Tensor, ensure};

/// What becomes of the sums of a matrix product `S [M, N]`: `f(S + bias) + residual`, of which each part may be missing.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// `[N]`, added to each row.
    pub bias: Option<&'a Tensor>,
    /// f
    pub activation: Activation,
    /// The result's shape, added last.
    pub residual: Option<&'a Tensor>,
}

impl Tensor {
    /// `y = x Wᵀ + b`: `x [..., I]`, `weight [O, I]`, `bias [O]`, `y [..., O]`. dtypes are promoted; half types accumulate
    /// in f32.
    ///
    /// # Panics
    /// With a Shape error if the shapes are not those, with a DType error unless x is a float.
    #[track_caller]
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let dtype = common_dtype(OP, self, [Some(weight), bias]);
        let flat = Flat::of(self, weight, bias, dtype);
        flat.linear().reshape(flat.shape)
    }

    /// `y = f(x Wᵀ + b) + r`, f, b and r as [`Epilogue`] has them: `x [..., I]`, `weight [O, I]`, `bias [O]`, `residual` and
    /// `y [..., O]`. dtypes are promoted; where a device has a kernel for it, half types are rounded once, at the end.
    ///
    /// ```
    /// use ferrograd_tensor::{Activation, Epilogue, Tensor};
    /// let (x, w) = (Tensor::new([[1f32, 2.0]]), Tensor::new([[1f32, 1.0], [-1.0, -1.0]]));
    /// let residual = Tensor::new([[10f32, 20.0]]);
    /// let epilogue = Epilogue { activation: Activation::Relu, residual: Some(&residual), ..Epilogue::default() };
    /// assert_eq!(x.linear_with(&w, &epilogue).to_vec::<f32>(), [13.0, 20.0]);
    /// ```
    ///
    /// # Panics
    /// With a Shape error if the shapes are not those, with a DType error unless x is a float.
    #[track_caller]
    pub fn linear_with(&self, weight: &Tensor, epilogue: &Epilogue) -> Tensor {
        forward(self, weight, epilogue, false).0
    }
}

const OP: &str = "linear";

/// [`Tensor::linear_with`], and, to `keep` what the derivative of f needs, `z = x Wᵀ + b`.
#[track_caller]
pub fn forward(x: &Tensor, weight: &Tensor, epilogue: &Epilogue, keep: bool) -> (Tensor, Option<Tensor>) {
    let mut dtype = common_dtype(OP, x, [Some(weight), epilogue.bias]);
    if let Some(r) = epilogue.residual {
        same_device(OP, &[x, r]);
        dtype = dtype.promote(r.dtype());
    }
    let flat = Flat::of(x, weight, epilogue.bias, dtype);
    let residual = epilogue.residual.map(|r| {
        ensure!(*r.shape() == flat.shape, Shape, OP, "residual has shape {}, the result {}", r.shape(), flat.shape);
        r.to_dtype(dtype).reshape([flat.x.dims()[0], flat.w.dims()[1]])
    });
    let after = Epilogue { bias: flat.bias.as_ref(), activation: epilogue.activation, residual: residual.as_ref() };
    let (y, z) = x.device.backend().matmul_epilogue(&flat.x, &flat.w, &after, keep).unwrap_or_else(|| {
        let z = flat.linear();
        let y = z.activate(epilogue.activation);
        let y = residual.as_ref().map_or_else(|| y.clone(), |r| &y + r);
        (y, keep.then_some(z))
    });
    (y.reshape(flat.shape.clone()), z.map(|z| z.reshape(flat.shape)))
}

/// `∂L/∂z = (G W) ⊙ f'(z)` of `y = f(z) Wᵀ`, from `G = ∂L/∂y [R, O]`: `weight [O, I]`, `z [R, I]`, all of one float dtype.
#[track_caller]
pub fn activation_grad(g: &Tensor, weight: &Tensor, activation: Activation, z: &Tensor) -> Tensor {
    same_device(OP, &[g, weight, z]);
    let all = [g, weight, z];
    ensure!(
        all.iter().all(|x| x.rank() == 2) && g.dim(1) == weight.dim(0) && z.dims() == [g.dim(0), weight.dim(1)],
        Shape,
        OP,
        "the gradient of an activation takes a gradient [R, O], weights [O, I] and z [R, I], got {}, {} and {}",
        g.shape(),
        weight.shape(),
        z.shape()
    );
    let dtype = g.dtype();
    ensure!(
        dtype.is_float() && all.iter().all(|x| x.dtype() == dtype),
        DType,
        OP,
        "the gradient of an activation takes operands of one float dtype, got {dtype}, {} and {}",
        weight.dtype(),
        z.dtype()
    );
    let fused = g.device.backend().matmul_activation_grad(g, weight, activation, z);
    fused.unwrap_or_else(|| z.activate_backward(activation, &g.matmul(weight)))
}

/// The operands of `x Wᵀ + b` as a matrix product: `x [R, I]`, `w [I, O]`, and the shape of the result.
struct Flat {
    x: Tensor,
    w: Tensor,
    bias: Option<Tensor>,
    shape: Shape,
}

impl Flat {
    #[track_caller]
    fn of(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, dtype: DType) -> Flat {
        ensure!(weight.rank() == 2, Shape, OP, "weight must be [outputs, inputs], got {}", weight.shape());
        let [o, i] = [weight.dims()[0], weight.dims()[1]];
        ensure!(
            x.rank() > 0 && x.dims()[x.rank() - 1] == i,
            Shape,
            OP,
            "the last dimension of the input {} is not weight's number of inputs: {} is [outputs, inputs = {i}]",
            x.shape(),
            weight.shape()
        );
        if let Some(b) = bias {
            ensure!(
                *b.shape() == [o],
                Shape,
                OP,
                "bias has shape {}, weight {} has {o} outputs",
                b.shape(),
                weight.shape()
            );
        }
        let lead = &x.dims()[..x.rank() - 1];
        Flat {
            x: x.to_dtype(dtype).reshape([lead.iter().product(), i]),
            w: weight.to_dtype(dtype).t(),
            bias: bias.map(|b| b.to_dtype(dtype)),
            shape: lead.iter().copied().chain([o]).collect(),
        }
    }
    #[track_caller]
    fn linear(&self) -> Tensor {
        match &self.bias {
            None => self.x.matmul(&self.w),
            Some(bias) => self.x.matmul_bias(&self.w, bias),
        }
    }
}
