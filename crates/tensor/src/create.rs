//! New tensors from numbers.

use crate::dtype::Element;
use crate::storage::CpuBuffer;
use crate::{DType, Device, Shape, Tensor, ensure};

/// A new tensor of the CPU's on the default device.
#[inline]
fn placed(x: Tensor) -> Tensor {
    let device = Device::default();
    if device.is_cpu() { x } else { x.to_device(&device) }
}

impl Tensor {
    /// All elements `value`, f32 on the default device.
    #[track_caller]
    pub fn full(shape: impl Into<Shape>, value: f64) -> Tensor {
        Tensor::full_on(shape, value, DType::F32, &Device::default())
    }
    /// All elements `value`, of `dtype`, on `device`.
    #[track_caller]
    pub fn full_on(shape: impl Into<Shape>, value: f64, dtype: DType, device: &Device) -> Tensor {
        let shape = shape.into();
        shape.numel_for("full");
        device.backend().full(&shape, dtype, value)
    }
    /// All zero, f32 on the default device.
    #[track_caller]
    pub fn zeros(shape: impl Into<Shape>) -> Tensor {
        Tensor::full(shape, 0.0)
    }
    /// All one, f32 on the default device.
    #[track_caller]
    pub fn ones(shape: impl Into<Shape>) -> Tensor {
        Tensor::full(shape, 1.0)
    }
    /// All elements `value`, with this tensor's shape, dtype and device.
    pub fn full_like(&self, value: f64) -> Tensor {
        Tensor::full_on(self.shape(), value, self.dtype, &self.device)
    }
    /// All zero, with this tensor's shape, dtype and device.
    pub fn zeros_like(&self) -> Tensor {
        self.full_like(0.0)
    }
    /// All one, with this tensor's shape, dtype and device.
    pub fn ones_like(&self) -> Tensor {
        self.full_like(1.0)
    }
    /// A 0-dimensional tensor.
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor::from_slice(&[value], ())
    }
    /// The values in row-major order under `shape`, on the default device.
    #[track_caller]
    pub fn from_slice<T: Element>(values: &[T], shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let numel = shape.numel_for("from_slice");
        ensure!(
            values.len() == numel,
            Shape,
            "from_slice",
            "{} values do not fill shape {shape} ({numel} elements)",
            values.len()
        );
        let mut buffer = CpuBuffer::scratch::<T::Stored>(values.len());
        for (slot, &v) in buffer.as_mut_slice::<T::Stored>().iter_mut().zip(values) {
            *slot = v.store();
        }
        placed(Tensor::from_cpu(buffer, shape, T::DTYPE))
    }
    /// The values in row-major order under `shape`, on the default device.
    #[track_caller]
    pub fn from_vec<T: Element>(values: Vec<T>, shape: impl Into<Shape>) -> Tensor {
        Tensor::from_slice(&values, shape)
    }
    /// Little-endian bytes in row-major order, as [`to_bytes`](Tensor::to_bytes) gives them, on the default device.
    #[track_caller]
    pub fn from_bytes(bytes: &[u8], shape: impl Into<Shape>, dtype: DType) -> Tensor {
        let shape = shape.into();
        let needed = shape.numel_for("from_bytes").saturating_mul(dtype.size());
        ensure!(
            bytes.len() == needed,
            Shape,
            "from_bytes",
            "{} bytes do not fill shape {shape} of {dtype} ({needed} bytes)",
            bytes.len()
        );
        let mut buffer = CpuBuffer::from_slice(bytes);
        if dtype == DType::Bool {
            buffer.as_mut_slice::<u8>().iter_mut().for_each(|b| *b = (*b != 0) as u8);
        }
        placed(Tensor::from_cpu(buffer, shape, dtype))
    }
    /// `start, start + step, …` below `end` (above, if `step` is negative). The dtype is `T`'s; integers are exact.
    #[track_caller]
    pub fn arange<T: Element>(start: T, end: T, step: T) -> Tensor {
        const OP: &str = "arange";
        if T::DTYPE.is_int() {
            // i128 holds every difference and, below `end`, every number of the sequence; f64 would round them.
            let (s, e, d) = (start.to_i64() as i128, end.to_i64() as i128, step.to_i64() as i128);
            ensure!(d != 0, Value, OP, "step {d} must be finite and not 0");
            let last = (e - s - d.signum()) / d;
            let n = if (e - s).signum() == d.signum() { last + 1 } else { 0 };
            let n = Shape::from(usize::try_from(n).unwrap_or(usize::MAX)).numel_for(OP);
            return Tensor::from_vec((0..n).map(|i| T::from_i64((s + i as i128 * d) as i64)).collect(), n);
        }
        let (s, e, d) = (start.to_f64(), end.to_f64(), step.to_f64());
        ensure!(d != 0.0 && d.is_finite(), Value, OP, "step {d} must be finite and not 0");
        ensure!(s.is_finite() && e.is_finite(), Value, OP, "start {s} and end {e} must be finite");
        let n = Shape::from(((e - s) / d).ceil().max(0.0) as usize).numel_for(OP);
        Tensor::from_vec((0..n).map(|i| T::from_f64(s + i as f64 * d)).collect(), n)
    }
    /// `n` equally spaced numbers from `start` to `end`, both included; f32.
    pub fn linspace(start: f64, end: f64, n: usize) -> Tensor {
        let step = if n > 1 { (end - start) / (n - 1) as f64 } else { 0.0 };
        // From both ends, so that the last number is `end` exactly.
        let value = |i: usize| if 2 * i < n { start + i as f64 * step } else { end - (n - 1 - i) as f64 * step };
        Tensor::from_vec((0..n).map(|i| value(i) as f32).collect(), n)
    }
    /// The `n × n` identity matrix, f32.
    #[track_caller]
    pub fn eye(n: usize) -> Tensor {
        let numel = Shape::from([n, n]).numel_for("eye");
        Tensor::from_vec((0..numel).map(|i| (i % (n + 1) == 0) as u8 as f32).collect(), [n, n])
    }
}

/// What [`Tensor::new`] accepts: numbers, slices, vectors and nested arrays of them.
pub trait Data {
    /// The element type.
    type Elem: Element;
    /// The shape.
    #[track_caller]
    fn shape(&self) -> Vec<usize>;
    /// The elements in row-major order.
    fn flatten(&self, out: &mut Vec<Self::Elem>);
}
macro_rules! scalar_data {
    ($($t:ty)*) => {$(
        impl Data for $t {
            type Elem = $t;
            fn shape(&self) -> Vec<usize> { vec![] }
            fn flatten(&self, out: &mut Vec<$t>) { out.push(*self) }
        }
    )*};
}
scalar_data!(f32 f64 half::f16 half::bf16 i64 i32 i8 u8 bool);
impl<D: Data> Data for [D] {
    type Elem = D::Elem;
    #[track_caller]
    fn shape(&self) -> Vec<usize> {
        let inner = self.first().map(D::shape).unwrap_or_default();
        for row in self {
            ensure!(row.shape() == inner, Shape, "Tensor::new", "rows differ: {inner:?} and {:?}", row.shape());
        }
        std::iter::once(self.len()).chain(inner).collect()
    }
    fn flatten(&self, out: &mut Vec<D::Elem>) {
        self.iter().for_each(|row| row.flatten(out));
    }
}
macro_rules! slice_data {
    ($([$($g:tt)*] $t:ty;)*) => {$(
        impl<$($g)*> Data for $t {
            type Elem = D::Elem;
            #[track_caller]
            fn shape(&self) -> Vec<usize> { self[..].shape() }
            fn flatten(&self, out: &mut Vec<D::Elem>) { self[..].flatten(out) }
        }
    )*};
}
slice_data! {
    [D: Data, const N: usize] [D; N];
    [D: Data] Vec<D>;
    [D: Data] &[D];
    [D: Data] &Vec<D>;
    [D: Data, const N: usize] &[D; N];
}

impl Tensor {
    /// A tensor from a number, a slice, a vector or nested arrays; the dtype is the numbers' own.
    ///
    /// ```
    /// use ferrograd_tensor::Tensor;
    /// let x = Tensor::new([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0f32]]);
    /// assert_eq!(*x.shape(), [2, 3]);
    /// ```
    #[track_caller]
    pub fn new(data: impl Data) -> Tensor {
        let shape = data.shape();
        let mut values = Vec::with_capacity(shape.iter().product());
        data.flatten(&mut values);
        Tensor::from_vec(values, shape)
    }
}
