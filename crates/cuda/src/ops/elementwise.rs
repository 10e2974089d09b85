//! Every element by itself.

use super::moved_as;
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::Layout;
use crate::memory::address;
use crate::programs::{KernelId, Program};
use ferrograd_tensor::backend::{Binary, Compare, Unary};
use ferrograd_tensor::{DType, Shape, Tensor, dispatch};

impl Cuda {
    /// Launches an elementwise kernel, whose arguments begin with the operands and their layout.
    ///
    /// # Safety
    /// The kernel takes so many operands of these dtypes, their layout and `rest`.
    #[track_caller]
    pub(crate) unsafe fn map<const N: usize>(
        &self,
        id: KernelId,
        operands: [&Tensor; N],
        rest: impl FnOnce(Arguments) -> Arguments,
    ) {
        let n = operands[0].numel();
        if n == 0 {
            return;
        }
        let layout = Layout::of(operands).in_chunks(operands);
        let arguments = operands.iter().fold(Arguments::default(), |a, x| a.tensor(x)).value(layout);
        // About 16 bytes for each thread.
        let threads = n.div_ceil(16 / operands[0].dtype().size());
        // SAFETY: the caller's promise; the layout was made of the operands themselves.
        unsafe { self.launch(id, self.grid_for(threads), BLOCK, 0, rest(arguments)) };
    }
}

/// `value` as the bits of a dtype.
pub fn bits_of(value: f64, dtype: DType) -> u64 {
    let mut bits = [0u8; 8];
    let bytes = dispatch!(dtype, T => {
        let stored = <T as ferrograd_tensor::Element>::from_f64(value);
        bytemuck::bytes_of(&ferrograd_tensor::Element::store(stored)).to_vec()
    });
    bits[..bytes.len()].copy_from_slice(&bytes);
    u64::from_le_bytes(bits)
}

/// See [`Backend::full`](ferrograd_tensor::backend::Backend::full).
#[track_caller]
pub fn full(cuda: &'static Cuda, shape: &Shape, dtype: DType, value: f64) -> Tensor {
    let y = cuda.empty(shape, dtype);
    if y.numel() > 0 {
        let id = KernelId { file: "full.cu", define: "", name: "full", dtype: Some(moved_as(dtype)) };
        let arguments = Arguments::default().tensor(&y).value(y.numel() as i64).value(bits_of(value, dtype));
        // SAFETY: `y` has as many elements, of this size.
        unsafe { cuda.launch(id, cuda.grid_for(y.numel()), BLOCK, 0, arguments) };
    }
    y
}

fn from_define(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "FROM=f32",
        DType::F64 => "FROM=f64",
        DType::F16 => "FROM=f16",
        DType::BF16 => "FROM=bf16",
        DType::I64 => "FROM=i64",
        DType::I32 => "FROM=i32",
        DType::I8 => "FROM=i8",
        DType::U8 => "FROM=u8",
        DType::Bool => "FROM=boolean",
    }
}

/// See [`Backend::cast`](ferrograd_tensor::backend::Backend::cast).
#[track_caller]
pub fn cast(cuda: &'static Cuda, x: &Tensor, dtype: DType) -> Tensor {
    let define = from_define(x.dtype());
    let y = cuda.empty(x.shape(), dtype);
    // SAFETY: the program reads x's dtype, the kernel writes y's.
    unsafe { cuda.map(KernelId { file: "cast.cu", define, name: "cast", dtype: Some(dtype) }, [x, &y], |a| a) };
    y
}

/// A function of floats, and that of integers of the same name if there is one: what is defined for their programs.
#[derive(Clone, Copy)]
struct Defines {
    floats: &'static str,
    integers: Option<&'static str>,
}

macro_rules! floats {
    ($name:literal) => {
        Defines { floats: concat!("FUNCTION=", $name), integers: None }
    };
}
macro_rules! numbers {
    ($name:literal) => {
        Defines { floats: concat!("FUNCTION=", $name), integers: Some(concat!("FUNCTION=", $name, " INTEGERS")) }
    };
}

impl Defines {
    fn of(self, dtype: DType) -> &'static str {
        match self.integers {
            _ if dtype.is_float() => self.floats,
            Some(integers) => integers,
            None => unreachable!("the op floor casts integers to floats for {}", self.floats),
        }
    }
}

/// The function in `functions.cuh` and `integers.cuh`, and its scalars.
fn unary_function(op: Unary) -> (Defines, [f64; 2]) {
    use Unary::*;
    match op {
        Neg => (numbers!("neg"), [0.0; 2]),
        Abs => (numbers!("absolute"), [0.0; 2]),
        Sign => (numbers!("sign"), [0.0; 2]),
        Square => (numbers!("square"), [0.0; 2]),
        AddScalar(s) => (numbers!("add_scalar"), [s, 0.0]),
        MulScalar(s) => (numbers!("mul_scalar"), [s, 0.0]),
        RsubScalar(s) => (numbers!("rsub_scalar"), [s, 0.0]),
        Clamp(low, high) => (numbers!("clamp"), [low, high]),
        Relu => (numbers!("relu"), [0.0; 2]),
        Powi(n) => (numbers!("powi"), [n as f64, 0.0]),
        Powf(p) => (floats!("powf_"), [p, 0.0]),
        RdivScalar(s) => (floats!("rdiv_scalar"), [s, 0.0]),
        DivScalar(s) => (floats!("div_scalar"), [s, 0.0]),
        Exp => (floats!("exp_"), [0.0; 2]),
        Expm1 => (floats!("expm1_"), [0.0; 2]),
        Log => (floats!("log_"), [0.0; 2]),
        Log1p => (floats!("log1p_"), [0.0; 2]),
        Sqrt => (floats!("sqrt_"), [0.0; 2]),
        Rsqrt => (floats!("rsqrt_"), [0.0; 2]),
        Recip => (floats!("recip"), [0.0; 2]),
        Sin => (floats!("sin_"), [0.0; 2]),
        Cos => (floats!("cos_"), [0.0; 2]),
        Tanh => (floats!("tanh_"), [0.0; 2]),
        Sigmoid => (floats!("sigmoid"), [0.0; 2]),
        Erf => (floats!("erf_"), [0.0; 2]),
        Gelu => (floats!("gelu"), [0.0; 2]),
        GeluTanh => (floats!("gelu_tanh"), [0.0; 2]),
        Silu => (floats!("silu"), [0.0; 2]),
        Softplus => (floats!("softplus"), [0.0; 2]),
        Elu(a) => (floats!("elu"), [a, 0.0]),
        LeakyRelu(a) => (floats!("leaky_relu"), [a, 0.0]),
        Floor => (numbers!("floor_"), [0.0; 2]),
        Ceil => (numbers!("ceil_"), [0.0; 2]),
        Round => (numbers!("round_"), [0.0; 2]),
    }
}

/// See [`Backend::unary`](ferrograd_tensor::backend::Backend::unary).
#[track_caller]
pub fn unary(cuda: &'static Cuda, op: Unary, x: &Tensor) -> Tensor {
    let y = cuda.empty(x.shape(), x.dtype());
    let (define, scalars) = unary_function(op);
    let (file, name, dtype) = ("unary.cu", "unary", Some(x.dtype()));
    if x.dtype().is_float() {
        // SAFETY: the kernel takes two operands of this dtype and two f64.
        unsafe {
            cuda.map(KernelId { file, define: define.of(x.dtype()), name, dtype }, [x, &y], |a| a.value(scalars))
        };
        return y;
    }
    // Sums and products are right modulo 2ⁿ, so a number that the type lacks wraps; a bound takes the nearest that it has.
    let whole = match op {
        Unary::Clamp(low, high) => [low, high].map(|s| nearest(s, x.dtype())),
        _ => scalars.map(|s| s as i64),
    };
    // SAFETY: the kernel takes two operands of this dtype and two i64.
    unsafe { cuda.map(KernelId { file, define: define.of(x.dtype()), name, dtype }, [x, &y], |a| a.value(whole)) };
    y
}

/// The whole number of a dtype that is nearest to `s`.
fn nearest(s: f64, dtype: DType) -> i64 {
    dispatch!(dtype, T => {
        let value = <T as ferrograd_tensor::Element>::from_f64(s);
        ferrograd_tensor::Element::to_i64(value)
    })
}

fn binary_function(op: Binary) -> Defines {
    use Binary::*;
    match op {
        Add => numbers!("add"),
        Sub => numbers!("sub"),
        Mul => numbers!("mul"),
        Div => floats!("divide"),
        Rem => numbers!("rem"),
        Pow => floats!("power"),
        Max => numbers!("maximum"),
        Min => numbers!("minimum"),
        Atan2 => floats!("atan2_"),
        ReluGrad => floats!("relu_grad"),
        TanhGrad => floats!("tanh_grad"),
        SigmoidGrad => floats!("sigmoid_grad"),
        GeluGrad => floats!("gelu_grad"),
        GeluTanhGrad => floats!("gelu_tanh_grad"),
        SiluGrad => floats!("silu_grad"),
    }
}

/// `y = op(a, b)`; `y` may be `a`.
#[track_caller]
fn binary_into(cuda: &'static Cuda, op: Binary, a: &Tensor, b: &Tensor, y: &Tensor) {
    let define = binary_function(op).of(a.dtype());
    let id = KernelId { file: "binary.cu", define, name: "binary", dtype: Some(a.dtype()) };
    // SAFETY: the kernel takes three operands of this dtype. An element of `y` is written after it was read.
    unsafe { cuda.map(id, [a, b, y], |a| a) };
}

/// See [`Backend::binary`](ferrograd_tensor::backend::Backend::binary).
#[track_caller]
pub fn binary(cuda: &'static Cuda, op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
    let y = cuda.empty(a.shape(), a.dtype());
    binary_into(cuda, op, a, b, &y);
    y
}

/// See [`Backend::binary_assign`](ferrograd_tensor::backend::Backend::binary_assign).
#[track_caller]
pub fn binary_assign(cuda: &'static Cuda, op: Binary, dst: &mut Tensor, src: &Tensor) {
    match dst.is_contiguous() && dst.is_unique() {
        true => binary_into(cuda, op, dst, src, dst),
        false => *dst = binary(cuda, op, dst, src),
    }
}

fn comparison(op: Compare) -> &'static str {
    match op {
        Compare::Eq => "COMPARISON===",
        Compare::Ne => "COMPARISON=!=",
        Compare::Lt => "COMPARISON=<",
        Compare::Le => "COMPARISON=<=",
        Compare::Gt => "COMPARISON=>",
        Compare::Ge => "COMPARISON=>=",
    }
}

/// See [`Backend::compare`](ferrograd_tensor::backend::Backend::compare).
#[track_caller]
pub fn compare(cuda: &'static Cuda, op: Compare, a: &Tensor, b: &Tensor) -> Tensor {
    let define = comparison(op);
    let y = cuda.empty(a.shape(), DType::Bool);
    // SAFETY: the kernel takes two operands of this dtype and one of bytes.
    unsafe {
        cuda.map(KernelId { file: "compare.cu", define, name: "compare", dtype: Some(a.dtype()) }, [a, b, &y], |a| a)
    };
    y
}

/// See [`Backend::select`](ferrograd_tensor::backend::Backend::select).
#[track_caller]
pub fn select(cuda: &'static Cuda, condition: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
    let y = cuda.empty(a.shape(), a.dtype());
    let id = KernelId { file: "select.cu", define: "", name: "select", dtype: Some(moved_as(a.dtype())) };
    // SAFETY: the kernel takes bytes and three operands of elements of this size.
    unsafe { cuda.map(id, [condition, a, b, &y], |a| a) };
    y
}

/// `x` seen through a layout into its buffer.
pub fn region(x: &Tensor, layout: &ferrograd_tensor::Layout) -> Tensor {
    Tensor::from_buffer(x.buffer().clone(), layout.clone(), x.dtype(), x.device())
}

/// Is nothing of it to be read?
pub fn is_nothing(x: &Tensor) -> bool {
    x.numel() == 0 || address(x) == 0
}

/// One of each kind.
const UNARY: [Unary; 34] = {
    use Unary::*;
    [
        Neg,
        Abs,
        Sign,
        Square,
        AddScalar(0.0),
        MulScalar(0.0),
        RsubScalar(0.0),
        Clamp(0.0, 0.0),
        Relu,
        Powi(0),
        Powf(0.0),
        RdivScalar(0.0),
        DivScalar(0.0),
        Exp,
        Expm1,
        Log,
        Log1p,
        Sqrt,
        Rsqrt,
        Recip,
        Sin,
        Cos,
        Tanh,
        Sigmoid,
        Erf,
        Gelu,
        GeluTanh,
        Silu,
        Softplus,
        Elu(0.0),
        LeakyRelu(0.0),
        Floor,
        Ceil,
        Round,
    ]
};
const BINARY: [Binary; 15] = {
    use Binary::*;
    [Add, Sub, Mul, Div, Rem, Pow, Max, Min, Atan2, ReluGrad, TanhGrad, SigmoidGrad, GeluGrad, GeluTanhGrad, SiluGrad]
};
const COMPARE: [Compare; 6] = [Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge];

/// Every program of these operations.
pub fn programs() -> Vec<Program> {
    let both = |file, d: Defines| [Some(d.floats), d.integers].into_iter().flatten().map(move |define| (file, define));
    let unary = UNARY.into_iter().flat_map(|op| both("unary.cu", unary_function(op).0));
    let binary = BINARY.into_iter().flat_map(|op| both("binary.cu", binary_function(op)));
    let compare = COMPARE.into_iter().map(|op| ("compare.cu", comparison(op)));
    let cast = DType::ALL.into_iter().map(|dtype| ("cast.cu", from_define(dtype)));
    unary.chain(binary).chain(compare).chain(cast).collect()
}
