//! Tensors: numbers, their shapes and the devices that hold them. This crate knows no gradient.
//!
//! ```
//! use ferrograd_tensor::Tensor;
//! let x = Tensor::new([[1.0, 2.0], [3.0, 4.0f32]]);
//! let y = x.matmul(&x.t()) + 1.0;
//! assert_eq!(y.to_vec::<f32>(), [6.0, 12.0, 12.0, 26.0]);
//! ```
#![warn(missing_docs)]

pub mod backend;
pub mod cpu;
mod create;
mod device;
mod display;
pub mod dtype;
pub mod error;
mod interop;
pub mod io;
pub mod ops;
pub mod profile;
pub mod quantized;
pub mod random;
pub mod replay;
pub mod shape;
pub mod storage;
mod tensor;
mod view;

pub use cpu::threads::on_pool;
pub use create::Data;
pub use device::Device;
pub use dtype::{DType, Element};
pub use error::{Error, Result, catch};
pub use io::{SafetensorsFile, load_safetensors, save_safetensors};
pub use ops::activation::Activation;
pub use ops::conv::{Conv1dOptions, Conv2dOptions, ConvTranspose2dOptions};
pub use ops::cross_entropy::{CrossEntropy, Reduction};
pub use ops::interpolate::Interpolation;
pub use ops::linear::Epilogue;
pub use ops::matmul::{MatmulPrecision, matmul_precision, set_matmul_precision};
pub use ops::pad::PadMode;
pub use ops::pool::{Pool1dOptions, Pool2dOptions};
pub use ops::rope::RotaryPairs;
pub use quantized::{BlockFormat, Q8_0, QuantizedTensor};
pub use shape::{Axes, INFER, Layout, Shape};
pub use tensor::Tensor;
pub use view::{IntoIndex, Slice};
