//! Changes of dtype and device.

use crate::{Function, Saved, Var, autocast_dtype};
use ferrograd_tensor::{DType, Device, Tensor, fail};

/// `y = x` in another dtype; the gradient comes back in x's.
struct Cast(DType);
impl Function for Cast {
    fn name(&self) -> &'static str {
        "to_dtype"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].to_dtype(self.0)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| g.to_dtype(saved.input_dtype(0)))]
    }
}

/// `y = x` on another device; the gradient goes back to x's.
struct ToDevice {
    from: Device,
    to: Device,
}
impl Function for ToDevice {
    fn name(&self) -> &'static str {
        "to_device"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].to_device(&self.to)]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| g.to_device(&self.from))]
    }
}

impl Var {
    /// To another dtype (itself if it has it). To an integer dtype, gradients stop here.
    #[track_caller]
    pub fn to_dtype(&self, dtype: DType) -> Var {
        if self.dtype() == dtype {
            return self.clone();
        }
        if !dtype.is_float() {
            return Var::constant(self.tensor().to_dtype(dtype));
        }
        Cast(dtype).apply1(&[self])
    }
    /// To another device (itself if it is there).
    #[track_caller]
    pub fn to_device(&self, device: &Device) -> Var {
        if self.device() == *device {
            return self.clone();
        }
        ToDevice { from: self.device(), to: *device }.apply1(&[self])
    }
    /// The dtype in which matrix products, convolutions and attention compute: autocast's, for floats.
    #[track_caller]
    pub(crate) fn lowered(&self) -> Var {
        match autocast_dtype() {
            Some(dtype) if self.dtype() == DType::F32 || self.dtype().is_half() => self.to_dtype(dtype),
            _ => self.clone(),
        }
    }
    /// Under autocast, f32 for what needs its precision or range: softmax, norms, losses, sums.
    #[track_caller]
    pub(crate) fn raised(&self) -> Var {
        match autocast_dtype() {
            Some(_) if self.dtype().is_half() => self.to_dtype(DType::F32),
            _ => self.clone(),
        }
    }
}

/// All operands in the dtype they promote to, so that the casts are recorded.
#[track_caller]
pub(crate) fn promote<const N: usize>(op: &'static str, xs: [&Var; N]) -> [Var; N] {
    let Some(dtype) = xs.iter().map(|x| x.dtype()).reduce(DType::promote) else { fail!(Value, op, "no operands") };
    xs.map(|x| x.to_dtype(dtype))
}
