//! A kernel of the user's own.

use crate::cubin::Unit;
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::programs::Kernel;
use ferrograd_tensor::error::throw;
use ferrograd_tensor::{DType, Shape, Tensor, ensure};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// An elementwise kernel in CUDA C++: only what happens to one element is written.
///
/// ```
/// use ferrograd_cuda::{CudaDevice, CudaKernel};
/// use ferrograd_tensor::{Device, Tensor};
/// let relu2 = CudaKernel::new("relu2").inputs(["x"]).outputs(["y"]).body("T v = max(x[i], T(0)); y[i] = v * v;");
/// # if let Ok(cuda) = Device::cuda(0) {
/// let x = Tensor::new([-1.0, 2.0, 3.0f32]).to_device(&cuda);
/// assert_eq!(relu2.run(&[&x], &[])[0].to_vec::<f32>(), [0.0, 4.0, 9.0]);
/// # }
/// ```
///
/// The body sees the inputs and outputs as arrays under their names, `i` as the element's place in all of them and `n` as
/// their number, the scalars under their names, and as `T` the inputs' type (`f32`, `f64`, `i64`, …; `f16` and `bf16` are
/// read by `load(x[i])`, an `f32`, and written by `store<T>(v)`). It is compiled when it first runs on inputs of a dtype,
/// and what was compiled is kept on the disk as the library's own kernels are.
///
/// Inside a [`Function`](https://docs.rs/ferrograd-autograd) it has a derivative: `examples/06_cuda_kernel.rs`.
pub struct CudaKernel {
    name: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    scalars: Vec<String>,
    body: String,
    compiled: Mutex<HashMap<(usize, DType), Kernel>>,
}

impl CudaKernel {
    /// A kernel of this name, which messages and profiles show.
    pub fn new(name: &str) -> CudaKernel {
        CudaKernel {
            name: name.to_owned(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            scalars: Vec::new(),
            body: String::new(),
            compiled: Mutex::default(),
        }
    }
    /// The names of the inputs.
    pub fn inputs<const N: usize>(mut self, names: [&str; N]) -> Self {
        self.inputs = names.map(str::to_owned).into();
        self
    }
    /// The names of the outputs, which have the inputs' shape and dtype.
    pub fn outputs<const N: usize>(mut self, names: [&str; N]) -> Self {
        self.outputs = names.map(str::to_owned).into();
        self
    }
    /// The names of numbers that each run gives; `f64` where `T` is, elsewhere `f32`.
    pub fn scalars<const N: usize>(mut self, names: [&str; N]) -> Self {
        self.scalars = names.map(str::to_owned).into();
        self
    }
    /// What happens to element `i`, in CUDA C++.
    pub fn body(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        self
    }

    /// The outputs. The inputs, of one dtype, are broadcast to one shape.
    ///
    /// # Panics
    /// If the inputs or scalars are not as many as were named, differ in dtype or device, do not broadcast, or are not on a
    /// card; if the kernel does not compile: the message has what the compiler said.
    #[track_caller]
    pub fn run(&self, inputs: &[&Tensor], scalars: &[f64]) -> Vec<Tensor> {
        const OP: &str = "CudaKernel";
        let (name, named) = (&self.name, self.inputs.len());
        ensure!(inputs.len() == named && named > 0, Value, OP, "{name} takes {named} inputs, got {}", inputs.len());
        let wanted = self.scalars.len();
        ensure!(scalars.len() == wanted, Value, OP, "{name} takes {wanted} scalars, got {}", scalars.len());
        let (dtype, device) = (inputs[0].dtype(), inputs[0].device());
        let ("cuda", index) = device.backend().id() else {
            throw(ferrograd_tensor::Error::Device {
                op: OP,
                message: format!("{name} runs on a card, not on {device}"),
            })
        };
        let cuda = Cuda::get(index).unwrap_or_else(|e| throw(e));
        for x in inputs {
            ensure!(x.device() == device, Device, OP, "{name}: inputs on {device} and {}", x.device());
            ensure!(x.dtype() == dtype, DType, OP, "{name}: inputs of {dtype} and {}", x.dtype());
        }
        let shape = inputs[1..].iter().fold(inputs[0].shape().clone(), |shape, x| shape.broadcast(x.shape(), OP));
        self.launch(cuda, inputs, scalars, &shape, dtype)
    }

    #[track_caller]
    fn launch(
        &self,
        cuda: &'static Cuda,
        inputs: &[&Tensor],
        scalars: &[f64],
        shape: &Shape,
        dtype: DType,
    ) -> Vec<Tensor> {
        let inputs: Vec<Tensor> = inputs.iter().map(|x| x.expand(shape).contiguous()).collect();
        let outputs: Vec<Tensor> = self.outputs.iter().map(|_| cuda.empty(shape, dtype)).collect();
        if shape.numel() == 0 {
            return outputs;
        }
        let mut arguments = inputs.iter().chain(&outputs).fold(Arguments::default(), |a, x| a.tensor(x));
        for &scalar in scalars {
            arguments = if dtype == DType::F64 { arguments.value(scalar) } else { arguments.value(scalar as f32) };
        }
        let arguments = arguments.value(shape.numel() as i64);
        cuda.bind();
        let kernel = self.kernel(cuda, dtype).unwrap_or_else(|e| throw(e));
        // SAFETY: the parameters are generated from the same lists as the arguments, and every array has `numel` elements. What
        // the body does with other places of the card's memory is the user's affair: it is no memory of this process.
        unsafe { cuda.launch_kernel("CudaKernel", kernel, cuda.grid_for(shape.numel()), BLOCK, 0, arguments) };
        outputs
    }

    fn kernel(&self, cuda: &Cuda, dtype: DType) -> ferrograd_tensor::Result<Kernel> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&kernel) = compiled.get(&(cuda.index, dtype)) {
            return Ok(kernel);
        }
        let file = format!("{}.cu", self.name);
        let kernel =
            cuda.programs.kernel_of(Unit { name: &file, source: &self.source(dtype), define: "".into() }, "kernel")?;
        compiled.insert((cuda.index, dtype), kernel);
        Ok(kernel)
    }

    /// The whole program.
    fn source(&self, dtype: DType) -> String {
        let element = if dtype == DType::Bool { "u8".to_owned() } else { dtype.to_string() };
        let scalar = if dtype == DType::F64 { "f64" } else { "f32" };
        let inputs = self.inputs.iter().map(|name| format!("const T* __restrict__ {name}, "));
        let outputs = self.outputs.iter().map(|name| format!("T* __restrict__ {name}, "));
        let scalars = self.scalars.iter().map(|name| format!("{scalar} {name}, "));
        let parameters: String = inputs.chain(outputs).chain(scalars).collect();
        let body = &self.body;
        format!(
            "#include \"layout.cuh\"\n\
             typedef {element} T;\n\
             extern \"C\" __global__ void kernel({parameters}i64 n) {{\n    \
             for (i64 i = thread_in_grid(); i < n; i += threads_in_grid()) {{\n{body}\n    }}\n}}\n"
        )
    }
}
